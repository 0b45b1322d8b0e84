"""The command line: parse, call, print. A verb is a file of this folder with ``VERB``, and its line in ``VERBS``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cpikan.cli.flags import Parser
from cpikan.errors import InputError, unknown_name
from cpikan.version import VERSION

if TYPE_CHECKING:
    from cpikan.cli.verb import CommandVerb

_INTERRUPTED = 130
VERBS = {
    "demo": "simulate a wafer, reconstruct it, compare it with the truth, write a report",
    "simulate": "write simulated frames: frames.npy, acquisition.toml, truth.npy (nm)",
    "info": "what was understood of a stack, what would be done, disk and memory needed",
    "reconstruct": "frames to a height map with an uncertainty",
    "evaluate": "compare a height map with the truth, in-painted pixels apart; without a truth: PV, PVr, RMS, Sa, slopes, "
    "ripple",
    "compare": "surface numbers of two height maps and of their difference",
    "solve": "solve a differential equation of the catalogue with a Chebyshev network",
    "train": "train an image model as a config file says (for reconstruct --method learned)",
    "finetune": "fit an image model to one's own frames; no truth is needed",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0, 2 for bad input (one line on stderr), 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed, verb = _parse(given)
        result = verb(parsed)
        _show(result, verb, as_json=parsed.json)
    except InputError as failure:
        print(f"cpikan: error: {' '.join(str(failure).split())}", file=sys.stderr)  # one line, whatever it quotes
        return failure.exit_code
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 0
    except OSError as failure:
        name = f" {failure.filename}" if failure.filename else ""
        print(f"cpikan: error:{name} {failure.strerror or failure}: check the path and its rights", file=sys.stderr)
        return InputError.exit_code
    except KeyboardInterrupt:
        print("cpikan: stopped; what is finished stays, go on with --resume", file=sys.stderr)
        return _INTERRUPTED
    return 0


def load_verb(name: str) -> CommandVerb:
    """Import the verb ``name`` from its file, so that no other verb is loaded."""
    verb: CommandVerb = importlib.import_module(f"cpikan.cli.{name}").VERB
    return verb


def _parse(given: list[str]) -> tuple[argparse.Namespace, CommandVerb]:
    parser = Parser(prog="cpikan", description="Frames of an interferometer to height maps with an uncertainty.")
    parser.add_argument("--version", action="version", version=f"cpikan {VERSION}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for name, about in VERBS.items():
        verbs.add_parser(name, help=about, description=about, allow_abbrev=False)
    if not given:
        parser.print_help(sys.stderr)
        raise InputError(f"no command given: allowed are {', '.join(VERBS)}")
    if not given[0].startswith("-") and given[0] not in VERBS:
        raise unknown_name("command", given[0], VERBS)
    verb = load_verb(given[0]) if given[0] in VERBS else None
    if verb is not None:
        verb.fill(verbs.choices[given[0]])
    parsed, rest = parser.parse_known_args(given)
    if rest:
        chosen = verbs.choices[parsed.verb] if parsed.verb else parser
        chosen.error(f"unrecognized arguments: {' '.join(rest)}")
    if verb is None:
        raise InputError(f"no command given: allowed are {', '.join(VERBS)}")
    return parsed, verb


def _show(result: Any, verb: CommandVerb, *, as_json: bool) -> None:
    if as_json:
        from cpikan.storage.atomic import plain

        print(json.dumps(plain(result), allow_nan=False))
    else:
        print(verb.tell(result))
