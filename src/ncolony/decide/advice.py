"""A process's record + how its instances ended -> is it as wanted, who wants it so, and what its owner can do.

Records are the JSON objects that people read (status/NAME and the lines of history/NAME). Times are wall-clock seconds,
as in them: all of this is for people.
"""

from __future__ import annotations

import shlex

TYPE_CHECKING = False  # see ncolony.ctllib: the command line starts quickly
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Record = Mapping[str, Any]

# As many unexpected ends within an hour as this are worth a word although it runs.
OFTEN = 3
HOUR_S = 3600.0
# From this share of memory_max on it is close.
_CLOSE = 0.9
_CRASHES = ("SEGV", "BUS", "ILL", "ABRT", "FPE", "SYS", "TRAP")

# What a refusal to start says -> what to do. {path} is its config file.
_REFUSALS = (
    ("not found on PATH", "give the program's full path in args, or a PATH in env, in {path}"),
    ("Permission denied", "let its user execute the program (chmod +x) and enter the directories above it"),
    ("Exec format error", "the program is none for this machine, or a script whose first line names no interpreter"),
    ("cannot enter directory", "create the directory, or correct cwd in {path}"),
    ("No such file or directory", "correct the program in args in {path}; of a script, the interpreter may be missing"),
    ("there is no such user", "create the user, or correct uid in {path}"),
    ("there is no such group", "create the group, or correct gid in {path}"),
    ("does not run as root", "run the supervisor as root, or remove uid and gid from {path}"),
)
# What its last lines say -> what to do, beside the rest.
_LINES = (
    ("address already in use", "another program has its port: ss -ltnp tells which"),
    ("no space left on device", "a disk is full: df -h tells which"),
    ("no module named", "its Python lacks a module: give the full path of the right python in args in {path}"),
)
_CODES = {
    126: "126 is what a shell says when a program may not be executed: make it executable (chmod +x)",
    127: "127 is what a shell says when a program is not on its PATH: give the full path, or set PATH with env or"
    " env_inherit in {path}",
}


class Case:
    """One process, and what is known about it when advice is asked for.

    `status` is its record, `past` its history, the newest last, `definition` what its file says. `ctl` is how the
    command line is called here, `path` its config file, `start` the command that starts the supervisor.
    """

    def __init__(
        self,
        status: Record,
        past: Sequence[Record],
        definition: Record,
        *,
        now: float,
        supervised: bool,
        ctl: str,
        path: str,
        start: str,
    ) -> None:
        self.status, self.past, self.definition = status, past, definition
        self.now, self.supervised = now, supervised
        self.ctl, self.path, self.start = ctl, path, start
        self.name = shlex.quote(status["name"])
        self.last: Record = past[-1] if past else status.get("last_exit") or {}

    def succeeded(self) -> bool:
        """Whether its last instance ended well."""
        codes = self.definition.get("success_codes", [0])
        return isinstance(codes, list) and self.last.get("code") in codes

    def is_ready(self) -> bool:
        """Whether it runs and counts as ready."""
        ready_at = self.status.get("ready_at")
        return self.status["state"] == "RUNNING" and (ready_at is None or self.now >= ready_at)

    def ended_lately(self) -> list[Record]:
        """The ends within the last hour."""
        return [one for one in self.past if one["at"] > self.now - HOUR_S]


def is_as_wanted(case: Case) -> bool:
    """Whether nothing is left to be done: it runs and is ready, or it rests because that is wanted."""
    status = case.status
    if not case.supervised or status.get("problem") or status.get("rolled_back"):
        return False
    if status["wanted"] == "up":
        return case.is_ready() or (status["state"] == "EXITED" and case.succeeded())
    return bool(status["state"] == "STOPPED")


def wanted_by(status: Record) -> str:
    """Who or what wants it as it is wanted."""
    if status["wanted"] == "up":
        return "its file"
    if status["wanted"] == "gone":
        return "its file was removed"
    if not status.get("enabled", True):
        return "it is disabled in its file"
    return str(status.get("reason") or "stopped on request")


def advise(case: Case) -> list[str]:
    """What can be done about the process, the most urgent first; nothing where nothing needs doing."""
    said = [] if case.supervised else [f"start the supervisor: {case.start}"]
    status = case.status
    if status.get("problem") and status["state"] != "UNKNOWN":
        said.append(f"correct {case.path}: it is applied by itself then")
    if status.get("rolled_back"):
        said.append(f"correct {case.path}, whose newest version was taken back: the next one is tried by itself")
    if status["state"] == "FATAL" and status.get("problem") and status["problem"] == status.get("reason"):
        return said  # it never came to be a process
    return [*said, *(_BY_STATE.get(status["state"], _unknown)(case))]


def _cause(case: Case) -> list[str]:
    """What to do about the way its last instance ended."""
    last = case.last
    text, code, signal = str(last.get("text") or ""), last.get("code"), last.get("signal")
    if code is None and signal is None:
        said = [advice for words, advice in _REFUSALS if words in text][:1]
        if text.startswith("cannot "):
            return [one.replace("{path}", case.path) for one in said] or [f"see to it that it can start: {case.path}"]
    elif code is not None:
        said = [_CODES[code]] if code in _CODES else []
        if case.succeeded():
            said = ['it ends by itself: keep it in the foreground, or set "restart": "on-failure" in {path}']
    else:
        said = list(_signalled(case, str(signal)))
    printed = "\n".join(map(str, last.get("lines") or [])).lower()
    said += [advice for words, advice in _LINES if words in printed]
    if str(case.status.get("reason") or "").startswith("not ready within"):
        said.insert(0, "see why it does not show that it is ready, or give it more time: ready.timeout in {path}")
    return [*(one.replace("{path}", case.path) for one in said), f"see what it printed: {case.ctl} logs {case.name}"]


def _signalled(case: Case, signal: str) -> Iterable[str]:
    last = case.last
    if "memory_max" in str(last.get("reason") or ""):
        yield "raise memory_max in {path}, or make it use less memory"
    elif last.get("oom"):
        yield "memory ran out: give the machine, container or control group more, or make it use less"
    elif signal == "KILL":
        yield "something else killed it: the kernel's log may know (journalctl -k, dmesg)"
    elif signal in _CRASHES and last.get("core"):
        yield "it crashed and left a core dump: coredumpctl, or its working directory, has it"
    elif signal in _CRASHES:
        yield 'it crashed: "limits": {"core": "unlimited"} in {path} makes it leave a core dump'
    elif signal in ("XCPU", "XFSZ"):
        yield "it reached a limit: raise limits in {path}"
    elif signal in ("TERM", "INT", "HUP", "QUIT"):
        yield f"somebody sent it SIG{signal}: to stop it for good, {case.ctl} stop {case.name}"


def _running(case: Case) -> list[str]:
    said = []
    if not case.is_ready():
        said.append(f"wait until it counts as ready: {case.ctl} wait {case.name} --for ready")
    unexpected = [one for one in case.ended_lately() if not one.get("reason")]
    if len(unexpected) >= OFTEN:
        said.append(f"see how it ended {len(unexpected)} times within an hour: {case.ctl} history {case.name} --lines")
        said += _cause(case)
    memory, most = case.status.get("memory"), case.status.get("memory_max")
    if memory and most and memory >= _CLOSE * most:
        said.append(f"it is close to its memory_max and will be restarted above it: raise it in {case.path}")
    return said


def _starting(case: Case) -> list[str]:
    return [f"wait until it runs: {case.ctl} wait {case.name}"] if case.supervised else []


def _stopping(case: Case) -> list[str]:
    if not case.supervised:
        return []
    said = [f"end at once what it waits for: {case.ctl} signal {case.name} KILL --scope tree"]
    return said if case.status.get("holding") else [f"wait: {case.ctl} wait {case.name} --for stopped"]


def _stopped(case: Case) -> list[str]:
    status = case.status
    if not status.get("enabled", True):
        return [f"have it run: {case.ctl} enable {case.name}"]
    if case.definition.get("instances") == 0:
        return [f"have it run: set instances to 1 or more in {case.path}"]
    if status["wanted"] == "down":
        return [f"have it run: {case.ctl} start {case.name}"]
    return [f"have the supervisor look at its files: {case.ctl} scan --wait"] if case.supervised else []


def _exited(case: Case) -> list[str]:
    again = f"run it again: {case.ctl} start {case.name}"
    if case.succeeded():
        return [again, f'to have it run all the time, set "restart": "always" in {case.path}']
    return [*_cause(case), again]


def _backoff(case: Case) -> list[str]:
    return [*_cause(case), f"do not wait for the next try: {case.ctl} restart {case.name}"]


def _fatal(case: Case) -> list[str]:
    if case.status.get("next_try") is not None:
        return _backoff(case)
    return [*_cause(case), f"then start it again: {case.ctl} restart {case.name}"]


def _waiting(case: Case) -> list[str]:
    return [f"it starts by itself once that is so; not to wait for it: {case.ctl} start {case.name}"]


def _unknown(case: Case) -> list[str]:
    return [f"have its record written anew: {case.ctl} restart {case.name}"]


_BY_STATE: dict[str, Callable[[Case], list[str]]] = {
    "RUNNING": _running,
    "STARTING": _starting,
    "STOPPING": _stopping,
    "STOPPED": _stopped,
    "EXITED": _exited,
    "BACKOFF": _backoff,
    "FATAL": _fatal,
    "WAITING": _waiting,
}
