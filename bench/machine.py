"""What was measured on what: a row for the results, so that no figure stands without it."""

from __future__ import annotations

import os
import platform
import re
import resource
import time
from pathlib import Path

from .group import counts_cpu
from .peers import PEERS


def about(series: str) -> dict[str, object]:
    """The date, this machine, and the version of everything that is installed."""
    return {
        "about": series,
        "time": timestamp(),
        "machine": machine(),
        "cpu_counted": counts_cpu(),
        "versions": {name: peer.version() for name, peer in PEERS.items() if "+" not in name and not peer.missing()},
        "missing": sorted(name for name, peer in PEERS.items() if peer.missing()),
    }


def timestamp() -> str:
    """Now, in UTC."""
    return time.strftime("%FT%TZ", time.gmtime())


def machine() -> str:
    """Processor, memory, system, in one line."""
    processor = _first("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.machine()
    gib = int(_first("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0) / 2**20
    return ", ".join(
        [
            f"{os.cpu_count()} cores ({processor})",
            f"{gib:.0f} GiB",
            f"Linux {platform.release()}",
            _first("/etc/os-release", r'PRETTY_NAME="(.+)"') or "unknown distribution",
            f"Python {platform.python_version()}",
            f"RLIMIT_NOFILE {resource.getrlimit(resource.RLIMIT_NOFILE)[1]}",
        ]
    )


def _first(path: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text(encoding="utf-8"))
    except OSError:
        return ""
    return found[1] if found else ""
