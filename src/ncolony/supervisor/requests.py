"""What messages ask for: carried out in the order they came, each answered when it is done."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.logger import Logger

from .. import __version__
from ..decide import lifecycle
from ..decide.answer import Goal
from ..decide.lifecycle import Event, Process, State
from ..decide.rolling import Outcome, Rolling, step
from ..model import message as messages
from ..model.config import signal_number
from ..model.message import Answer, Message
from ..model.names import printable
from ..system.inbox import Requests

if TYPE_CHECKING:
    from .known import Known
    from .loop import Supervisor

_log = Logger(namespace="ncolony")
# Goals of messages that are not about single processes.
_SHUTDOWN, _ROLLING = "shutdown", "rolling"
# Of somebody's reason for a restart.
_LONGEST_WHY = 300


class Desk:
    """Takes the messages of the supervisor that it belongs to."""

    def __init__(self, colony: Supervisor) -> None:
        self._colony = colony
        self._requests = Requests(colony.inbox.answer, colony.records.settle)
        self._signals: dict[str, tuple[str, int, messages.Signal]] = {}  # message -> instance, signal, not yet sent
        self._rolling: dict[str, tuple[Rolling, Answer]] = {}  # by message
        self._unfinished = colony.inbox.earlier()
        self._shutdowns = {name for name, answer in self._unfinished if answer.goal == _SHUTDOWN}
        self._wake_up: Any = None

    @property
    def end_was_asked_for(self) -> bool:
        """Whether an earlier supervisor was killed while it carried out a shutdown."""
        return bool(self._shutdowns)

    @property
    def is_asked(self) -> bool:
        """Whether something is still to be done that an earlier supervisor was asked for."""
        return bool(self._unfinished)

    def take(self, file_name: str, message: Message) -> None:
        """Do what a message asks for, and answer it; whatever goes wrong, the next message has its turn."""
        try:
            self._act_on(file_name, message)
        except Exception as error:  # noqa: BLE001
            _log.failure("cannot do what message {file_name} asks", file_name=printable(file_name))
            self._colony.inbox.answer(file_name, Answer(accepted=True, state="failed", why=f"cannot do it: {error}"))

    def fail(self, file_name: str, why: str) -> None:
        """Answer that it cannot be done."""
        _log.error("message {file_name}: {why}", file_name=printable(file_name), why=printable(why))
        self._colony.inbox.answer(file_name, Answer(accepted=False, state="failed", why=why))

    def _act_on(self, file_name: str, message: Message) -> None:
        colony = self._colony
        if isinstance(message, messages.Upgrade):
            colony.replacing.begin(file_name)
            return
        if isinstance(message, messages.Shutdown):
            self._colony.inbox.answer(file_name, Answer(accepted=True, state="accepted", goal=_SHUTDOWN))
            self._shutdowns.add(file_name)
            colony.reactor.callLater(0, colony.guarded, colony.quit)
            return
        changed = colony.catch_up(getattr(message, "name", None), fully=isinstance(message, messages.Scan))
        if isinstance(message, messages.Scan):
            names = tuple(printable(name) for name in changed)
            self._colony.inbox.answer(file_name, Answer(accepted=True, state="done", names=names))
        elif isinstance(message, messages.RestartAll):
            names_up = [name for name, known in colony.known.items() if known.should_run]
            self._restart(file_name, names_up, message.rolling)
        elif isinstance(message, messages.RestartGroup):
            names_in = [name for name, known in colony.known.items() if message.group in known.groups]
            if names_in:
                self._restart(file_name, [n for n in names_in if colony.known[n].should_run], message.rolling)
            else:
                self.fail(file_name, f"no process is in group {message.group!r}")
        else:
            self._act_on_one(file_name, message)

    def _act_on_one(
        self,
        file_name: str,
        message: messages.Restart | messages.Start | messages.Stop | messages.Signal | messages.Report,
    ) -> None:
        """One name: a process, or every copy of one."""
        colony = self._colony
        names = colony.definitions.processes(message.name)
        found = {name: colony.known[name] for name in names if name in colony.known}
        processes = [name for name, known in found.items() if known.process is not None]
        definitions = [known.definition for known in found.values()]
        if not found:
            self.fail(file_name, f"there is no process {message.name!r}")
        elif not processes:
            problem = next(iter(found.values())).problem
            self.fail(file_name, problem or f"there is no process {message.name!r}")
        elif isinstance(message, messages.Signal):
            self._send_signals(file_name, [found[name] for name in processes], message)
        elif isinstance(message, messages.Report):
            self._note(file_name, processes, message)
        elif isinstance(message, messages.Stop):
            self._stop(file_name, processes, message)
        elif all(definition is not None and not definition.config.enabled for definition in definitions):
            self.fail(file_name, f"{message.name} is disabled")
        elif isinstance(message, messages.Restart):
            if why := _why_over({name: found[name] for name in processes}, message.instance):
                self.fail(file_name, why)
            else:
                self._restart(file_name, processes, message.rolling, message.why)
        else:
            self._ask(file_name, processes, Goal.UP, lifecycle.Start())

    def _stop(self, file_name: str, names: list[str], message: messages.Stop) -> None:
        meant = [name for name in names if message.instance in (None, self._colony.known[name].process.number)]  # type: ignore[union-attr]
        if meant:
            stop = lifecycle.Stop(printable(message.why)[:_LONGEST_WHY]) if message.why else lifecycle.Stop()
            self._ask(file_name, meant, Goal.DOWN, stop)
        else:
            self.fail(file_name, f"instance {message.instance} of {message.name} is over")

    def _note(self, file_name: str, names: list[str], message: messages.Report) -> None:
        for name in names:
            if why := self._colony.tending.reported(name, self._colony.known[name], message):
                self.fail(file_name, why)
                return
        answer = Answer(accepted=True, state="done", names=tuple(printable(name) for name in names))
        self._colony.inbox.answer(file_name, answer)

    # signals

    def _send_signals(self, file_name: str, known: list[Known], message: messages.Signal) -> None:
        number = signal_number(message.signal)
        running = [one.identity for one in known if one.identity is not None and one.pid is not None]
        if not running or number is None:
            self.fail(file_name, f"{message.name} does not run")
            return
        for identity in running[:-1]:
            self._colony.hands.signal(identity, number, message.scope, wake=False)
        # Orders are carried out in turn: the last one's acknowledgement stands for all.
        self._signals[file_name] = (running[-1], number, message)
        self._colony.hands.signal(running[-1], number, message.scope, wake=False, ack=file_name)
        self._colony.inbox.answer(file_name, Answer(accepted=True, state="accepted", names=(printable(message.name),)))

    def signalled(self, file_name: str, done: bool) -> None:
        """The keeper has sent a signal, or has nobody to send it to."""
        if (sent := self._signals.pop(file_name, None)) is None:
            return
        name = printable(sent[2].name)
        if done:
            self._colony.inbox.answer(file_name, Answer(accepted=True, state="done", names=(name,)))
        else:
            self.fail(file_name, f"{name} does not run any more")

    def signal_again(self) -> None:
        """What was to be sent by a keeper that died is sent by the next, if the instance is the same."""
        for file_name, (identity, number, message) in self._signals.items():
            self._colony.hands.signal(identity, number, message.scope, wake=False, ack=file_name)

    # starts, stops and restarts

    def _restart(self, file_name: str, names: list[str], at_once: int | None, why: str = "") -> None:
        if at_once is None or len(names) == 0:
            reason = printable(why)[:_LONGEST_WHY] if why else "restarted on request"
            self._ask(file_name, names, Goal.UP, lifecycle.Restart(reason))
            return
        colony = self._colony
        since = {name: process.number for name in sorted(names) if (process := self._process(name)) is not None}
        # What was stopped is missing already: it comes first, and the others wait until it is ready.
        down = tuple(name for name in since if not colony.known[name].should_run)
        colony.events += [(name, lifecycle.Restart()) for name in down]
        colony.drain_events()
        for name in down:
            colony.records.write(name)  # what is wanted now survives us
        rolling = Rolling(at_once, tuple(name for name in since if name not in down), since, down)
        shown = tuple(printable(name) for name in since)
        answer = Answer(accepted=True, state="accepted", names=shown, goal=_ROLLING, since=since, at_once=at_once)
        self._colony.inbox.answer(file_name, answer)
        self._rolling[file_name] = (rolling, answer)
        self._roll(file_name)

    def _ask(self, file_name: str, names: list[str], goal: Goal, event: Event) -> None:
        """Send the event to each process, and answer when all have got there."""
        colony, since = self._colony, {}
        for name in names:
            process = self._process(name)
            assert process is not None
            satisfied = isinstance(event, lifecycle.Start) and process.state in (State.STARTING, State.RUNNING)
            since[name] = process.number - 1 if satisfied else process.number
        if len(names) > 1 and isinstance(event, lifecycle.Restart):
            colony.ordering.tell(names, event)
        else:
            colony.events += [(name, event) for name in names]
        only = colony.known[names[0]].applied if len(names) == 1 else None
        colony.drain_events()
        if only:
            colony.records.write(names[0])  # what is wanted now survives us, before anybody is told so
        self._requests.accept(file_name, goal, since, only.generation if only else "")
        for name in names:
            self._requests.judge(name, self._process(name))

    def _process(self, name: str) -> Process | None:
        known = self._colony.known.get(name)
        return known.process if known is not None else None

    def judge(self, name: str, process: Process | None) -> None:
        """Something has changed with a process: see whose wish that was."""
        self._requests.judge(name, process)
        for file_name, (rolling, _) in list(self._rolling.items()):
            if name in rolling.under_way:
                # Not in the middle of the change that is being told.
                self._colony.reactor.callLater(0, self._colony.guarded, self._roll, file_name)

    def _roll(self, file_name: str) -> None:
        """Go on with a rolling restart as far as it goes now."""
        if (found := self._rolling.get(file_name)) is None or self._colony.quitting:
            return
        rolling, answer = found
        now = self._colony.reactor.seconds()
        # A restart that is under way when the next one is due takes one more turn: what it does is seen then.
        while True:
            taken = step(rolling, {name: self._process(name) for name in rolling.since}, now)
            rolling = taken.rolling
            self._rolling[file_name] = (rolling, answer)
            for name in taken.restart:
                if (known := self._colony.known.get(name)) is not None and known.should_run:
                    self._colony.events.append((name, lifecycle.Restart("restarted on request, in turn")))
            self._colony.drain_events()
            if not taken.restart:
                break
        if taken.outcome is not Outcome.OPEN:
            del self._rolling[file_name]
            state = "done" if taken.outcome is Outcome.DONE else "failed"
            self._colony.records.settle(rolling.since)
            self._colony.inbox.answer(file_name, Answer(accepted=True, state=state, why=taken.why, names=answer.names))
        elif taken.again is not None:
            self._colony.reactor.callLater(max(0.0, taken.again - now), self._colony.guarded, self._roll, file_name)

    # what an earlier supervisor accepted

    def resume(self) -> None:
        """What an earlier supervisor accepted is carried on with, and answered."""
        colony = self._colony
        colony.drain_events()
        received = colony.replacing.received
        if received is not None:
            _log.info("upgraded from {before} to {now}", before=received.version, now=__version__)
        for file_name, answer in self._unfinished:
            if received is not None and file_name == received.message:
                self._colony.inbox.answer(file_name, msgspec.structs.replace(answer, state="done"))
            elif answer.goal in tuple(Goal):
                self._resume_one(file_name, answer)
            elif answer.goal == _ROLLING:
                self._resume_rolling(file_name, answer)
            elif answer.goal == _SHUTDOWN or os.path.exists(f"{colony.settings.messages}/{file_name}"):
                continue  # is being done, or will be done again
            else:
                why = "the supervisor was replaced before it was done; the status says what became of it"
                self._colony.inbox.answer(file_name, msgspec.structs.replace(answer, state="failed", why=why))
        self._unfinished = []

    def _resume_one(self, file_name: str, answer: Answer) -> None:
        self._requests.resume(file_name, answer)
        # The order did not survive its giver.
        again: Event = lifecycle.Restart() if answer.goal == Goal.UP.value else lifecycle.Stop()
        names = [
            name
            for name, since in answer.since.items()
            if (process := self._process(name)) is not None
            and process.number == since
            and process.state not in (State.STOPPING, State.STOPPED)
        ]
        if len(answer.names) > 1 and answer.goal == Goal.UP.value:
            self._colony.ordering.tell(names, again)
        else:
            self._colony.events += [(name, again) for name in names]
        self._colony.drain_events()
        for name in answer.since:
            self._requests.judge(name, self._process(name))

    def _resume_rolling(self, file_name: str, answer: Answer) -> None:
        """Those that have a new instance are waited for; the others still have their turn."""
        done: list[str] = []
        waiting: list[str] = []
        for name, since in answer.since.items():
            process = self._process(name)
            fresh = process is None or process.number > since or process.state is State.STOPPING
            (done if fresh else waiting).append(name)
        rolling = Rolling(answer.at_once, tuple(waiting), dict(answer.since), tuple(done))
        self._rolling[file_name] = (rolling, answer)
        self._roll(file_name)

    def end(self) -> None:
        """Everything has ended: so the messages that asked for it are done."""
        for file_name in self._shutdowns:
            self._colony.inbox.answer(file_name, Answer(accepted=True, state="done"))
            self._colony.inbox.remove(file_name)
        for file_name, (_, answer) in self._rolling.items():
            why = "the colony was stopped"
            self._colony.inbox.answer(file_name, Answer(accepted=True, state="failed", why=why, names=answer.names))
        self._colony.inbox.obviate(messages.Shutdown)


def _why_over(found: dict[str, Known], instance: int | None) -> str:
    """Why a restart is not wanted any more that was asked for because of one instance, or ""."""
    if instance is None:
        return ""
    for name, known in found.items():
        process = known.process
        running = process is not None and process.state in (State.STARTING, State.RUNNING) and known.pid is not None
        if process is None or not running or process.number != instance:
            return f"instance {instance} of {printable(name)} does not run any more"
    return ""
