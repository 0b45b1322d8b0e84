"""The command line: parse, call, print. A verb is a file of this folder with ``VERB``, and its line in ``VERBS``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cpikan.cli.failures import exit_code_of
from cpikan.cli.flags import Parser
from cpikan.cli.surroundings import open_missing_streams, quiet_libraries
from cpikan.errors import InputError, unknown_name
from cpikan.messages import printable
from cpikan.streaming.run_log import logged
from cpikan.version import VERSION

if TYPE_CHECKING:
    from cpikan.cli.verb import CommandVerb

VERBS = {
    "demo": "simulate a wafer, reconstruct it, compare it with the truth, write a report",
    "simulate": "write simulated frames: frames.npy, acquisition.toml, truth.npy (nm)",
    "info": "what was understood of a stack, what would be done, disk and memory needed",
    "reconstruct": "frames to a height map with an uncertainty",
    "evaluate": "compare a height map with the truth, in-painted pixels apart; without a truth: PV, PVr, RMS, Sa, slopes, "
    "ripple",
    "batch": "many stacks by one recipe: maps, figures, verdicts, a ledger to go on with",
    "watch": "measure the stacks that a tool drops into a folder, as they come",
    "serve": "measure stacks that are submitted over HTTP, and answer for their maps and results",
    "worker": "work for the Dask scheduler of a batch elsewhere; what was closed, as by a cut link, is started again",
    "results": "rows of a batch: which wafers passed, their figures as a table, control charts",
    "convert": "a height map into another format, by suffix: instruments' files, ISO 25178, Gwyddion, TIFF, PNG, text, meshes",
    "wafer": "bow, warp, TTV, site flatness, near-edge geometry, nanotopography and notch of a wafer, by SEMI's names",
    "map": "subtract, average, stitch, register, crop or fill maps, into a new one",
    "compare": "surface numbers of two height maps and of their difference",
    "view": "look at a height map in the browser: zoom, values with sigma, profiles, two maps and their difference",
    "solve": "solve a differential equation of the catalogue with a Chebyshev network",
    "ablate": "which parts of a solve help: problems and seeds with and without each, at equal processor time",
    "train": "train an image model as a config file says (for reconstruct --method learned)",
    "finetune": "fit an image model to one's own frames; no truth is needed",
    "doctor": "what of this machine slows runs or stops them: device, cores, BLAS, disk, caches, versions",
    "completion": "a script that lets bash, zsh or fish complete verbs and flags",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0, 1 where a batch has failures or a machine a fault, 2 for bad input, 70 for a
    fault of ours, 130 for Ctrl-C.

    Whatever fails is one line on stderr (`exit_code_of`).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    open_missing_streams()
    try:
        with quiet_libraries():
            parsed, verb = _parse(given)
            with logged(parsed.verb, parsed.log_file, parsed.verbose):
                result = verb(parsed)
            _show(result, verb, as_json=parsed.json)
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as failure:  # some libraries derive theirs from BaseException
        return exit_code_of(failure, given)
    return verb.code(result)


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

        print(json.dumps(plain(result), allow_nan=False), flush=True)
    else:
        print(
            printable(verb.tell(result)), flush=True
        )  # flushed here, where a full disk or a closed pipe is dealt with
