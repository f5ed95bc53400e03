"""Files that were set aside become smaller: one at a time, in a thread of its own, so that nobody waits for it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import threading
import zlib
from collections import deque
from collections.abc import Callable

from ..keeper.kept import older
from ..keeper.kernel import reach
from . import trust

_LEVEL = 6
_CHUNK = 1 << 18
# The trailer of a gzip file has 32 bits for the size of what was compressed (RFC 1952).
_LARGEST = 1 << 32
_HALF_MADE = ".gz.new"
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Compressor:
    """Compresses what it is told of. Whoever is killed meanwhile leaves the file as it was."""

    def __init__(self, logs: str) -> None:
        """`logs`: the directory of all logs, for what an earlier supervisor left half made."""
        self._logs = logs
        self._jobs: deque[Callable[[], None]] = deque()
        self._upto: dict[str, int] = {}  # what is to be done in a log directory, by now
        self._rotated: dict[str, int] = {}  # likewise, of files that processes have of their own
        self._at = ""  # the own file whose older ones are being compressed now: they keep their names meanwhile
        self._lock = threading.Lock()
        self._wake = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def add_log(self, directory: str, upto: int) -> None:
        """Compress what was set aside in a log directory and ends at the offset `upto` or before."""
        with self._lock:
            known, self._upto[directory] = directory in self._upto, upto
        if not known:
            self._add(lambda: self._do_log(directory))

    def add_rotated(self, path: str, keep: int) -> None:
        """Compress path.1 to path.`keep`, and remove what an earlier supervisor left half made of them."""
        with self._lock:
            known, self._rotated[path] = path in self._rotated, keep
        if not known:
            self._add(lambda: self._do_rotated(path))

    def is_at(self, path: str) -> bool:
        """Whether what was rotated from this path must not be renamed now."""
        with self._lock:
            return self._at == path

    def sweep(self) -> None:
        """Remove what an earlier supervisor left half made, in all logs."""
        self._add(self._do_sweep)

    def _add(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)
        self._wake.release()
        if self._thread is None:
            # Signals are for the main thread, which holds them off when it has to.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            self._thread = threading.Thread(target=self._work, name="compressor", daemon=True)
            self._thread.start()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _work(self) -> None:
        while True:
            self._wake.acquire()
            job = self._jobs.popleft()
            # A full disk, a directory that was removed: the files stay as they are, until the next time.
            with contextlib.suppress(OSError):
                job()

    def _do_log(self, directory: str) -> None:
        with self._lock:
            upto = self._upto.pop(directory)
        for start, size in older(directory):
            path = f"{directory}/{start:020d}.log"
            if start + size <= upto and os.path.exists(path):
                with contextlib.suppress(OSError):
                    compress(path)

    def _do_rotated(self, path: str) -> None:
        with self._lock:
            keep, self._at = self._rotated.pop(path), path
        place, base = os.path.split(path)
        directory = -1
        try:
            directory = trust.open_directory(place)
            place = f"/proc/self/fd/{directory}"  # the same one, whoever exchanges names meanwhile
            for name in os.listdir(directory):
                if not _is_rotated(name.removesuffix(_HALF_MADE), base, keep):
                    continue
                # One that cannot be done is no reason to leave the others.
                with contextlib.suppress(OSError):
                    if name.endswith(_HALF_MADE):
                        os.unlink(f"{place}/{name}")
                    else:
                        compress(f"{place}/{name}")
        finally:
            if directory >= 0:
                os.close(directory)
            with self._lock:
                self._at = ""

    def _do_sweep(self) -> None:
        for directory, _, names in os.walk(self._logs):
            for name in names:
                path = f"{directory}/{name}"
                if name.endswith(_HALF_MADE):
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                elif name.endswith(".log.gz") and os.path.exists(path[:-3]):
                    # Whole already, since it has its name; what it was made from was to go next.
                    with contextlib.suppress(OSError):
                        os.unlink(path[:-3])


def compress(path: str) -> None:
    """Replace a file by one that is compressed, of the same owner and mode, whose name ends in ".gz".

    :raises OSError: when that cannot be done; the file is as it was then.
    """
    half_made = f"{path}{_HALF_MADE}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(half_made)
    source = os.open(path, _FLAGS)
    try:
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size >= _LARGEST:
            return
        target = os.open(half_made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchown(target, found.st_uid, found.st_gid)
            os.fchmod(target, stat.S_IMODE(found.st_mode))
            _copy(source, target)
        except OSError:
            os.unlink(half_made)
            raise
        finally:
            os.close(target)
    finally:
        os.close(source)
    reach("compress.made")
    os.rename(half_made, f"{path}.gz")
    reach("compress.named")
    try:
        os.unlink(path)
    except FileNotFoundError:
        os.unlink(f"{path}.gz")  # thrown away meanwhile: then this is not wanted either


def _copy(source: int, target: int) -> None:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)  # 31: with the header and the trailer of gzip
    while data := os.read(source, _CHUNK):
        _write(target, packer.compress(data))
    _write(target, packer.flush())


def _write(target: int, data: bytes) -> None:
    with memoryview(data) as view:
        written = 0
        while written < len(data):
            written += os.write(target, view[written:])


def _is_rotated(name: str, base: str, keep: int) -> bool:
    found = re.fullmatch(re.escape(base) + r"\.([1-9][0-9]{0,5})", name)
    return found is not None and int(found[1]) <= keep
