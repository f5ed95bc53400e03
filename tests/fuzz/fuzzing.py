"""What the fuzz targets share: inputs that stand for several files, ways to spoil JSON, and what may be shown.

A target is a module `fuzz_NAME` with a function `one(data)`, which raises when the code under test does what it never
may. `corpus/NAME/` holds inputs that it is begun with.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import os
import pkgutil
import re
import shutil
import tempfile
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))
# A line such as "=== status/web" begins a file of that name; one that ends in a slash is a directory.
_SECTION = b"\n=== "
_MOST_SECTIONS = 12
# What terminals act on, but for the end of a line and the tab.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_DEEP = b"[" * 3000 + b"]" * 3000
# Values of every type, those that are next to a limit, and texts that harm whoever shows or stores them.
_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 255, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400,
    0.5, -0.0, 1e12, 1e300, float("nan"), float("inf"), "", "x", "0", "\0", "a\nb", "\x1b[31m", "\x9b2J", "\ud800",
    "\u202e", "\u00b2", "/", "..", "../x", "a/b", "HUP", "web", "RUNNING", "STOPPING", "BACKOFF", "EXITED", "down",
    "accepted", "x" * 300, [], [None], [[]], [0], ["x"], [1, 2, 3], ["\x1b]0;x\x07"], {}, {"x": 1}, {"": None},
)  # fmt: skip


def import_all(package: ModuleType) -> None:
    """Import every module of a package: what is loaded later is not measured."""
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(found.name)


class Descriptors:
    """Closes what was opened meanwhile and belongs to nobody who would do it. For a `with`."""

    def __enter__(self) -> None:
        self.before = self._all()

    def __exit__(self, *_: object) -> None:
        for descriptor in self._all() - self.before:
            with contextlib.suppress(OSError):  # whose object was collected meanwhile
                os.close(descriptor)

    @staticmethod
    def _all() -> set[int]:
        listed = os.listdir("/proc/self/fd")
        return {int(name) for name in listed if os.path.lexists(f"/proc/self/fd/{name}")}  # not that of the listing


class Scratch:
    """A directory for one input, in memory where there is such a place. For a `with`."""

    def __init__(self) -> None:
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.path = Path(tempfile.mkdtemp(prefix="ncolony-fuzz-", dir=base))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def files_in(data: bytes) -> list[tuple[str, bytes]]:
    """The files that an input stands for: (name, content) of each, a few at most."""
    found = []
    for part in (b"\n" + data).split(_SECTION)[1 : _MOST_SECTIONS + 1]:
        name, _, content = part.partition(b"\n")
        found.append((os.fsdecode(name), content))
    return found


def lay_out(root: Path, files: list[tuple[str, bytes]]) -> None:
    """Write the files below `root`. Names that lead elsewhere, or that no file system takes, are left out."""
    for name, content in files:
        parts = name.rstrip("/").split("/")
        if "\0" in name or len(parts) > 4 or any(part in ("", ".", "..") for part in parts):
            continue
        path = root.joinpath(*parts)
        try:
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except OSError:
            continue  # a name too long, or two files of which one is the other's directory


def is_plain(text: str) -> bool:
    """Whether a text can be shown on any terminal: lines of printable characters."""
    return all(line.isprintable() for line in text.split("\n"))


def is_one_line(text: str) -> bool:
    """Whether a text is one line that can be shown on any terminal."""
    return text.isprintable()


def spoiled(data: bytes, random: Random) -> bytes:
    """The input with something in it changed that is still JSON, or nearly; unchanged where there is none."""
    lines = data.split(b"\n")
    for at in random.sample(range(len(lines)), min(len(lines), 4)):
        try:
            content = json.loads(lines[at])
        except (ValueError, RecursionError):
            continue
        for _ in range(random.choice((1, 1, 1, 2, 5))):
            content = _changed(content, random)
        try:
            lines[at] = json.dumps(content, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
        except (RecursionError, ValueError):
            continue
        if random.random() < 0.02:
            lines[at] = lines[at].replace(b"null", _DEEP, 1)
        break
    if random.random() < 0.1:
        at = random.randrange(len(lines))
        lines[at : at + 1] = random.choice(([], [lines[at]] * 2, [lines[at][: len(lines[at]) // 2]]))
    return b"\n".join(lines)


def _changed(content: Any, random: Random) -> Any:
    """The JSON value with one part of it replaced, doubled, moved or taken out."""
    content = copy.deepcopy(content)
    if not isinstance(content, dict | list) or not content:
        return random.choice(_ODD)
    inside = content
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        key = random.choice(keys)
        if not isinstance(inside[key], dict | list) or not inside[key] or random.random() < 0.4:
            break
        inside = inside[key]
    deed = random.random()
    if deed < 0.7:
        inside[key] = random.choice(_ODD)
    elif deed < 0.8:
        del inside[key]
    elif deed < 0.9:
        inside[key] = copy.deepcopy(inside[random.choice(keys)])
    elif isinstance(inside, dict):
        inside[str(random.choice((*keys, "x", "", "a.b", "\x1b[0m", "\ud800")))] = random.choice(_ODD)
    else:
        inside.append(random.choice(_ODD))
    return content
