"""The keeper: parent of every instance. It spawns, reaps, signals and moves output; it decides nothing.

    python -I -S …/keeper/ STATE LOGS BUDGET CODE [NAME=DESCRIPTOR …]

STATE and LOGS are directories, BUDGET the bytes of all logs together, CODE what tells this version of us from another.
The descriptors: `peer`, a connected socket of the supervisor that started us; `lock`, `listener` and `handover`, of a
keeper that executed itself anew. A later supervisor connects to STATE/keeper.sock. Without one, everything goes on.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import fcntl
import functools
import gc
import heapq
import itertools
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback

import adopt
import kernel
import spawn
import tree
from doors import Doors
from ears import Ears
from ending import Ending
from instance import Instance, Pipe, how_it_ended, in_words
from kernel import reach
from pump import Logs
from safe import NOTIFY, Safe
from tree import Held
from wire import PROTOCOL, READY, STDERR, Unpacker, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from pump import Log

_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT
# Orders per turn, exits per turn and seconds of output per turn: a flood of one kind lets the others have theirs.
_ORDERS, _EXITS, _OUTPUT_S = 64, 256, 0.002
# Splices for what an instance that has just died left in its FIFOs; the rest follows when its tree is empty.
_SPLICES = 4
# A loud instance whose FIFO holds less than this is left alone for a moment: one splice of much costs less than many.
_WORTH, _REST_S = 1 << 18, 0.0002
# Orders are read in pieces of this size: a thousand of them, taken apart at once, would be megabytes for good.
_READ_AT_ONCE = 1 << 15
# How long the exit status of an adopted instance is waited for after its death; whoever inherited it may never reap it.
_STATUS_WAIT_S = 2.0
# In the middle of an exec a process has no environment, and nobody can tell whose it is: look again.
_LOOK_AGAIN_S, _DOUBT_S = 0.005, 0.05
# Descriptors that are not for instances: for what happens to them, such as reading /proc. And what is watched besides
# them: who connects, the supervisor, SIGCHLD, output.
_RESERVED, _OTHERS = 25, 4
# What an intent takes over from the order.
_INTENT = ("name", "number", "memo", "follow", "log", "stop", "scope", "notify", "uid", "ready")
# Where there are no pidfds, what is not our child is looked at this often.
_POLL_S = 0.1
_VMSTAT = kernel.Asked("/proc/vmstat", 1 << 16)


class Keeper:
    """The loop and what it holds."""

    def __init__(self, state: str, logs: str, budget: int, code: str) -> None:
        self.state, self.arguments, self.code = state, [state, logs, str(budget)], code
        self.journal, self.logs = spawn.Journal(state), Logs(logs, budget)
        self.boot = adopt.boot()
        self.by_id: dict[str, Instance] = {}
        self.by_pid: dict[int, Instance] = {}
        self.by_session: dict[int, Instance] = {}  # by the pid that they had
        self.doubts: dict[int, float] = {}  # pid of an orphan -> until when its empty environment is doubted
        self.strays: dict[int, Instance] = {}  # pid of an orphan that is our child now -> the instance it belongs to
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.outputs = select.epoll()  # FIFOs, apart from the rest so that a flood of output takes one turn in many
        self.pumped: dict[int, Pipe] = {}  # by their descriptors
        self.waiting: list[int] = []  # of these, the ones with output that has still to be taken
        self.watch(self.outputs.fileno(), self.take_output)
        self.later: list[tuple[float, int, Callable[[], None]]] = []  # a heap
        self.serial = itertools.count()
        self.peer: socket.socket | None = None
        self.listener: socket.socket | None = None
        self.unpacker, self.outbox = Unpacker(), bytearray()
        self.waits = False  # for the supervisor to read
        self.inbox: list[dict[str, Any]] = []
        self.leaving, self.chores, self.greeted = False, False, False
        self.subreaper = kernel.become_subreaper()
        self.over: list[Instance] = []  # their trees are empty, and their FIFOs still open
        self.bereaved: set[Instance] = set()  # a death in their trees, and what is left is still to be found
        self.marked: dict[str, list[int]] | None = None  # processes by instance, as of this turn
        self.polled: dict[Held, Callable[[], None]] = {}  # held without a pidfd
        self.ending = Ending(self)
        self.safe = Safe()
        self.ears, self.doors = Ears(self), Doors(self.safe)
        self.lock = -1
        self.vanished: list[tuple[str, float]] = []  # identities that were meant to be started and do not run, and when
        self.out_of_memory, self.looked_for_oom = _oom_kills(), 0.0

    # what is watched

    def watch(self, descriptor: int, handler: Callable[[], None], events: int = _READ) -> None:
        self.epoll.register(descriptor, events)
        self.handlers[descriptor] = handler

    def unwatch(self, descriptor: int) -> None:
        if self.handlers.pop(descriptor, None):
            self.epoll.unregister(descriptor)

    def run(self) -> None:
        """Turn until told to leave. One failing event is said on stderr and harms no other."""
        while not self.leaving:
            busy = self.inbox or self.chores or self.bereaved
            until = self.later[0][0] if self.later else None
            wait = 0 if busy else -1 if until is None else max(0.0, until - time.monotonic())
            try:
                ready = self.epoll.poll(wait)
            except InterruptedError:
                continue
            for descriptor, _ in ready:
                # An earlier event of the batch may have closed this descriptor: look it up, do not assume.
                if handler := self.handlers.get(descriptor):
                    self.attempt(handler)
            if self.chores:
                self.attempt(self.reap)
            if self.bereaved:
                self.attempt(self.comfort)
            self.attempt(self.obey)
            now = time.monotonic()
            while self.later and self.later[0][0] <= now:
                self.attempt(heapq.heappop(self.later)[2])
            self.attempt(self.flush)
            while self.over:
                # What comes next is on its way by now.
                self.attempt(functools.partial(self.close_fifos, self.over.pop()))

    def attempt(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            traceback.print_exc()

    # the supervisor

    def listen(self, listener: socket.socket | None = None) -> None:
        if listener is None:
            listener = _bind(self.state)
        listener.setblocking(False)
        self.listener = listener
        self.watch(listener.fileno(), lambda: self.accept(listener))

    def accept(self, listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except OSError:
            self.logs.close_one()  # should it be for want of descriptors
            return
        if hasattr(socket, "SO_PEERCRED"):
            _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (0, os.geteuid()):
                peer.close()
                return
        self.serve(peer)

    def serve(self, peer: socket.socket) -> None:
        """Obey this supervisor from now on: the lock on the state directory makes the newest the only one."""
        self.hang_up()
        peer.setblocking(False)
        self.peer, self.unpacker, self.outbox, self.greeted = peer, Unpacker(), bytearray(), False
        self.waits = False
        self.watch(peer.fileno(), self.receive)

    def hang_up(self) -> None:
        if self.peer is None:
            return
        self.unwatch(self.peer.fileno())
        self.peer.close()
        self.peer, self.inbox = None, []
        self.safe.greet(False)
        self.unattended()
        self.ending.linger()
        # The next supervisor finds us by this name, which somebody may have removed.
        if not self.leaving and self.listener is not None and not os.path.exists(f"{self.state}/keeper.sock"):
            self.unwatch(self.listener.fileno())
            self.listener.close()
            self.listen()

    def unattended(self) -> None:
        """Nobody reads the logs: nothing waits for that."""
        self.logs.attended = False
        for log in self.logs.by_name.values():
            self.resume(log)

    def receive(self) -> None:
        if self.peer is None or len(self.inbox) >= _ORDERS:
            return
        try:
            data = self.peer.recv(_READ_AT_ONCE)
            if not data:
                raise ConnectionResetError
            self.inbox += self.unpacker.feed(data)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self.hang_up()

    def tell(self, message: dict[str, Any]) -> None:
        # Before a supervisor has said hello nothing is told: the welcome tells it all.
        if self.peer is not None and self.greeted:
            self.outbox += pack(message)

    def flush(self) -> None:
        if self.peer is None or not (self.outbox or self.safe.unshared):
            return
        try:
            while self.outbox:
                del self.outbox[: self.peer.send(self.outbox[: 1 << 18])]
            self.safe.share(self.peer)
        except BlockingIOError:
            self.epoll.modify(self.peer.fileno(), _READ | _WRITE)
            self.waits = True
            return
        except OSError:
            self.hang_up()
            return
        if self.waits:
            self.epoll.modify(self.peer.fileno(), _READ)
            self.waits = False

    def obey(self) -> None:
        orders, self.inbox = self.inbox[:_ORDERS], self.inbox[_ORDERS:]
        self.marked = None
        for order in orders:
            try:
                getattr(self, "do_" + order["do"])(order)
            except Exception:
                traceback.print_exc()

    # orders

    def do_hello(self, order: dict[str, Any]) -> None:
        """Resynchronise: everything we hold, ended instances included."""
        self.logs.attended = self.greeted = True
        if "linger" in order:
            # A supervisor, and not somebody who only wants to have everything ended.
            self.ending.patience = order["linger"]
            self.ending.cancel()
        for name, offset in order.get("read", {}).items():
            if (log := self.logs.by_name.get(name)) is not None:
                log.was_read(offset)
                log.find()
        held = [instance.described() for instance in self.by_id.values()]
        about = {"protocol": PROTOCOL, "pid": os.getpid(), "code": self.code, "vanished": self.vanished}
        # Before ends are told, so that what a process that is gone said last is forwarded first.
        for log in self.logs.by_name.values():
            log.told, log.announced = False, 0
            self.announce(log)
        self.tell({"is": "welcome", **about, "held": held, "descriptors": self.descriptors()})
        self.safe.greet(bool(order.get("keeps")))
        for instance in self.by_id.values():
            instance.reported = not instance.alive
            if instance.empty:
                self.announce_last(instance)

    def do_start(self, order: dict[str, Any]) -> None:
        identity = order["id"]
        if identity in self.by_id:
            return
        order = adopt.sensible_order(order)
        reach("start.ordered")
        began = time.monotonic()
        intent = {key: order.get(key) for key in _INTENT}
        intent |= {"step": "intent", "boot": self.boot, "started": began}
        if order.get("cgroup"):
            intent["cgroup"] = f"{order['cgroup']}/{adopt.group_name(identity)}"
        instance = Instance(identity, intent, self.logs)
        for pipe in instance.pipes:
            if pipe.log.read_to is None:
                pipe.log.find()
            pipe.since = pipe.log.end
            pipe.log.configure(order.get("log") or {})
        intent |= instance.since()
        try:
            ways = len(instance.pipes) + instance.notify + bool(instance.ready)
            if not self.make_room(ways + sum(one["key"] not in self.safe.held for one in order.get("sockets") or ())):
                raise spawn.Refused(f"cannot hold its output: {os.strerror(errno.EMFILE)}")
            intent["given"] = instance.given = self.doors.open_all(order)
            with self.journal.begin(identity) as journal:
                self.journal.write(journal, intent)
                reach("start.intent")
                given, since = self.furnish(instance), tree.ticks()
                instance.pid = spawn.spawn(order, self.fifos_of(instance), spawn.make_cgroup(instance.cgroup), given)
                reach("start.spawned")
                self.by_id[identity] = self.by_pid[instance.pid] = instance
                record = adopt.record(instance.pid, since)
                instance.began = record["began"]
                with contextlib.suppress(OSError):  # a full disk: see `note`
                    self.journal.write(journal, record)
        except spawn.Refused as refusal:
            self.refuse(instance, str(refusal))
            return
        except OSError as error:
            self.refuse(instance, f"cannot keep a record of it in {self.state}: {error.strerror}")
            return
        except Exception as error:
            self.refuse(instance, f"cannot run it: {error}")
            return
        reach("start.recorded")
        about = {"pid": instance.pid, "at": began, "began": instance.began, "follow": instance.follow}
        self.tell({"is": "started", "id": identity, **about, **instance.since()})

    def furnish(self, instance: Instance) -> dict[int, int]:
        """Open what an instance is given, and let the supervisor have it first; what is passed on, by its numbers."""
        for pipe in instance.pipes:
            self.open_fifo(pipe)
        try:
            self.ears.open(instance, {})
        except OSError as error:
            raise spawn.Refused(f"cannot make what it says that it is ready with: {error.strerror}") from None
        if self.safe.unshared:
            self.flush()
        reach("start.furnished")
        return {number: self.safe.held[key] for key, number, _ in instance.given}

    def descriptors(self) -> tuple[int, int]:
        """How many there are, and how many of them are for instances; some are kept free for their logs and ends."""
        limit: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return limit, max(0, limit - 2 * self.logs.most_open - _RESERVED - _OTHERS)

    def room(self) -> int:
        """How many of these there are left."""
        return self.descriptors()[1] + _OTHERS - len(self.handlers) - len(self.pumped) - len(self.safe.sockets)

    def make_room(self, wanted: int) -> bool:
        """Let go of pidfds, which are a help, where an instance needs the room; False when that is not enough."""
        if self.room() >= wanted:
            return True
        everything = (one for i in self.by_id.values() for one in (i.held, *i.others.values()))
        for held in [one for one in everything if one is not None and one.began is not None]:
            if held.pidfd >= 0 and self.room() < wanted:
                died = self.handlers[held.pidfd]
                self.let_go(held)
                self.hold(held, died)
        return self.room() >= wanted

    def note(self, instance: Instance, line: dict[str, Any]) -> None:
        """Add to the journal. On a full disk it is known to us alone, and to what the process itself tells."""
        with contextlib.suppress(OSError):
            self.journal.add(instance.identity, line)

    def refuse(self, instance: Instance, why: str) -> None:
        self.close_fifos(instance)
        self.journal.forget(instance.identity)
        spawn.remove_cgroup(instance.cgroup)
        self.tell({"is": "refused", "id": instance.identity, "why": why})

    def do_signal(self, order: dict[str, Any]) -> None:
        """Signal one snapshot of the tree (or the leader alone), once; KILL goes on until the tree is empty."""
        instance = self.by_id.get(order["id"])
        if instance is None:
            self.acknowledge(order, False)
            return
        reach("signal.ordered")
        whole = order["scope"] == "tree"
        if whole:
            if not self.look_for_strays():
                self.soon(functools.partial(self.do_signal, order))
                return
            self.find_strangers(instance)
            instance.killing |= order["signal"] == signal.SIGKILL
        self.signal(instance, order["signal"], whole, order.get("wake", False))
        reach("signal.sent")
        self.acknowledge(order, instance.alive)

    def acknowledge(self, order: dict[str, Any], done: bool) -> None:
        """Say that a signal was sent, to a supervisor that wants to know."""
        if order.get("ack"):
            self.tell({"is": "signalled", "ack": order["ack"], "done": done})

    def signal(self, instance: Instance, number: int, whole: bool, wake: bool) -> None:
        if number == signal.SIGKILL:
            instance.killed = True
            if whole and instance.cgroup:
                spawn.kill_cgroup(instance.cgroup)
        ours = [instance.pid] if instance.alive and instance.held is None else []
        held = [instance.held] if instance.alive and instance.held is not None else []
        if whole:
            ours += sorted(pid for pid, one in instance.others.items() if one is None)
            held += [one for one in instance.others.values() if one is not None]
        roots = ours + [one.pid for one in held]
        below = [pid for pid in tree.with_descendants(roots) if pid not in roots] if whole else []
        family = {*roots, *below}
        tree.send(ours, held, [(pid, tree.is_below(family)) for pid in below], number, wake)

    def do_tree(self, order: dict[str, Any]) -> None:
        """Say which processes of an instance's tree there are."""
        if (instance := self.by_id.get(order["id"])) is not None:
            self.look_for_strays()
            roots = ([instance.pid] if instance.alive else []) + sorted(instance.others)
            members = [tree.named(pid) for pid in tree.with_descendants(roots)[:10]]
            self.tell({"is": "tree", "id": instance.identity, "members": members})

    def do_memory(self, order: dict[str, Any]) -> None:
        """Say how many bytes of memory each of these instances takes, everything it started included."""
        sizes = {}
        self.look_for_strays()
        for identity, limit in order["limits"].items():
            if (instance := self.by_id.get(identity)) is not None:
                roots = ([instance.pid] if instance.alive else []) + sorted(instance.others)
                sizes[identity] = tree.memory(tree.with_descendants(roots), limit)
        self.tell({"is": "memory", "sizes": sizes})

    def do_forget(self, order: dict[str, Any]) -> None:
        """The supervisor has taken note of the exit; nothing about the instance is needed any more."""
        instance = self.by_id.get(order["id"])
        if instance is not None and instance.empty:
            del self.by_id[instance.identity]
            if self.by_session.get(instance.pid) is instance:
                del self.by_session[instance.pid]
            reach("forget.ordered")
            self.journal.forget(instance.identity)
            spawn.remove_cgroup(instance.cgroup)
            reach("forget.done")

    def do_read(self, order: dict[str, Any]) -> None:
        log = self.logs.by_name.get(order["name"])
        if log is None:
            return
        log.was_read(order["to"])
        if not log.held_back():
            self.resume(log)
        self.announce(log)

    def do_log(self, order: dict[str, Any]) -> None:
        """New sizes for the log of a running process, and how it is to be stopped should we have to."""
        order = adopt.sensible_order(order)
        self.logs.get(order["name"]).configure(order["log"])
        if (errors := self.logs.by_name.get(f"{order['name']}/stderr")) is not None:
            errors.configure(order["log"])
        if (instance := self.by_id.get(order.get("id", ""))) is not None and "stop" in order:
            instance.stop, instance.scope = order["stop"], order["scope"]

    def do_close(self, order: dict[str, Any]) -> None:
        """Nobody wants these sockets any more."""
        for key in order["keys"]:
            self.doors.close(key)

    def do_drop(self, order: dict[str, Any]) -> None:
        """The process is gone: its log files stay, what we know of them goes."""
        if not any(instance.name == order["name"] for instance in self.by_id.values()):
            self.logs.drop(order["name"])
            self.logs.drop(f"{order['name']}/stderr")

    def do_reopen(self, _order: dict[str, Any]) -> None:
        self.logs.reopen()

    def do_leave(self, _order: dict[str, Any]) -> None:
        """End ourselves, which only an empty keeper does."""
        if not self.by_id:
            reach("leave")
            self.leave()

    def leave(self) -> None:
        """Say so and end, with what was kept for instances."""
        for key in list(self.safe.sockets):
            self.doors.close(key)
        self.tell({"is": "leaving"})
        self.flush()
        self.leaving = True

    def do_shutdown(self, _order: dict[str, Any]) -> None:
        """Stop every instance and end: asked for by hand, when there is no supervisor."""
        self.unattended()
        self.ending.begin()

    def do_patience(self, order: dict[str, Any]) -> None:
        """The supervisor will be away for a moment, and is to be waited for, however long that is otherwise."""
        self.ending.patience = order["seconds"]

    def do_upgrade(self, order: dict[str, Any]) -> None:
        """Execute the keeper of another version in our place: the same process, with the same children."""
        reach("upgrade.ordered")
        self.tell({"is": "upgrading"})
        self.flush()
        fifos = {p.name: p.descriptor for i in self.by_id.values() for p in i.pipes if p.descriptor >= 0}
        fifos |= self.ears.pipes
        pidfds = {i.identity: i.held.pidfd for i in self.by_id.values() if i.held and i.alive and i.held.pidfd >= 0}
        ends = {i.identity: i.end for i in self.by_id.values() if not i.alive and not i.adopted}
        kept = {"lock": self.lock}
        if self.listener is not None:
            kept["listener"] = self.listener.fileno()
        inherited = [*kept.values(), *fifos.values(), *pidfds.values(), *self.safe.held.values()]
        try:
            kept["handover"] = os.memfd_create("handover", 0)
            about = {"fifos": fifos, "pidfds": pidfds, "ends": ends, "patience": self.ending.patience}
            about |= {"kept": self.safe.held, "said": {i.identity: i.said for i in self.by_id.values() if i.said}}
            os.write(kept["handover"], json.dumps(about).encode())
            command = [*order["command"], *self.arguments, order["code"], *(f"{key}={fd}" for key, fd in kept.items())]
            for descriptor in inherited:
                os.set_inheritable(descriptor, True)
            os.execve(command[0], command, kernel.PASSED_ON)
        except Exception as error:
            print(f"cannot execute another version: {error}", file=sys.stderr)
        for descriptor in inherited:
            os.set_inheritable(descriptor, False)
        if "handover" in kept:
            os.close(kept["handover"])
        self.hang_up()  # we go on; the supervisor comes again

    # output

    def fifos_of(self, instance: Instance) -> dict[int, str]:
        """Where the descriptors of an instance that are FIFOs lead."""
        paths = [self.fifo_path(pipe.name) for pipe in instance.pipes]
        ready = {instance.ready: self.fifo_path(instance.identity + READY)} if instance.ready else {}
        return {1: paths[0], 2: paths[-1], **ready}

    def fifo_path(self, name: str) -> str:
        return f"{self.state}/fifo/{name}"

    def open_fifo(self, pipe: Pipe, descriptor: int = -1) -> None:
        """Read-write, so that we never see the hang-up that epoll repeats for ever while the last writer dies."""
        if descriptor < 0:
            descriptor = os.open(self.fifo_path(pipe.name), os.O_RDWR | os.O_NONBLOCK)
        pipe.descriptor = descriptor
        self.pumped[descriptor] = pipe
        self.outputs.register(descriptor, _READ)

    def pipes(self) -> dict[str, int]:
        """The FIFOs of instances that were started before us, opened. One that somebody removed harms no instance."""
        found = {}
        for identity in os.listdir(self.journal.directory):
            for name in (identity, identity + STDERR, identity + READY):
                try:
                    found[name] = os.open(self.fifo_path(name), os.O_RDWR | os.O_NONBLOCK)
                except OSError as error:
                    if error.errno in kernel.NO_DESCRIPTORS:
                        raise
        return found

    def close_fifos(self, instance: Instance) -> None:
        self.ears.close(instance)
        for pipe in instance.pipes:
            if pipe.descriptor >= 0:
                self.outputs.unregister(pipe.descriptor)
                del self.pumped[pipe.descriptor]
                pipe.log.paused.discard(pipe.descriptor)
                os.close(pipe.descriptor)
                pipe.descriptor = -1
            with contextlib.suppress(OSError):
                os.unlink(self.fifo_path(pipe.name))

    def take_output(self) -> None:
        """Take from the FIFOs that have output, as far as that goes in this turn; the rest has the next one."""
        until, moved, loud = time.monotonic() + _OUTPUT_S, 0, False
        self.waiting = self.waiting or [descriptor for descriptor, _ in self.outputs.poll(0)]
        while self.waiting and time.monotonic() < until:
            # It may have been closed since, and its descriptor be another's.
            if (pipe := self.pumped.get(self.waiting.pop())) is not None:
                before, loud = pipe.log.end, loud or pipe.log.loud
                self.attempt(functools.partial(self.pump, pipe))
                moved += pipe.log.end - before
        if loud and moved < _WORTH and not self.waiting:
            time.sleep(_REST_S)

    def pump(self, pipe: Pipe) -> None:
        log, trouble = pipe.log, pipe.log.trouble
        log.take(pipe.descriptor, 1)
        if log.held_back() and pipe.descriptor not in log.paused:
            log.paused.add(pipe.descriptor)
            self.outputs.modify(pipe.descriptor, 0)
        self.announce(log)
        if log.trouble != trouble:
            self.tell({"is": "trouble", "name": log.name, "why": log.trouble, "dropped": log.dropped})

    def resume(self, log: Log) -> None:
        """Read again from the FIFOs that were left alone while their log was held back."""
        while log.paused:
            self.outputs.modify(log.paused.pop(), _READ)

    def announce(self, log: Log, last: bool = False) -> None:
        """Say that there is output to forward; again after the supervisor's answer, or at an instance's end."""
        if self.peer is None or not log.forward or log.read_to is None:
            return
        if last or (not log.told and log.end > log.announced):
            log.told, log.announced = True, log.end
            self.tell({"is": "output", "name": log.name, "from": log.read_to, "to": log.end, "last": last})

    def announce_last(self, instance: Instance) -> None:
        for pipe in instance.pipes:
            self.announce(pipe.log, last=True)

    def drain(self, instance: Instance) -> None:
        """Take the last output of an instance whose tree is empty; its FIFOs are closed at the end of this turn."""
        for pipe in instance.pipes:
            if pipe.descriptor >= 0:
                # A pipe holds 1 MiB at most: 64 turns empty it unless somebody outside the tree goes on writing.
                pipe.log.take(pipe.descriptor, 64, patient=False)
                if pipe.log.end > pipe.since:
                    pipe.log.cut()
        self.ears.hear_out(instance)
        self.over.append(instance)

    # exits

    def reap(self) -> None:
        """Take every exit there is; then look once for what the dead left behind."""
        self.chores, looked = False, False
        ended: list[Instance] = []
        for turn in range(_EXITS + 1):
            try:
                peek = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if peek is None:
                break
            if turn == _EXITS:
                self.chores = True
                break
            looked = True
            instance = self.by_pid.pop(peek.si_pid, None)
            if instance is None:
                os.waitpid(peek.si_pid, 0)
                ended += self.stray_ended(peek.si_pid)
                continue
            self.by_session[peek.si_pid] = instance
            end = self.with_circumstances(instance, how_it_ended(peek))
            reach("exit.seen")
            # On disk before it is reaped: then a SIGKILL of ours cannot lose it.
            self.note(instance, {"step": "exit", **end})
            reach("exit.noted")
            _, _, usage = os.wait4(peek.si_pid, 0)
            end |= {"cpu": round(usage.ru_utime + usage.ru_stime, 3), "rss_kb": usage.ru_maxrss}
            reach("exit.reaped")
            if instance.ordered:
                # Nobody is there to be told: what we know now is for whoever reads the journal.
                self.note(instance, {"step": "exit", **end})
            self.ended(instance, end)
            ended.append(instance)
        if looked:
            # So that what the kernel kills elsewhere is not taken for the end of one of ours that somebody kills later.
            if time.monotonic() - self.looked_for_oom > 1.0:
                self.looked_for_oom, self.out_of_memory = time.monotonic(), _oom_kills()
            self.settle_all(ended)

    def with_circumstances(self, instance: Instance, end: dict[str, Any]) -> dict[str, Any]:
        """The end with what is known only now: when, after how long, by whose will."""
        end |= {"lived": time.monotonic() - instance.started, "at": time.time()}
        if instance.ordered:
            end["ordered"] = True
        if end.get("signal") == signal.SIGKILL and not instance.killed:
            if (kills := _oom_kills()) > self.out_of_memory:
                end["oom"] = True
            self.looked_for_oom, self.out_of_memory = time.monotonic(), kills
        return end

    def ended(self, instance: Instance, end: dict[str, Any]) -> None:
        instance.alive, instance.end = False, end
        for pipe in instance.pipes:
            if pipe.descriptor >= 0:
                pipe.log.take(pipe.descriptor, _SPLICES)
                self.announce(pipe.log)

    def stray_ended(self, pid: int) -> list[Instance]:
        self.doubts.pop(pid, None)
        instance = self.strays.pop(pid, None)
        if instance is None:
            return []
        instance.others.pop(pid, None)
        return [instance]

    def settle_all(self, ended: list[Instance]) -> None:
        """Report the dead, once it is known to whom every orphan belongs."""
        if not self.look_for_strays():
            self.soon(functools.partial(self.settle_all, ended))
            return
        for instance in ended:
            if self.is_searched(instance):
                self.bereaved.add(instance)
            else:
                self.settle(instance)

    def soon(self, call: Callable[[], None]) -> None:
        self.after(_LOOK_AGAIN_S, call)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call when so much time has passed."""
        heapq.heappush(self.later, (time.monotonic() + seconds, next(self.serial), call))

    def look_for_strays(self) -> bool:
        """Find to whom our children belong that lost their parent elsewhere; False while one of them is in doubt."""
        sure = True
        try:
            orphans = tree.orphans()
        except OSError:
            self.logs.close_one()
            return False
        for pid in orphans:
            if pid in self.strays or pid in self.by_pid:
                continue
            owner = tree.owner(pid)
            session = tree.session(pid)
            instance = self.by_id.get(owner or "") or self.by_pid.get(session) or self.by_session.get(session)
            if instance is None and owner == "" and self.in_doubt(pid):
                sure = False
            if instance is None or instance.empty:
                continue
            self.strays[pid] = instance
            instance.others[pid] = None
            if instance.killing:
                self.signal(instance, signal.SIGKILL, True, False)
        return sure

    def in_doubt(self, pid: int) -> bool:
        """An empty environment is that of an exec under way, or, if it stays so, of a process that wants none."""
        until = self.doubts.setdefault(pid, time.monotonic() + _DOUBT_S)
        return time.monotonic() < until and not tree.is_zombie(pid)

    def settle(self, instance: Instance) -> None:
        """Report a dead leader, and an empty tree, each once."""
        if instance.alive or instance.empty:
            return
        if not instance.others:
            instance.empty = True
            self.drain(instance)
            self.announce_last(instance)
        if not instance.reported:
            instance.reported = True
            about = {"end": instance.end, "empty": instance.empty, **instance.since()}
            self.tell({"is": "exited", "id": instance.identity, **about})
            reach("exit.told")
        elif instance.empty:
            self.tell({"is": "emptied", "id": instance.identity})
        if instance.empty:
            self.ending.gone(instance)

    # instances of a former keeper, and whatever else is not our child

    def adopt_all(self, handover: dict[str, Any]) -> None:
        """Resume holding every instance of this boot that was started before us and that can be proven ours.

        `handover` is what a keeper leaves that executes us in its place, or a supervisor that knows what it held.
        """
        self.ending.patience = handover.get("patience")
        ours, ended = handover.get("ends", {}), []
        for key, descriptor in handover.get("kept", {}).items():
            self.safe.put(key, descriptor)
        fifos = handover.get("fifos") or self.pipes()
        everything, vanished = adopt.find(self.journal, handover, self.room() - len(fifos))
        for found in everything:
            instance = Instance(found.identity, found.intent, self.logs)
            self.by_id[instance.identity] = instance
            for pipe in instance.pipes:
                pipe.log.configure(found.intent.get("log") or {})
                pipe.log.expect(pipe.since)
                if pipe.name in fifos:
                    self.open_fifo(pipe, fifos.pop(pipe.name))
            instance.pid, instance.held, instance.began = found.pid, found.held, tree.start_time(found.pid)
            instance.said = handover.get("said", {}).get(found.identity) or ({"READY": "1"} if found.ready else {})
            if not found.end:
                self.adopt_descriptors(instance, fifos)
            instance.adopted = found.held is not None or (bool(found.end) and found.identity not in ours)
            if not found.end and not found.recorded:
                self.note(instance, adopt.record(found.pid))  # so far only its environment told whose it is
            if found.held is not None:
                self.hold(found.held, functools.partial(self.adopted_died, instance))
            elif not found.end:
                self.by_pid[found.pid] = instance
            else:
                if found.identity in ours:
                    self.by_session[found.pid] = instance
                lived = time.monotonic() - instance.started  # at most: when it died, nobody saw
                end = {"lived": lived, "at": time.time(), **found.end, **ours.get(found.identity, {})}
                instance.alive, instance.end = False, end
                ended.append(instance)
        for identity, intent in vanished.items():
            # It may have run and ended; then this is all that is left of it.
            for pipe in Instance(identity, intent, self.logs).pipes:
                if pipe.name in fifos:
                    pipe.log.expect(pipe.since)
                    pipe.log.take(fifos[pipe.name], 64, patient=False)
                    pipe.log.cut()
            self.journal.forget(identity)
        for descriptor in fifos.values():
            os.close(descriptor)
        for key in list(self.safe.held):
            if key.startswith(NOTIFY) and key.removeprefix(NOTIFY) not in self.by_id:
                self.safe.drop(key)
        self.vanished = [(identity, intent["started"]) for identity, intent in vanished.items()]
        self.chores = True
        self.settle_all(ended)

    def adopt_descriptors(self, instance: Instance, fifos: dict[str, int]) -> None:
        """Go on with what the instance was given, or, where nobody is left who kept it, with as good as that."""
        if instance.held is not None:
            for key, number, where in instance.given:
                self.doors.take_from(instance.held.pidfd, key, number, where)
        try:
            self.ears.open(instance, fifos)
        except OSError as error:
            print(f"cannot hear {instance.name}: {error.strerror}", file=sys.stderr)

    def hold(self, held: Held, died: Callable[[], None]) -> None:
        """Have `died` called when the process ends."""
        if held.pidfd >= 0:
            self.watch(held.pidfd, died)
            return
        if not self.polled:
            self.after(_POLL_S, self.poll)
        self.polled[held] = died

    def let_go(self, held: Held) -> None:
        self.polled.pop(held, None)
        self.unwatch(held.pidfd)
        held.close()

    def poll(self) -> None:
        for held, died in list(self.polled.items()):
            if held.is_dead():
                self.attempt(died)
        if self.polled:
            self.after(_POLL_S, self.poll)

    def adopted_died(self, instance: Instance) -> None:
        """Dead; its exit status appears once whoever inherited it has reaped it (announced by EPOLLHUP)."""
        assert instance.held is not None
        pidfd = instance.held.pidfd
        status = kernel.exit_status(pidfd) if pidfd >= 0 else None
        if status is not None:
            self.adopted_ended(instance, in_words(status))
        elif instance.end is None and pidfd >= 0:
            instance.end = {"unknown": True}
            self.epoll.modify(pidfd, 0)
            self.after(_STATUS_WAIT_S, lambda: self.adopted_ended(instance))
        else:
            # Reaped, and the kernel does not say how it ended (before Linux 6.15).
            self.adopted_ended(instance)

    def adopted_ended(self, instance: Instance, end: dict[str, Any] | None = None) -> None:
        """Dead, and how, or nobody here knows how: perhaps the supervisor, which then was its parent."""
        if not instance.alive or instance.held is None:
            return
        end = end or {"unknown": True, "was": [instance.pid, instance.held.began]}
        self.let_go(instance.held)
        end = self.with_circumstances(instance, end)
        self.note(instance, {"step": "exit", **end})
        self.ended(instance, end)
        self.bereaved.add(instance)

    def comfort(self) -> None:
        """See what is left of trees after a death in them: one look at all processes, later than all these deaths."""
        bereaved, self.bereaved, self.marked = self.bereaved, set(), None
        for instance in bereaved:
            self.find_strangers(instance)
            if instance.killing and instance.others:
                self.signal(instance, signal.SIGKILL, True, False)
            self.settle(instance)

    def is_searched(self, instance: Instance) -> bool:
        """Whether processes of its tree may be other than our children and what is below them."""
        return instance.adopted or not self.subreaper or bool(instance.cgroup)

    def find_strangers(self, instance: Instance) -> None:
        """Hold what belongs to the tree by its mark or its control group and is not our child."""
        if not self.is_searched(instance):
            return
        found = set(tree.in_cgroup(instance.cgroup)) if instance.cgroup else set()
        if instance.adopted or not self.subreaper:
            if self.marked is None:
                self.marked = tree.everybody({one.pid for one in self.by_id.values() if one.alive})
            found.update(self.marked.get(instance.identity, ()))
        for pid in found - instance.others.keys() - ({instance.pid} if instance.alive else set()):
            try:
                held = Held(pid, None if self.room() > 0 else -1)
            except OSError:
                continue
            if held.is_dead() or not (tree.owner(pid) == instance.identity or pid in tree.in_cgroup(instance.cgroup)):
                held.close()
                continue
            instance.others[pid] = held
            self.hold(held, functools.partial(self.stranger_died, instance, held))

    def stranger_died(self, instance: Instance, held: Held) -> None:
        self.let_go(held)
        instance.others.pop(held.pid, None)
        self.bereaved.add(instance)


def _bind(state: str) -> socket.socket:
    """A socket in the state directory: through a descriptor, since a path may be 107 bytes at most."""
    directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    path = f"/proc/self/fd/{directory}/keeper.sock"
    if not os.path.isdir("/proc/self/fd"):
        path = f"{state}/keeper.sock"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{state}/keeper.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    listener.bind(path)
    os.umask(umask)
    os.close(directory)
    listener.listen(4)
    return listener


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since it booted (Linux 4.13), or 0."""
    try:
        return int(_VMSTAT.read().partition(b"\noom_kill ")[2].split(b"\n")[0])
    except (OSError, ValueError):
        return 0


def _lock(state: str) -> int:
    """Be the only keeper of this state directory; the lock goes with our life, and never to an instance."""
    descriptor = os.open(f"{state}/keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    until = time.monotonic() + 2.0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > until:
                sys.exit(f"cannot start: another keeper holds {state}")
            time.sleep(0.01)


def _heed_children(keeper: Keeper) -> None:
    """Let SIGCHLD wake the loop. The handler itself does nothing: the byte in the pipe is the message."""
    heard, hear = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(hear, warn_on_full_buffer=False)

    def woken() -> None:
        os.read(heard, 1 << 16)
        keeper.chores = True

    keeper.watch(heard, woken)


def _handed_over(descriptor: int) -> dict[str, Any]:
    """What whoever started us left to us: see Keeper.adopt_all."""
    if descriptor < 0:
        return {}
    with open(descriptor, "rb") as file:
        file.seek(0)
        found: dict[str, Any] = json.loads(file.read())
        return found


def _close_others(kept: Iterable[int]) -> None:
    """What the supervisor inherited without its knowledge is not for instances."""
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def main(state: str, logs: str, budget: str, code: str, *passed: str) -> None:
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)
    os.umask(0o022)
    os.chdir("/")
    kept = {name: int(descriptor) for name, _, descriptor in (word.partition("=") for word in passed)}
    handover = _handed_over(kept.pop("handover", -1))
    groups = [handover.get(name, {}) for name in ("fifos", "pidfds", "kept")]
    known = {*kept.values(), *(descriptor for group in groups for descriptor in group.values())}
    for descriptor in known:
        os.set_inheritable(descriptor, False)
    _close_others(known)
    kernel.Opened.keep_spare()
    keeper = Keeper(state, logs, int(budget), code)
    keeper.lock = kept["lock"] if "lock" in kept else _lock(state)
    reach("keeper.begun")
    _heed_children(keeper)
    if "listener" in kept:
        keeper.listen(socket.socket(fileno=kept["listener"]))
    else:
        keeper.listen()
    keeper.adopt_all(handover)
    if "peer" in kept:
        keeper.serve(socket.socket(fileno=kept["peer"]))
    else:
        keeper.ending.linger()
    reach("keeper.adopted")
    gc.freeze()  # what is here by now stays, and needs no looking for cycles
    gc.set_threshold(10_000, 20, 20)
    done = _thread.allocate_lock()
    done.acquire()

    def work() -> None:
        try:
            keeper.run()
        finally:
            done.release()

    # Instances become children of this thread and orphans of the main one, which tells them apart: see tree.py.
    try:
        _thread.start_new_thread(work, ())
    except RuntimeError as error:
        sys.exit(f"cannot start: {error}")
    # Signals then reach the worker, and the main thread sleeps for good.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    done.acquire()
    os.close(keeper.lock)
    os._exit(0)


if __name__ == "__main__" and sys.argv[1:] != ["check"]:
    main(*sys.argv[1:])
