"""The verb ``completion``: a script of the user's shell, made from the parsers of all verbs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cpikan.cli.flags import Parser
from cpikan.cli.verb import CommandVerb, Place
from cpikan.errors import check_name

SHELLS = ("bash", "zsh", "fish")


class Flag(NamedTuple):
    """A flag of a verb: its names, its help in one line, and whether a value follows."""

    names: tuple[str, ...]
    help: str
    value: bool


def flags_of_verbs() -> dict[str, list[Flag]]:
    """Collect the flags of every verb from its parser."""
    from cpikan.cli import VERBS, load_verb

    found = {}
    for verb in VERBS:
        parser = Parser(prog=verb, allow_abbrev=False)
        load_verb(verb).fill(parser)
        found[verb] = [_flag(action) for action in parser._actions if action.option_strings]
    return found


def _flag(action: argparse.Action) -> Flag:
    told = " ".join((action.help or "").replace("%%", "%").split())
    return Flag(tuple(action.option_strings), told, action.nargs != 0)


def bash(verbs: Mapping[str, str], flags: Mapping[str, list[Flag]]) -> Iterator[str]:
    """Write the script for bash, a line each."""
    yield "# cpikan completion bash > ~/.local/share/bash-completion/completions/cpikan"
    yield "_cpikan() {"
    yield '    local word="${COMP_WORDS[COMP_CWORD]}" words=""'
    yield '    if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f'        COMPREPLY=($(compgen -W "{" ".join(verbs)} --help --version" -- "$word")); return'
    yield "    fi"
    yield '    case "${COMP_WORDS[1]}" in'
    for verb, known in flags.items():
        names = " ".join(name for flag in known for name in flag.names)
        yield f'        {verb}) words="{names}" ;;'
    yield "    esac"
    yield '    case "$word" in'
    yield '        -*) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;'
    yield '        *) COMPREPLY=($(compgen -f -- "$word")) ;;'
    yield "    esac"
    yield "}"
    yield "complete -o filenames -F _cpikan cpikan"


def zsh(verbs: Mapping[str, str], flags: Mapping[str, list[Flag]]) -> Iterator[str]:
    """Write the script for zsh, a line each."""
    yield "#compdef cpikan"
    yield "# cpikan completion zsh > a folder of $fpath, as _cpikan"
    yield "_cpikan() {"
    yield "    local -a verbs flags"
    yield "    if (( CURRENT == 2 )); then"
    yield "        verbs=(" + " ".join(quoted(f"{_plain(verb)}:{_plain(about)}") for verb, about in verbs.items()) + ")"
    yield "        _describe 'command' verbs; return"
    yield "    fi"
    yield "    case $words[2] in"
    for verb, known in flags.items():
        listed = " ".join(quoted(f"{name}:{_plain(flag.help)}") for flag in known for name in flag.names)
        yield f"        {verb}) flags=({listed}) ;;"
    yield "    esac"
    yield "    if [[ $words[CURRENT] == -* ]]; then _describe 'flag' flags; else _files; fi"
    yield "}"
    yield 'if [ "$funcstack[1]" = "_cpikan" ]; then _cpikan "$@"; else compdef _cpikan cpikan; fi'


def fish(verbs: Mapping[str, str], flags: Mapping[str, list[Flag]]) -> Iterator[str]:
    """Write the script for fish, a line each."""
    yield "# cpikan completion fish > ~/.config/fish/completions/cpikan.fish"
    for verb, about in verbs.items():
        yield f"complete -c cpikan -f -n __fish_use_subcommand -a {verb} -d {quoted(about)}"
    for verb, known in flags.items():
        for flag in known:
            names = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in flag.names)
            value = " -r" if flag.value else ""
            yield f"complete -c cpikan -n '__fish_seen_subcommand_from {verb}' {names}{value} -d {quoted(flag.help)}"


def quoted(text: str) -> str:
    """Quote a text for all three shells."""
    return "'" + text.replace("\\", "\\\\").replace("'", "’") + "'"


def _plain(text: str) -> str:
    """Free a text of colons, which divide a word from what is said of it."""
    return text.replace(":", " -")


def _run(places: dict[str, str], settings: dict[str, Any]) -> dict[str, Any]:
    from cpikan.cli import VERBS

    check_name("shell", places["shell"], SHELLS)
    write = {"bash": bash, "zsh": zsh, "fish": fish}[places["shell"]]
    return {"shell": places["shell"], "script": "\n".join(write(VERBS, flags_of_verbs()))}


VERB = CommandVerb((Place("shell", "SHELL", "bash, zsh or fish"),), (), _run, lambda result: str(result["script"]))
