"""Looks after every process that asks for it: probes, judges, tells the supervisor, asks for restarts.

What must not be forgotten when this program is killed can be read from what others keep: the status says which instance
runs and what was told of it, and a message, or its answer, whether the restart of an instance was asked for.
"""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import os
import resource
import time
import zlib
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.logger import Logger

from ... import ctllib
from ...ctllib import Places, Status
from ...ctllib.logs import logs_directory
from ...ctllib.reports import reported
from ...decide import health
from ...model.names import printable
from ...system import launch
from ...system.wake import Names, Watcher
from ..plugin import end_by_ourselves
from .heartbeat import Heartbeat
from .lanes import Lanes, Turn
from .net import HttpProbe, Probe, Resolver, request_of, tcp_probe
from .outcome import Done, Outcome
from .output import Matching
from .plans import Look, Plan, Plans, Reading
from .programs import Foreign, Run, order_of, shown
from .tls import Contexts

_log = Logger(namespace="ncolony.check")
# Looks over the network, and programs, that go on at the same time: see Lanes.
_NETWORK_AT_ONCE, _PROGRAMS_AT_ONCE, _MOST_PROGRAMS = 100, 16, 256
# First looks come one after the other, so many a second, spread over the first period at most.
_FIRST_LOOKS_PER_S = 100
# For so long it is believed that there is a supervisor.
_BELIEVED_S = 0.2
# How often it is looked whether there is one again, or where it keeps its statuses.
_AGAIN_S = 1.0
# What was told and is not in the status after so long is told again.
_TELL_AGAIN_S = 5.0
# Several changes are taken in together.
_HINT_S = 0.005
# An expression that took too long is tried again after so long.
_SLOW_EXPRESSION_S = 2.0
# A message's name is made of a process's, unless that is too long for it: NAME_MAX is 255.
_LONGEST_NAME = 180
_READY = -1  # the number of the look that tells whether it is ready


class Patient:
    """One process, or one copy of it, and what goes on with it."""

    def __init__(self, name: str, file: str, index: int | None) -> None:
        self.name, self.file, self.index = name, file, index
        self.signature: tuple[int, ...] | None = None  # of the status file
        self.status: Status | None = None
        self.plan: Plan | None = None
        self.phase = ""  # "ready" or "check" while it is looked at
        self.key: tuple[int, int] = (0, 0)  # of the instance that is looked at: its number and pid
        self.started = 0.0  # of that instance (steady)
        self.health: health.Health | None = None
        self.told_at = -_TELL_AGAIN_S
        self.calls: dict[int, Any] = {}  # the next looks
        self.going_on: dict[int, tuple[Turn, list[Probe | Run]]] = {}
        self.hearts: dict[int, Heartbeat] = {}
        self.matching: Matching | None = None
        self.is_ready = False  # it has shown it
        self.why_not_ready = ""
        self.epoch, self.since = 0, 0.0  # without a status: restarts we asked for, and when (steady)


class Runner(Service):
    """Looks after the processes of a colony.

    `reading` says what a config file asks for. With `tells` verdicts are told; else only why there is a restart.
    """

    def __init__(
        self, reactor: Any, places: Places, state: str, reading: Reading, frequency: float, tells: bool = True
    ) -> None:  # fmt: skip
        self._reactor, self._places, self._state, self._frequency = reactor, places, state, frequency
        self._tells, self._statuses = tells, f"{state}/status"
        self._plans = Plans(os.fspath(places.config), reading, self._trouble)
        self._patients: dict[str, Patient] = {}
        self._by_file: dict[str, list[str]] = {}
        self._troubles: dict[str, str] = {}
        self._hints: dict[str, Names] = {}
        self._call: Any = None
        self._scan_call: Any = None
        self._watcher: Watcher | None = None
        self._began = 0.0
        self._surroundings = launch.Surroundings.present()
        most = max(50, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._network = Lanes(reactor, _NETWORK_AT_ONCE, most)
        self._programs = Lanes(reactor, _PROGRAMS_AT_ONCE, min(_MOST_PROGRAMS, most))
        self._resolver, self._contexts = Resolver(reactor), Contexts()
        self._looks = 0  # how many checks there are
        self._supervised = False
        self._asked_at = float("-inf")

    # the service

    def startService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Begin once the reactor runs."""
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Stop everything. A signal that asked for it is no reason to end by it."""
        super().stopService()
        end_by_ourselves(self._reactor)
        for call in (self._call, self._scan_call):
            if call is not None and call.active():
                call.cancel()
        if self._watcher is not None:
            self._watcher.close()
        for patient in self._patients.values():
            self._leave(patient, last=True)

    def _begin(self) -> None:
        if self.running:
            self._began = self._reactor.seconds()
            # Before the reactor's own, which waits for the threads.
            self._reactor.addSystemEventTrigger("during", "shutdown", self._leave_resolver)
            self._reactor.suggestThreadPoolSize(30)  # for names that take long to be found
            self._watcher = Watcher(self._reactor, self._hint)
            self._scan()

    def _leave_resolver(self) -> None:
        """A thread that asks for the address of a host cannot be stopped; everything else is over."""
        if self._reactor.getThreadPool().working:
            os._exit(0)

    # what is known

    def _scan(self) -> None:
        """Read everything anew that has changed; and again after a while."""
        assert self._watcher is not None
        for directory in (os.fspath(self._places.config), self._statuses):
            self._watcher.arm(directory)
        self._guarded(self._read_config, None)
        self._guarded(self._read_statuses, None)
        soon = not os.path.isdir(self._statuses)
        self._scan_call = self._reactor.callLater(
            min(self._frequency, _AGAIN_S) if soon else self._frequency, self._scan
        )  # fmt: skip

    def _hint(self, directory: str, names: Names) -> None:
        """Something has changed there: look soon."""
        before = self._hints.get(directory, set())
        self._hints[directory] = None if before is None or names is None else before | names
        if self._call is None and self.running:
            self._call = self._reactor.callLater(_HINT_S, self._take_hints)

    def _take_hints(self) -> None:
        self._call = None
        hints, self._hints = self._hints, {}
        for directory, names in hints.items():
            read = self._read_statuses if directory == self._statuses else self._read_config
            self._guarded(read, names)

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        """Whatever goes wrong with one thing, the others are not concerned."""
        try:
            call(*arguments)
        except Exception:  # noqa: BLE001
            _log.failure("cannot go on with one thing; the others are not concerned")

    def _read_config(self, names: Names) -> None:
        try:
            concerned = self._plans.scan(names)
        except OSError as error:
            self._trouble("/config", f"cannot read {self._places.config}: {error.strerror}")
            return
        self._trouble("/config", "")
        for file in concerned:
            self._fit(file)

    def _fit(self, file: str) -> None:
        """See which processes a file stands for now."""
        copies = dict(self._plans.copies(file))
        for name in self._by_file.pop(file, []):
            patient = self._patients.get(name)
            if name not in copies and patient is not None and patient.file == file:
                del self._patients[name]
                self._leave(patient)
                self._trouble(f"{name}/", "")
        if copies:
            self._by_file[file] = list(copies)
        for name, index in copies.items():
            patient = self._patients.get(name)
            if patient is None or patient.file != file:
                if patient is not None:
                    self._leave(patient)
                self._patients[name] = Patient(name, file, index)
            self._read_status(self._patients[name])

    def _read_statuses(self, names: Names) -> None:
        wanted = self._patients if names is None else names & self._patients.keys()
        for name in list(wanted):
            self._guarded(self._read_status, self._patients[name])

    def _read_status(self, patient: Patient) -> None:
        """See how a process is, as its supervisor says, and do what follows."""
        path = f"{self._statuses}/{patient.name}"
        try:
            found = os.stat(path)
            signature = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        except OSError:
            signature = None
        if signature is None:
            patient.status = None
        elif signature != patient.signature:
            try:
                patient.status = reported(self._statuses, patient.name)
                self._trouble(f"{patient.name}/status", "")
            except ctllib.Error as error:
                patient.status = None
                self._trouble(f"{patient.name}/status", str(error))
        patient.signature = signature
        self._attend(patient)

    def _is_blind(self) -> bool:
        """Whether no supervisor's statuses are to be found at all; only who restarts and tells nothing can work so."""
        return not self._tells and not os.path.isdir(self._statuses)

    def _is_supervised(self, now: float | None = None) -> bool:
        """Whether there is a supervisor: without one statuses are what once was. With `now` a recent look will do."""
        if now is None or not 0 <= now - self._asked_at < _BELIEVED_S:
            try:
                self._supervised = ctllib.supervisor(self._places, state=self._state) is not None
            except ctllib.Error as error:
                self._supervised = False
                self._trouble("/supervisor", str(error))
            self._asked_at = self._reactor.seconds()
        return self._supervised

    def _trouble(self, what: str, trouble: str) -> None:
        """Say what is wrong, once."""
        if trouble and self._troubles.get(what) != trouble:
            self._troubles[what] = trouble
            _log.error("{trouble}", trouble=printable(trouble))
        elif not trouble:
            self._troubles.pop(what, None)
            if what.endswith("/"):
                self._troubles = {key: text for key, text in self._troubles.items() if not key.startswith(what)}

    # what follows

    def _attend(self, patient: Patient) -> None:
        """Look at the process as is right for what it is doing; leave it alone if nothing is."""
        status = patient.status
        plan, phase, key = None, "", (0, 0)
        if status is None and self._is_blind():
            plan, key = self._plans.of(patient.file, ""), (patient.epoch, 0)
            phase = "check" if plan is not None and plan.looks else ""
        elif status is not None and status.wanted == "up" and status.pid is not None:
            plan, key = self._plans.of(patient.file, status.digest), (status.instance, status.pid)
            if plan is not None and status.state == "RUNNING" and plan.looks:
                phase = "check"
            elif plan is not None and status.state == "STARTING" and plan.ready is not None:
                phase = "ready"
        if (phase, key, plan) == (patient.phase, patient.key, patient.plan):
            return
        before, same = patient.health, key == patient.key and phase == patient.phase == "check"
        self._leave(patient)
        patient.phase, patient.key, patient.plan = phase, key, plan
        if phase and plan is not None:
            patient.started = self._started_at(patient, plan)
        if phase == "check" and plan is not None:
            checks = len(plan.looks)
            if same and before is not None:
                patient.health = health.changed(before, checks)
            else:
                told = status.healthy if status is not None and self._tells else None
                patient.health = health.begin(checks, key[0], patient.started, told, self._was_asked(patient))
            self._looks += checks
            self._first_looks(patient, plan)
        elif phase == "ready":
            patient.calls[_READY] = self._reactor.callLater(0, self._probe, patient)

    def _started_at(self, patient: Patient, plan: Plan) -> float:
        """When the instance was started, by the steady clock."""
        now: float = self._reactor.seconds()
        if patient.status is None:
            changed = now - max(0.0, time.time() - plan.mtime)
            return max(changed, self._began, patient.since)
        started = patient.status.started
        return now if started is None else now - max(0.0, time.time() - started)

    def _leave(self, patient: Patient, last: bool = False) -> None:
        """Look at it no more."""
        if patient.phase == "ready" and not patient.is_ready and patient.why_not_ready and not last:
            why = patient.why_not_ready
            _log.info("{name}: was not ready: {why}", name=patient.name, why=printable(why))
        for call in patient.calls.values():
            if call.active():
                call.cancel()
        for turn, probes in patient.going_on.values():
            for probe in probes:
                (probe.close if last else probe.cancel)()
            turn.end()
        if patient.matching is not None:
            patient.matching.close()
        if patient.health is not None:
            self._looks -= len(patient.health.tallies)
        patient.calls, patient.going_on, patient.hearts, patient.matching = {}, {}, {}, None
        patient.phase, patient.plan, patient.health, patient.is_ready = "", None, None, False
        patient.why_not_ready = ""

    # looks

    def _first_looks(self, patient: Patient, plan: Plan) -> None:
        for number, look in enumerate(plan.looks):
            share = zlib.crc32(f"{patient.name}/{number}".encode("utf-8", "surrogateescape")) / 2**32
            delay = share * min(look.period, self._looks / _FIRST_LOOKS_PER_S)
            self._look_in(patient, number, delay)

    def _look_in(self, patient: Patient, number: int, delay: float) -> None:
        patient.calls[number] = self._reactor.callLater(delay, self._guarded, self._look, patient, number)

    def _look(self, patient: Patient, number: int) -> None:
        """It is time for a look."""
        plan, now = patient.plan, self._reactor.seconds()
        assert plan is not None
        look = plan.looks[number]
        if patient.health is not None and patient.health.held:
            self._look_in(patient, number, look.period)
            return
        if patient.status is not None and not self._is_supervised(now):
            self._look_in(patient, number, look.period)
            return
        if look.kind == "heartbeat":
            outcome, delay = self._heart(patient, plan, number, look).look(now)
            self._look_in(patient, number, delay)
            if outcome is not None:
                self._found(patient, number, look, outcome)
            return

        def done(outcome: Outcome) -> None:
            if patient.plan is plan and number in patient.going_on:
                patient.going_on.pop(number)[0].end()
                self._look_in(patient, number, max(0.0, now + look.period - self._reactor.seconds()))
                self._guarded(self._found, patient, number, look, outcome)

        self._enter(patient, number, look, done)

    def _heart(self, patient: Patient, plan: Plan, number: int, look: Look) -> Heartbeat:
        if number not in patient.hearts:
            assert isinstance(look.what, str)
            path = os.path.join(self._surroundings.cwd, plan.cwd or "", look.what)
            patient.hearts[number] = Heartbeat(path, patient.name, look.period, patient.started)
        return patient.hearts[number]

    def _enter(self, patient: Patient, number: int, look: Look, done: Done) -> None:
        """Look when there is room for one more."""
        probes: list[Probe | Run] = []

        def begin() -> None:
            try:
                probe = self._probe_for(patient, look, done)
            except Foreign as foreign:
                self._reactor.callLater(0, done, Outcome(str(foreign), unknown=True))
                return
            except launch.Impossible as impossible:
                self._reactor.callLater(0, done, Outcome(str(impossible)))
                return
            probes.append(probe)
            probe.begin()

        turn = Turn(self._programs if look.kind == "exec" else self._network, begin)
        patient.going_on[number] = (turn, probes)
        turn.wait()

    def _probe_for(self, patient: Patient, look: Look, done: Done) -> Probe | Run:
        if look.kind == "exec":
            assert isinstance(look.what, tuple) and patient.plan is not None and patient.plan.definition is not None
            order = order_of(patient.plan.definition, look.what, patient.name, patient.index, self._surroundings)
            return Run(self._reactor, order, look.timeout, done)
        assert isinstance(look.what, str)
        if look.kind == "tcp":
            return tcp_probe(self._reactor, self._resolver, look.what, look.timeout, done)
        return HttpProbe(
            *(self._reactor, self._resolver, self._contexts, look.what, look.timeout, done),
            insecure=look.insecure,
            any_status=look.any_status,
        )

    # what was found

    def _found(self, patient: Patient, number: int, look: Look, outcome: Outcome) -> None:
        """A check has a result."""
        plan, what = patient.plan, f"{patient.name}/{number}"
        if plan is None or patient.health is None:
            return
        why = f"{_label(look)}: {outcome.why}"
        self._trouble(what, f"cannot check {patient.name}: {why}" if outcome.unknown else "")
        if outcome.unknown:
            return
        if not outcome.good and patient.status is not None and not self._is_supervised():
            return
        now = self._reactor.seconds()
        step = health.noted(patient.health, plan.rules, patient.key[0], number, outcome.good, why, now)
        patient.health = step.health
        tell = step.tell if self._tells else False if step.restart and patient.status is not None else None
        if tell is None and self._tells and self._was_lost(patient, now):
            tell = step.health.verdict
        if tell is not None:
            self._tell(patient, "healthy" if tell else "unhealthy", "" if tell else step.health.why)
        if step.restart:
            self._ask(patient, step.restart)

    def _was_lost(self, patient: Patient, now: float) -> bool:
        """Whether what was told should be in the status by now, and is not."""
        assert patient.health is not None and patient.status is not None
        verdict = patient.health.verdict
        late = now - patient.told_at > _TELL_AGAIN_S
        return verdict is not None and verdict is not patient.status.healthy and late and not patient.health.held

    def _tell(self, patient: Patient, what: str, why: str = "") -> bool:
        if not self._is_supervised():
            return False
        _log.info("{name}: {what}{why}", name=patient.name, what=what, why=f": {why}" if why else "")
        try:
            ctllib.report(self._places, patient.name, what, patient.key[0], why)
        except ctllib.Error as error:
            self._trouble(f"{patient.name}/message", str(error))
            return False
        patient.told_at = self._reactor.seconds()
        self._trouble(f"{patient.name}/message", "")
        return True

    # restarts

    def _message_id(self, patient: Patient) -> str:
        """Of the one message that asks for the restart of this instance: asked twice, it is the same file."""
        name = patient.name
        if len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
            name = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return f"check-{name}-{patient.key[0]}-{patient.key[1]}"

    def _was_asked(self, patient: Patient) -> bool:
        """Whether the restart of this instance was asked for, by whomever and whenever.

        The message first: when it is gone, it was answered before.
        """
        if patient.status is None:
            return False
        message = self._message_id(patient)
        return os.path.lexists(os.path.join(self._places.messages, message)) or os.path.lexists(
            os.path.join(self._state, "answers", message)
        )

    def _ask(self, patient: Patient, why: str) -> None:
        """Ask for a restart, once for each instance. If that cannot be done, the next failure tries again."""
        if patient.status is None:
            self._ask_blindly(patient, why)
            return
        if self._was_asked(patient):
            return
        plan, key = patient.plan, patient.key
        patient.signature = None  # what is in the file now counts
        self._read_status(patient)
        if patient.plan is not plan or patient.key != key or patient.health is None:
            return
        if self._is_supervised() and self._send_restart(patient, why, instance=key[0]):
            return
        patient.health = msgspec.structs.replace(patient.health, held=False)

    def _ask_blindly(self, patient: Patient, why: str) -> None:
        """Where nobody tells of instances, our wish begins a new one. One that is not yet granted is not repeated."""
        name = self._message_id(patient)
        waits = os.path.lexists(os.path.join(self._places.messages, name.rpartition("-")[0].rpartition("-")[0]))
        if not waits and not self._send_restart(patient, why, instance=None):
            return
        patient.epoch, patient.since = patient.epoch + 1, self._reactor.seconds()
        self._attend(patient)

    def _send_restart(self, patient: Patient, why: str, instance: int | None) -> bool:
        message = self._message_id(patient)
        if instance is None:
            message = message.rpartition("-")[0].rpartition("-")[0]
        try:
            ctllib.restart(self._places, patient.name, instance=instance, why=why, message_id=message)
        except ctllib.Error as error:
            self._trouble(f"{patient.name}/message", str(error))
            return False
        _log.info("{name}: asked for a restart: {why}", name=patient.name, why=printable(why))
        self._trouble(f"{patient.name}/message", "")
        return True

    # readiness

    def _probe(self, patient: Patient) -> None:
        self._guarded(self._probe_now, patient)

    def _probe_now(self, patient: Patient) -> None:
        """See whether it is ready."""
        plan, now = patient.plan, self._reactor.seconds()
        assert plan is not None and plan.ready is not None and patient.status is not None
        look = plan.ready
        if patient.is_ready or not self._is_supervised(now):
            # Told, but it is not known: perhaps that got lost.
            if patient.is_ready:
                self._tell(patient, "ready")
            self._probe_in(patient, _TELL_AGAIN_S if patient.is_ready else _AGAIN_S)
            return
        if look.kind == "log":
            outcome = self._matching(patient, look).look()
            self._probed(patient, look, now, outcome or Outcome("no line matches"))
            return

        def done(outcome: Outcome) -> None:
            if patient.plan is plan and _READY in patient.going_on:
                patient.going_on.pop(_READY)[0].end()
                self._guarded(self._probed, patient, look, now, outcome)

        self._enter(patient, _READY, look, done)

    def _probe_in(self, patient: Patient, delay: float) -> None:
        patient.calls[_READY] = self._reactor.callLater(max(0.0, delay), self._probe, patient)

    def _matching(self, patient: Patient, look: Look) -> Matching:
        if patient.matching is None:
            assert isinstance(look.what, str) and patient.status is not None
            logs = logs_directory(self._places, state=self._state)
            started = patient.status.started or time.time()
            patient.matching = Matching(self._state, logs, patient.name, patient.key[1], started, look.what)
        return patient.matching

    def _probed(self, patient: Patient, look: Look, began: float, outcome: Outcome) -> None:
        why = f"{_label(look)}: {outcome.why}"
        trouble = f"cannot see whether {patient.name} is ready: {why}" if outcome.unknown else ""
        self._trouble(f"{patient.name}/{_READY}", trouble)
        if outcome.good:
            patient.is_ready = True
            self._tell(patient, "ready")
            self._probe_in(patient, _TELL_AGAIN_S)
            return
        patient.why_not_ready = why
        slow = outcome.unknown and look.kind == "log"
        self._probe_in(patient, _SLOW_EXPRESSION_S if slow else began + look.period - self._reactor.seconds())


def _label(look: Look) -> str:
    """What was looked at, in a word or two."""
    if look.kind == "http":
        assert isinstance(look.what, str)
        return f"http {request_of(look.what).shown}"
    if look.kind == "exec":
        assert isinstance(look.what, tuple)
        return f"exec {shown(look.what)}"
    return f"{look.kind} {printable(str(look.what))}"
