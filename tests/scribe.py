"""Writes log files as a keeper does: for tests of what reads them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

RECORD = struct.Struct("!QQ")
S = 10**9
# A time that is not now: nothing but an index can say so.
T0 = 1_700_000_000 * S


class Scribe:
    """One stream of one process, byte by byte counted. Every write gets a time of its own, a second after the last."""

    def __init__(self, logs: Path, name: str, stderr: bool = False, begin: int = 0) -> None:
        self.directory = logs / name / "stderr" if stderr else logs / name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.name, self.stream = name, "stderr" if stderr else "stdout"
        self.begin = self.end = begin
        self.now, self.indexed = T0, True
        self.data = b""
        self.cuts: list[int] = []
        self.written: list[tuple[int, int]] = []  # (end, time) of each write that is in the index
        self.set_aside: list[int] = []

    @property
    def current(self) -> Path:
        return self.directory / "current"

    @property
    def index(self) -> Path:
        return self.directory / "current.index"

    def write(self, data: bytes | str, at: int | None = None) -> int:
        """Append, at a time; where the stream ends now."""
        data = data.encode() if isinstance(data, str) else data
        self.now = self.now + S if at is None else at
        with self.current.open("ab") as file:
            if self.indexed and not self.index.exists():
                self.index.write_bytes(RECORD.pack(self.begin, self.now))
            file.write(data)
        self.end += len(data)
        self.data += data
        if self.indexed and data:
            with self.index.open("ab") as file:
                file.write(RECORD.pack(self.end, self.now))
            self.written.append((self.end, self.now))
        return self.end

    def cut(self) -> None:
        """An instance ends; where a newline does not say so, the keeper does."""
        if self.data and not self.data.endswith(b"\n") and self.end not in self.cuts:
            self.cuts.append(self.end)
            with (self.directory / "cuts").open("ab") as file:
                file.write(struct.pack("!Q", self.end))

    def rotate(self) -> Path:
        """Set the current file aside; its new path."""
        kept = self.directory / f"{self.begin:020d}.log"
        self.current.rename(kept)
        if self.index.exists():
            self.index.rename(kept.with_suffix(".index"))
        self.set_aside.append(self.begin)
        self.begin = self.end
        return kept

    def compress(self, start: int) -> Path:
        """Compress a file that was set aside."""
        plain = self.directory / f"{start:020d}.log"
        packed = plain.with_suffix(".log.gz")
        packed.with_suffix(".new").write_bytes(gzip.compress(plain.read_bytes()))
        packed.with_suffix(".new").rename(packed)
        plain.unlink()
        return packed

    def throw_away(self, start: int) -> None:
        """Remove a file that was set aside, with its index."""
        for ending in ("log", "log.gz", "index"):
            (self.directory / f"{start:020d}.{ending}").unlink(missing_ok=True)
