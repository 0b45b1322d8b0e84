"""All parts of the machine, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cpikan.doctor import libraries, machine
from cpikan.doctor.finding import STATES, Finding
from cpikan.messages import one_line


def examine(folder: Path) -> list[Finding]:
    """Look at every part of the machine, the disk at ``folder``; what is worst comes first.

    A look that fails is a fault of its own: one of them never hides the others.
    """
    looks: dict[str, Callable[[], Finding]] = {
        "versions": libraries.versions,
        "device": libraries.device,
        "cores": machine.cores,
        "BLAS": libraries.blas,
        "memory": machine.memory,
        "disk": lambda: machine.disk(folder),
        "kernels": machine.kernel_cache,
        "temporary": machine.temporary_folder,
        "torchvision": libraries.torchvision,
    }
    findings = [_looked(name, look) for name, look in looks.items()]
    return sorted(findings, key=lambda finding: -STATES.index(finding.state))


def _looked(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as failure:
        found = one_line(f"{type(failure).__name__}: {failure}")[:200]
        return Finding(name, "fault", found, "the look itself failed: install the package anew, or report it")
