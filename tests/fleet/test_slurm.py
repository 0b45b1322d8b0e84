"""Workers as jobs of SLURM: the text of a job, and a queue that two small commands play with real workers on this machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.fleet.engines.slurm import SlurmJobs
from cpikan.fleet.run import BatchOptions, run_batch
from heard_events import Heard
from independent_frames import Scene
from small_stacks import folder_of

pytest.importorskip("dask_jobqueue")
pytestmark = pytest.mark.filterwarnings("ignore")  # what distributed says of sockets it leaves open
NEEDED = 'jobs = 1\nmemory = "2 GB"\ninterface = "lo"\n'
# each job is a group of processes of its own; its number is the one of its leader
SBATCH = """#!{python}
import subprocess, sys
from pathlib import Path
place = Path(__file__).parent
job = subprocess.Popen(["bash", "-c", Path(sys.argv[1]).read_text()], start_new_session=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
(place / f"job-{{job.pid}}").write_text(Path(sys.argv[1]).read_text())
print("Submitted batch job", job.pid)
"""
SCANCEL = """#!{python}
import os, signal, sys
from pathlib import Path
(Path(__file__).parent / f"ended-{{sys.argv[1]}}").touch()
os.killpg(int(sys.argv[1]), signal.SIGKILL)
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch) -> Path:
    """A folder with sbatch and scancel, first on PATH."""
    place = tmp_path / "bin"
    place.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (place / name).write_text(text.format(python=sys.executable))
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return place


def jobs(queue: Path) -> list[int]:
    return [int(path.name.partition("-")[2]) for path in sorted(queue.glob("job-*"))]


def lives(group: int) -> bool:
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


class EndsFirstJob(Heard):
    """Ends the job that runs, once a stack is done."""

    def __init__(self, queue: Path) -> None:
        super().__init__()
        self.queue, self.ended = queue, False

    def progress(self, stage: str, done: float, of: float, **figures: float) -> None:
        if done >= 1 and not self.ended:
            self.ended = True
            os.killpg(jobs(self.queue)[0], signal.SIGKILL)


def test_jobs_do_a_batch_one_that_ends_is_submitted_again_and_none_is_left(
    queue: Path, wafer: Scene, tmp_path: Path
) -> None:
    import dask

    for number in range(3):
        folder_of(tmp_path / "in" / f"w{number}", np.asarray(wafer.frames))
    (tmp_path / "recipe.toml").write_text('[reconstruct]\nmethod = "pixel"\n[output]\nformat = "npy"\n')
    (tmp_path / "slurm.toml").write_text(NEEDED)
    options = BatchOptions(recipe=str(tmp_path / "recipe.toml"), jobqueue=str(tmp_path / "slurm.toml"))
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "500ms"}):
        result = run_batch([str(tmp_path / "in")], tmp_path / "out", options, EndsFirstJob(queue))
    assert (result["done"], result["failed"]) == (3, 0)
    submitted = jobs(queue)
    assert len(submitted) == 2
    assert (queue / f"ended-{submitted[-1]}").exists()
    until = time.monotonic() + 30
    while any(map(lives, submitted)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(lives, submitted))


def test_the_script_of_a_job_says_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "slurm.toml").write_text(
        NEEDED
        + 'queue = "gpu"\naccount = "fab"\nwalltime = "02:00:00"\npython = "/opt/python"\nlocal_directory = "/scratch"\n'
        'job_extra_directives = ["--exclusive"]\njob_directives_skip = ["--mem"]\njob_script_prologue = ["module load x"]\n'
    )
    lines = SlurmJobs.from_file(tmp_path / "slurm.toml").script(3).splitlines()
    for line in ("-J cpikan", "-p gpu", "-A fab", "-t 02:00:00", "--cpus-per-task=3", "--exclusive"):
        assert f"#SBATCH {line}" in lines
    assert not [line for line in lines if "--mem=" in line]
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        assert f"export {name}=3" in lines
    assert lines.index("module load x") < len(lines) - 1
    command = lines[-1].split()
    assert command[:3] == ["/opt/python", "-m", "distributed.cli.dask_worker"]
    last = {flag: value for flag, value in pairwise(command) if flag.startswith("--")}
    assert (last["--nthreads"], last["--memory-limit"], last["--local-directory"]) == ("1", "0", "/scratch")
    assert last["--interface"] == "lo"
    assert "--nworkers" not in command


def test_memory_of_a_job_is_that_of_its_task() -> None:
    assert SlurmJobs(8, "16 GiB", "ib0").memory_mib == 16 * 1024


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (NEEDED + "wall_time = 1\n", "did you mean 'walltime'"),
        ("jobs = 2\n", "has no memory and no interface"),
        (NEEDED.replace("1", "0", 1), "jobs 0: give 1 to 10000"),
        (NEEDED.replace("jobs = 1", 'jobs = "1"'), "jobs is '1': give a number of jobs"),
        (NEEDED.replace("2 GB", "much"), "memory 'much': give what a job has"),
        (NEEDED + "queue = 3\n", "queue is 3: give text"),
        (NEEDED + 'job_script_prologue = "x"\n', "job_script_prologue is 'x': give a list of lines"),
        (NEEDED + 'job_script_prologue = ["a\\nb"]\n', "has a line break"),
        (NEEDED + "job_extra_directives = [1]\n", "job_extra_directives is 1: give text"),
    ],
)
def test_a_file_that_does_not_serve_is_refused_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "slurm.toml").write_text(text)
    with pytest.raises(InputError) as refused:
        SlurmJobs.from_file(tmp_path / "slurm.toml")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_machine_without_slurm_and_a_job_that_is_refused_are_told_in_one_line(queue: Path, monkeypatch) -> None:
    (queue / "sbatch").write_text(f"#!{sys.executable}\nimport sys\nsys.exit('sbatch: error: invalid partition')\n")
    with pytest.raises(InputError, match="sbatch refused a job: sbatch: error: invalid partition; see") as refused:
        SlurmJobs(2, "1 GB", "lo").cluster(1)
    assert "\n" not in str(refused.value)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="sbatch is not there"):
        SlurmJobs(2, "1 GB", "lo").cluster(1)


@pytest.mark.parametrize("other", [{"workers": 2}, {"scheduler": "tcp://a:1"}, {"memory": 4.0}])
def test_what_excludes_jobs_is_told(other: dict) -> None:
    with pytest.raises(InputError, match="exclude each other"):
        BatchOptions(jobqueue="slurm.toml", **other)
