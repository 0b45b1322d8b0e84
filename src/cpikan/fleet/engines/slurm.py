"""Workers as jobs of SLURM: what slurm.toml says of them, and the cluster that dask-jobqueue makes of it."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cpikan.errors import InputError, check_names, check_type, need
from cpikan.fleet.engines.settings import THREADS, worker_settings
from cpikan.fleet.limits import read_table
from cpikan.messages import one_line

_SUBMIT_S = 120.0
_LOOK_S = 0.1


@dataclass(frozen=True)
class SlurmJobs:
    """How many ``jobs`` of one worker each, with how much ``memory`` ("16 GB"), reached through which network ``interface``.

    The other names are those of dask-jobqueue, None what SLURM does by itself: ``queue`` (partition), ``account``,
    ``walltime``, ``python`` (the interpreter on the nodes), ``log_directory``, ``local_directory``; lines for the script of a
    job: ``job_extra_directives`` after #SBATCH, ``job_directives_skip`` those to leave out, ``job_script_prologue`` commands.
    """

    jobs: int
    memory: str
    interface: str
    queue: str | None = None
    account: str | None = None
    walltime: str = "24:00:00"
    python: str | None = None
    log_directory: str | None = None
    local_directory: str | None = None
    job_extra_directives: tuple[str, ...] = ()
    job_directives_skip: tuple[str, ...] = ()
    job_script_prologue: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_type("jobs", self.jobs, int, "a number of jobs, such as 8")
        if not 1 <= self.jobs <= 10_000:
            raise InputError(f"jobs {self.jobs}: give 1 to 10000")
        for one in fields(self)[1:]:
            value = getattr(self, one.name)
            if one.default == ():
                check_type(one.name, value, (list, tuple), 'a list of lines, such as ["module load python"]')
                object.__setattr__(self, one.name, tuple(value))
            for line in value if one.default == () else () if value is None else (value,):
                check_type(one.name, line, str, "text")
                if re.search(r"[\r\n\0]", line):
                    raise InputError(f"{one.name} {one_line(line)!r} has a line break: give one line each")
        if self.memory_mib < 1:
            raise InputError(f"memory {self.memory!r}: give what a job has, such as '16 GB'")

    @classmethod
    def from_file(cls, path: str | Path) -> SlurmJobs:
        """Read a slurm.toml; InputError names an unknown key and the nearest one, and one that is missing."""
        table = read_table(path, "jobs of SLURM")
        check_names(f"key of {path}", table, [one.name for one in fields(cls)])
        missing = [name for name in ("jobs", "memory", "interface") if name not in table]
        if missing:
            raise InputError(
                f'{path} has no {" and no ".join(missing)}: give jobs = 8, memory = "16 GB", interface = "ib0" (a worker a job)'
            )
        return cls(**table)

    @property
    def memory_mib(self) -> float:
        """Give the memory of one job in MiB, 0 where the text is no size."""
        from dask.utils import parse_bytes

        try:
            return float(parse_bytes(self.memory)) / 2**20
        except ValueError:
            return 0.0

    def script(self, threads: int) -> str:
        """Write the script of a job, as it is submitted but for names and addresses."""
        return self._job_class()("tcp://SCHEDULER:PORT", name="NAME", **self._arguments(threads)).job_script()

    def cluster(self, threads: int) -> Any:
        """Start a scheduler here and submit the jobs; InputError where SLURM is not there or refuses the first of them."""
        import dask
        from dask_jobqueue.core import JobQueueCluster

        if shutil.which("sbatch") is None:
            raise InputError(
                "sbatch is not there: run this on a machine that submits jobs to SLURM, or leave --jobqueue out"
            )
        job_class: Any = self._job_class()
        try:
            with dask.config.set(worker_settings(threads)):
                cluster = JobQueueCluster(
                    job_cls=job_class,
                    scheduler_options={"dashboard": False, "interface": self.interface, "port": 0},
                    silence_logs=logging.CRITICAL,
                    **self._arguments(threads),
                )
        except (ValueError, OSError, RuntimeError) as failure:
            raise InputError(f"jobs of SLURM cannot be begun: {one_line(str(failure))}") from failure
        cluster.scale(jobs=self.jobs)
        refused = _first_answer(cluster)
        if refused:
            cluster.close()
            raise InputError(f"sbatch refused a job: {one_line(refused)}; see the keys of slurm.toml")
        return cluster

    def _arguments(self, threads: int) -> dict[str, Any]:
        """Collect what dask-jobqueue is told: one process a job, whose memory nobody but SLURM limits."""
        return {
            "cores": threads,
            "processes": 1,
            "nanny": True,
            "memory": self.memory,
            "job_name": "cpikan",
            "interface": self.interface,
            "queue": self.queue,
            "account": self.account,
            "walltime": self.walltime,
            "python": self.python,
            "log_directory": self.log_directory,
            "local_directory": self.local_directory,
            "job_extra_directives": list(self.job_extra_directives),
            "job_directives_skip": list(self.job_directives_skip),
            "job_script_prologue": [*(f"export {name}={threads}" for name in THREADS), *self.job_script_prologue],
            # the last of a kind counts: mapped pages are counted as memory, and a worker has one stack at a time
            "worker_extra_args": ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard"],
        }

    @staticmethod
    def _job_class() -> type[Any]:
        """Make the class of a job that keeps why it was refused, and says that it is closed."""
        need("dask_jobqueue", "cluster", "workers as jobs of SLURM")
        from dask_jobqueue.slurm import SLURMJob
        from distributed.core import Status

        class Job(SLURMJob):
            refusal = ""

            async def _submit_job(self, script_filename: str) -> str:
                try:
                    return str(await super()._submit_job(script_filename))
                except (OSError, RuntimeError) as failure:
                    self.refusal = str(failure).partition("stderr:")[2] or str(failure)
                    raise

            async def close(self) -> None:
                await super().close()
                self.status = Status.closed

        return Job


def resubmit(cluster: Any, jobs: int) -> None:
    """Submit jobs for the workers that are gone for good; those that were refused are tried again."""

    async def forget() -> None:
        for name, job in list(cluster.workers.items()):
            if job.refusal:
                del cluster.workers[name]

    asyncio.run_coroutine_threadsafe(forget(), cluster.loop.asyncio_loop).result()
    cluster.scale(jobs=jobs)


def _first_answer(cluster: Any) -> str:
    """Wait until SLURM has answered for a job; give why it was refused, if it was."""
    until = time.monotonic() + _SUBMIT_S
    while time.monotonic() < until:
        for job in list(cluster.workers.values()):
            if job.refusal or job.job_id:
                return str(job.refusal)
        time.sleep(_LOOK_S)
    return f"no answer for {_SUBMIT_S:g} s"
