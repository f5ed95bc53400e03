"""Config files as Nomad jobs in HCL, one file each: unlike the JSON of its API, HCL has room for comments."""

from __future__ import annotations

import math
import re
import signal

from . import probes
from .hcl import Block, Verbatim
from .leaving import Output, Process, each, label
from .report import Refused

_HANDLED = frozenset(
    "args env env_inherit uid cwd enabled restart success_codes kill_time stop instances memory_max give_up log"
    " min_restart_delay oom_score_adj env_file env_secret ready check schedule".split()
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
    "after": "no order between jobs; in one group, a lifecycle block lets a task run before the others",
    "watchdog": "nothing is told, Nomad asks: see check",
    "sockets": "nothing is passed: a network block names the ports, and the program opens them",
    "rollback_if_not_ready": "an update block with auto_revert does that",
}
# Nomad refuses a shorter interval than 5 s, and one in which the attempts with their delays have no room.
_SHORTEST_S = 5
_ATTEMPTS = 10
_MIB = 1 << 20


def export(processes: list[Process], problems: list[str], driver: str) -> list[Output]:
    """The jobs of these processes."""
    taken: set[str] = set()
    made = each(processes, lambda process: _job(process, driver, label(process.name, taken)), problems)
    return [output for _, outputs in made for output in outputs]


def _job(process: Process, driver: str, name: str) -> list[Output]:
    config = process.config
    job = Block("job", name)
    is_service = config.restart == "always" and config.schedule is None
    job.set("type", "service" if is_service else "batch")
    if config.schedule is not None:
        _periodic(process, job)
    group = job.block("group", name)
    count = 1 if config.instances is None else config.instances
    group.set("count", count if config.enabled or config.schedule is not None else 0)
    if not config.enabled and config.schedule is None:
        process.leave("enabled", "count is 0")
    _restart(process, group)
    probes.of_nomad(process, group, name)
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


def _periodic(process: Process, job: Block) -> None:
    schedule = process.config.schedule
    assert schedule is not None
    periodic = job.block("periodic")
    cron = probes.cron_of(process)
    # With seconds there must be years as well: with six fields it would take the last for one.
    periodic.set("cron", f"{cron} *" if len(cron.split()) == 6 else cron)
    if schedule.timezone is not None:
        periodic.set("time_zone", schedule.timezone)
    elif schedule.cron is not None:
        process.leave("schedule.timezone", "UTC counts, unless time_zone says otherwise")
    periodic.set("prohibit_overlap", True)
    if not process.config.enabled:
        periodic.set("enabled", False)
    if schedule.overlap != "skip":
        process.leave("schedule.overlap", "a run that is due while the last one goes on is left out")
    if schedule.timeout is not None:
        process.leave("schedule.timeout", "no such limit: use timeout(1) in args")
    if not schedule.catch_up:
        process.leave("schedule.catch_up", "one run makes up for those that were missed without servers")
    for key in ("jitter", "late_after"):
        if key in process.content.get("schedule", {}):
            process.leave(f"schedule.{key}", "no counterpart")


def _restart_of_job(process: Process, restart: Block) -> None:
    schedule = process.config.schedule
    assert schedule is not None
    delay = math.ceil(schedule.retry_delay)
    restart.set("attempts", schedule.retries)
    if schedule.retries:
        restart.set("interval", "24h")
        restart.set("delay", f"{delay}s")
        process.leave("schedule.retry_delay", "the delay does not grow")
    restart.set("mode", "fail")
    if process.config.success_codes != (0,):
        process.leave("success_codes", "0 alone is a success")


def _restart(process: Process, group: Block) -> None:
    config = process.config
    restart = group.block("restart")
    if config.schedule is not None:
        _restart_of_job(process, restart)
        for key in ("give_up", "min_restart_delay"):
            if key in process.content:
                process.leave(key, "not heeded of a job")
        return
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
    task.set("kill_timeout", f"{math.ceil(process.stop_time * 1000)}ms")


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
