"""Whom the words of a command line mean: processes by name, by file, by group, by glob."""

from __future__ import annotations

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from ncolony.ctllib import Status


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
