"""The machine: cores, memory, the disk's speed, folders for caches and temporary files."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from pathlib import Path

from cpikan.doctor.finding import Finding

_PROBE_MIB = 64  # written once and read once
_LEAST_FREE_MIB = 1024  # the disk is not written to where less is free
_SLOW_MIB_S = 50.0
_LEAST_MEMORY_MIB = 2048.0
_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores(quota_file: Path = _QUOTA) -> Finding:
    """Count the cores that this process may use; a container that gives less time than that is a warning."""
    there = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    quota = _quota(quota_file)
    limits = {name: os.environ[name] for name in _LIMITS if name in os.environ}
    told = f"{usable} of {there} usable" + "".join(f", {name}={value}" for name, value in limits.items())
    figures = {"cores": there, "cores_usable": usable, "cores_quota": quota, "thread_limits": limits}
    if quota is not None and quota < usable - 0.5:
        advice = f"the container gives the time of {quota:.1f} cores only: give --threads {max(1, math.floor(quota))}"
        return Finding("cores", "warning", told, advice, figures)
    return Finding("cores", "good", told, "", figures)


def _quota(path: Path) -> float | None:
    """Read how many cores' time a container has; None without a limit."""
    try:
        most, period = path.read_text(encoding="ascii").split()
        return None if most == "max" else int(most) / int(period)
    except (OSError, ValueError):
        return None


def memory() -> Finding:
    """Read the memory that is there and free; less than 2 GiB free is a warning."""
    import psutil

    now = psutil.virtual_memory()
    free, total = now.available / 2**20, now.total / 2**20
    told = f"{free / 1024:.1f} of {total / 1024:.1f} GiB free"
    figures = {"memory_mib": total, "memory_free_mib": free}
    if free < _LEAST_MEMORY_MIB:
        return Finding("memory", "warning", told, "close other programs, or give fewer --threads", figures)
    return Finding("memory", "good", told, "", figures)


def disk(folder: Path) -> Finding:
    """Write 64 MiB into ``folder``, flush them and read them back; a folder that cannot be written to is a fault."""
    try:
        free = shutil.disk_usage(folder).free / 2**20
        if free < _LEAST_FREE_MIB:
            figures = {"disk_free_mib": free, "disk_write_mib_s": None, "disk_read_mib_s": None}
            advice = (
                "make room: a map of 9344 x 7000 pixels with all quantities takes 1.1 GB; the speed was not measured"
            )
            return Finding("disk", "warning", f"{free:.0f} MiB free in {folder}", advice, figures)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".cpikan-doctor-") as file:
            wrote, read = _speeds(file.fileno())
    except OSError as failure:
        advice = "name a folder that can be written to: --folder DIR"
        return Finding("disk", "fault", f"{folder}: {failure.strerror or failure}", advice)
    told = f"{folder}: {free / 1024:.0f} GiB free, writes {wrote:.0f} MiB/s, reads {read:.0f} MiB/s"
    figures = {"disk_free_mib": free, "disk_write_mib_s": wrote, "disk_read_mib_s": read}
    if min(wrote, read) < _SLOW_MIB_S:
        advice = "frames and maps wait for this disk: work on a local one"
        return Finding("disk", "warning", told, advice, figures)
    return Finding("disk", "good", told, "", figures)


def _speeds(descriptor: int) -> tuple[float, float]:
    """Measure writing and reading in MiB/s; pages are dropped before they are read, where the system can do that."""
    block = os.urandom(1 << 20)
    begun = time.perf_counter()
    for _ in range(_PROBE_MIB):
        os.write(descriptor, block)
    os.fsync(descriptor)
    written = time.perf_counter()
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(descriptor, 0, os.SEEK_SET)
    middle = time.perf_counter()
    while os.read(descriptor, 1 << 20):
        pass
    return _PROBE_MIB / max(written - begun, 1e-9), _PROBE_MIB / max(time.perf_counter() - middle, 1e-9)


def kernel_cache() -> Finding:
    """Find where compiled kernels are kept; none, or compilation switched off, is a warning."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        advice = "unset NUMBA_DISABLE_JIT: without compiled kernels all takes a hundred times as long"
        return Finding("kernels", "warning", "compilation is switched off", advice, {"kernel_cache": None})
    from cpikan.compiled import cache_folder

    place = cache_folder()
    if place is None:
        advice = "set NUMBA_CACHE_DIR to a folder that can be written to: each run compiles its kernels, up to a minute"
        return Finding("kernels", "warning", "no folder to keep them can be written to", advice, {"kernel_cache": None})
    return Finding("kernels", "good", f"kept in {place}", "", {"kernel_cache": str(place)})


def temporary_folder() -> Finding:
    """Check that temporary files can be written."""
    try:
        place = tempfile.gettempdir()
        with tempfile.TemporaryFile():
            free = shutil.disk_usage(place).free / 2**20
    except OSError as failure:
        advice = "set TMPDIR to a folder that can be written to"
        return Finding("temporary", "fault", str(failure.strerror or failure), advice, {"temporary_folder": None})
    figures = {"temporary_folder": place, "temporary_free_mib": free}
    return Finding("temporary", "good", f"{place}, {free / 1024:.0f} GiB free", "", figures)
