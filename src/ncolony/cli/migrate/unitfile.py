"""One unit file of systemd in the making, and all that are imported together."""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING, Any

from . import units
from .report import NOT_MAPPED, NOTE, Draft, Key, Notes, Refused, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SUFFIXES = (".service", ".socket", ".timer")
# The unit that `ncolony export systemd` puts all others under.
TARGET = "colony.target"
OF_SYSTEMD = Key(NOTE, "of systemd's own bookkeeping")
NO_HOOK = Key(NOT_MAPPED, "no command is run beside the process")
NO_CONDITION = Key(NOT_MAPPED, "no conditions; `enabled` is true or false")


@dataclasses.dataclass
class Unit:
    """One unit in the making. `name`: that of its file. `draft`: what is written for it, None if nothing is."""

    name: str
    lines: list[units.Line]
    known: dict[str, str]
    notes: Notes
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    told: set[int] = dataclasses.field(default_factory=set)
    draft: Draft | None = None
    refused: bool = False

    @property
    def kind(self) -> str:
        """The section that is its own: "Service", "Socket" or "Timer"."""
        return os.path.splitext(self.name)[1][1:].capitalize()

    @property
    def service_type(self) -> str:
        """What systemd takes a service for."""
        return self.get(str, "Type") or ("dbus" if self.all("BusName") else "simple")

    @property
    def aliases(self) -> list[str]:
        """Its other names."""
        return [word for line in self.all("Alias", section="Install") for word in line.value.split()]

    def all(self, *keys: str, section: str = "") -> list[units.Line]:
        """The assignments of a key that hold: an empty one takes back those before it."""
        found: list[units.Line] = []
        for line in self.lines:
            if line.section == (section or self.kind) and line.key in keys:
                found = [*found, line] if line.value else []
        return found

    def get(self, convert: Callable[[str], Any], *keys: str, section: str = "") -> Any:
        """The last value of a key, converted; None when there is none. What is wrong names line, key and value."""
        lines = self.all(*keys, section=section)
        return self.use(lines[-1], convert) if lines else None

    def use(self, line: units.Line, convert: Callable[[str], Any]) -> Any:
        """The value of a line, specifiers resolved, converted."""
        try:
            return convert(units.resolve(line.value, self.known))
        except Refused as refused:
            raise Refused(refused.why, line.line, line.key, line.value, refused.result) from None

    def each(self, *keys: str, section: str = "") -> Iterable[tuple[units.Line, str]]:
        """Each word of all assignments of a key."""
        for line in self.all(*keys, section=section):
            for word in self.use(line, lambda _: units.split(line.value)):  # noqa: B023  (called at once)
                yield line, self.use(line, lambda _: units.resolve(word, self.known))  # noqa: B023

    def names(self, key: str, section: str = "") -> Iterable[tuple[units.Line, str]]:
        """Each name in all assignments of a key; a line of which nobody can say what it names is told of."""
        for line in self.all(key, section=section):
            try:
                found = [units.resolve(word, self.known) for word in units.split(line.value)]
            except Refused as refused:
                self.tell(NOT_MAPPED, line, refused.why)
                continue
            for name in found:
                yield line, name

    def tell(self, fate: str, line: units.Line, why: str, value: str = "") -> None:
        """Say the fate of a line, or of one value in it, that is not what the table says."""
        self.told.add(line.line)
        self.notes.by_rule(Key(fate, why), line.line, line.key, value or line.value)

    def refuse(self, refused: Refused) -> None:
        """Note why nothing comes of it, which is then all that is said of it."""
        self.notes.source.refuse(refused, self.notes.process)
        self.refused = True


def make(path: str, lines: list[units.Line], source: Source) -> Unit:
    """The unit of a file. What has not the name of a unit gets one by the section that it holds.

    :raises Refused: when it has none that is read.
    """
    base = os.path.basename(path)
    ending = os.path.splitext(base)[1]
    sections = {line.section for line in lines}
    if ending not in SUFFIXES:
        known = [one for one in SUFFIXES if one[1:].capitalize() in sections]
        if not known:
            raise Refused("there is no [Service] section")
        base += known[0]
    elif ending[1:].capitalize() not in sections:
        raise Refused(f"there is no [{ending[1:].capitalize()}] section")
    stem = os.path.splitext(base)[0]
    prefix, _, instance = stem.partition("@")
    name = units.unescaped(f"{prefix}-{instance}" if instance else prefix)
    if not name:
        raise Refused("the file has no name to call the process by: expected NAME.service")
    return Unit(base, lines, units.specifiers(path), Notes(source, name))


class Book:
    """The units that are imported together, by every name they have."""

    def __init__(self, found: list[Unit]) -> None:
        self.units = found
        self._by_name: dict[str, Unit] = {}
        for unit in found:
            self._by_name.setdefault(unit.name, unit)
        for unit in found:
            for alias in unit.aliases:
                self._by_name.setdefault(alias, unit)

    def find(self, name: str) -> Unit | None:
        """The unit of this name; a copy, such as web@2.service, is its template's if that has `instances`."""
        if not re.search(r"\.[a-z]+$", name):
            name += ".service"
        if name in self._by_name:
            return self._by_name[name]
        template = self._by_name.get(re.sub(r"@.*(?=\.[a-z]+$)", "@", name))
        return template if template is not None and "instances" in template.config else None

    def service_of(self, unit: Unit) -> Unit | None:
        """The service that a socket or timer starts."""
        try:
            named = unit.get(str, "Service" if unit.kind == "Socket" else "Unit")
        except Refused:  # a name that is known only on another machine is no name of a unit here
            return None
        return self.find(named or os.path.splitext(unit.name)[0] + ".service")
