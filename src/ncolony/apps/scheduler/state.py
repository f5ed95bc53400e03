"""The file in which a scheduler writes down where it is, to carry on there."""

from __future__ import annotations

import msgspec

from ncolony.decide.schedule import Memory, Rules
from ncolony.system.files import read_small, write_whole


class Saved(msgspec.Struct, frozen=True):
    """What the file holds: the times it is about, and what `remember` told."""

    times: str
    memory: Memory


class StateFile:
    """Written whole and renamed, so that whoever reads it finds the old or the new."""

    def __init__(self, path: str, rules: Rules) -> None:
        self._path = path
        cron = rules.cron
        self._times = f"every {rules.every:g} s" if cron is None else f"{cron.expression} {cron.zone or ''}".strip()

    def load(self) -> Memory | None:
        """Return what was saved, None if nothing was. Raises OSError or ValueError where it cannot be read.

        Other times than those that it is about have no past: what was missed of them is not known.
        """
        try:
            saved = msgspec.json.decode(read_small(self._path), type=Saved)
        except FileNotFoundError:
            return None
        if saved.times != self._times:
            return msgspec.structs.replace(saved.memory, last=None)
        return saved.memory

    def save(self, memory: Memory) -> None:
        """Save. Raises OSError where that is not possible."""
        write_whole(self._path, msgspec.json.encode(Saved(self._times, memory)) + b"\n", 0o600)
