"""The order of services that are imported together: After= and its kin become `after`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .report import MAPPED, NOT_MAPPED, NOTE, Key
from .unitfile import TARGET, Book, Unit

if TYPE_CHECKING:
    from . import units

KEYS: dict[str, Key] = {
    "After": Key(
        MAPPED,
        "`after`, where both are imported at the same time: `completed` for a oneshot, `ready` for notify, else"
        " `started`",
    ),
    "Before": Key(MAPPED, "`after` of the other one"),
    "Requires": Key(NOTE, "`after`, if After= names it too; `bind` would carry a stop over"),
    "Requisite": Key(NOTE, "`after`, if After= names it too; it waits, where there it would fail"),
    "Wants": Key(NOTE, "every enabled process is started with the supervisor"),
    "BindsTo": Key(NOTE, "`after` with `bind`, if After= names it too; it is started again with the other"),
    "PartOf": Key(NOTE, "`after` with `bind`, if After= names it too; it stops when the other ends by itself, too"),
    "BindTo": Key(NOTE, "BindsTo in its older spelling"),
    "RequiresOverridable": Key(NOTE, "Requires in an older spelling"),
    "RequisiteOverridable": Key(NOTE, "Requisite in an older spelling"),
    "Upholds": Key(NOTE, "every enabled process is kept up"),
    "RequiresMountsFor": Key(NOTE, "of the boot: order the supervisor's own unit after it"),
    "WantsMountsFor": Key(NOTE, "of the boot: order the supervisor's own unit after it"),
    "Conflicts": Key(NOT_MAPPED, "nothing is stopped because something else starts"),
    "JoinsNamespaceOf": Key(NOT_MAPPED, "no namespaces"),
}
_STRONG = ("Requires", "RequiresOverridable", "Requisite", "RequisiteOverridable", "BindsTo", "BindTo")
_BINDING = ("BindsTo", "BindTo", "PartOf")
_OF_SERVICES = (".service", ".socket", ".timer", ".path")
_BOOT = "of the boot: order the supervisor's own unit after it"
# A line, a name in it, and the unit that holds it.
_Said = tuple["units.Line", str, Unit]


def pass_on(book: Book) -> None:
    """Make `after` of what the units say of each other."""
    waits = _orders(book)
    for unit in book.units:
        if unit.refused:
            continue
        if unit.draft is None:  # a socket or timer
            for key in KEYS:
                for line, word in unit.names(key, section="Unit") if key not in ("After", "Before") else ():
                    fate = MAPPED if word == TARGET else NOTE
                    unit.tell(fate, line, "what its service says of others is what counts", word)
            continue
        wanted = {other: said for (waiter, other), said in waits.items() if waiter == unit.name}
        for other, said in wanted.items():
            _wait(unit, book.find(other), said, book)
        for key in KEYS:
            if key in ("After", "Before"):
                continue
            for line, word in unit.names(key, section="Unit"):
                _depend(unit, line, word, book, set(wanted))


def _orders(book: Book) -> dict[tuple[str, str], _Said]:
    """Who waits for whom, by the names of units, and where that is said; all else about order is told at once."""
    found: dict[tuple[str, str], _Said] = {}
    for unit in book.units:
        for key in () if unit.refused else ("After", "Before"):
            for line, word in unit.names(key, section="Unit"):
                if unit.kind != "Service":
                    unit.tell(NOTE, line, "what its service says of others is what counts", word)
                    continue
                if unit.draft is None:
                    continue
                other = _service(book, word)
                if other is None:
                    _missing(unit, line, word, strict=False)
                elif other is unit:
                    unit.tell(MAPPED, line, "", word)
                elif other.draft is None:
                    unit.tell(NOT_MAPPED, line, f"{other.name} is not imported", word)
                else:
                    pair = (unit.name, other.name) if key == "After" else (other.name, unit.name)
                    if pair in found:
                        unit.tell(MAPPED, line, "", word)
                    found.setdefault(pair, (line, word, unit))
    return found


def _service(book: Book, name: str) -> Unit | None:
    """The service of this name, or of the socket or timer of this name."""
    unit = book.find(name)
    return book.service_of(unit) if unit is not None and unit.kind != "Service" else unit


def _missing(unit: Unit, line: units.Line, word: str, strict: bool) -> None:
    if word == TARGET:
        unit.tell(MAPPED, line, "", word)
    elif word.endswith(_OF_SERVICES):
        unit.tell(NOT_MAPPED, line, "it is not among what is imported: nothing waits for it", word)
    else:
        unit.tell(NOTE, line, _BOOT if strict or line.key != "Before" else "nothing of the boot waits for it", word)


def _wait(waiter: Unit, other: Unit | None, said: _Said, book: Book) -> None:
    """Let one wait for the other, if that can be."""
    line, word, speaker = said
    if other is None or other.draft is None or waiter.draft is None:
        return
    if "schedule" in other.config:
        speaker.tell(NOT_MAPPED, line, f"{other.draft.name} is a job, and runs at its own times", word)
        return
    if other.config.get("enabled") is False:
        speaker.tell(NOT_MAPPED, line, f"{other.draft.name} is not enabled", word)
        return
    if _leads(other.draft.name, waiter.draft.name, book):
        why = f"{other.draft.name} waits for {waiter.draft.name} already, and a circle is nobody's order"
        speaker.tell(NOT_MAPPED, line, why, word)
        return
    kinds = _kinds(waiter, other, book)
    when, why = _condition(other)
    bind = bool(kinds & set(_BINDING)) and not _ends(other)
    waiter.config.setdefault("after", {})[other.draft.name] = {"when": when, "bind": True} if bind else when
    if not kinds & set(_STRONG):
        why = why or "it waits as long as it takes, where there it would go on if the other cannot start"
    speaker.tell(NOTE if why else MAPPED, line, why, word)


def _condition(other: Unit) -> tuple[str, str]:
    """How far another service must be, and what is not quite so."""
    if other.service_type == "oneshot":
        return "completed", ""
    if "ready" in other.config:
        return "ready", ""
    if other.service_type == "dbus":
        return "started", "it waits until the other runs, not for its name on the bus"
    if other.all("ExecStartPre"):
        return "started", "the other counts as started with the first of its ExecStartPre"
    return "started", ""


def _ends(other: Unit) -> bool:
    """Whether a service is gone when its work is done, which must not take others with it."""
    return other.service_type == "oneshot" and not any(
        line.value.lower() in ("yes", "true", "on", "1") for line in other.all("RemainAfterExit")[-1:]
    )


def _kinds(waiter: Unit, other: Unit, book: Book) -> set[str]:
    """By which keys one depends on the other."""
    return {
        line.key
        for key in (*_STRONG, *_BINDING)
        for line, word in waiter.names(key, section="Unit")
        if _service(book, word) is other
    }


def _leads(first: str, last: str, book: Book) -> bool:
    """Whether `first` waits for `last`, itself or by others."""
    after = {unit.draft.name: unit.config.get("after", {}) for unit in book.units if unit.draft is not None}
    seen, left = set(), [first]
    while left:
        name = left.pop()
        if name == last:
            return True
        if name not in seen:
            seen.add(name)
            left.extend(after.get(name, ()))
    return False


def _depend(unit: Unit, line: units.Line, word: str, book: Book, ordered: set[str]) -> None:
    """Say what becomes of one name in a line that is about dependence."""
    if line.key in ("RequiresMountsFor", "WantsMountsFor", "Upholds", "Conflicts", "JoinsNamespaceOf"):
        is_shutdown = line.key == "Conflicts" and word.endswith(".target")
        rule = Key(NOTE, "of the boot: every process is stopped with the supervisor") if is_shutdown else KEYS[line.key]
        unit.tell(rule.fate, line, rule.text, word)
        return
    other = _service(book, word)
    if other is None:
        _missing(unit, line, word, strict=True)
        return
    if other is unit:
        unit.tell(MAPPED, line, "", word)
        return
    if other.draft is None:
        unit.tell(NOT_MAPPED, line, f"{other.name} is not imported", word)
        return
    entry = unit.config.get("after", {}).get(other.draft.name)
    if line.key == "Wants":
        unit.tell(MAPPED if entry else NOTE, line, KEYS["Wants"].text, word)
    elif entry is None and other.name not in ordered:
        why = f"without After={word} it orders nothing; `after`, perhaps with `bind`, is what comes near"
        unit.tell(NOT_MAPPED if line.key in _BINDING else NOTE, line, why, word)
    elif entry is None:
        unit.tell(NOT_MAPPED, line, "nothing waits for it", word)
    elif line.key in _BINDING and isinstance(entry, str):
        unit.tell(NOT_MAPPED, line, "the other ends when its work is done, so nothing is bound to it", word)
    else:
        unit.tell(NOTE, line, _THEN[line.key], word)


_THEN = {
    "Requires": "it waits for it; `bind` would stop it with the other",
    "RequiresOverridable": "it waits for it; `bind` would stop it with the other",
    "Requisite": "it waits for it, where there it would fail",
    "RequisiteOverridable": "it waits for it, where there it would fail",
    "BindsTo": "`bind`: stopped with it, and started again with it",
    "BindTo": "`bind`: stopped with it, and started again with it",
    "PartOf": "`bind`: stopped with it, also when it ends by itself",
}
