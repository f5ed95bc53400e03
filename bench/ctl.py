"""How long the command line takes: `ctl add` and `ctl status` among 1,000 processes, against the interpreter alone.

    python bench/ctl.py [ROUNDS]

A supervisor is not needed: its state directory is written here as it would write it.
"""

from __future__ import annotations

import fcntl
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROCESSES = 1000
ROUNDS = 20


def populate(root: Path) -> None:
    """Config files, and the reports of processes that run."""
    for name in ("conf", "messages", "state/status"):
        (root / name).mkdir(parents=True)
    for number in range(PROCESSES):
        name = f"process-{number:04}"
        (root / "conf" / name).write_text(json.dumps({"args": ["sleep", "1000"], "group": ["all"]}))
        last = {"code": 0, "signal": None, "at": 1.7e9, "lived": 3.2, "text": "exit code 0", "cpu": 0.1, "rss_kb": 9000}
        report = {
            "name": name, "state": "RUNNING", "wanted": "up", "pid": os.getpid(), "instance": 2, "since": 1.7e9,
            "started": 1.7e9, "restarts": 1, "next_try": None, "reason": "", "problem": None, "warnings": [],
            "group": ["all"], "enabled": True, "generation": "0" * 16, "digest": "0" * 16, "last_exit": last,
            "pending": "", "holding": [], "file": name, "ready_at": 1.7e9, "rolled_back": None, "memory": None,
            "waiting_for": [],
        }  # fmt: skip
        (root / "state" / "status" / name).write_text(json.dumps(report))
    about = {"pid": os.getpid(), "version": "bench", "started": 1.7e9, "problems": []}
    (root / "state" / "supervisor.json").write_text(json.dumps(about))


def measure(root: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each command in each round. They take turns, so that what disturbs one disturbs all."""
    options = ["--messages", f"{root}/messages", "--config", f"{root}/conf", "--state", f"{root}/state"]
    ctl = [sys.executable, "-m", "ncolony", "ctl", *options]
    took: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "ctl add NAME": [*ctl, "add", f"new-{turn}", "--cmd=sleep", "--arg=1000"],
            "ctl status NAME": [*ctl, "status", "process-0000"],
            f"ctl status (of {PROCESSES})": [*ctl, "status", "process-*"],
            f"ctl status --json (of {PROCESSES})": [*ctl, "status", "--json", "process-*"],
        }
        for label, argv in commands.items():
            begin = time.perf_counter()
            subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
            if turn:  # the first round fills the caches
                took.setdefault(label, []).append((time.perf_counter() - begin) * 1000)
    return took


def main() -> None:
    """Measure and print a table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory(prefix="ncolony-bench-") as directory:
        root = Path(directory)
        populate(root)
        with open(root / "state" / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            took = measure(root, rounds)
    bare = statistics.median(took["python -c pass"])
    print(f"{'':30} {'median':>9} {'least':>9}  of the interpreter's start")
    for label, times in took.items():
        median = statistics.median(times)
        print(f"{label:30} {median:6.0f} ms {min(times):6.0f} ms  {median / bare:.1f} times")


if __name__ == "__main__":
    main()
