"""The loop: the one place where decisions meet deeds. It reads, asks `decide` what follows, and has it done."""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from .. import __version__
from ..decide import lifecycle
from ..decide.lifecycle import Effect, Event, Forget, Process, Shutdown, Signal, Spawn, State, Wanted
from ..decide.order import LIVE
from ..decide.ready import ready_at
from ..decide.reconcile import Applied, Policies, adopted, change, in_order, remembered
from ..decide.restart import Exit, Policy, exit_code
from ..keeper.kernel import become_subreaper, reach
from ..model.config import Definition
from ..model.history import Record
from ..model.message import Message
from ..model.names import printable, problem_with_name
from ..model.status import LastExit, Status
from ..system import giving, launch, upgrade
from ..system.events import Events
from ..system.files import sweep, write_whole
from ..system.hands import Hands, Identities
from ..system.history import Chronicle
from ..system.inbox import Inbox
from ..system.limits import raise_descriptor_limit
from ..system.notify import Notifier
from ..system.orphans import Orphans
from ..system.own_log import cut_torn_record
from ..system.places import UnsafeState, make_closed, make_private
from ..system.records import Records
from ..system.reports import checked
from ..system.sinks import plan
from ..system.trust import why_open
from ..system.wake import Names, Watcher
from .changes import Changes
from .companions import companions
from .definitions import Definitions, Source
from .descriptors import Descriptors
from .known import Known, Settings, as_text, exit_in, from_text, memory_of, policy_of, while_running
from .memory import MemoryWatch
from .ordering import PORTION, Ordering
from .output import Output
from .replacing import Replacing
from .requests import Desk
from .sockets import Sockets
from .tending import Tending

_log = Logger(namespace="ncolony")
# A new supervisor waits this long for the lock: a forked child of the old one may hold it until its exec.
_LOCK_WAIT_S = 2.0
# What is in the state directory, and for whom. Names in `fifo` are what an instance is known by, and a secret; each
# file in `config` belongs to the process that reads it.
_PLACES = {
    "status": 0o755, "answers": 0o755, "rejected": 0o700, "history": 0o700, "fifo": 0o711, "forwarded": 0o700,
    "config": 0o711, "notify": 0o711,
}  # fmt: skip
# A stop that takes this long names what it waits for, and again after each such time.
_ASK_S = 1.0
# In these states a process may be about to say something that counts.
_SPEAKING = (State.STARTING, State.RUNNING)
# A deadline that is heeded so much later than it should be was not for us to keep.
_LATE_S = 0.02
# Before anything is known of what runs, a wish to end waits this long for a keeper.
_KEEPER_WAIT_S = 10.0
# What was applied of the config directory is written down this much later at the latest.
_APPLIED_S = 0.01


class Supervisor(Service):
    """Runs what the config directory says until it is told to stop."""

    def __init__(self, reactor: Any, settings: Settings) -> None:
        self.reactor, self.settings = reactor, settings
        self.known: dict[str, Known] = {}
        self.instances: dict[str, tuple[str, int]] = {}  # identity -> name, number
        self.events: deque[tuple[str, Event]] = deque()
        self._deadlines: list[tuple[float, str]] = []
        self._wake_up: Any = None
        self._policies = Policies()
        self._identities = Identities()
        self.adopted = self.quitting = False
        # What a report leads to is ordered at once; what a message asks for, once it is answered and removed.
        self._prompt = False
        self._stopped: list[Deferred[None]] = []
        self._problems: dict[str, str] = {}  # what is wrong with our surroundings, by what is concerned
        self._lock = self._shown = -1
        self._failed = False
        self._earlier: dict[str, Status] = {}
        self._live = 0  # how many processes have an instance, or are about to
        self._strange_copies: set[str] = set()  # names of copies whose file has no good definition
        self.pending: set[str] = set()  # names whose file was read and not applied yet
        self._applied: dict[str, object] = {}  # what was written down of that
        self._applying: Any = None
        self._beginning: dict[str, Event] = {}  # processes that there were when we began, and what has them begin
        self._begins = False
        self._were_up: set[str] = set()  # names that run again when a supervisor starts after a clean end
        self.orphans = Orphans(self._note_orphan)
        self._by_pid: dict[int, str] = {}  # pid -> name, of instances that run
        self._dropped: list[str] = []  # names that the keeper may forget after that
        self._jobs_over: set[str] = set()  # names of jobs that have ended, which is not written down yet
        self._over: list[str] = []  # identities that the keeper may forget once their exits are recorded
        self._stopping: dict[str, None] = {}  # names that are being stopped
        self._asking: Any = None
        self._undescribed = False
        self._began = time.time()
        self._snapshots: set[str] = set()  # identities whose definitions are in files of their own
        self.replacing = Replacing(self)
        self._left = False  # the keeper has said that it leaves
        self._exit_code: int | None = None  # of the process that ended the colony
        self._asked = False  # to end
        self._judging: Any = None  # the next look at definitions on trial
        self._heeds_lateness = False
        self._unheard: set[str] = set()  # names whose time was up while nobody could hear them
        self._memory = MemoryWatch(self)
        self.tending, self.ordering, self.sockets = Tending(self), Ordering(self), Sockets(self)
        self.descriptors = Descriptors(self, self.problem, self._describe_ourselves)

    # starting

    def startService(self) -> None:
        """Take the lock on the state directory. Everything else waits for the reactor.

        :raises SystemExit: when another supervisor has it, or directories cannot be made.
        """
        super().startService()  # type: ignore[no-untyped-call]
        settings = self.settings
        try:
            for directory in filter(None, (settings.config, settings.messages, settings.pids)):
                make_closed(directory)
            self._check_places()
            make_private(settings.state)
            for name, mode in _PLACES.items():
                make_closed(f"{settings.state}/{name}", mode)
            for name in ("config", "notify"):
                os.chmod(f"{settings.state}/{name}", _PLACES[name])  # whatever our umask is
            self._logs = os.path.abspath(settings.logs or f"{settings.state}/logs")
            make_closed(self._logs, 0o700)
            self._check_trust()
            self._take_lock()
            cut_torn_record(f"{settings.state}/forwarding")
        except UnsafeState as unsafe:
            sys.exit(f"cannot start: {unsafe}")
        except OSError as error:
            sys.exit(f"cannot start: cannot use {error.filename}, state directory {settings.state}: {error.strerror}")
        self.reactor.callWhenRunning(self._begin_or_say_why)

    def _begin_or_say_why(self) -> None:
        """A supervisor that cannot begin says so and ends; what runs under a keeper is not touched."""
        try:
            self._begin()
        except Exception as error:  # noqa: BLE001
            _log.failure("cannot start")
            sys.stderr.write(f"cannot start: {error}\n")
            self._give_up()

    def _give_up(self) -> None:
        """End with status 1, leaving what runs to the next supervisor."""
        self._failed = True
        self.reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self.reactor.stop()

    def _check_places(self) -> None:
        state = os.path.realpath(self.settings.state)
        for directory in (self.settings.config, self.settings.messages):
            if os.path.commonpath([state, os.path.realpath(directory)]) == os.path.realpath(directory):
                sys.exit(f"cannot start: the state directory {state} lies inside {directory}")
        if os.path.realpath(self.settings.config) == os.path.realpath(self.settings.messages):
            sys.exit(f"cannot start: {self.settings.config} cannot be for both configuration and messages")

    def _check_trust(self) -> None:
        """As root, write nowhere where anybody could let that lead elsewhere."""
        if self.settings.strict and os.geteuid() == 0:
            for directory in filter(None, (self.settings.state, self._logs, self.settings.pids)):
                if why := why_open(directory):
                    sys.exit(f"cannot start: {why}; --no-strict-modes would allow it")

    def _take_lock(self) -> None:
        """Be the only supervisor; and let anybody see that there is one."""
        if self.replacing.received is not None:
            self._lock, self._shown = self.replacing.received.lock, self.replacing.received.shown
            return
        # For us alone to open: whoever could would have the power to keep us from starting.
        self._lock = os.open(f"{self.settings.state}/supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    holder = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
                    sys.exit(f"cannot start: ncolony (pid {holder}) already supervises {self.settings.config}")
                time.sleep(0.01)
        with contextlib.suppress(OSError):  # on a full disk; only for people
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)
        self._shown = os.open(f"{self.settings.state}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._show_lock(time.monotonic() + _LOCK_WAIT_S)

    def _show_lock(self, until: float = 0.0) -> None:
        """Hold the lock that anybody may try; who tries it at this moment has it for an instant."""
        while True:
            try:
                fcntl.flock(self._shown, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    return  # somebody keeps it from us: until the next scan others are told that no supervisor runs
                time.sleep(0.001)

    @property
    def locks(self) -> tuple[int, int]:
        """The descriptors of the lock that decides and of the one that shows."""
        return self._lock, self._shown

    def stops_left(self) -> dict[str, tuple[int, int, float]]:
        """What is being stopped: name -> instance, next step of the sequence, seconds until then."""
        now, found = self.reactor.seconds(), {}
        for name in self._stopping:
            process = self.known[name].process
            if process is not None and process.deadline is not None and process.pending is None:
                found[name] = (process.number, process.rung, max(0.0, process.deadline - now))
        return found

    def _begin(self) -> None:
        """The reactor runs: find out what there is, then what runs already, then make them agree."""
        reach("supervisor.locked")
        settings, reactor = self.settings, self.reactor
        limit = raise_descriptor_limit() if self.replacing.received is None else self.replacing.received.nofile
        self.surroundings = launch.Surroundings.present(limit)
        self.notifier = Notifier(reactor, lambda: (known.state.value for known in self.known.values()))
        self.records = Records(reactor, settings.state, settings.pids, self._describe, self.problem)
        self.changes = Changes(self)
        self._happenings = Events(settings.state, self.problem)
        self.definitions = Definitions(f"{settings.state}/previous", lambda text: _log.error("{text}", text=text))
        self.inbox = Inbox(reactor, settings.messages, settings.state, self._take_message, self.problem)
        self.inbox.guarded = self.guarded
        self.inbox.answered = lambda name, answer: self.happened(
            "message", file=printable(name), result=answer.state, reason=answer.why
        )
        self.output = Output(self, self._logs)
        self.chronicle = Chronicle(settings.state, self._logs, self.problem)
        fifos = self.replacing.received.fifos if self.replacing.received else {}
        self.hands = Hands(reactor, settings.state, self._logs, settings.log_budget, self._report, fifos)
        try:
            for companion in companions(settings):
                self.definitions.offer(*companion)
        except UnicodeEncodeError:
            self.problem("companions", f"cannot run companions: not UTF-8: {printable(settings.state)}")
        self.hands.welcome_sent = lambda: {"read": self.output.follower.offsets(), "linger": settings.linger}
        self._handle_signals()
        self._describe_ourselves()
        for directory in (f"{settings.state}/status", f"{settings.state}/answers", settings.pids):
            if directory is not None:
                sweep(directory)
        self._snapshots = set(os.listdir(f"{settings.state}/config"))
        self._earlier = self.records.earlier()
        self._reported = set(self._earlier)
        self._desk = Desk(self)
        self.hands.connect()
        self.guarded(self.changes.begin)  # while the keeper starts
        self.watcher = Watcher(reactor, self._woken)
        self._exit_code = self._earlier_exit_code()
        if self._desk.end_was_asked_for:
            self.quit()  # an earlier supervisor was killed while it did
        _log.info("ncolony {version} supervises {config}", version=__version__, config=settings.config)
        self.happened("supervisor", reason="started" if self.replacing.received is None else "upgraded")
        reach("supervisor.begun")

    def _handle_signals(self) -> None:
        """Install our own, also for PID 1, whose default is to ignore; and become the reaper of what a keeper leaves.

        An instance whose keeper died becomes our child then: we reap it at once, and a new keeper learns its status.
        """
        become_subreaper()

        def on(number: int, call: Callable[[], None]) -> None:
            signal.signal(number, lambda *_: self.reactor.callFromThread(self.guarded, call))

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            on(number, self.quit)
        on(signal.SIGHUP, lambda: self.notifier.around(self._scan))
        on(signal.SIGUSR1, self.output.reopen)
        on(signal.SIGCHLD, self.orphans.reap)
        on(signal.SIGUSR2, self.replacing.begin)
        upgrade.hear_signals()
        self.orphans.reap()

    def _describe_ourselves(self) -> None:
        settings = self.settings
        about = {
            "pid": os.getpid(), "version": __version__, "started": self._began,
            "problems": list(self._problems.values()),
            "config": os.path.abspath(settings.config), "messages": os.path.abspath(settings.messages),
            "state": settings.state, "logs": self._logs, "keeper": self.hands.pid,
            "descriptors": self.descriptors.figures(),
        }  # fmt: skip
        try:
            # Not by msgspec: paths need not be UTF-8.
            write_whole(f"{settings.state}/supervisor.json", json.dumps(about).encode())
            self._undescribed = False
        except OSError:
            self._undescribed = True

    # one turn: whatever comes in, the queue of events is worked off and orders go out

    def guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call, then do what follows from it. Nothing that goes wrong with one process or file ends the loop."""
        self.attempt(call, *arguments)
        self.settle_turn()
        self._set_wake_up()

    def attempt(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call; whatever goes wrong with this is told, and the others are not concerned."""
        try:
            call(*arguments)
        except Exception:  # noqa: BLE001
            _log.failure("cannot go on with one thing; the others are not concerned")

    def settle_turn(self) -> None:
        """Work off what was queued, and send and write what comes of it."""
        self.drain_events()
        self.sockets.review()
        self.descriptors.review()
        self.hands.flush()
        self._record_exits()
        self._happenings.write()

    def _step(self, name: str, event: Event) -> None:
        known = self.known.get(name)
        if known is None or known.process is None:
            return
        before = known.process
        known.process, effects = lifecycle.step(before, event, self.reactor.seconds())
        self._live += (known.process.state in LIVE) - (before.state in LIVE)
        for effect in effects:
            self._perform(name, known, effect)
        if effects and self._prompt and not self.events:
            self.hands.flush()  # the keeper is at work while we write down what it means
        if known.process is not None and known.process is not before:
            self._changed(name, known, before)
        self.notifier.status()

    def _perform(self, name: str, known: Known, effect: Effect) -> None:
        assert known.process is not None
        if isinstance(effect, Spawn):
            self._spawn(name, known, effect.number)
        elif isinstance(effect, Signal) and known.identity is not None:
            reach("signal.before")
            self.hands.signal(known.identity, effect.signal, effect.scope, wake=True)
        elif isinstance(effect, Forget):
            self._forget(name, known)
        elif isinstance(effect, Shutdown) and not self.quitting:
            self._end_because_of(name, effect.how)

    def _spawn(self, name: str, known: Known, number: int) -> None:
        definition = known.definition
        identity = self._identities.new()
        known.identity, known.pid, known.started = identity, None, None
        known.healthy, known.health, known.said, known.phase = None, "", "", ""
        known.troubles.pop("MAINPID", None)
        if known.process is not None and known.process.policy.job:
            self.records.write(name)  # before the order: what comes after us must not order this run once more
        if not self.hands.agreed:
            return  # first the keeper says what it holds: see _on_welcome
        try:
            if definition is None:
                raise launch.Impossible(known.problem or "there is no definition of it")
            self.descriptors.take(name, known)
            gifts, variables = giving.gifts(definition.config, known.file, self.settings.state, identity)
            ours = self._environment(name, identity, known, definition)
            order = launch.order(definition.config, self.surroundings, ours | variables) | gifts
            policy = known.process.policy  # type: ignore[union-attr]
            memo = [definition.generation, definition.digest, as_text(policy)]
            order |= {"name": name, "number": number, "memo": memo, "cgroup": self.settings.cgroup}
            log = plan(name, definition.config.log, order["cwd"], order["uid"], order["gid"])
            order |= while_running(definition, policy) | {"follow": as_text(log)}
            self.instances[identity] = (name, number)
            self.sockets.given(identity, [one["key"] for one in gifts.get("sockets", ())])
            self.sockets.review()  # what is closed first may be what is to be opened
            self.hands.start(identity, order)
        except launch.Impossible as impossible:
            self._refused(name, identity, number, str(impossible))
        except OSError as error:
            self._refused(name, identity, number, f"cannot prepare its output: {error.strerror}")

    def _environment(self, name: str, identity: str, known: Known, definition: Definition) -> dict[str, str]:
        """What only we can tell an instance: who it is, and what its file says."""
        ours = {"NCOLONY_NAME": name, "NCOLONY_INSTANCE": identity}
        if known.index is not None:
            ours["NCOLONY_INDEX"] = str(known.index)
        if len(definition.text) + len("NCOLONY_CONFIG=") < launch.LONGEST_STRING:
            return ours | {"NCOLONY_CONFIG": definition.text.decode()}
        path = f"{self.settings.state}/config/{identity}"
        self._snapshots.add(identity)
        owner = launch.find_owner(definition.config.uid, definition.config.gid)
        write_whole(path, definition.text, 0o600)
        if owner.uid is not None or owner.gid is not None:
            os.chown(path, -1 if owner.uid is None else owner.uid, -1 if owner.gid is None else owner.gid)
        return ours | {"NCOLONY_CONFIG_FILE": path}

    def _refused(self, name: str, identity: str, number: int, why: str) -> None:
        self.instances.pop(identity, None)
        self.sockets.over(identity)
        self._remove_snapshot(identity)
        how = Exit(refused=printable(why))
        self.events.append((name, lifecycle.Ended(number, how, empty=True, luck=random.random())))
        self._note_exit(name, self.known[name], identity, number, how, {"at": time.time()})

    def _changed(self, name: str, known: Known, before: Process) -> None:
        """Everything that others should see of a process that is not what it was."""
        process = known.process
        assert process is not None
        self._schedule(name, known)
        self.sockets.concern(name, known)
        self.descriptors.concern(name, known)
        if process.state is not before.state:
            if known.file in self.definitions.on_trial:
                self._judge_at(self.reactor.seconds())
            self._tell(name, known)
            self._watch_stop(name, known, process)
            self.happened(
                process.state.lower(), name, state=process.state.value, instance=process.number, pid=known.pid,
                reason=process.reason,
            )  # fmt: skip
            if process.state is not State.RUNNING:
                known.memory = None
            elif before.state is State.STARTING and process.policy.ready_timeout is not None:
                self.happened("ready", name, instance=process.number, reason="")
            self.ordering.changed(name, known)
        elif before.deadline is None and process.state is State.STARTING:
            self.ordering.changed(name, known)  # its instance exists
        elif process.state is State.EXITED and process.has_succeeded is not before.has_succeeded:
            self.ordering.changed(name, known)  # by another word of what success is
        self.records.changed(name, transient=process.state is State.STARTING and known.pid is None)
        self._desk.judge(name, process)
        if self.quitting and process.state not in LIVE:
            self._quit_if_done()

    def happened(self, event: str, name: str = "", **more: object) -> None:
        """Tell who listens to events."""
        shown = name if problem_with_name(name) is None else printable(name)
        self._happenings.add({"at": round(time.time(), 6), "event": event, "name": shown, **more})

    def _schedule(self, name: str, known: Known) -> None:
        deadline = known.process.deadline if known.process is not None else None
        if deadline is not None and (known.timed is None or deadline < known.timed):
            known.timed = deadline
            heapq.heappush(self._deadlines, (deadline, name))

    def _tell(self, name: str, known: Known) -> None:
        process = known.process
        assert process is not None
        if self.quitting:
            return  # said once for all
        if process.state is State.RUNNING:
            _log.info("{name}: running, pid {pid}", name=name, pid=known.pid)
        elif process.state is State.BACKOFF and process.deadline is not None:
            wait = process.deadline - self.reactor.seconds()
            _log.warn("{name}: {reason}; next try in {wait:.3g} s", name=name, reason=process.reason, wait=wait)
        elif process.state is State.FATAL:
            again = "" if process.deadline is None else f"; tried again in {process.policy.retry_after:g} s"
            _log.error("{name}: {reason}{again}", name=name, reason=process.reason, again=again)
        elif process.state in (State.STOPPED, State.EXITED):
            _log.info("{name}: {state}: {reason}", name=name, state=process.state.value, reason=process.reason)
        elif process.state is State.STOPPING or (process.state is State.STARTING and process.reason):
            _log.info("{name}: {state}: {reason}", name=name, state=process.state.value.lower(), reason=process.reason)

    def _watch_stop(self, name: str, known: Known, process: Process) -> None:
        """While a process is being stopped, find out now and then what that waits for."""
        known.holding = ()
        if process.state is not State.STOPPING:
            self._stopping.pop(name, None)
            return
        self._stopping[name] = None
        if self._asking is None:
            self._asking = self.reactor.callLater(_ASK_S, self.guarded, self._ask_what_holds)

    def _ask_what_holds(self) -> None:
        self._asking = None
        now = self.reactor.seconds()
        for name in self._stopping:
            known = self.known.get(name)
            if known is not None and known.process is not None and now - known.process.since >= _ASK_S / 2:
                self.hands.order({"do": "tree", "id": known.identity})
        if self._stopping:
            self._asking = self.reactor.callLater(_ASK_S, self.guarded, self._ask_what_holds)

    def _on_tree(self, message: dict[str, Any]) -> None:
        name, _ = self.instances.get(message["id"], ("", 0))
        known = self.known.get(name)
        if known is not None and known.identity == message["id"] and name in self._stopping:
            holding = tuple(message["members"])
            if holding != known.holding:
                known.holding = holding
                self.records.changed(name)

    def _set_wake_up(self) -> None:
        """One call is due at most: for the earliest deadline of all."""
        due = self._deadlines[0][0] if self._deadlines else None
        if self._wake_up is not None and self._wake_up.active():
            if due is not None and self._wake_up.getTime() <= due:
                return
            self._wake_up.cancel()
        if due is not None:
            self._wake_up = self.reactor.callLater(max(0.0, due - self.reactor.seconds()), self.guarded, self._tick)

    def _tick(self) -> None:
        now = self.reactor.seconds()
        if self._deadlines and now - self._deadlines[0][0] > _LATE_S and not self._heeds_lateness:
            # We were held up. What processes have said meanwhile, in time, is to be heard first.
            self._heeds_lateness = True
            self.reactor.callLater(0, self.guarded, self._tick)
            return
        self._heeds_lateness = False
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, name = heapq.heappop(self._deadlines)
            known = self.known.get(name)
            if known is None or known.process is None or known.timed != deadline:
                continue
            known.timed = None
            if known.process.deadline is not None and known.process.deadline > now:
                self._schedule(name, known)  # put off meanwhile
            elif known.process.state in _SPEAKING and not self.hands.agreed:
                self._unheard.add(name)  # without a keeper nobody hears that it is ready, or lives
            else:
                self.events.append((name, lifecycle.Tick(random.random())))

    # the config directory

    def _woken(self, directory: str, names: Names) -> None:
        if not self.quitting:
            look = self._look_config if directory == self.settings.config else self._look_messages
            self.guarded(look, names)

    def _scan(self, hinted: bool = False) -> None:
        """The truth about both directories; `hinted`: see Directory.scan."""
        self.watcher.arm(self.settings.config)
        self.watcher.arm(self.settings.messages)
        self._show_lock()
        if self._undescribed:
            self._describe_ourselves()
        self.records.retry()
        if self._applied != self.definitions.summary() and self.adopted:
            self._write_applied()
        self.inbox.retry()
        self._look_config(None, hinted)
        self._look_messages(None)

    def _scan_periodically(self) -> None:
        if self.quitting:
            return
        self.guarded(self._scan, self.watcher.is_told(self.settings.config))
        self.reactor.callLater(self.settings.frequency, self._scan_periodically)

    def _look_messages(self, names: Iterable[str] | None) -> None:
        if not self.adopted or self.quitting:
            return
        try:
            self.inbox.scan(names)
        except OSError as error:
            self.cannot_read(self.settings.messages, error)
        else:
            self.problem(self.settings.messages, "")

    def _look_config(self, names: Names, hinted: bool = False) -> None:
        if not self.quitting:
            self.changes.notice(names, hinted)
            self.changes.work()

    def cannot_read(self, directory: str, error: OSError) -> None:
        """A directory that vanished is not the removal of its processes: say so and wait for its return."""
        self.problem(directory, f"cannot read {directory}: {error.strerror}; what runs goes on")

    def problem(self, what: str, problem: str) -> bool:
        """Say what is wrong with `what`, or "" that nothing is, where people look; True when that is new."""
        if self._problems.get(what, "") == problem:
            return False
        if problem:
            _log.error("{problem}", problem=problem)
            self._problems[what] = problem
        else:
            _log.info("no more: {problem}", problem=self._problems.pop(what))
        self._describe_ourselves()
        return True

    def strange(self, name: str) -> set[str]:
        """Copies that were adopted while their file could not be read."""
        return {copy for copy in self._strange_copies if copy.rpartition(":")[0] == name}

    def note_all(self, names: Iterable[str]) -> None:
        """What the files say of these processes now is to be applied."""
        for name in names:
            source, known = self.definitions.of(name), self.known.get(name)
            if source is None:
                if known is None:
                    continue
                self._strange_copies.discard(name)
                known.definition = known.problem = known.rolled_back = None
            else:
                if known is None:
                    if source.definition is None and source.index is not None:
                        continue
                    known = self.known[name] = Known()
                self._note(name, known, source)
            self.pending.add(name)

    def _note(self, name: str, known: Known, source: Source) -> None:
        if source.problem != known.problem:
            if source.problem:
                self.happened("problem", name, reason=source.problem)
            elif known.problem:
                self.happened("healed", name, reason="")
        if source.definition is not None and source.definition is not known.definition:
            for warning in source.definition.warnings:
                _log.warn("{name}: {warning}", name=printable(name), warning=warning)
        if source.definition is None and source.index is not None:
            self._strange_copies.add(name)
        else:
            self._strange_copies.discard(name)
        known.definition, known.problem, known.rolled_back = source.definition, source.problem, source.rolled_back
        known.file, known.index = source.file, source.index

    def _judge_trials(self) -> None:
        """See whether new definitions have led to processes that are ready, or have to be taken back."""
        self._judging, now = None, self.reactor.seconds()
        looks = []
        for file in self.definitions.on_trial:
            names = self.definitions.processes(file)
            processes = [self._as_applied(name) for name in names]
            looks += [at for one in processes if one is not None and (at := ready_at(one)) is not None and at > now]
            if concerned := self.definitions.judge(file, processes, now):
                self.note_all(concerned)
                for name in names:
                    if (known := self.known.get(name)) is not None and known.rolled_back:
                        self.happened("rolled-back", name, reason=known.rolled_back)
        self.note_all(self.definitions.untangle(now))
        self.apply()
        self.drain_events()
        self._judge_at(min(looks, default=None))

    def _as_applied(self, name: str) -> Process | None:
        """The process, if what runs is what its newest definition says."""
        known = self.known.get(name)
        if known is None or known.definition is None or known.applied is None:
            return None
        return known.process if known.applied.generation == known.definition.generation else None

    def _judge_at(self, when: float | None) -> None:
        """Look at the definitions on trial then, or when the first of them has no more time."""
        due = min((at for at in (when, self.definitions.next_verdict()) if at is not None), default=None)
        if due is None or self.quitting or not self.definitions.on_trial:
            return
        if self._judging is not None and self._judging.active():
            if self._judging.getTime() <= due:
                return
            self._judging.cancel()
        wait = max(0.0, due - self.reactor.seconds())
        self._judging = self.reactor.callLater(wait, self.guarded, self._judge_trials)

    def apply(self, names: Iterable[str] | None = None) -> list[str]:
        """Apply what was read, all of it or of these; the names concerned."""
        applied = in_order(self.pending if names is None else self.pending.intersection(names))
        self.pending.difference_update(applied)
        for name in applied:
            if (known := self.known.get(name)) is not None:
                self.attempt(self._apply, name, known)
        if self._applying is None and self.definitions.summary() != self._applied:
            self._applying = self.reactor.callLater(_APPLIED_S, self.guarded, self._write_applied)
        self._judge_at(None)
        return applied

    def _write_applied(self) -> None:
        """Let anybody compare what we have applied with what the directory holds."""
        self._applying, summary = None, self.definitions.summary()
        try:
            write_whole(f"{self.settings.state}/applied", msgspec.json.encode({**summary, "at": time.time()}))
        except OSError as error:
            self.problem("applied", f"cannot write {self.settings.state}/applied: {error.strerror}")
            return  # tried again at the next scan
        self._applied = summary
        self.problem("applied", "")

    def _apply(self, name: str, known: Known) -> None:
        """Make the process agree with its definition."""
        self.begin_now([name])
        self.records.changed(name)
        self.notifier.status()
        self._memory.concern(name)
        self.sockets.concern(name, known)
        if known.definition is None and known.problem is not None:
            return  # not a process, or adopted, and then it goes on with what it was started from
        waits = known.process is not None and known.process.state is State.WAITING
        if not waits:
            self.ordering.define(name, known)
        found = self._applied_from(known.definition)
        if known.process is None:
            if found is None:
                self._forget(name, known)
                return
            known.process = msgspec.structs.replace(
                self._first(name, known, found), waiting_for=self.ordering.waiting_for(name)
            )
            if known.applied is not None:
                self.descriptors.keep(name, known)
                self._schedule(name, known)
                self.ordering.changed(name, known)
                return  # as an earlier supervisor left it
        event = change(known.applied, found)
        known.applied = found
        if event is not None:
            self.output.resettle(name, known, found.policy if found else known.process.policy)
            if isinstance(event, lifecycle.Removed) and known.file in self.definitions:
                event = lifecycle.Removed(
                    "there are to be fewer instances" if known.index is not None else "it has instances"
                )
            self.events.append((name, event))
        if waits:
            # With the new definition, or not at all: in this order.
            self.ordering.define(name, known)

    def _first(self, name: str, known: Known, found: Applied) -> Process:
        """A process that this supervisor sees for the first time and that has no instance."""
        now = self.reactor.seconds()
        status = self._earlier.pop(name, None)
        if status is None:
            return Process(name=name, policy=found.policy, since=now)
        known.last_exit, known.late = status.last_exit, status.late
        if (process := remembered(name, found, memory_of(status), now)) is not None:
            known.applied = found
            return process
        return Process(name=name, policy=found.policy, number=status.instance, since=now)

    def _applied_from(self, definition: Definition | None) -> Applied | None:
        if definition is None:
            return None
        policy = policy_of(definition, self.settings.policy)
        return Applied(
            definition.generation,
            definition.digest,
            self._policies.shared(policy, self._policies_in_use),
            definition.config.enabled,
        )

    def _policies_in_use(self) -> Iterable[Policy]:
        return (known.applied.policy for known in self.known.values() if known.applied is not None)

    def _forget(self, name: str, known: Known) -> None:
        """Nothing is left of the process; a file with a problem keeps its status."""
        reason = known.process.reason if known.process is not None else ""
        known.process = known.applied = known.identity = known.pid = None
        self._stopping.pop(name, None)
        self.sockets.concern(name, known)
        self.descriptors.concern(name, known)
        if known.definition is None and known.problem is None:
            del self.known[name]
            self._memory.concern(name)
            self.happened("gone", name, reason=reason)
            self.output.follower.forget(name)
            self.chronicle.history.forget(name)
            self._dropped.append(name)
        self.records.changed(name)
        self._desk.judge(name, None)
        self.ordering.changed(name, known)
        if self.quitting:
            self._quit_if_done()

    # the keeper

    def _report(self, messages: list[dict[str, Any]]) -> None:
        self.guarded(self._hear, messages)

    def _hear(self, messages: list[dict[str, Any]]) -> None:
        """Do what follows from each message before the next; what is written and sent comes of all together."""
        for left, message in enumerate(messages, 1 - len(messages)):
            self._prompt = left == 0
            self.attempt(self._hear_one, message)
            self.drain_events()
        self._prompt = False
        self._begin_some()
        self.changes.go_on()
        self.ordering.go_on()

    def _hear_one(self, message: dict[str, Any]) -> None:
        message = checked(message)
        getattr(self, "_on_" + message["is"], self._on_anything)(message)

    def _on_anything(self, message: dict[str, Any]) -> None:
        """What a keeper of a later version says is not for us."""

    def _on_lost(self, message: dict[str, Any]) -> None:
        self.ordering.portion_done()
        self.hands.rescue(self.instances.keys() - {known.identity for known in self.known.values() if known.pid})
        self.orphans.reap()
        if self._left:
            self._finish()
        else:
            self.hands.leaving = False  # it left something undone
            _log.error("the keeper is gone; starting another, which adopts what runs")
            if message.get("why"):
                self.problem("keeper", f"the keeper cannot start: {message['why']}")

    def _on_leaving(self, message: dict[str, Any]) -> None:
        """The keeper has nothing left to do; its end is announced by the connection's."""
        self._left = True

    def _on_welcome(self, message: dict[str, Any]) -> None:
        """Agree with the keeper about what runs."""
        if self.hands.replace_keeper(message):
            self.output.drop_told()
            return  # it comes again, in our version
        self.descriptors.welcome(message.get("descriptors"))
        self.output.welcome(message["held"])
        self.problem("keeper", self.hands.problem)
        self.orphans.reap()
        held = sorted(message["held"], key=lambda one: (one["name"], one["number"]))
        for one in held:
            self.hands.hold(one["id"])  # every pipe before the first pidfd
        for one in held:
            self._meet(one)
        present = {one["id"] for one in held}
        self._meet_unrecorded(message.get("vanished", ()), held)
        for name, known in list(self.known.items()):
            process = known.process
            if process is not None and process.state in LIVE and known.identity not in present:
                self.events.append((name, lifecycle.Lost(process.number)))
        for identity in self.instances.keys() - present:
            del self.instances[identity]
            self.sockets.over(identity)
        self.hands.sweep(present)
        self.hands.agreed = True
        self.events += [(name, lifecycle.Tick(random.random())) for name in sorted(self._unheard)]
        self._unheard.clear()
        self._desk.signal_again()
        self._describe_ourselves()
        if not self.adopted:
            self.adopted = True
            self._begin_to_act(held)
        elif self.quitting:
            self.drain_events()
            self._quit_if_done()
        else:
            self.apply()

    def _begin_to_act(self, held: list[dict[str, Any]]) -> None:
        """It is known what runs: make it agree with what should, and carry on with what was asked for."""
        if self._exit_code is not None and held:
            self.quitting = True  # the end goes on
        elif self._exit_code is not None:
            self._exit_code = None  # it had come; what begins now is another life, of a container perhaps
            with contextlib.suppress(OSError):
                os.unlink(f"{self.settings.state}/ending")
        self.output.follower.catch_up({one["name"] for one in held if not one["empty"]})
        # The files first: what was removed meanwhile is not started again because its instance has ended.
        told, self.events = self.events, deque()
        if not self.quitting:
            self.apply()
        for name, known in self.known.items() if self.quitting else ():
            self.ordering.define(name, known)  # who is to end before whom
        beginning = dict(self.events)
        if not (held or self.quitting or self._desk.is_asked) and len(beginning) == len(self.events):
            # Nothing is there, and all begins: so much at a time that nobody has to hold a thousand orders.
            self._beginning, self.events = beginning, deque()
            for name in self._beginning:
                self.records.leave(name)
        self.events += told
        self.output.forget_strangers()
        with contextlib.suppress(OSError):
            self.chronicle.history.prune(self.known)
        if self.settings.config not in self._problems:
            self.output.tidy()
        for name in [name for name in self._earlier if name not in self.known]:
            del self._earlier[name]
            self.records.changed(name)
        for name in self._reported:
            if name not in self.known or self.known[name].pid is None:
                self.records.pid(name, None)
        self._desk.resume()
        self.ordering.begin()
        if self.quitting:
            self.drain_events()
            self.quitting = False
            self.quit()
        self._begins = True
        self.reactor.callLater(0, self.guarded, self._begin_some)
        self.reactor.callLater(0, self._scan_periodically)

    def _begin_some(self) -> None:
        """Have some more of the processes begin that there were when we did, as fast as the keeper gets on with it."""
        while self._beginning and self.hands.agreed and not self.hands.is_busy:
            self.begin_now([next(iter(self._beginning))])
        if self._begins and not self._beginning:
            self._begins = False
            self.notifier.begun()
            self.descriptors.begin()

    def begin_now(self, names: Iterable[str] | None = None) -> None:
        """Have these processes begin, or all, whose turn would come later: somebody wants something of them."""
        for name in list(self._beginning) if names is None else names:
            if (event := self._beginning.pop(name, None)) is not None:
                self.events.append((name, event))
                self.drain_events()
                self.records.see_to(name)

    def _meet(self, one: dict[str, Any]) -> None:
        """An instance that the keeper holds: ours already, or to be adopted."""
        identity, name, number = one["id"], one["name"], one["number"]
        known = self.known.get(name)
        if known is None:
            known = self.known[name] = Known()
            if (source := self.definitions.of(name)) is not None:
                self._note(name, known, source)
        self.sockets.given(identity, [key for key, _, _ in one.get("given", ())])
        ended = one["end"] if not one["alive"] else None
        if identity not in self.instances:
            self.instances[identity] = (name, number)
            if ended is not None and ended.get("ordered") and one["empty"]:
                # The whole colony was ended, and begins anew with us.
                self._note_exit(name, known, identity, number, exit_in(ended), {**one, **ended}, again=True)
                self._done_with(identity)
                self.pending.add(name)
                return
            gone = self.adopted and known.process is None and known.definition is None
            if ended is not None and one["empty"] and gone:
                # It was gone already; the keeper that should have forgotten it was killed.
                self._note_exit(name, known, identity, number, exit_in(ended), {**one, **ended}, again=True)
                self._done_with(identity)
                if known.problem is None:
                    del self.known[name]
                return
            if known.process is None or known.process.number < number:
                self._adopt(name, known, one)
                self.descriptors.keep(name, known)
        if one["alive"]:
            self.hands.meet(identity, one["pid"], one.get("began"), old=True)
        if known.identity == identity and one["alive"]:
            self._on_started({"id": identity, "pid": one["pid"], "at": one["started"]})
            if one.get("said"):
                self._on_notify(one)
            generation, digest, _ = one["memo"]
            applied = known.applied
            if applied is not None and applied.generation == generation and applied.digest != digest:
                # Live keys have changed since it was started, which a keeper that was started later does not know.
                self.output.resettle(name, known, applied.policy)
        if ended is not None:
            self._on_exited({**one, "again": True})
        if known.identity == identity and not self.replacing.was_handed(name, number):
            self.events.append((name, lifecycle.Resumed(number)))

    def _meet_unrecorded(self, vanished: Iterable[list[Any]], held: list[dict[str, Any]]) -> None:
        """An instance that ran and ended without that its keeper, killed, could even write down its pid."""
        pids = {one["pid"] for one in held} | {known.pid for known in self.known.values() if known.pid is not None}
        for identity, intended in vanished:
            if identity in self.instances and (found := self.orphans.end_of_unrecorded(intended, pids)):
                pid, end = found
                name = self.instances[identity][0]
                self.known[name].pid = pid
                lived = max(0.0, time.monotonic() - intended)
                end |= {"lived": lived, "at": time.time()}
                self._on_exited({"id": identity, "end": end, "empty": True})

    def _adopt(self, name: str, known: Known, one: dict[str, Any]) -> None:
        former = known.process
        try:
            generation, digest, words = msgspec.convert(one["memo"], tuple[str, str, Any])
            policy = from_text(words, Policy)
        except ValueError:  # whatever it was started from, it is not the present definition
            generation, digest, policy = "", "", self.settings.policy
        pace = policy.watchdog  # that it was told
        memory = None
        if (status := self._earlier.pop(name, None)) is not None:
            known.last_exit, known.late, memory = status.last_exit, status.late, memory_of(status)
            if status.instance == one["number"]:
                known.healthy, known.health = status.healthy, status.health
                known.said, known.phase = status.said, status.phase
            if status.instance == one["number"] and status.generation:
                # What was applied last: the instance may be on its way out because of it.
                generation, digest = status.generation, status.digest
        found = self._applied_from(known.definition)
        if found is None or found.digest != digest:
            found = Applied(generation, digest, policy, True)
        known.applied, known.identity = found, one["id"]
        now = self.reactor.seconds()
        known.process, again = adopted(name, one["number"], one["alive"], found, memory, now, pace)
        if self.replacing.was_handed(name, one["number"]) and self.replacing.received is not None:
            # The stop goes on where it was, since nothing that was sent was lost.
            _, rung, left = self.replacing.received.stopping[name]
            reason = memory.reason if memory else ""
            known.process = msgspec.structs.replace(
                known.process, state=State.STOPPING, rung=rung, deadline=now + left, reason=reason
            )
            self._schedule(name, known)
            self._watch_stop(name, known, known.process)
        else:
            self.events += [(name, event) for event in again]
        self._live += former is None or former.state not in LIVE
        self.pending.add(name)
        _log.info("{name}: adopted, pid {pid}", name=name, pid=one["pid"])
        self.happened("adopted", name, instance=one["number"], pid=one["pid"], reason="")

    def _note_orphan(self, pid: int, end: dict[str, Any]) -> None:
        """An instance ended while it had no keeper. On disk it is at once, where the next keeper looks for it."""
        known = self.known.get(self._by_pid.get(pid, ""))
        if known is None or known.pid != pid or known.started is None:
            return
        now = time.time()
        line = {"step": "exit", **end, "lived": max(0.0, now - known.started), "at": now}
        with contextlib.suppress(OSError):
            journal = os.open(f"{self.settings.state}/instances/{known.identity}", os.O_WRONLY | os.O_APPEND)
            try:
                os.write(journal, msgspec.json.encode(line) + b"\n")
            finally:
                os.close(journal)

    def _on_started(self, message: dict[str, Any]) -> None:
        name, number = self.instances.get(message["id"], ("", 0))
        known = self.known.get(name)
        if known is None or known.identity != message["id"]:
            return
        reach("started.told")
        self.output.started(name, known, message)
        self.hands.meet(message["id"], message["pid"], message.get("began"), old=False)
        known.pid = message["pid"]
        self._by_pid[message["pid"]] = name
        known.started = time.time() - (time.monotonic() - message["at"])
        self._pid_file(name, known, known.pid)
        self.events.append((name, lifecycle.Started(number, message["at"])))

    def _pid_file(self, name: str, known: Known, pid: int | None) -> None:
        before = self.records.trouble(name)
        if (trouble := self.records.pid(name, pid)) and not before:
            _log.error("{trouble}", trouble=trouble)

    def _on_refused(self, message: dict[str, Any]) -> None:
        identity = message["id"]
        name, number = self.instances.get(identity, ("", 0))
        self.hands.release(identity)
        if name in self.known:
            self._refused(name, identity, number, message["why"])

    def _on_exited(self, message: dict[str, Any]) -> None:
        identity, end = message["id"], message["end"]
        reach("exited.told")
        if end.get("was") and ("cpu" not in end or end.get("unknown")):
            # The keeper was not its parent; we were, for as long as there was no keeper.
            self.orphans.reap()
            if (seen := self.orphans.end_of(*end["was"])) is not None:
                end = {**end, **seen}
        name, number = self.instances.get(identity, ("", 0))
        known = self.known.get(name)
        if known is not None:
            how = exit_in(end)
            self._note_exit(name, known, identity, number, how, {**message, **end}, message.get("again", False))
            if known.process is not None and known.process.policy.job:
                self._jobs_over.add(name)
            if known.identity == identity:
                self._by_pid.pop(known.pid or 0, None)
                known.pid = None
                self._pid_file(name, known, None)
                self.events.append((name, lifecycle.Ended(number, how, message["empty"], random.random())))
        if message["empty"]:
            self._done_with(identity)

    def _on_emptied(self, message: dict[str, Any]) -> None:
        name, number = self.instances.get(message["id"], ("", 0))
        self.events.append((name, lifecycle.Emptied(number)))
        self._done_with(message["id"])

    def _done_with(self, identity: str) -> None:
        self.instances.pop(identity, None)
        self.sockets.over(identity)
        self.hands.release(identity)
        self._remove_snapshot(identity)
        self._over.append(identity)

    def _remove_snapshot(self, identity: str) -> None:
        if identity in self._snapshots:
            self._snapshots.discard(identity)
            with contextlib.suppress(OSError):
                os.unlink(f"{self.settings.state}/config/{identity}")

    def _note_exit(
        self, name: str, known: Known, identity: str, number: int, how: Exit, about: dict[str, Any], again: bool = False
    ) -> None:
        """Note how an instance ended, in its status and, after the orders of this turn, in its history."""
        last = LastExit(
            code=how.code, signal=how.signal_name or None, at=about["at"], lived=round(how.lived, 3), text=str(how),
            core=how.core, oom=how.out_of_memory, cpu=about.get("cpu"), rss_kb=about.get("rss_kb"),
        )  # fmt: skip
        if known.identity == identity or known.process is None:
            known.last_exit = last
        stopped = known.process is not None and known.process.state is State.STOPPING and known.identity == identity
        ran = not how.refused
        pid = known.pid or about.get("pid") or about.get("was", [0])[0]
        record = Record(
            id=identity, instance=number, pid=pid if ran else None,
            started=about["at"] - how.lived if ran else None, at=last.at, lived=last.lived, code=last.code,
            signal=last.signal, core=last.core, oom=last.oom, cpu=last.cpu, rss_kb=last.rss_kb, text=last.text,
            reason=known.process.reason if stopped and known.process else "",
        )  # fmt: skip
        since = {"since": 0} | {key: about[key] for key in ("since", "since_stderr") if key in about}
        self.chronicle.note(name, record, since if ran else None, again)

    def _record_exits(self, last: bool = False) -> None:
        """Write down how instances ended; only then, or at our own end, may the keeper forget them."""
        self.chronicle.write()
        if not (self._over or self._dropped) or not self.hands.connected:
            return
        unwritten = set() if last else self.chronicle.unwritten()
        for name in self._jobs_over:
            self.records.write(name)  # once the keeper has forgotten it, nothing else tells that the run is over
        self._jobs_over.clear()
        for identity in self._over:
            if identity not in unwritten:
                self.hands.forget(identity)
        for name in self._dropped:
            self.hands.order({"do": "drop", "name": name})
        self._over, self._dropped = [identity for identity in self._over if identity in unwritten], []
        self.hands.flush()

    def _on_signalled(self, message: dict[str, Any]) -> None:
        if message["ack"] == PORTION:
            self.ordering.portion_done()
        else:
            self._desk.signalled(message["ack"], message["done"])

    def _on_notify(self, message: dict[str, Any]) -> None:
        """An instance says something of itself; see keeper/ears.py."""
        identity, said = message["id"], message["said"]
        name, number = self.instances.get(identity, ("", 0))
        known = self.known.get(name)
        if known is None or known.identity != identity:
            return
        reach("said.told")
        if said.get("READY") == "1":
            self.hands.was_ready(identity)
        self.tending.heard(name, known, number, said)

    def _on_kept(self, message: dict[str, Any]) -> None:
        self.sockets.offered(message["key"])

    def _on_memory(self, message: dict[str, Any]) -> None:
        self._memory.measured(message["sizes"])

    def _on_trouble(self, message: dict[str, Any]) -> None:
        self.output.trouble(message)

    def _on_output(self, message: dict[str, Any]) -> None:
        self.output.written(message)

    # requests

    def _take_message(self, file_name: str, message: Message) -> None:
        self._desk.take(file_name, message)

    def catch_up(self, name: str | None = None, fully: bool = False) -> list[str]:
        """Apply what was written before a message before the message: of one name, or all. The names concerned."""
        names = None if name is None else {name, name.rpartition(":")[0]} - {""}
        applied = self.changes.catch_up(names, fully)
        self.drain_events()
        return applied

    def drain_promptly(self) -> None:
        """The same for what no message has asked for: orders are sent before it is written down what they mean."""
        self._prompt = True
        self.drain_events()
        self._prompt = False

    def drain_events(self) -> None:
        """Work off what has happened."""
        while self.events:
            name, event = self.events.popleft()
            try:
                self._step(name, event)
            except Exception:  # noqa: BLE001
                _log.failure("cannot go on with {name}; the others are not concerned", name=name)

    # what others see

    def _describe(self, name: str) -> Status | None:
        known = self.known.get(name)
        if known is None:
            return None
        process, applied, definition = known.process, known.applied, known.definition
        shown = name if problem_with_name(name) is None else printable(name)
        wall, now = time.time(), self.reactor.seconds()
        notes = (*known.troubles.values(), *self.records.trouble(name))
        if process is None:
            # What an earlier supervisor knew is kept until the file can be used: its number, and a wish not to run.
            was = self._earlier.get(name)
            down = was if was is not None and was.wanted == Wanted.DOWN else None
            return Status(
                name=shown, state="FATAL", wanted="down" if down else "up", pid=None,
                instance=was.instance if was else 0, since=wall, started=None, restarts=0, next_try=None,
                reason=down.reason if down else known.problem or "", problem=known.problem, warnings=notes, group=(),
                enabled=True, generation=down.generation if down else "", digest=down.digest if down else "",
                last_exit=was.last_exit if was else None, file=shown,
            )  # fmt: skip
        again = process.deadline if process.state in (State.BACKOFF, State.FATAL) else None
        ready = ready_at(process)
        wanted = Wanted.UP if self.quitting and name in self._were_up else process.wanted
        return Status(
            name=shown,
            state=process.state.value,
            wanted=wanted.value,
            pid=known.pid,
            instance=process.number,
            since=wall - (now - process.since),
            started=known.started if known.pid is not None else None,
            restarts=process.restarts,
            next_try=None if again is None else wall + again - now,
            reason=process.reason,
            problem=known.problem,
            warnings=(definition.warnings if definition else ()) + notes,
            group=known.groups,
            enabled=process.enabled,
            generation=applied.generation if applied else "",
            digest=applied.digest if applied else "",
            last_exit=known.last_exit,
            holding=known.holding,
            pending="" if process.pending is None else process.pending.action.value,
            file=known.file if problem_with_name(known.file) is None else printable(known.file),
            ready_at=None if ready is None else wall + ready - now,
            memory=known.memory,
            rolled_back=known.rolled_back,
            failures=tuple(wall + at - now for at in process.failed),
            waiting_for=process.waiting_for if process.state is State.WAITING else (),
            said=known.said,
            phase=known.phase,
            healthy=known.healthy if known.pid is not None else None,
            health=known.health if known.pid is not None else "",
            late=known.late,
            job=definition is not None and definition.config.schedule is not None,
        )

    # the end

    def _end_because_of(self, name: str, how: Exit) -> None:
        """A process has ended that the colony stands and falls with."""
        self._exit_code = exit_code(how)
        _log.info("{name}: {how}: it ends the colony, with {code}", name=name, how=str(how), code=self._exit_code)
        with contextlib.suppress(OSError):
            write_whole(f"{self.settings.state}/ending", b"%d\n" % self._exit_code)
        self.reactor.callLater(0, self.guarded, self._end_by_itself)

    def _end_by_itself(self) -> None:
        """End as if asked to; who asks then is the first to do so, and gets a polite end too."""
        self.quit()
        self._asked = False

    def _earlier_exit_code(self) -> int | None:
        """The code that an earlier supervisor was to end with, and was killed before it had."""
        try:
            with open(f"{self.settings.state}/ending", "rb") as file:
                return int(file.read(20)) & 0xFF
        except (OSError, ValueError):
            return None

    def quit(self) -> None:
        """Stop every process and then ourselves; asked again, skip to KILL."""
        self.begin_now()
        again, self._asked = self.quitting and self._asked, True
        if not self.quitting:
            _log.info("stopping every process: {live} run", live=self._live)
            self.notifier.stopping()
            self.happened("supervisor", reason="stopping")
            self.records.slow_down()
            self.inbox.closed = True
            self._were_up = {
                name for name, known in self.known.items() if known.process and known.process.wanted is Wanted.UP
            }
        self.quitting = True
        if not self.adopted:
            if again:
                self._stop_without_keeper()
            else:
                self.reactor.callLater(_KEEPER_WAIT_S, self._stop_without_keeper)
            return  # first find out what runs: see _on_welcome
        if again and not self.hands.connected and not self._live:
            self._finish()  # no keeper can be had that would tell us more
            return
        processes = [(name, known.process) for name, known in self.known.items() if known.process is not None]
        if again:
            self.ordering.drop()
            self.events += [(name, lifecycle.Kill()) for name, _ in processes]
        else:
            staying = [name for name, process in processes if process.wanted is not Wanted.GONE]
            self.ordering.tell(staying, lifecycle.Stop("the colony was stopped"))
        self.drain_events()
        self._quit_if_done()

    def _stop_without_keeper(self) -> None:
        """There is no keeper that would tell what runs, and who asked for the end has waited long enough."""
        if not self.adopted:
            sys.stderr.write("cannot stop what runs: the keeper does not answer\n")
            self._give_up()

    def _quit_if_done(self) -> None:
        if self._live:
            return
        if self.hands.agreed and not self.hands.leaving:
            self.output.follower.when_idle(self._let_the_keeper_go)

    def _let_the_keeper_go(self) -> None:
        self._record_exits(last=True)
        self.hands.leave()

    def _finish(self) -> None:
        """Nothing runs and the keeper has gone: so do we, with a clean exit."""
        self.hands.leaving = True
        self.records.flush()
        self.replacing.end()
        self._desk.end()
        for name in ("supervisor.json", "ending"):
            with contextlib.suppress(OSError):
                os.unlink(f"{self.settings.state}/{name}")
        self.happened("supervisor", reason="stopped")
        self._happenings.write()
        if self._exit_code:
            self.reactor.addSystemEventTrigger("after", "shutdown", self._exit)
        _log.info("stopped")
        for waiting in self._stopped:
            waiting.callback(None)
        self._stopped = []
        if self.running:
            # Whoever asks once more now comes too late: the reactor is about to give its handlers up, and a signal
            # would make a clean end look like another.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP))
            with contextlib.suppress(Exception):
                self.reactor.stop()

    def _exit(self) -> None:
        """End with the code of the process that the colony stood and fell with; Twisted itself knows only 0 and 1."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(self._exit_code or 0)

    def stopService(self) -> Deferred[None] | None:
        """Part of the reactor's end: wait until everything has stopped."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._failed or self.hands.leaving:
            return None
        waiting: Deferred[None] = Deferred()
        self._stopped.append(waiting)
        self.guarded(self.quit)
        return waiting
