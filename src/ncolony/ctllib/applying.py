"""Make the config directory say what another directory says: all of it or, where a file is bad, nothing."""

from __future__ import annotations

import os
import stat

import msgspec

from ncolony import ctllib
from ncolony.ctllib.checking import Finding, Source, find_collisions, read
from ncolony.system.files import write_whole

# What a config file may be for others at most: never writable for everybody, and no program.
_WIDEST = 0o664


class BadFiles(ctllib.Error):
    """Files that cannot be applied; `problems` says what is wrong with each."""

    def __init__(self, problems: tuple[Finding, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class Outcome(msgspec.Struct, frozen=True):
    """What `apply` did, or would do: the name of each file -> "changed", "unchanged" or "removed"."""

    files: dict[str, str]

    @property
    def is_changed(self) -> bool:
        """Whether anything was written or removed."""
        return any(what != "unchanged" for what in self.files.values())


def apply(places: ctllib.Places, source: ctllib.Path, *, prune: bool = False, dry_run: bool = False) -> Outcome:
    """Put the config files of the directory `source` into the config directory, each as a whole, byte for byte.

    All files are checked before the first is written. With `prune`, definitions that `source` does not have are
    removed; ignored names and directories stay. A file gets the mode it has in `source`, less what umask forbids, and
    never one that anybody may write. What is there already is not written again. With `dry_run`, nothing is.

    :raises BadFiles: when a file has a problem; nothing is written then.
    :raises BadValue: when `prune` would remove everything because `source` is empty.
    :raises NotThere: when one of the directories does not exist.
    :raises CannotAccess: when a file cannot be read, written or removed; those before it have been by then.
    """
    new, present = read(source), read(places.config)
    _check(places, new, present, prune)
    names = {one.name for one in new}
    gone = [one for one in present if one.name not in names] if prune else []
    if gone and not new:
        raise ctllib.BadValue(
            f"cannot apply {os.fspath(source)!r}: it has no config file, and to prune would remove all {len(gone)}"
        )
    files = {}
    held = {one.name: one for one in present}
    for one in new:
        files[one.name] = "unchanged" if _is_there(one, held.get(one.name)) else "changed"
    files |= dict.fromkeys((one.name for one in gone), "removed")
    if not dry_run:
        for one in new:
            if files[one.name] == "changed":
                _put(one, os.path.join(places.config, one.name))
        for one in gone:
            _remove(one)
    return Outcome(dict(sorted(files.items())))


def _check(places: ctllib.Places, new: list[Source], present: list[Source], prune: bool) -> None:
    """Refuse files that cannot be used, each by itself and with those that stay beside them.

    :raises BadFiles: saying which.
    """
    problems = [problem for one in new for problem in one.problems]
    beside = {} if prune else {one.name: one for one in present}
    ours = {one.name: one for one in new}
    problems += [
        collision
        for collision in find_collisions((beside | ours).values())
        if ours.keys() & {collision.name, collision.name.rpartition(":")[0]}  # others were there before
    ]
    problems += [
        Finding(one.path, one.name, "", "in the config directory, a directory has this name")
        for one in new
        if os.path.isdir(os.path.join(places.config, one.name))
    ]
    if problems:
        raise BadFiles(tuple(problems))


def _is_there(one: Source, held: Source | None) -> bool:
    """Whether the config directory has this file already, and open to nobody to whom it should be closed."""
    return held is not None and held.data == one.data and not _mode(held) & ~(_mode(one) & _WIDEST)


def _mode(one: Source) -> int:
    try:
        return stat.S_IMODE(os.stat(one.path).st_mode)
    except OSError as error:
        raise _failed("apply", one.name, one.path, error) from error


def _put(one: Source, path: str) -> None:
    try:
        write_whole(path, one.data, _mode(one) & _WIDEST)
    except OSError as error:
        raise _failed("apply", one.name, path, error) from error


def _remove(one: Source) -> None:
    try:
        os.unlink(one.path)
    except FileNotFoundError:
        pass  # somebody else was faster
    except OSError as error:
        raise _failed("remove", one.name, one.path, error) from error


def _failed(verb: str, name: str, path: str, error: OSError) -> ctllib.CannotAccess:
    raised = ctllib.CannotAccess(f"cannot {verb} {name!r}: {path!r}: {error.strerror or error}")
    raised.errno = error.errno
    return raised
