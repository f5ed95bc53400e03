"""Other people on the machine: programs run as users that are neither root nor the supervisor's."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ncolony

SOURCE = str(Path(ncolony.__file__).parent.parent)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
# Users without an account, and nobody.
ALICE, MALLORY, NOBODY = 4242, 6666, 65534


def become(uid: int) -> list[str]:
    """The beginning of a command line that is run as this user, with nothing of root's left."""
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def run_as(uid: int, script: str, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a Python script as this user, which finds `ncolony` and its arguments in sys.argv."""
    begin = f"import os, sys; sys.path.insert(0, {SOURCE!r})\n"
    command = [*become(uid), python(), "-I", "-S", "-c", begin + script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


@functools.cache
def python() -> str:
    """A Python that every user can run: ours may be in root's own home."""
    for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        command = [*become(MALLORY), "sh", "-c", 'exec "$0" -I -S -c ""', candidate]
        if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return candidate
    pytest.skip("other users can run no Python of this version")


def unprivileged(uid: int, command: list[str]) -> dict[str, Any]:
    """What has `Colony.start` run its command as this user."""
    paths = os.pathsep.join([SOURCE, *(path for path in sys.path if path.endswith("site-packages"))])
    return {"command": [*become(uid), python(), *command[1:]], "env": {**os.environ, "PYTHONPATH": paths}}


def what_goes_wrong(uid: int, script: str, *arguments: object) -> str:
    """The name of the exception that the script ends with as this user, "" if it ends well."""
    done = run_as(uid, script, *arguments)
    return "" if done.returncode == 0 else done.stderr.rstrip().splitlines()[-1].partition(":")[0]


def tree(root: Path) -> Iterator[Path]:
    """`root` and everything below it."""
    yield root
    for directory, directories, files in os.walk(root):
        yield from (Path(directory) / name for name in (*directories, *files))
