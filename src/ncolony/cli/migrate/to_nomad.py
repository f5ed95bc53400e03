"""Config files as Nomad jobs in HCL, one file each: unlike the JSON of its API, HCL has room for comments."""

from __future__ import annotations

import json
import math
import re
import signal
from typing import Any

from .leaving import Output, Process, each, label
from .report import Refused

_HANDLED = frozenset(
    "args env env_inherit uid cwd enabled restart success_codes kill_time stop instances memory_max give_up log"
    " min_restart_delay oom_score_adj env_file env_secret".split()
)
_WHY = {
    "gid": "the group is the user's own",
    "group": "no groups of jobs; a namespace is the nearest",
    "umask": "the client's",
    "nice": "use nice in args",
    "limits": "the client's; use prlimit in args",
    "threshold": "delay is waited after every end",
    "max_restart_delay": "the delay does not grow",
    "jitter": "Nomad adds up to a quarter by itself",
    "stop_scope": "the driver ends everything that the task started",
    "on_exit": "no counterpart",
    "on_give_up": "no counterpart",
    "rollback_if_not_ready": "an update block with auto_revert does that",
}
# Nomad refuses a shorter interval than 5 s, and one in which the attempts with their delays have no room.
_SHORTEST_S = 5
_ATTEMPTS = 10
_MIB = 1 << 20


class Block:
    """A block of HCL: its words, its attributes and the blocks in it, in order."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.content: list[tuple[str, Any] | Block] = []

    def set(self, key: str, value: Any) -> None:
        """Add an attribute."""
        self.content.append((key, value))

    def block(self, *words: str) -> Block:
        """Add a block in this one."""
        inner = Block(*words)
        self.content.append(inner)
        return inner

    def lines(self, indent: str = "") -> list[str]:
        """The text of it."""
        kind, *names = self.words
        found = [f"{indent}{' '.join([kind, *map(text, names)])} {{"]
        for one in self.content:
            if isinstance(one, Block):
                found += one.lines(indent + "  ")
            else:
                found.append(f"{indent}  {one[0]} = {_value(one[1], indent + '  ')}")
        return [*found, f"{indent}}}"]


class Verbatim(str):
    """Text in which ${…} is meant as Nomad's."""

    __slots__ = ()


def export(processes: list[Process], problems: list[str], driver: str) -> list[Output]:
    """The jobs of these processes."""
    taken: set[str] = set()
    made = each(processes, lambda process: _job(process, driver, label(process.name, taken)), problems)
    return [output for _, outputs in made for output in outputs]


def _job(process: Process, driver: str, name: str) -> list[Output]:
    config = process.config
    job = Block("job", name)
    job.set("type", "service" if config.restart == "always" else "batch")
    group = job.block("group", name)
    count = 1 if config.instances is None else config.instances
    group.set("count", count if config.enabled else 0)
    if not config.enabled:
        process.leave("enabled", "count is 0")
    _restart(process, group)
    task = group.block("task", name)
    task.set("driver", driver)
    if config.uid is not None:
        task.set("user", str(config.uid))
    _stop(process, task)
    _program(process, task, driver)
    _environment(process, task)
    _resources(process, task)
    process.leave_others(_HANDLED, _WHY)
    head = [*process.comments(), f"# Run it with: nomad job run {name}.nomad.hcl"]
    return [Output(f"{name}.nomad.hcl", "\n".join([*head, *job.lines()]) + "\n")]


def _restart(process: Process, group: Block) -> None:
    config = process.config
    restart = group.block("restart")
    if config.restart == "never":
        restart.set("attempts", 0)
        restart.set("mode", "fail")
        reschedule = group.block("reschedule")
        reschedule.set("attempts", 0)
        reschedule.set("unlimited", False)
        return
    delay = math.ceil(process.min_delay)
    if config.restart == "on-failure" and config.success_codes != (0,):
        process.leave("success_codes", "0 alone is a success")
    attempts = _ATTEMPTS if config.give_up is None else config.give_up.failures - 1
    within = 60 if config.give_up is None else math.ceil(config.give_up.within)
    interval = max(_SHORTEST_S, within, attempts * delay + 1)
    if config.give_up is not None:
        if interval != config.give_up.within:
            process.leave("give_up", f"counted within {interval} s, so that the delays have room")
        if config.give_up.retry_after is not None:
            process.leave("give_up.retry_after", "a reschedule block does that, perhaps elsewhere")
    if delay != process.min_delay:
        process.leave("min_restart_delay", "rounded up to whole seconds")
    restart.set("attempts", attempts)
    restart.set("interval", f"{interval}s")
    restart.set("delay", f"{delay}s")
    restart.set("mode", "delay" if config.give_up is None else "fail")


def _stop(process: Process, task: Block) -> None:
    if len(process.config.stop or ()) > 1:
        process.leave("stop", "one signal, then all the time there is, then SIGKILL")
    number = process.stop_signal
    try:
        task.set("kill_signal", signal.Signals(number).name)
    except ValueError:
        raise Refused(f"Nomad has no name for signal {number}", key="stop") from None
    task.set("kill_timeout", f"{math.ceil(process.kill_time * 1000)}ms")


def _program(process: Process, task: Block, driver: str) -> None:
    config = process.config
    body = task.block("config")
    program, *rest = config.args
    if not program.startswith("/"):
        process.leave("args", "write out the program's absolute path: Nomad does not look where ncolony looked")
    if any(re.search(r"\$\{[A-Za-z0-9_.-]+\}", word) for word in config.args):
        process.leave("args", "Nomad replaces ${NAME} where it knows the name")
    body.set("command", program)
    if rest:
        body.set("args", rest)
    if config.cwd is not None:
        body.set("work_dir", config.cwd)
        process.leave("cwd", "work_dir needs Nomad 1.9.2 or newer")
    if config.oom_score_adj is not None:
        if driver == "raw_exec" and config.oom_score_adj >= 0:
            body.set("oom_score_adj", config.oom_score_adj)
        else:
            process.leave("oom_score_adj", "raw_exec alone takes it, of 0 or more")


def _environment(process: Process, task: Block) -> None:
    config = process.config
    env = dict(config.env)
    if config.instances is not None:
        env["NCOLONY_INDEX"] = Verbatim("${NOMAD_ALLOC_INDEX}")
    if env:
        task.set("env", env)
    if config.env_inherit:
        process.leave("env_inherit", "tasks get the client's environment, but for what env.denylist keeps back")
    if config.env_files:
        process.leave("env_file", "a template block with env = true does that")
    for name in config.env_secret:
        process.leave(f"env_secret.{name}", "put it into a Nomad variable and a template block with env = true")


def _resources(process: Process, task: Block) -> None:
    config = process.config
    if config.most_memory is not None:
        task.block("resources").set("memory", math.ceil(config.most_memory / _MIB))
        process.leave("memory_max", "memory is what is set aside, too; raw_exec does not enforce it")
    log = config.log
    if log.most_bytes is not None or log.keep is not None:
        logs = task.block("logs")
        logs.set("max_files", 1 + (3 if log.keep is None else log.keep))
        if log.most_bytes is not None:
            logs.set("max_file_size", math.ceil(log.most_bytes / _MIB))
    for key in process.content.get("log", {}):
        if key not in ("max_bytes", "keep"):
            process.leave(f"log.{key}", "output is in files of Nomad's: nomad alloc logs")


# --- HCL ---


def text(value: str) -> str:
    """A quoted text of HCL, in which ${ and %{ are no templates."""
    quoted = json.dumps(value, ensure_ascii=False)
    # HCL knows \n, \r, \t, \", \\ and \u; JSON's \b and \f it does not.
    quoted = re.sub(r"\\(\\|b|f)", lambda found: {"\\": "\\\\", "b": "\\u0008", "f": "\\u000c"}[found[1]], quoted)
    if not isinstance(value, Verbatim):
        quoted = re.sub(r"([$%])(?=\{)", r"\1\1", quoted)
    return quoted


def _value(value: Any, indent: str) -> str:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(one, indent) for one in value) + "]"
    if isinstance(value, dict):  # a map, whose keys may be any text, not a block
        lines = [f"{indent}  {text(key)} = {_value(one, indent)}" for key, one in value.items()]
        return "\n".join(["{", *lines, f"{indent}}}"])
    return json.dumps(value)
