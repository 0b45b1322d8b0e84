"""The verb ``finetune``."""

from __future__ import annotations

from cpikan.cli.train import MODEL, progress_line, tell
from cpikan.cli.verb import Place, job_verb

VERB = job_verb(
    "finetune",
    (
        Place("model", "MODEL", "NAME of NAME.safetensors and NAME.json, or a shipped model"),
        Place("source", "STACK", "a stack, as reconstruct takes it, or a folder of stacks"),
        MODEL,
    ),
    tell,
    events=progress_line,
)
