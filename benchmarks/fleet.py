"""Many stacks: how fast a batch, a watch and a service are, and what kills do to them; writes results/fleet.csv.

    python benchmarks/fleet.py [CASE ...] [--work DIR] [--seconds 120] [--stacks 40] [--large 20]

Cases, each in a process of its own, kernels compiled before:
  workers   40 distinct stacks of 4 MPix by one worker, by two, and by a command each; the cluster's start counts
  large     20 stacks of 65 MPix by one worker: wall time over the sum of what the runs and their hashes took
  kills     40 stacks by two workers, one of which is killed at ten random moments; the batch killed whole, and resumed
  links     40 stacks by two workers whose link to the scheduler is cut for 5 s, for 90 s: silence between two network
            namespaces, or without the right to make them resets by a proxy
  cold      4 stacks of 1 MPix with no kernel compiled before, by one worker and by two: processor time that compiling takes
  soak      200 stacks in one process: anonymous memory and open files after the 20th and the last
  watch     a stack of 65 MPix every 2 s for --seconds, then one every second for a quarter of that: seconds from arrival
  service   50 clients, 500 submissions of which a tenth is broken: answers that nobody asked for, 99th percentile of status
Lines of what is measured anew replace those that are there. Two cores; nothing else should run.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from cut_link import CutLink

RESULTS = Path(__file__).parent / "results" / "fleet.csv"
FIELDS = ("case", "figure", "value", "unit", "target")
RECIPE = '[reconstruct]\nmethod = "pixel"\n[output]\nformat = "npy"\n'
_ROW = 11  # of the first frame, where a serial number is written
_WRONG = 999  # a good stack that failed, or a broken one that did not
Line = dict[str, object]


def line(case: str, figure: str, value: float, unit: str, target: str = "") -> Line:
    found = {"case": case, "figure": figure, "value": f"{value:.4g}", "unit": unit, "target": target}
    print(*found.values(), flush=True)
    return found


def cpikan(*words: object, **more: object) -> subprocess.Popen[bytes]:
    """Start the command line, silent, in a group of its own."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    return subprocess.Popen([sys.executable, "-m", "cpikan", *map(str, words)], **{**quiet, **more})  # type: ignore[call-overload]


def ended(process: subprocess.Popen[bytes], *codes: int) -> float:
    """Wait for a process; its code must be one of those. Returns seconds."""
    begun = time.perf_counter()
    code = process.wait(3600)
    assert code in (codes or (0,)), f"exit code {code}"
    return time.perf_counter() - begun


def timed(*words: object, codes: tuple[int, ...] = (0,)) -> float:
    begun = time.perf_counter()
    ended(cpikan(*words), *codes)
    return time.perf_counter() - begun


def simulated(work: Path, name: str, shape: str) -> Path:
    """Simulate one stack of four wavelengths, and reconstruct it once so that kernels are compiled."""
    made = work / name
    if not made.exists():
        waves = ("--wavelength", "5um", "5.5um", "6.05um", "6.655um")
        ended(cpikan("simulate", made, "--shape", shape, *waves))
        (work / "recipe.toml").write_text(RECIPE)
        ended(cpikan("batch", made, "-o", work / f"{name}.warm", "--recipe", work / "recipe.toml", "--workers", 1))
        shutil.rmtree(work / f"{name}.warm")
    return made


def numbered(path: Path, number: int) -> None:
    """Write a serial number into one row of the first frame, so that the hash of the frames differs."""
    frames = np.load(path / "frames.npy", mmap_mode="r+")
    frames[0, 0, _ROW, :8] = np.frombuffer(number.to_bytes(8, "little"), np.uint8)
    frames.flush()


def copies(work: Path, source: Path, count: int) -> Path:
    """Copy a stack ``count`` times, each with a number of its own."""
    place = work / f"{source.name}s"
    for number in range(count):
        folder = place / f"w{number:03d}"
        if not folder.exists():
            folder.mkdir(parents=True)
            for name in ("frames.npy", "acquisition.toml"):
                shutil.copyfile(source / name, folder / name)
            numbered(folder, number)
    return place


def batch(work: Path, place: Path, out: str, *more: object) -> tuple[object, ...]:
    return ("batch", place, "-o", work / out, "--recipe", work / "recipe.toml", *more)


def maps(folder: Path) -> dict[str, str]:
    """Hash every map of a batch."""
    found = sorted((folder / "maps").rglob("*.npy"))
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def workers(work: Path, given: argparse.Namespace) -> Iterator[Line]:
    place = copies(work, simulated(work, "small", "2048x2048"), given.stacks)
    one = timed(*batch(work, place, "one", "--workers", 1))
    two = timed(*batch(work, place, "two", "--workers", 2))
    alone = 0.0
    for folder in sorted(place.iterdir()):
        alone += timed("reconstruct", folder, "-o", work / "alone.npy", "--method", "pixel", "--hash", "--overwrite")
    assert maps(work / "one") == maps(work / "two")
    yield line("workers", "one worker", one, "s")
    yield line("workers", "two workers against one", one / two, "x", ">= 1.7")
    yield line("workers", "two workers against a command each", alone / two, "x", ">= 4")


def large(work: Path, given: argparse.Namespace) -> Iterator[Line]:
    place = copies(work, simulated(work, "large", given.shape), given.large)
    wall = timed(*batch(work, place, "large.out", "--workers", 1))
    took = 0.0
    for path in (work / "large.out" / "maps").rglob("*.json"):
        summary = json.loads(path.read_text())["summary"]
        took += summary["seconds"] + summary.get("seconds_hash", 0.0)
    yield line("large", "wall time over the sum of runs and hashes", wall / took, "x", "<= 1.05")


def kills(work: Path, given: argparse.Namespace) -> Iterator[Line]:
    place = copies(work, simulated(work, "small", "2048x2048"), given.stacks)
    (place / "bad").mkdir(exist_ok=True)
    (place / "bad" / "frames.npy").write_bytes(b"nothing")
    shutil.copyfile(place / "w000" / "acquisition.toml", place / "bad" / "acquisition.toml")
    try:
        whole = timed(*batch(work, place, "whole", "--workers", 2, "--overwrite"), codes=(1,))
        wanted, rng = maps(work / "whole"), random.Random(1)
        running = cpikan(*batch(work, place, "struck", "--workers", 2, "--overwrite", "--attempts", 20))
        struck = 0
        while running.poll() is None and struck < 10:
            time.sleep(rng.uniform(0.1, whole / 5))
            there = [one for one in psutil.Process(running.pid).children() if "spawn_main" in " ".join(one.cmdline())]
            if there:
                rng.choice(there).kill()
                struck += 1
        ended(running, 1)
        same = sum(maps(work / "struck").get(name) == text for name, text in wanted.items())
        yield line("kills", "workers killed", struck, "")
        yield line("kills", "maps byte-identical after them", same, f"of {len(wanted)}", f"{len(wanted)}")
        running, done, again = cpikan(*batch(work, place, "cut", "--workers", 2, "--overwrite")), 0, 0
        for _ in range(5):
            time.sleep(rng.uniform(3.0, 3.0 + whole / 4))
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            before = {p: p.stat().st_mtime_ns for p in (work / "cut" / "maps").rglob("*.npy")}
            running = cpikan(*batch(work, place, "cut", "--workers", 2, "--resume"))
            time.sleep(1.0)
            again += sum(path.exists() and path.stat().st_mtime_ns != at for path, at in before.items())
            done = len(before)
        ended(running, 1)
        same = sum(maps(work / "cut").get(name) == text for name, text in wanted.items())
        yield line(
            "kills", "maps byte-identical after five kills of the batch", same, f"of {len(wanted)}", f"{len(wanted)}"
        )
        yield line("kills", "maps that were there and were made again", again, f"of {done} at the last", "0")
    finally:
        shutil.rmtree(place / "bad")


@contextmanager
def two_hosts(work: Path) -> Iterator[tuple[str, list[str], list[str], str, Callable[[float], None]]]:
    """Start a scheduler behind a link. Gives how it is cut, how commands are run near it and far from it, its address as it is
    seen from there, and what cuts the link for so many seconds."""
    told = work / "scheduler.json"
    told.unlink(missing_ok=True)
    run = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--scheduler-file", str(told)]
    near, far = f"cpikan-near-{os.getpid()}", f"cpikan-far-{os.getpid()}"
    spaces = os.geteuid() == 0 and _ip("netns", "add", near) and _ip("netns", "add", far)
    ends = ("cpikan-a", "cpikan-b")
    if spaces:
        assert _ip("link", "add", ends[0], "netns", near, "type", "veth", "peer", "name", ends[1], "netns", far)
        for space, end, host in ((near, ends[0], 1), (far, ends[1], 2)):
            assert _ip("-n", space, "addr", "add", f"10.199.7.{host}/24", "dev", end)
            assert _ip("-n", space, "link", "set", end, "up")
            assert _ip("-n", space, "link", "set", "lo", "up")
    here, there = (["ip", "netns", "exec", space] if spaces else [] for space in (near, far))
    scheduler = subprocess.Popen(
        [*here, *run, "--host", "10.199.7.1" if spaces else "127.0.0.1", "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    link = None
    try:
        until = time.monotonic() + 60
        while not (told.exists() and told.read_text().strip().endswith("}")) and time.monotonic() < until:
            time.sleep(0.1)
        address = json.loads(told.read_text())["address"]
        if spaces:

            def silence(seconds: float) -> None:
                assert _ip("-n", far, "link", "set", ends[1], "down")
                time.sleep(seconds)
                assert _ip("-n", far, "link", "set", ends[1], "up")

            yield "network namespaces", here, there, address, silence
        else:
            link = CutLink(int(address.rpartition(":")[2]))

            def reset(seconds: float) -> None:
                link.cut(seconds)
                time.sleep(seconds)

            yield "proxy", here, there, f"tcp://127.0.0.1:{link.port}", reset
    finally:
        scheduler.kill()
        scheduler.wait()
        if link is not None:
            link.close()
        for space in (near, far):
            _ip("netns", "del", space)


def _ip(*words: str) -> bool:
    with suppress(FileNotFoundError):
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0
    return False


def links(work: Path, given: argparse.Namespace) -> Iterator[Line]:
    place = copies(work, simulated(work, "small", "2048x2048"), given.stacks)
    ended(cpikan(*batch(work, place, "whole", "--workers", 1, "--overwrite")))
    wanted, quiet = maps(work / "whole"), {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for seconds in given.cuts:
        with two_hosts(work) as (way, here, there, address, cut):
            direct = json.loads((work / "scheduler.json").read_text())["address"]
            words = [sys.executable, "-m", "cpikan"]
            log = work / "worker.log"
            shutil.rmtree(work / "linked", ignore_errors=True)
            with log.open("w") as heard:
                worker = subprocess.Popen([*there, *words, "worker", address, "--workers", "2"], stderr=heard)
            asked = batch(work, place, "linked", "--scheduler", direct)
            running = subprocess.Popen([*here, *words, *map(str, asked)], **quiet)
            try:
                while len(list((work / "linked" / "maps").glob("*.json"))) < given.stacks // 4:
                    assert running.poll() is None
                    time.sleep(0.05)
                before = {path: path.stat().st_mtime_ns for path in (work / "linked" / "maps").glob("*.npy")}
                done = {path for path in before if path.with_suffix(".json").exists()}
                cut(seconds)
                ended(running)
            finally:
                running.kill()
                worker.terminate()
                worker.wait(60)
        same = sum(maps(work / "linked").get(name) == text for name, text in wanted.items())
        again = sum(path.stat().st_mtime_ns != before[path] for path in done)
        after = f"a cut of {seconds:g} s"
        many = f"{len(wanted)}"
        yield line("links", f"maps byte-identical after {after} ({way})", same, f"of {many}", many)
        yield line("links", f"finished maps made again after {after} ({way})", again, f"of {len(done)}", "0")
        yield line("links", f"workers started after {after} ({way})", log.read_text().count("has joined"), "")


def cold(work: Path, given: argparse.Namespace) -> Iterator[Line]:
    place = copies(work, simulated(work, "tiny", "1024x1024"), 4)
    (work / "few.txt").write_text("".join(f"{place}/w{number:03d}\n" for number in range(4)))
    took = {}
    for count in (1, 2):
        kernels = work / f"kernels{count}"
        shutil.rmtree(kernels, ignore_errors=True)
        kernels.mkdir()
        for state in ("cold", "warm"):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            asked = batch(work, work / "few.txt", "few", "--workers", count, "--overwrite")
            ended(cpikan(*asked, env={**os.environ, "NUMBA_CACHE_DIR": str(kernels)}))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            took[count, state] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        shutil.rmtree(kernels)
    one, two = (took[count, "cold"] - took[count, "warm"] for count in (1, 2))
    yield line("cold", "compiling, one worker, processor time", one, "s")
    yield line("cold", "compiling, two workers against one, processor time", two / one, "x", "<= 1.2")


def soak(work: Path, given: argparse.Namespace) -> Iterator[Line]:
    place = copies(work, simulated(work, "tiny", "1024x1024"), 200)
    script = (
        "import sys, os, json\n"
        "from cpikan.fleet.wafer_task import do_wafer\n"
        "from cpikan.streaming.memory import anonymous_mib\n"
        "seen = []\n"
        "for n, name in enumerate(sorted(os.listdir(sys.argv[1])), 1):\n"
        "    task = {'name': name, 'source': f'{sys.argv[1]}/{name}', 'output': f'{sys.argv[2]}/{name}.npy',\n"
        "            'reconstruct': {'method': 'pixel'}}\n"
        "    assert do_wafer(task)['state'] == 'done'\n"
        "    seen.append((anonymous_mib(), len(os.listdir('/proc/self/fd'))))\n"
        "print(json.dumps(seen))\n"
    )
    (work / "soak").mkdir(exist_ok=True)
    told = subprocess.run(
        [sys.executable, "-c", script, str(place), str(work / "soak")], capture_output=True, check=True
    )
    seen = json.loads(told.stdout)
    yield line(
        "soak",
        "growth of anonymous memory from the 20th to the 200th",
        100 * (seen[-1][0] / seen[19][0] - 1),
        "%",
        "<= 2",
    )
    yield line("soak", "open files more", seen[-1][1] - seen[19][1], "", "0")


def watch(work: Path, given: argparse.Namespace) -> Iterator[Line]:
    ring = copies(work, simulated(work, "large", given.shape), 6)
    place, out = work / "incoming", work / "watched"
    for folder in (place, out):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    running = cpikan("watch", place, "-o", out, "--recipe", work / "recipe.toml", "--settle", "0.3", "--workers", 2)
    time.sleep(8)
    dropped: dict[str, float] = {}
    late: dict[str, float] = {}
    memory = 0.0
    ready = sorted(path for path in ring.iterdir() if path.name < "w006")
    serial = 1000

    def settled() -> None:
        nonlocal memory
        every = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
        memory = max(memory, sum(_anonymous_mib(one.pid) for one in every))
        for path in (out / "maps").glob("*.json"):
            name = path.stem
            if name in dropped and name not in late:
                late[name] = path.stat().st_mtime - dropped[name]
                for old in (out / "maps").glob(f"{name}.*"):
                    old.unlink()
                home = ring / f"w{int(name.split('-')[1]):03d}"
                (place / name).rename(home)
                ready.append(home)

    def feed(every_s: float, seconds: float) -> None:
        nonlocal serial
        until, following = time.monotonic() + seconds, time.monotonic()
        while time.monotonic() < until:
            if time.monotonic() >= following and ready:
                following += every_s
                stack = ready.pop(0)
                numbered(stack, serial)
                name = f"s{serial}-{int(stack.name[1:])}"
                serial += 1
                dropped[name] = time.time()
                stack.rename(place / name)
            settled()
            time.sleep(0.05)

    def drain() -> None:
        until = time.monotonic() + 120
        while len(late) < len(dropped) and time.monotonic() < until:
            settled()
            time.sleep(0.1)

    try:
        feed(2.0, given.seconds)
        drain()
        usual = sorted([*late.values(), *(float("inf") for name in dropped if name not in late)])
        yield line("watch", "stacks dropped, one every 2 s", len(dropped), "")
        yield line("watch", "seconds from arrival to map, 95th percentile", usual[int(0.95 * len(usual))], "s", "<= 3")
        feed(1.0, given.seconds / 4)
        drain()
        yield line("watch", "stacks lost at twice the rate", len(dropped) - len(late), f"of {len(dropped)}", "0")
        yield line("watch", "anonymous memory of all processes", memory, "MiB")
    finally:
        running.terminate()
        running.wait(60)
        for stack in place.iterdir():
            stack.rename(ring / f"w{int(stack.name.split('-')[1]):03d}")


def _anonymous_mib(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return int(text.partition("RssAnon:")[2].split()[0]) / 1024 if "RssAnon:" in text else 0.0


def service(work: Path, given: argparse.Namespace) -> Iterator[Line]:
    place = copies(work, simulated(work, "tiny", "1024x1024"), 200)
    bad = place / "bad"
    bad.mkdir(exist_ok=True)
    (bad / "frames.npy").write_bytes(b"nothing")
    shutil.copyfile(place / "w000" / "acquisition.toml", bad / "acquisition.toml")
    shutil.rmtree(work / "served", ignore_errors=True)
    asked = (
        "serve",
        "-o",
        work / "served",
        "--root",
        place,
        "--recipe",
        work / "recipe.toml",
        "--port",
        0,
        "--workers",
        2,
    )
    with open(work / "serve.log", "w") as log:
        running = cpikan(*asked, "--queue", 20, stderr=log)
    until = time.monotonic() + 60
    while "serving at " not in (work / "serve.log").read_text() and time.monotonic() < until:
        time.sleep(0.1)
    address = (work / "serve.log").read_text().partition("serving at ")[2].partition("/docs")[0]
    found: list[
        tuple[int, float]
    ] = []  # the code of an answer (0: a job ended as it should), seconds of those on a state
    lock = threading.Lock()

    def client(number: int) -> None:
        rng = random.Random(number)
        for turn in range(10):
            broken = (number * 10 + turn) % 10 == 0
            source = bad if broken else place / f"w{rng.randrange(200):03d}"
            while True:
                code, job, heads = _asked(f"{address}/jobs", {"source": str(source)})
                with lock:
                    found.append((code, -1.0))
                if code != 429:
                    break
                time.sleep(min(5.0, float(heads["retry-after"])) * rng.uniform(0.5, 1.5))
            while code == 202:
                begun = time.perf_counter()
                state, job, _ = _asked(f"{address}/jobs/{job['id']}")
                with lock:
                    found.append((state, time.perf_counter() - begun))
                if job["state"] in ("done", "failed"):
                    with lock:
                        found.append((0 if (job["state"] == "failed") == broken else _WRONG, -1.0))
                    break
                time.sleep(rng.uniform(0.2, 1.0))

    clients = [threading.Thread(target=client, args=(number,)) for number in range(50)]
    begun = time.perf_counter()
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    took = time.perf_counter() - begun
    status = sorted(seconds for _, seconds in found if seconds >= 0)
    running.terminate()
    running.wait(90)
    shutil.rmtree(bad)
    yield line("service", "submissions ended", sum(code in (0, _WRONG) for code, _ in found), f"in {took:.0f} s", "500")
    yield line(
        "service", "answers that nobody asked for", sum(code not in (0, 200, 202, 429) for code, _ in found), "", "0"
    )
    yield line("service", "answered that the queue is full", sum(code == 429 for code, _ in found), "")
    yield line("service", "status, 99th percentile", 1e3 * status[int(0.99 * len(status))], "ms", "<= 100")


def _asked(address: str, body: dict[str, str] | None = None) -> tuple[int, dict[str, str], dict[str, str]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read()), dict(answer.headers)
    except urllib.error.HTTPError as failure:
        return failure.code, json.loads(failure.read()), {name.lower(): text for name, text in failure.headers.items()}


CASES: dict[str, Callable[[Path, argparse.Namespace], Iterator[Line]]] = {
    "workers": workers,
    "kills": kills,
    "links": links,
    "cold": cold,
    "soak": soak,
    "service": service,
    "watch": watch,
    "large": large,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--stacks", type=int, default=40)
    parser.add_argument("--large", type=int, default=20)
    parser.add_argument(
        "--shape", default="7000x9344", help="of the stacks of large and watch; smaller ones try the script"
    )
    parser.add_argument("--cuts", type=float, nargs="+", default=[5.0, 90.0], help="seconds")
    given = parser.parse_args()
    made = given.work is None
    work = Path(tempfile.mkdtemp(prefix="fleet")) if made else given.work
    work.mkdir(exist_ok=True)
    try:
        for case in given.cases:
            found = list(CASES[case](work, given))
            rows = list(csv.DictReader(RESULTS.open(encoding="utf-8"))) if RESULTS.exists() else []
            anew = {row["figure"] for row in found}
            kept = [row for row in rows if row["case"] != case or row["figure"] not in anew]
            with RESULTS.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                writer.writeheader()
                writer.writerows([*kept, *found])
    finally:
        if made:
            shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
