"""Libraries: their versions, the kernel of BLAS that is used, torch's device and the package that breaks beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from cpikan.doctor.finding import Finding
from cpikan.version import VERSION

_TOLD = ("numpy", "scipy", "numba", "torch", "zarr")
# what OpenBLAS calls its kernels for x86, by the widest instructions that they use
_AVX512 = ("skylakex", "cooperlake", "sapphirerapids")
_AVX2 = ("haswell", "zen", "excavator")
_OLD = (
    "prescott",
    "core2",
    "penryn",
    "dunnington",
    "nehalem",
    "atom",
    "sandybridge",
    "barcelona",
    "bulldozer",
    "generic",
)
_LEVELS = {**dict.fromkeys(_OLD, 0), **dict.fromkeys(_AVX2, 1), **dict.fromkeys(_AVX512, 2)}
_SIZE = 512  # of the matrices that are multiplied
_IMPORT_S = 60


def versions() -> Finding:
    """Look up the versions of the package and of what it rests on; a missing one is a fault."""
    found = {name: _version(name) for name in _TOLD}
    missing = [name for name, version in found.items() if version is None]
    python = ".".join(map(str, sys.version_info[:3]))
    told = ", ".join([f"cpikan {VERSION}", f"Python {python}", *(f"{n} {v}" for n, v in found.items() if v)])
    figures = {"versions": {"cpikan": VERSION, "python": python, **found}}
    if missing:
        advice = f"install {', '.join(missing)}: pip install scaled-cpikan brings all it needs"
        return Finding("versions", "fault", told, advice, figures)
    return Finding("versions", "good", told, "", figures)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def blas(cpu_flags: frozenset[str] | None = None) -> Finding:
    """Name the kernels of OpenBLAS and measure a product of matrices; a kernel older than the processor is a warning.

    ``cpu_flags`` are what the processor can do (None: ask the system).
    """
    import numpy as np
    import scipy.linalg  # noqa: F401 - has a BLAS of its own
    from threadpoolctl import threadpool_info

    loaded = [entry for entry in threadpool_info() if entry.get("user_api") == "blas"]
    kernels = sorted({str(entry["architecture"]) for entry in loaded if entry.get("architecture")})
    threads = max((int(entry["num_threads"]) for entry in loaded), default=1)
    matrix = np.random.default_rng(0).normal(size=(_SIZE, _SIZE))
    matrix @ matrix
    begun = time.perf_counter()
    matrix @ matrix
    speed = 2 * _SIZE**3 / (time.perf_counter() - begun) / 1e9
    told = f"{', '.join(kernels) or 'unknown kernel'}, {threads} thread{'s' * (threads != 1)}, {speed:.0f} GFLOP/s"
    figures = {"kernels": kernels, "blas_threads": threads, "gflops": speed}
    able = _level_of_cpu(_cpu_flags() if cpu_flags is None else cpu_flags)
    if any(_LEVELS.get(kernel.lower(), able) < able for kernel in kernels):
        chosen = os.environ.get("OPENBLAS_CORETYPE")
        do = f"unset OPENBLAS_CORETYPE={chosen}" if chosen else "take newer versions of numpy and scipy"
        advice = f"the processor has wider instructions than this kernel uses: {do}"
        return Finding("BLAS", "warning", told, advice, figures)
    return Finding("BLAS", "good", told, "", figures)


def _cpu_flags() -> frozenset[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def _level_of_cpu(flags: frozenset[str]) -> int:
    return 2 if {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags else 1 if "avx2" in flags else 0


def device() -> Finding:
    """Name the device that networks and the pixel pass would use; a GPU that torch cannot use is a warning."""
    import torch

    nodes = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        told = f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        return Finding(
            "device", "good", told, "", {"device": "cuda", "device_name": name, "device_free_mib": free / 2**20}
        )
    if nodes:
        advice = "a GPU is there that this torch cannot use: install torch with CUDA, and see what nvidia-smi says"
        return Finding("device", "warning", f"cpu (torch {torch.__version__})", advice, {"device": "cpu"})
    return Finding("device", "good", f"cpu (torch {torch.__version__})", "", {"device": "cpu"})


def torchvision() -> Finding:
    """Import torchvision, if it is there, in a process of its own: one of another build than torch breaks what loads both."""
    version, torch = _version("torchvision"), _version("torch")
    figures = {"torchvision": version}
    if version is None or torch is None:
        return Finding("torchvision", "good", "not installed, and not needed", "", figures)
    try:
        code = "import torch, torchvision; torchvision.ops.nms"
        tried = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=_IMPORT_S, check=False)
        works = tried.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        works = False
    told = f"{version} beside torch {torch}"
    if not works:
        advice = "it does not load beside this torch, and fails what loads both: pip uninstall torchvision"
        return Finding("torchvision", "fault", told, advice, figures)
    if _build(version) != _build(torch):
        advice = "the two are of different builds: take both from one index, or uninstall torchvision"
        return Finding("torchvision", "warning", told, advice, figures)
    return Finding("torchvision", "good", told, "", figures)


def _build(version: str) -> str:
    return version.partition("+")[2]
