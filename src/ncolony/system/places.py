"""Where a colony keeps its state: the same rule for the supervisor and for the command line."""

from __future__ import annotations

import contextlib
import hashlib
import os

_Path = str | os.PathLike[str]


class UnsafeState(Exception):
    """The state directory belongs to somebody else or may be written by others; the text says which."""


def state_directory(config: _Path, messages: _Path, state: _Path | None = None) -> str:
    """The state directory of the colony with these two directories (DESIGN 2). Creates nothing.

    `state`, when given, is the answer itself. Otherwise a name hashed from the two real paths, under /run/ncolony for
    root who may write there, $XDG_RUNTIME_DIR/ncolony for others, $TMPDIR/ncolony-UID, or, where /tmp is read-only, the
    same in /dev/shm.
    """
    if state is not None:
        return os.path.abspath(os.fspath(state))
    pair = "\0".join(os.path.realpath(os.fspath(path)) for path in (config, messages))
    name = hashlib.blake2b(os.fsencode(pair), digest_size=8).hexdigest()
    return os.path.join(_base(), name)


def messages_directory(config: _Path, state: _Path | None = None) -> str:
    """The messages directory of a colony that was given none: the same rule for `ncolony run` and `ncolony ctl`.

    Inside `state` when that is given, else beside the state directories, by a name hashed from the real path of
    `config`. Creates nothing.
    """
    if state is not None:
        return os.path.join(os.path.abspath(os.fspath(state)), "messages")
    path = os.fsencode(os.path.realpath(os.fspath(config)))
    return os.path.join(_base(), f"messages-{hashlib.blake2b(path, digest_size=8).hexdigest()}")


def _base() -> str:
    uid = os.getuid()
    if uid == 0 and _usable("/run/ncolony"):
        return "/run/ncolony"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if uid != 0 and runtime and os.path.isabs(runtime):
        return os.path.join(runtime, "ncolony")
    name = f"ncolony-{uid}"
    if temporary := os.environ.get("TMPDIR"):
        return os.path.join(temporary, name)
    # A container whose files are read-only mostly has this one, in memory.
    return f"/dev/shm/{name}" if _usable(f"/dev/shm/{name}") and not _usable(f"/tmp/{name}") else f"/tmp/{name}"


def _usable(path: str) -> bool:
    """Whether we may write the directory, or make it where it is not there."""
    return os.access(path if os.path.exists(path) else os.path.dirname(path), os.W_OK)


def make_private(path: str, mode: int = 0o755) -> None:
    """Create the directory `path`, for our user alone to write, or check that an existing one is ours and safe.

    :raises UnsafeState: when it belongs to another user, is a symbolic link to such a place, or others may write it.
    :raises OSError: when it cannot be created.
    """
    parent = os.path.dirname(path)
    if parent == _base():
        # Others share what lies above it: who may write there could put a directory of his own in our place.
        _make_all(os.path.dirname(parent))
        _make_ours(parent, 0o755)
    else:
        _make_all(parent)
    _make_ours(path, mode)


def _make_all(path: str) -> None:
    """Make the directory and those above it, for us alone to write whatever the umask; check none that is there."""
    if not os.path.isdir(path):
        _make_all(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
            os.chmod(path, 0o755)


def _make_ours(path: str, mode: int) -> None:
    try:
        os.mkdir(path, mode)
        os.chmod(path, mode)
    except FileExistsError:
        pass
    if (link := os.lstat(path)).st_uid not in (0, os.geteuid()):
        # Of a symbolic link this is who can let it lead elsewhere at any time.
        raise UnsafeState(f"{path} belongs to user {link.st_uid}, not to {os.geteuid()}")
    found = os.stat(path)
    if not os.path.isdir(path):
        raise UnsafeState(f"{path} is not a directory")
    if found.st_uid != os.geteuid():
        raise UnsafeState(f"{path} belongs to user {found.st_uid}, not to {os.geteuid()}")
    if found.st_mode & 0o022:
        raise UnsafeState(f"{path} may be written by others (mode {found.st_mode & 0o7777:o})")


def make_closed(path: str, mode: int = 0o755) -> None:
    """Make the directory and those above it that are missing, none of them for others to write, whatever the umask.

    :raises OSError: when one cannot be made.
    """
    above = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(above):
        make_closed(above)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def why_not_ours(path: str) -> str:
    """Why what is in the directory `path` may be somebody else's, or ""; one that is missing is nobody's."""
    try:
        found = os.lstat(path)
    except OSError:
        return ""
    return "" if found.st_uid == os.geteuid() else f"{path} belongs to user {found.st_uid}, not to {os.geteuid()}"
