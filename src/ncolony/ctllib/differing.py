"""What would become of a colony if other files were its configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from ncolony import ctllib
from ncolony.ctllib.checking import Finding, Source, find_collisions, read
from ncolony.model.config import Definition, is_for_editors
from ncolony.model.names import copies_of

# Keys of which each entry is a matter of its own. Only names are told: values may be secret.
_OBJECTS = ("env", "env_secret", "limits", "log")


class Change(msgspec.Struct, frozen=True):
    """What would become of one process. `file` is its config file's name, "web" for the copy "web:0".

    `action` is "start", "stop", "restart", "live" (in force at once, while it runs on or stays down) or "unchanged".
    `keys` are those that differ, "env.PATH" for one inside another; `why` is for people.
    """

    name: str
    file: str
    action: str
    keys: tuple[str, ...] = ()
    why: str = ""


class Difference(msgspec.Struct, frozen=True):
    """What would become of every process, by name, and what is wrong with the new files."""

    changes: tuple[Change, ...]
    problems: tuple[Finding, ...]

    @property
    def is_same(self) -> bool:
        """Whether nothing would happen at all."""
        return not self.problems and all(change.action == "unchanged" for change in self.changes)


def diff(places: ctllib.Places, source: ctllib.Path) -> Difference:
    """What would happen if the files of the directory `source` were the configuration, and no others.

    Only files are compared. A process that somebody stopped is spoken of as if it ran.

    :raises NotThere: when one of the two directories does not exist.
    :raises CannotAccess: when one of them cannot be read.
    """
    before, after = ({one.name: one for one in read(where)} for where in (places.config, source))
    problems = [problem for one in after.values() for problem in one.problems]
    problems += find_collisions(after.values())
    changes: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        changes += _of_file(name, before.get(name), after.get(name))
    # A copy that becomes a process of its own, or the reverse, changes its file and not its name.
    return Difference(tuple(sorted(changes, key=lambda change: change.name)), tuple(problems))


def _of_file(name: str, before: Source | None, after: Source | None) -> Iterator[Change]:
    old, new = (None if one is None else one.definition for one in (before, after))
    was_bad = before is not None and old is None
    if after is not None and new is None:
        why = "the new file cannot be used" + ("; its last good definition stays" if before is not None else "")
        for process in [name] if old is None else copies_of(name, old.config.instances):
            yield Change(process, name, "unchanged", why=why)
        return
    if was_bad and new is None:
        yield Change(name, name, "stop", why="removed")
        return
    keys = _differing(old, new)
    there, then = (
        {} if one is None else dict.fromkeys(copies_of(name, one.config.instances), one) for one in (old, new)
    )
    for process in sorted(there.keys() | then.keys()):
        was, will = there.get(process), then.get(process)
        if was is not None and will is not None:
            yield _both(process, name, was, will, keys)
        elif one := was or will:
            why = "the file that is there now cannot be used" if was_bad else _why_alone(process, name, will, keys)
            yield _alone(process, name, one, will is not None, keys, why)
    if not there and not then and keys:
        yield Change(name, name, "live", keys, "it has no copies")


def _why_alone(process: str, file: str, will: Definition | None, keys: tuple[str, ...]) -> str:
    if "instances" not in keys:
        return "removed" if will is None else "new"
    if process == file:
        return "copies take its place" if will is None else "takes the place of copies"
    return "one copy less" if will is None else "one copy more"


def _alone(process: str, file: str, one: Definition, comes: bool, keys: tuple[str, ...], why: str) -> Change:
    """A process that is in one of the two only."""
    if not one.config.enabled:
        return Change(process, file, "live", keys, f"{why}, disabled")
    return Change(process, file, "start" if comes else "stop", keys, why)


def _both(process: str, file: str, was: Definition, will: Definition, keys: tuple[str, ...]) -> Change:
    """A process that is in both. How many copies there are is nothing to the copy itself."""
    own = tuple(key for key in keys if key != "instances")
    if was.config.enabled != will.config.enabled:
        enabled = will.config.enabled
        return Change(process, file, "start" if enabled else "stop", own, "enabled" if enabled else "disabled")
    if not own:
        return Change(process, file, "unchanged")
    if not will.config.enabled:
        return Change(process, file, "live", own, "disabled")
    return Change(process, file, "live" if was.generation == will.generation else "restart", own)


def _differing(old: Definition | None, new: Definition | None) -> tuple[str, ...]:
    """The keys that two definitions of a process do not agree on; none where there is only one of them."""
    if old is None or new is None or old.digest == new.digest:
        return ()
    ours, theirs = (json.loads(one.text) for one in (old, new))
    found: list[str] = []
    for key in sorted(ours.keys() | theirs.keys()):
        if is_for_editors(key) or _is_equal(ours, theirs, key):
            continue
        inner = _unequal(ours.get(key, {}), theirs.get(key, {})) if key in _OBJECTS else []
        # One that is empty and one that is not there differ, but in no entry.
        found += [f"{key}.{one}" for one in inner] or [key]
    return tuple(found)


def _unequal(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    return [key for key in sorted(ours.keys() | theirs.keys()) if not _is_equal(ours, theirs, key)]


def _is_equal(ours: dict[str, Any], theirs: dict[str, Any], key: str) -> bool:
    """Whether both have the same, to the digest: 1, 1.0 and true are three values."""
    if (key in ours) != (key in theirs):
        return False
    one, other = (msgspec.json.encode(content.get(key), order="sorted") for content in (ours, theirs))
    return one == other
