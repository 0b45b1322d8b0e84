"""Two processes on hosts of their own with a slow, lossy link between them: what a solve sends, and how long it takes.

    sudo python benchmarks/slow_link.py      # results/slow_link.csv, in about three minutes

The hosts are network namespaces with host names of their own, joined by TUN devices whose packets this script passes on late,
at a rate, and not all of them, as the kernel's netem is not everywhere. It makes all that it uses and removes it again. On a
machine with other work times are longer than they need be: how much longer the link makes them, the case without delay shows.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import heapq
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CSV = Path(__file__).parent / "results" / "slow_link.csv"
HOSTS = (("cpikan-one", "10.77.0.1"), ("cpikan-two", "10.77.0.2"))
PORT, MODES, STEPS = 29411, 8, 20
MOST_S = 290.0  # of the whole run
QUEUE_S = 0.5  # packets that would wait longer are dropped, as a full buffer does


@dataclass(frozen=True)
class Link:
    """What happens to packets on their way, each way."""

    delay_ms: float
    loss: float
    mbit_s: float


LINKS = (Link(0.0, 0.0, 1000.0), Link(10.0, 0.0, 100.0), Link(10.0, 0.01, 100.0), Link(50.0, 0.01, 20.0))


class Relay:
    """Passes packets on between two TUN devices, by a thread; ``link`` may be changed while it runs."""

    def __init__(self, names: Sequence[str]) -> None:
        self.link, self.bytes, self.lost = LINKS[0], 0, 0
        self._ends = [tun(name) for name in names]
        self._random, self._over = random.Random(0), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for end in self._ends:
            os.close(end)

    def _run(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        free, order = [0.0, 0.0], 0
        while not self._over.is_set():
            pause = max(0.0, min(0.05, waiting[0][0] - time.monotonic())) if waiting else 0.05
            for end in select.select(self._ends, [], [], pause)[0]:
                to, packet, now = 1 - self._ends.index(end), os.read(end, 65536), time.monotonic()
                free[to] = max(now, free[to]) + 8 * len(packet) / (1e6 * self.link.mbit_s)
                if self._random.random() < self.link.loss or free[to] - now > QUEUE_S:
                    self.lost += 1
                    continue
                self.bytes += len(packet)
                order += 1
                heapq.heappush(waiting, (free[to] + self.link.delay_ms / 1e3, order, to, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(waiting)
                with contextlib.suppress(OSError):  # a device that is not up yet takes none
                    os.write(self._ends[to], packet)


def tun(name: str) -> int:
    """Make a device whose packets are read and written here."""
    end = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(end, 0x400454CA, struct.pack("16sH", name.encode(), 0x0001 | 0x1000))  # TUNSETIFF: IFF_TUN, IFF_NO_PI
    return end


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def join_hosts() -> Relay:
    """Make the two hosts and what lies between them."""
    relay = Relay([name for name, _ in HOSTS])
    for name, address in HOSTS:
        ip("netns", "add", name)
        ip("link", "set", name, "netns", name)
        for words in (
            ("addr", "add", f"{address}/24", "dev", name),
            ("link", "set", name, "up"),
            ("link", "set", "lo", "up"),
        ):
            ip("-n", name, *words)
    return relay


def remove_hosts() -> None:
    for name, _ in HOSTS:
        subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def launched(number: int, folder: str) -> subprocess.Popen[str]:
    """Start torchrun on one of the hosts."""
    name, _ = HOSTS[number]
    run = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", f"--node_rank={number}"]
    run += [f"--master_addr={HOSTS[0][1]}", f"--master_port={PORT}", __file__, "worker", folder]
    inside = ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$@"', "sh"]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    given = {**os.environ, **threads, "GLOO_SOCKET_IFNAME": name, "TP_SOCKET_IFNAME": name}
    return subprocess.Popen([*inside, *run], env=given, stderr=subprocess.PIPE, text=True, start_new_session=True)


def measure() -> None:
    """Run the cases, and write what they took."""
    until = time.monotonic() + MOST_S
    remove_hosts()
    relay = join_hosts()
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        processes = [launched(number, folder) for number in range(2)]
        try:
            for number, link in enumerate(LINKS):
                relay.link = link
                before, lost = relay.bytes, relay.lost
                (Path(folder) / f"go-{number}").touch()
                found = awaited(Path(folder) / f"done-{number}", processes, until)
                lines.append(
                    {
                        **vars(link),
                        **found,
                        "packets_lost": relay.lost - lost,
                        "carried_megabytes": (relay.bytes - before) / 1e6,
                    }
                )
            killed = json.loads((Path(folder) / "pid-1").read_text())
            os.kill(killed, signal.SIGKILL)
            begun = time.monotonic()
            said = processes[0].communicate(timeout=max(1.0, until - begun))[1]
            ours = [line for line in said.splitlines() if line.startswith("cpikan:")]
            lines.append({**vars(link), "case": "a process is killed", "seconds": round(time.monotonic() - begun, 1)})
            lines[-1]["said"] = "yes" if len(ours) == 1 and f"number {killed} on {HOSTS[1][0]}" in ours[0] else "no"
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            relay.close()
            remove_hosts()
    names = list(dict.fromkeys(name for line in lines for name in line))
    with open(CSV, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        table.writerows(lines)


def awaited(path: Path, processes: Sequence[subprocess.Popen[str]], until: float) -> dict[str, Any]:
    while not path.exists():
        over = [process for process in processes if process.poll() is not None]
        if over or time.monotonic() > until:
            raise SystemExit(f"no {path.name}: {over[0].communicate()[1] if over else 'the time is used up'}")
        time.sleep(0.05)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def worker(folder: str) -> None:
    """Solve for series, and take some steps with networks, over every link; then step until the end."""
    from cpikan.learning.methods.adam import Adam
    from cpikan.learning.recipes import Recipe
    from cpikan.learning.samplers.points import Points
    from cpikan.learning.solver import SolveSettings, solve
    from cpikan.learning.subdomains import Subdomains
    from cpikan.streaming.ranks import ranks_here

    here = Path(folder)
    small = Recipe("small", "small networks", (Adam(10**6, 1e-3),), hidden=(6,), degree=4)
    networks = {"seconds": 1e4, "subdomains": Subdomains((4, 2), "xpinn"), "points": Points(400, 80)}
    with ranks_here() as ranks:
        (here / f"pid-{ranks.rank}").write_text(str(os.getpid()))
        series = {"seconds": 1e4, "subdomains": Subdomains((8, 8), "cpinn", modes=MODES), "ranks": ranks}
        for number in range(len(LINKS)):
            while ranks.rank == 0 and not (here / f"go-{number}").exists():
                time.sleep(0.05)
            ranks.first(0.0)
            begun, sent = time.perf_counter(), ranks.sent + ranks.moved
            found = solve("poisson-2d", settings=SolveSettings(**series))
            took, bytes_ = time.perf_counter() - begun, ranks.sent + ranks.moved - sent
            begun = time.perf_counter()
            trained = solve("poisson-2d", recipe=small, settings=SolveSettings(steps=STEPS, ranks=ranks, **networks))
            stepped = trained.history.ends[0].seconds / STEPS
            line = {
                "case": f"link {number}",
                "seconds": round(took, 3),
                "sent_bytes": bytes_,
                "seconds_per_step": round(stepped, 4),
                "relative_l2": found.metrics["relative_l2"],
                "cost": trained.history.ends[0].heldout,
            }
            if ranks.rank == 0:
                (here / "part").write_text(json.dumps(line))
                (here / "part").rename(here / f"done-{number}")
        solve("poisson-2d", recipe=small, settings=SolveSettings(ranks=ranks, **networks))


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2])
    else:
        measure()


if __name__ == "__main__":
    main()
