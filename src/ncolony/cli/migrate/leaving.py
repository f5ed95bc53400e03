"""What the exporters share: processes to write down elsewhere, and the list of what cannot be said there."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from ncolony.model import config as config_model
from ncolony.model import names
from ncolony.model.config import ProcessConfig
from ncolony.model.names import printable
from ncolony.system import files

from .report import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

# What the supervisor's options of the same meaning are unless they are given.
KILL_TIME_S, MIN_DELAY_S = 5, 1


class Leftover(NamedTuple):
    """A key that the other side has no word for."""

    process: str
    key: str
    value: str
    why: str

    def __str__(self) -> str:
        return printable(f"{self.process}: {self.said}")

    @property
    def said(self) -> str:
        """The same without the process's name."""
        return f"{self.key} = {self.value}: {self.why}" if self.value else f"{self.key}: {self.why}"


class Output(NamedTuple):
    """A file to write."""

    name: str
    text: str


@dataclasses.dataclass
class Process:
    """One process to export: its config, and the keys as its file has them."""

    name: str
    config: ProcessConfig
    content: dict[str, Any]
    leftovers: list[Leftover] = dataclasses.field(default_factory=list)

    @property
    def stop_time(self) -> float:
        """Seconds from the first signal to SIGKILL; of a job, its own."""
        schedule = self.config.schedule
        return self.kill_time if schedule is None or schedule.grace is None else schedule.grace

    def leave(self, key: str, why: str, value: Any = None) -> None:
        """Note that a key of the file, such as "log.format", is not expressed, or not exactly.

        `value`: the part of its value that is meant, if not all of it.
        """
        if value is None:
            value = self.content
            for part in [key] if key in value else key.split("."):
                value = value.get(part, "") if isinstance(value, dict) else ""
        self.leftovers.append(
            Leftover(self.name, key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), why)
        )

    def comments(self) -> list[str]:
        """The leftovers as lines of a comment."""
        lines = [f"# not expressed exactly: {printable(one.said)}" for one in self.leftovers]
        return [f"# From the ncolony config file {printable(self.name)}.", *lines]

    def leave_others(self, handled: frozenset[str], why: dict[str, str]) -> None:
        """Note every key of the file that nobody has handled, with its reason or a general one."""
        for key in self.content:
            if key not in handled:
                self.leave(
                    key, why.get(key, "no counterpart" if key in config_model.KNOWN_KEYS else "not a key of ncolony")
                )

    @property
    def kill_time(self) -> float:
        """Seconds that all steps of a stop take together before SIGKILL."""
        if self.config.stop:
            return sum(seconds for _, seconds in self.config.stop)
        return KILL_TIME_S if self.config.kill_time is None else self.config.kill_time

    @property
    def stop_signal(self) -> int:
        """The number of the first signal of a stop."""
        first = self.config.stop[0][0] if self.config.stop else "TERM"
        number = config_model.signal_number(first)
        assert number is not None  # checked when the config was read
        return number

    @property
    def min_delay(self) -> float:
        """Seconds to wait after the first instant death."""
        return MIN_DELAY_S if self.config.min_restart_delay is None else self.config.min_restart_delay


def load(directory: str, chosen: list[str]) -> tuple[list[Process], list[str]]:
    """The processes of a config directory, all or those chosen, and what is wrong with others.

    :raises Refused: when the directory cannot be read.
    """
    try:
        found = sorted(name for name in os.listdir(directory) if not names.is_ignored(name))
    except OSError as error:
        raise Refused(f"cannot read {directory}: {error.strerror}") from None
    processes: list[Process] = []
    problems = [f"cannot export {printable(name)}: no such process" for name in chosen if name not in found]
    for name in found:
        path = os.path.join(directory, name)
        if (chosen and name not in chosen) or os.path.isdir(path):
            continue
        try:
            data = files.read_small(path)
        except (OSError, files.Unreadable) as error:
            problems.append(f"cannot export {printable(name)}: {getattr(error, 'strerror', None) or error}")
            continue
        defined = config_model.define(name, data)
        if isinstance(defined, config_model.Problem):
            problems.append(f"cannot export {printable(name)}: {printable(str(defined))}")
        elif (why := names.problem_with_name(name)) is not None:
            problems.append(f"cannot export {printable(name)}: {why}")
        else:
            processes.append(Process(name, defined.config, json.loads(data)))
    return processes, problems


def each(
    processes: list[Process], make: Callable[[Process], list[Output]], problems: list[str]
) -> list[tuple[Process, list[Output]]]:
    """What `make` makes of each process; one that it refuses is a problem, and the others go on."""
    done = []
    for process in processes:
        try:
            done.append((process, make(process)))
        except Refused as refused:
            problems.append(f"cannot export {printable(process.name)}: {refused.key}: {refused.why}")
    return done


def label(name: str, taken: set[str]) -> str:
    """A DNS label (RFC 1123) for a process, unlike those taken."""
    base = re.sub(r"[^a-z0-9]+", "-", name.lower(), flags=re.ASCII).strip("-")[:50].strip("-") or "process"
    found, number = base, 2
    while found in taken:
        found, number = f"{base}-{number}", number + 1
    taken.add(found)
    return found
