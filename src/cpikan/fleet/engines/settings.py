"""How Dask is set for tasks that are whole stacks: who counts deaths and memory, how many threads there are."""

from __future__ import annotations

from typing import Any

THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def worker_settings(threads: int) -> dict[str, Any]:
    """Make the settings of Dask for workers whose tasks have ``threads`` each."""
    return {
        "distributed.scheduler.allowed-failures": 0,  # the batch counts, by stack
        "distributed.worker.memory.terminate": False,  # mapped pages are counted there
        "distributed.worker.memory.pause": False,
        "distributed.worker.profile.enabled": False,  # a hundred looks a second at what each worker does
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(THREADS, str(threads)),
    }
