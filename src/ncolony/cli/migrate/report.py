"""What became of every key of a source: mapped, mapped with a note, not mapped, or an error."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from ncolony.model.names import printable

if TYPE_CHECKING:
    from .unitfile import Unit

MAPPED, NOTE, NOT_MAPPED, ERROR = "mapped", "note", "not mapped", "error"
# What a value of these keys is, nobody should find in a report.
_SECRET_KEYS = frozenset({"password"})
_TOO_LONG_TO_SHOW = 60


class Key(NamedTuple):
    """A row of the migration guide: what becomes of a key as a rule, and into what or why not."""

    fate: str
    text: str


class Refused(Exception):
    """What is asked for cannot be expressed: `key` and `line` at fault, the text says why."""

    def __init__(self, why: str, line: int = 0, key: str = "", value: str = "", result: str = ERROR) -> None:
        super().__init__(why)
        self.why, self.line, self.key, self.value, self.result = why, line, key, value, result


@dataclasses.dataclass(frozen=True)
class Finding:
    """One key of a source and its fate. `line` 0: the file as a whole. `process`: whom it concerns, if anybody."""

    file: str
    line: int
    process: str
    key: str
    value: str
    result: str
    why: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        value = self.value if len(self.value) <= _TOO_LONG_TO_SHOW else self.value[:_TOO_LONG_TO_SHOW] + "…"
        said = f"{self.key} = {value}" if value else self.key
        parts = [place, self.process and f"{self.process}:", said and f"{said}:", f"{self.result}: {self.why}"]
        return printable(" ".join(part for part in parts if part))


@dataclasses.dataclass
class Draft:
    """One config file to be written."""

    name: str
    config: dict[str, Any]
    line: int = 0


@dataclasses.dataclass
class Source:
    """One file that is imported: what was found in it and what is to be written for it.

    `units` are those of systemd, which are finished when all files were read.
    """

    path: str
    kind: str
    findings: list[Finding] = dataclasses.field(default_factory=list)
    drafts: list[Draft] = dataclasses.field(default_factory=list)
    units: list[Unit] = dataclasses.field(default_factory=list)
    _known: set[Finding] = dataclasses.field(default_factory=set)

    def add(  # one argument per column of the report
        self, result: str, why: str, line: int = 0, key: str = "", value: str = "", process: str = "", file: str = ""
    ) -> None:
        """Note one fate. The same one for the same line is noted once, however many processes come of it."""
        shown = "…" if key.rpartition(".")[2] in _SECRET_KEYS and value else value
        found = Finding(file or self.path, line, process, key, shown, result, why)
        if found not in self._known:
            self._known.add(found)
            self.findings.append(found)

    def refuse(self, refused: Refused, process: str = "", file: str = "") -> None:
        """Note why something is not written."""
        self.add(refused.result, refused.why, refused.line, refused.key, refused.value, process, file)

    def count(self, result: str) -> int:
        """How many keys had this fate."""
        return sum(1 for found in self.findings if found.result == result)

    def summary(self) -> str:
        """One line: how much was mapped, noted, not mapped."""
        notes, errors = self.count(NOTE), self.count(ERROR)
        parts = [
            f"{self.count(MAPPED)} mapped",
            f"{notes} note{'' if notes == 1 else 's'}",
            f"{self.count(NOT_MAPPED)} not mapped",
        ]
        if errors:
            parts.append(f"{errors} error{'' if errors == 1 else 's'}")
        return printable(f"{self.path} ({self.kind or 'unknown'}): {', '.join(parts)}")


class Notes:
    """The findings of one section or entry: `source.add` with file, line and process filled in."""

    def __init__(self, source: Source, process: str = "", file: str = "") -> None:
        self.source, self.process, self.file = source, process, file

    def mapped(self, line: int, key: str, value: str, why: str = "") -> None:
        """The key means the same here."""
        self.source.add(MAPPED, why, line, key, value, self.process, self.file)

    def note(self, line: int, key: str, value: str, why: str) -> None:
        """The key is mapped, or needs no counterpart, with a difference."""
        self.source.add(NOTE, why, line, key, value, self.process, self.file)

    def lost(self, line: int, key: str, value: str, why: str) -> None:
        """The key has no counterpart."""
        self.source.add(NOT_MAPPED, why, line, key, value, self.process, self.file)

    def by_rule(self, rule: Key, line: int, key: str, value: str) -> None:
        """What the table says of this key."""
        self.source.add(rule.fate, "" if rule.fate == MAPPED else rule.text, line, key, value, self.process, self.file)
