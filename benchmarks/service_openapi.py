"""The service against its own description: does anything that schemathesis makes of it bring out a 500, or break a promise?

    python benchmarks/service_openapi.py --schemathesis PATH [--examples 100] [--seed 1]

PATH is the program `schemathesis` (MIT; 16 packages, so that it lies in an environment of its own). A service is started, with
a token, and one stack is measured; then all checks of schemathesis run twice: ``as it comes``, and ``there``, where the places
in addresses are those of a job and a map that are there. results/service_openapi.csv keeps a line a run: requests, answers of
500 and above, and other promises that were broken, by their names.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "service_openapi.csv"
TOKEN = "0123456789abcdef-token"
STACK = 'wavelengths = ["5 um"]\nphase_steps = [0, 90, 180, 270]\n'


def write_stack(folder: Path) -> None:
    """Write frames of a slope."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[:64, :64]
    frames = [110 + 80 * np.cos((x + y) / 9 + step) for step in np.deg2rad([0, 90, 180, 270])]
    np.save(folder / "frames.npy", np.rint(frames).astype(np.uint8)[None])
    (folder / "acquisition.toml").write_text(STACK)


def started(work: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a service and wait for its address."""
    (work / "token").write_text(TOKEN)
    command = (
        *(sys.executable, "-m", "cpikan", "serve", "-o", work / "out", "--port", "0", "--workers", "0"),
        *("--root", work / "in", "--token-file", work / "token"),
    )
    log = work / "log"
    with open(log, "w") as told:
        process = subprocess.Popen(
            [str(part) for part in command], stderr=told, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
    while "/docs" not in log.read_text():
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.1)
    return process, log.read_text().partition("serving at ")[2].partition("/docs")[0]


def measured(address: str, source: Path) -> dict[str, Any]:
    """Submit a stack and wait for its end."""
    head = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    body = json.dumps({"source": str(source)}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{address}/jobs", body, head), timeout=60) as answer:
        number = json.loads(answer.read())["id"]
    while True:
        asked = urllib.request.Request(f"{address}/jobs/{number}", headers=head)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            job: dict[str, Any] = json.loads(answer.read())
        if job["state"] not in ("waiting", "running"):
            return job
        time.sleep(0.2)


def checked(program: Path, address: str, work: Path, places: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run all checks; ``places`` are lines of its settings."""
    settings, report = work / "schemathesis.toml", work / "report.json"
    settings.write_text(places)
    command = (
        *(program, "--config-file", settings, "run", f"{address}/openapi.json", "-H", f"Authorization: Bearer {TOKEN}"),
        *("--seed", given.seed, "-n", given.examples, "--checks", "all", "--continue-on-failure", "--no-shrink"),
        *("--report", "json", "--report-json-path", report, "--report-dir", work),
    )
    done = subprocess.run([str(part) for part in command], cwd=work, capture_output=True, text=True, check=False)
    if not report.exists():
        raise SystemExit(done.stdout + done.stderr)
    found = json.loads(report.read_text())
    for failure in found["failures"]:
        print(failure, flush=True)
    if found["failures"]:
        print(done.stdout[-6000:], flush=True)
    broken = {failure["type"]: failure["count"] for failure in found["failures"]}
    return {
        "operations": found["operations"]["tested"],
        "requests": found["test_cases"]["generated"],
        "server_errors": broken.pop("ServerError", 0),
        "broken": sum(broken.values()),
        "names": " ".join(sorted(broken)),
        "errored": len(found["errors"]),
    }


def there(job: dict[str, Any]) -> str:
    """Write the settings that put the places of a job and its map into addresses."""
    name = job["map"].removeprefix("/maps/")
    doors = {"/maps/{path}": f"{name}/zarr.json", "/view/{path}": f"{name}/maps.json"}
    lines = [f'[parameters]\n"path.number" = "{job["id"]}"']
    lines += [
        f'[[operations]]\ninclude-path = "{door}"\nparameters = {{ path = "{place}" }}' for door, place in doors.items()
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemathesis", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=100, help="of each door")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_stack(work / "in" / "a")
        process, address = started(work)
        try:
            job = measured(address, work / "in" / "a")
            for label, places in (("as it comes", ""), ("there", there(job))):
                lines.append({"places": label, **checked(given.schemathesis, address, work, places, given)})
                print(lines[-1], flush=True)
        finally:
            process.terminate()
            process.wait(60)
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return int(any(line["server_errors"] or line["errored"] for line in lines))


if __name__ == "__main__":
    sys.exit(main())
