"""Files as the supervisor uses them: written whole, read as snapshots, never blocking."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterable

from . import trust

# A config file or message larger than this is a Problem (DESIGN 2).
LARGEST = 1 << 20


class Unreadable(Exception):
    """A directory entry that cannot be used as a file; the text says why, in the user's words."""


def write_whole(path: str | os.PathLike[str], data: bytes, mode: int = 0o644) -> None:
    """Write `data` to `path` so that a reader sees the old content or the new, never a part.

    The bytes go to a name of our own beside it first, which is removed again when writing fails. `mode` is before
    umask. Several writers of one path do not disturb each other: the last one's content stays.

    :raises OSError: when the directory is missing, full or may not be written.
    """
    target = os.fspath(path)
    # By chance, so that nobody with whom we share the directory can have taken the name.
    temporary = os.path.join(os.path.dirname(target), f".{os.getpid()}-{os.urandom(8).hex()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        os.rename(temporary, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def sweep(directory: str) -> None:
    """Remove what `write_whole` left half written when its process was killed."""
    with contextlib.suppress(OSError), os.scandir(directory) as listing:
        for found in listing:
            writer, _, rest = found.name.removeprefix(".").partition("-")
            is_ours = found.name.startswith(".") and rest.endswith(".new") and writer.isdecimal()
            if is_ours and not _is_there(int(writer)):
                os.unlink(found.path)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def remove_if_there(path: str) -> bool:
    """Remove a file; False when there was none.

    :raises OSError: when it is there and cannot be removed.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


# A hash of a file's times, size and inode: for thousands of files, less than these.
_Signature = int
# File times have the grain of the kernel's tick, 4 ms on most: what changed this shortly before it was read may have
# changed again without a trace, and is read once more.
_RACY_NS = 50_000_000
# Where the kernel tells of changes, a file that it did not speak of is still looked at in one scan of so many.
_ROUNDS = 6


class Entry:
    """One file as it was last seen: its content, and why it is not to be used. What cannot be read has no content."""

    __slots__ = ("data", "mtime_ns", "signature", "why")

    def __init__(self, signature: _Signature | None, mtime_ns: int, data: bytes | None, why: str) -> None:
        self.signature, self.mtime_ns, self.data, self.why = signature, mtime_ns, data, why


_SAME = Entry(None, 0, None, "")


class Directory:
    """A directory of small files, compared with how it was. Unchanged files are not read again."""

    def __init__(self, path: str, ignored: Callable[[str], bool], strict: bool = False) -> None:
        """`strict`: what anybody could have put there is not read, but a problem."""
        self.path, self.ignored, self.strict = path, ignored, strict
        self.seen: dict[str, _Signature | None] = {}
        self.links: set[str] = set()  # names that are links: what these lead to may change without a word
        self._shared: set[str] = set()  # those of them whose file has other names: it may be changed by one of these
        self._open_to_all = ""
        self._listed: _Signature | None = None  # the directory itself, when it was listed
        self._round = 0

    def scan(self, hinted: bool = False) -> dict[str, Entry | None]:
        """What changed since the last look: name -> its entry, or None for a file that is gone.

        `hinted`: the kernel tells of changes, and `look` was called for them. Then the files that it does not speak
        of are looked at in turn, all of them in six scans, so that looking at thousands costs little.

        :raises OSError: when the directory cannot be listed; what was known then stays known.
        """
        names, gone = self._list(hinted)
        changed: dict[str, Entry | None] = {}
        for name in names:
            entry = self._look(name, self.seen.get(name))
            if entry is not _SAME and (entry is not None or name in self.seen):
                changed[name] = entry
        changed |= dict.fromkeys(gone)
        self._note(changed)
        return changed

    def differing(self, hinted: bool = False) -> list[str]:
        """The names of which `scan` would tell something, without that anything is read."""
        names, gone = self._list(hinted)
        return [*filter(self._differs, names), *gone]

    def differing_links(self) -> list[str]:
        """Those of links alone."""
        return [*filter(self._differs, self.links)]

    def _differs(self, name: str) -> bool:
        known = self.seen.get(name)
        if known is None:
            return True
        try:
            return _signature(os.stat(f"{self.path}/{name}")) != known
        except OSError:
            return True

    def _list(self, hinted: bool) -> tuple[Iterable[str], Iterable[str]]:
        """The names to look at, and those that are gone."""
        open_to_all = trust.why_open(self.path) if self.strict else ""
        if open_to_all != self._open_to_all:
            self._open_to_all = open_to_all
            self.seen, hinted = dict.fromkeys(self.seen), False
        found = os.stat(self.path)
        exact = hash((found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino))
        gone: Iterable[str] = ()
        new: set[str] = set()
        if not hinted or exact != self._listed:
            self._listed = None  # should this go wrong
            with os.scandir(self.path) as listing:
                present = {entry.name: entry.is_symlink() for entry in listing if not self.ignored(entry.name)}
            self._listed = None if _is_racy(found) else exact
            self.links = {name for name, is_link in present.items() if is_link} | (self._shared & present.keys())
            if not hinted:
                return present, self.seen.keys() - present.keys()
            gone, new = self.seen.keys() - present.keys(), present.keys() - self.seen.keys()
        self._round = (self._round + 1) % _ROUNDS
        doubtful = [name for name, signature in self.seen.items() if signature is None]
        in_turn = itertools.islice(self.seen, self._round, None, _ROUNDS)
        return {*new, *self.links, *doubtful, *in_turn} - set(gone), gone

    def look(self, names: Iterable[str]) -> dict[str, Entry | None]:
        """The same for these names, read even when they seem unchanged."""
        changed: dict[str, Entry | None] = {}
        for name in names:
            if self.ignored(name):
                continue
            if os.path.islink(f"{self.path}/{name}"):
                self.links.add(name)
            entry = self._look(name, None)
            if entry is not None or name in self.seen:
                changed[name] = entry
        self._note(changed)
        return changed

    def _note(self, changed: dict[str, Entry | None]) -> None:
        for name, entry in list(changed.items()):
            if entry is None:
                self.seen.pop(name, None)
                self.links.discard(name)
                self._shared.discard(name)
            else:
                self.seen[name] = entry.signature

    def _look(self, name: str, known: _Signature | None) -> Entry | None:
        """The entry of a file; None when it is gone or a directory; _SAME when it is as it was."""
        path = f"{self.path}/{name}"
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return self._dangling(path, known)
        except OSError as error:
            return Entry(None, 0, None, error.strerror or str(error))
        if stat.S_ISDIR(found.st_mode):
            return None
        exact = _signature(found)
        if exact == known:
            return _SAME
        if found.st_nlink > 1:
            self._shared.add(name)
            self.links.add(name)
        else:
            self._shared.discard(name)
        signature = None if _is_racy(found) else exact
        return self._entry(path, found, signature)

    def _entry(self, path: str, found: os.stat_result, signature: _Signature | None) -> Entry | None:
        """What there is to say of a file; None when it is gone."""
        try:
            why = self._why_not_trusted(path, found)
            data = self._read(path)
        except Unreadable as problem:
            return Entry(signature, found.st_mtime_ns, None, str(problem))
        except FileNotFoundError:
            return None
        except OSError as error:  # perhaps ours, such as too many open files: look again
            return Entry(None, found.st_mtime_ns, None, error.strerror or str(error))
        return Entry(signature, found.st_mtime_ns, data, why)

    def _read(self, path: str) -> bytes:
        return read_small(path)

    def _dangling(self, path: str, known: _Signature | None) -> Entry | None:
        try:
            found = os.lstat(path)
        except OSError:
            return None
        signature = hash((found.st_mtime_ns, found.st_ctime_ns, -1, found.st_ino))
        return _SAME if signature == known else Entry(signature, found.st_mtime_ns, None, "a symbolic link to nothing")

    def _why_not_trusted(self, path: str, found: os.stat_result) -> str:
        """Why it is not believed what the file says, or ""."""
        why = (self._open_to_all or trust.why_not_trusted(path, found)) if self.strict else ""
        return f"{why}; --no-strict-modes would allow it" if why else ""


def _signature(found: os.stat_result) -> _Signature:
    return hash((found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino))


def _is_racy(found: os.stat_result) -> bool:
    """Whether it has changed so lately that another change would leave no trace."""
    return abs(time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns)) < _RACY_NS


class Tray(Directory):
    """A directory in which others may put files for us: read one at a time, and no link of theirs is followed."""

    def _look(self, name: str, known: _Signature | None) -> Entry | None:
        path = f"{self.path}/{name}"
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            if why := _why_not_followed(found):
                signature = hash((found.st_mtime_ns, found.st_ctime_ns, -1, found.st_ino))
                return _SAME if signature == known else Entry(signature, found.st_mtime_ns, None, why)
        return super()._look(name, known)

    def _entry(self, path: str, found: os.stat_result, signature: _Signature | None) -> Entry | None:
        """Of the file's time only; `open` tells the rest."""
        return Entry(signature, found.st_mtime_ns, None, "")

    def open(self, name: str, entry: Entry) -> Entry | None:
        """The entry with what is in the file now; None when it is gone."""
        if entry.why:
            return entry
        path = f"{self.path}/{name}"
        try:
            return super()._entry(path, os.stat(path), entry.signature)
        except FileNotFoundError:
            return None
        except OSError as error:
            return Entry(None, entry.mtime_ns, None, error.strerror or str(error))

    def _read(self, path: str) -> bytes:
        found = os.lstat(path)
        if not stat.S_ISLNK(found.st_mode):
            return read_small(path, os.O_NOFOLLOW)  # nor a link that has taken its place meanwhile
        if why := _why_not_followed(found):
            raise Unreadable(why)
        return read_small(path)


def _why_not_followed(found: os.stat_result) -> str:
    """Why a symbolic link is not followed, or "": it may lead to what we may read and its owner may not."""
    if not stat.S_ISLNK(found.st_mode) or found.st_uid in (0, os.geteuid()):
        return ""
    return f"a symbolic link of user {found.st_uid}"


def read_small(path: str, flags: int = 0) -> bytes:
    """The content of a regular file of at most 1 MiB. Never blocks. `flags` are more flags of open(2).

    :raises Unreadable: for what is not a regular file, or larger.
    :raises OSError: as open and read do.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | flags)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise Unreadable("not a regular file") from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("not a regular file")
        if found.st_size > LARGEST:
            raise Unreadable(f"{found.st_size} bytes, larger than {LARGEST}")
        parts, length = [], 0
        while part := os.read(descriptor, LARGEST + 1 - length):
            parts.append(part)
            length += len(part)
            if length > LARGEST:
                raise Unreadable(f"larger than {LARGEST} bytes")
        return b"".join(parts)
    finally:
        os.close(descriptor)
