"""Whom the words of a command line mean: processes by name, by file, by group, by glob."""

from __future__ import annotations

from ncolony import ctllib
from ncolony.model.names import problem_with_name

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from ncolony.ctllib import Path, Places, Status


def look(places: Places, patterns: list[str], state: Path | None) -> tuple[list[Status], list[str]]:
    """The processes that any of the patterns means, or all, and the patterns that mean none: see `chosen`."""
    named = [ctllib.copies(places, pattern, state=state) for pattern in patterns if _is_name(pattern)]
    if patterns and len(named) == len(patterns) and all(named):
        # All are plain names: the reports of thousands of others need not be read.
        names = sorted({name for some in named for name in some})
        found = [ctllib.status_of(places, name, state=state) for name in names]
        if all(found):
            return [one for one in found if one is not None], []
    return chosen(ctllib.status(places, state=state), patterns)


def _is_name(pattern: str) -> bool:
    return problem_with_name(pattern) is None


def chosen(records: list[Status], patterns: list[str]) -> tuple[list[Status], list[str]]:
    """The records that any of the patterns means, in their order, and the patterns that mean none.

    A pattern is a process's own name, the name that its copies share ("web" for web:0, web:1), a group, a glob, or
    "GROUP:*" as supervisorctl has it; the first of these that means anything counts. Without patterns, all are meant.
    """
    if not patterns:
        return records, []
    wanted: set[str] = set()
    missing = []
    for pattern in patterns:
        found = _named(records, pattern) or _grouped(records, pattern) or _matching(records, pattern)
        if not found:
            missing.append(pattern)
        wanted |= found
    return [one for one in records if one.name in wanted], missing


def _named(records: list[Status], pattern: str) -> set[str]:
    return {one.name for one in records if pattern in (one.name, one.file)}


def _grouped(records: list[Status], pattern: str) -> set[str]:
    return {one.name for one in records if pattern in one.group}


def _matching(records: list[Status], pattern: str) -> set[str]:
    from fnmatch import fnmatchcase  # imports re

    found = {one.name for one in records if fnmatchcase(one.name, pattern)}
    return found | _grouped(records, pattern[:-2]) if pattern.endswith(":*") else found
