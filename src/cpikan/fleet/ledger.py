"""What became of the stacks of a batch: one checked line each in a file that survives a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.fleet.recipe import Recipe
from cpikan.streaming.journal import Journal

NAME = "ledger.jsonl"
_WORDS = ("name", "source", "state", "reason")  # of every entry
DONE, DEAD = "done", "dead"


class Ledger:
    """Entries of the batch in a folder, the newest of each stack by its name; opened by one process at a time.

    An entry says ``name``, ``source``, ``state`` (done, or dead with a ``reason``), how many ``attempts`` it took, and what the
    outcome holds.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.entries: dict[str, dict[str, Any]] = {}
        for entry in journal.steps:
            if not all(isinstance(entry.get(key), str) for key in _WORDS):
                journal.close()
                raise InputError(f"{journal.path} holds a line that no batch wrote: move it away, and begin anew")
            self.entries[entry["name"]] = entry

    @classmethod
    def open(cls, folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> Ledger:
        """Begin a batch in a folder, or go on with one; InputError where one is there and neither was asked for.

        Raises ResumeError where the settings that decide maps and figures were others.
        """
        path = folder / NAME
        if path.exists() and not resume and not overwrite:
            raise InputError(f"{folder} holds a batch: add --resume to go on with it, or --overwrite to do all anew")
        folder.mkdir(parents=True, exist_ok=True)
        return cls(Journal.resume(path, recipe.plan()) if resume else Journal.start(path, recipe.plan()))

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry and flush it; it replaces the one of the same name."""
        self._journal.add(entry, synced=True)
        self.entries[entry["name"]] = entry

    def stamp(self, name: str) -> str:
        """Give the stamp of the frames that a stack was done from; empty where it was not done."""
        entry = self.entries.get(name, {})
        return str(entry.get("stamp", "")) if entry.get("state") == DONE else ""

    def close(self) -> None:
        self._journal.close()
