"""A small operating system with a keeper, for one process: it does what lifecycle.step asks for and breaks at rules.

Time stands still but for `wait`. Orders wait to be carried out and reports wait to be told, so that anything can come
late; the keeper can be lost with both, and a report can be told twice.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import msgspec

from ncolony.decide import lifecycle
from ncolony.decide.lifecycle import (
    Beat,
    Conditions,
    Configured,
    Effect,
    Emptied,
    Ended,
    Event,
    Extend,
    Fault,
    Forget,
    Kill,
    Lost,
    Process,
    Ready,
    Removed,
    Restart,
    Resumed,
    Shutdown,
    Signal,
    Spawn,
    Start,
    Started,
    State,
    Stop,
    Tick,
    Wanted,
)
from ncolony.decide.reconcile import Applied, Memory, adopted, remembered
from ncolony.decide.restart import Action, Exit, Policy, decide

TERM, KILL = 15, 9
ALIVE = (State.STARTING, State.RUNNING)
TIMED = (State.BACKOFF, State.STOPPING)
# Sent about an instance that was over before this supervisor came.
FORMER = 3
# What the longest stop, backoff and repeated KILL of the policies below add up to, with room.
PATIENCE_S = 100.0
BLOCKED = ("db to be ready",)
OVER = "what is known dead and empty neither runs nor is stopped"
# More orders, reports and deadlines than these take.
ROUNDS = 500
# So many walks show every cell of the table several times over.
WALKS = 2000

POLICIES = [
    Policy(1.0, 1.0, 8.0, 0.0, "always", (0,), ((TERM, 5.0),), "tree"),
    Policy(1.0, 2.0, 4.0, 0.5, "on-failure", (0, 3), ((2, 1.0), (TERM, 2.0)), "process"),
    Policy(3.0, 0.0, 1.0, 1.0, "never", (0,), ((TERM, 0.5), (1, 0.5), (TERM, 3.0)), "tree"),
    Policy(0.5, 1.0, 30.0, 0.1, "always", (0,), (), "tree"),
    Policy(1.0, 0.5, 2.0, 0.0, "always", (0,), ((TERM, 5.0),), "tree", failures=2, within=30.0, retry_after=5.0),
    Policy(
        1.0, 0.0, 1.0, 0.0, "on-failure", (0, 3), ((TERM, 2.0),), "tree",
        failures=3, within=6.0, on_give_up="shutdown",
    ),
    Policy(1.0, 1.0, 4.0, 0.5, "always", (0,), ((TERM, 5.0),), "process", on_exit="shutdown"),
    Policy(1.0, 1.0, 8.0, 0.0, "always", (0,), ((TERM, 5.0),), "tree", ready_timeout=6.0),
    Policy(1.0, 1.0, 8.0, 0.0, "on-failure", (0,), ((TERM, 2.0),), "tree", ready_timeout=3.0, watchdog=4.0),
    Policy(2.0, 1.0, 8.0, 0.0, "always", (0,), ((TERM, 2.0),), "tree", failures=2, within=30.0, watchdog=1.0),
]  # fmt: skip


class Broken(AssertionError):
    """A rule was broken: the rule in words, then what happened."""


@dataclass
class Instance:
    """What one number stands for in the operating system."""

    number: int
    born: float
    ignores: bool  # it and what it leaves behind ignore everything but KILL
    tough: int  # so many KILLs miss a part of its tree that is just being forked
    alive: bool = True
    others: int = 0
    died: Exit | None = None

    @property
    def empty(self) -> bool:
        return not self.alive and not self.others


class World:
    """The process, the keeper and the operating system."""

    def __init__(self, state: State = State.STOPPED, policy: Policy = POLICIES[0]) -> None:
        wanted = Wanted.DOWN if state is State.STOPPED else Wanted.UP
        self.now = 1000.0
        self.wish = wanted  # what the user asked for last
        self.process: Process | None = Process(
            name="web", policy=policy, state=state, wanted=wanted, number=FORMER, since=self.now,
            waiting_for=BLOCKED if state is State.WAITING else (),
        )  # fmt: skip
        self.blocked = state is State.WAITING  # others are not so far
        self.number = FORMER
        self.instances: dict[int, Instance] = {}
        self.orders: deque[Spawn | Signal] = deque()
        self.reports: deque[Event] = deque()
        self.told: list[Event] = [Started(FORMER), Ended(FORMER, Exit(), True, 0.0), Emptied(FORMER), Lost(FORMER)]
        self.over = {FORMER}  # instances that the supervisor knows to be dead and empty
        self.asked = False  # a restart was asked for and no instance has come since
        self.due = 0.0  # what the next instant death waits, by our own reckoning
        self.sent = 0  # steps of this stop so far
        self.earliest_kill = 0.0
        self.killed = False
        self.failed: list[tuple[int, float]] = []  # (instance, when) of failures lately, by our own reckoning
        self.shut = False  # the colony was to end, since a supervisor came
        self.recovering = False  # a new supervisor is still putting things together
        self.cells: Counter[tuple[State, type]] = Counter()

    # What the supervisor does

    def feed(self, event: Event) -> None:
        """Step, check, and carry out the effects."""
        before = self.process
        if before is None:
            return  # the supervisor knows of no such process any more
        self._note(before, event)
        self._count(before, event)
        after, effects = lifecycle.step(before, event, self.now)
        number = getattr(event, "number", None)
        if number is not None and number != before.number:
            self.ask((after, effects) == (before, ()), "a former instance changes nothing", event, before, after)
        else:
            self.cells[before.state, type(event)] += 1
        self.process = after
        self._check(before, event, after, effects)
        for effect in effects:
            self._perform(effect, before, event)
        if any(isinstance(effect, Shutdown) for effect in effects):
            self.shut = True
            self.feed(Stop())  # as everything is stopped then

    def _count(self, process: Process, event: Event) -> None:
        """Keep account of failures: ends by itself that are no success, or too soon, or starts that were refused."""
        if process.state not in ALIVE or getattr(event, "number", process.number) != process.number:
            return
        policy = process.policy
        due = isinstance(event, Tick) and process.deadline is not None and self.now >= process.deadline
        if due or isinstance(event, Fault):
            how = Exit()  # what we end it for
        elif isinstance(event, Ended):
            how = event.how
        else:
            return
        success = how.code in policy.success_codes and not how.refused
        number = process.number
        recent = [one for one in self.failed if one[0] != number and self.now - one[1] <= policy.within]
        if not success or how.lived < policy.threshold:
            recent.append((number, self.now))
        self.failed = recent[-policy.failures :] if policy.failures else []

    @staticmethod
    def ask(right: bool, rule: str, *seen: object) -> None:
        if not right:
            raise Broken(f"{rule}: {seen}")

    def _note(self, process: Process, event: Event) -> None:
        """Keep account of what the user wants, and of what the supervisor has been told."""
        up = Wanted.UP if process.enabled else Wanted.DOWN
        match event:
            case Configured(enabled=enabled, relaunch=True):
                self.wish = Wanted.UP if enabled else Wanted.DOWN
            case Removed():
                self.wish = Wanted.GONE
            case Start() | Restart() if self.wish is not Wanted.GONE:
                self.wish = up
            case Stop() if self.wish is not Wanted.GONE:
                self.wish = Wanted.DOWN
            case Kill() if process.state in ALIVE:
                self.wish = Wanted.DOWN
            case Ended(number=number, empty=True) | Emptied(number=number) | Lost(number=number):
                self.over.add(number)
        if isinstance(event, Restart) and self.wish is Wanted.UP:
            self.asked = True
        again = isinstance(event, Start | Restart) or (isinstance(event, Configured) and event.relaunch)
        if process.state is State.WAITING and again:
            self.due = 0.0  # who asks for it does not wait for what was before
        if self.wish is not Wanted.UP:
            self.asked = False

    def _check(self, before: Process, event: Event, after: Process, effects: tuple[Effect, ...]) -> None:
        """What holds after every step."""
        if not self.recovering:
            may = after.state is State.FATAL or (after.state in ALIVE and _is_timed(after))
            timed = after.state in TIMED or (may and after.deadline is not None)
            self.ask((after.deadline is not None) == timed, "deadlines are of BACKOFF, FATAL and STOPPING", after)
            waits = after.state is State.WAITING
            self.ask(not waits or bool(after.waiting_for), "nothing waits for nobody", after)
            self.ask(after.wanted is self.wish, "what is wanted is what was asked for last", self.wish, event, after)
        self.ask(after.state not in (*ALIVE, State.STOPPING) or after.number not in self.over, OVER, after)
        if isinstance(event, Tick) and (before.deadline is None or self.now < before.deadline):
            self.ask((after, effects) == (before, ()), "an early tick changes nothing", before, after)
        if before.state is not State.STOPPING and after.state is State.STOPPING:
            self.sent, self.earliest_kill, self.killed = 0, self.now, False
        if isinstance(event, Kill):
            self.killed = True
        self._check_end(before, event, after, effects)
        if after.state is State.BACKOFF:
            self.ask(not self.asked, "a restart asked for is never delayed by backoff", event, before)
            if before.state is not State.BACKOFF:
                self._check_wait(after)

    def _check_end(self, before: Process, event: Event, after: Process, effects: tuple[Effect, ...]) -> None:
        """What follows an end by itself, once nothing is left of the instance."""
        policy, entered = after.policy, after.state is not before.state
        if after.state is State.FATAL and entered:
            enough = 0 < policy.failures <= len(self.failed)
            self.ask(enough, "nothing is given up before its time", self.failed, after)
            self.ask((after.deadline is None) == (policy.retry_after is None), "what is given up has its time", after)
            self.due, self.failed = 0.0, []
        ended = isinstance(event, Ended | Emptied) and event.number == before.number
        by_itself = before.pending is not None or (isinstance(event, Ended) and before.state in ALIVE)
        fatal = after.state is State.FATAL and policy.on_give_up == "shutdown" and entered
        told = any(isinstance(effect, Shutdown) for effect in effects)
        self.ask(not told or by_itself, "only its own end ends the colony", event, before)
        self.ask(not told or fatal or policy.on_exit == "shutdown", "only where it says so", policy)
        self.ask(told or not fatal, "the colony ends with it", event, after)
        if ended and by_itself and after.state is not State.STOPPING:
            ours = before.fault is not None  # we ended it, not itself
            self.ask(told or ours or policy.on_exit != "shutdown", "the colony ends with it", event, after)
            rests = after.state in (State.FATAL, State.EXITED)
            too_many = isinstance(event, Ended) and 0 < policy.failures <= len(self.failed)
            self.ask(rests or not too_many, "what fails too often is given up", self.failed, after)

    def _check_wait(self, process: Process) -> None:
        policy, wait = process.policy, (process.deadline or 0.0) - self.now
        due = min(max(self.due, policy.min_delay), policy.max_delay)
        most = min(due * (1 + policy.jitter), policy.max_delay)
        self.ask(due - 1e-6 <= wait <= most + 1e-6, "delays double from the least, and start anew", self.due, process)
        self.due = min(max(due * 2, 0.05), policy.max_delay)

    def _perform(self, effect: Effect, before: Process, event: Event) -> None:
        match effect:
            case Spawn(number):
                self.ask(number == self.number + 1, "numbers count up", number)
                self.ask(
                    all(one in self.over for one in range(FORMER, number)), "never two instances", effect, self.over
                )
                self.ask(self.wish is Wanted.UP, "nothing starts unasked", event, before)
                self.ask(not self.blocked, "nothing starts before those it waits for", event, before)
                self.number, self.asked = number, False
                timed = isinstance(event, Tick | Conditions) and before.state in (State.BACKOFF, State.WAITING)
                live = isinstance(event, Configured) and not event.relaunch
                lost = isinstance(event, Lost) and before.state in ALIVE
                if not (timed or live or lost):
                    self.due = 0.0
                self.orders.append(effect)
            case Signal(number, signal, scope):
                self._check_signal(number, signal, scope, event)
                self.orders.append(effect)
            case Shutdown(how):
                known = how == (before.last or Exit()) or isinstance(event, Ended)
                self.ask(known, "it ends as the process did", how, before)
            case Forget():
                self.ask(self.wish is Wanted.GONE, "nothing is forgotten unasked", event, before)
                self.ask(self.number in self.over, "nothing is forgotten before it has ended", event, before)
                self.process = None

    def _check_signal(self, number: int, signal: int, scope: str, event: Event) -> None:
        assert self.process is not None
        policy = self.process.policy
        self.ask(self.process.state is State.STOPPING, "signals are of STOPPING", self.process)
        self.ask(number == self.number, "no signal to a former instance", number)
        self.ask(number not in self.over, OVER, number)
        if isinstance(event, Resumed) and self.sent:
            self.ask(signal != KILL or self.killed, "no KILL before its time", signal)
            return
        if self.killed or self.sent >= len(policy.stop):
            self.ask(signal == KILL, "after the last step comes KILL, again and again", signal)
            self.ask(self.killed or self.now >= self.earliest_kill, "no KILL before its time", signal)
            self.ask(scope == "tree", "KILL goes to the whole tree", scope)
            self.killed = True
            return
        step, seconds = policy.stop[self.sent]
        self.ask(signal == step, "no KILL before its time", signal, policy.stop, self.sent)
        self.ask(self.now >= self.earliest_kill, "each step has its time", event)
        self.sent += 1
        self.earliest_kill = self.now + seconds

    # What users do

    def configure(self, policy: Policy, enabled: bool, relaunch: bool) -> None:
        """Change the definition; a file that was removed comes back as a new process."""
        if self.process is None:
            self.process = Process(
                name="web", policy=policy, number=self.number, since=self.now, waiting_for=self.waiting_for
            )
            self.due, self.failed = 0.0, []
        if self.wish is Wanted.GONE:
            relaunch = True
        # Only a change that needs a new instance can enable or disable.
        self.feed(Configured(policy, enabled if relaunch else self.process.enabled, relaunch))

    @property
    def waiting_for(self) -> tuple[str, ...]:
        return BLOCKED if self.blocked else ()

    def others_change(self, blocked: bool) -> None:
        """What it waits for is so, or is not so any more."""
        self.blocked = blocked
        self.feed(Conditions(self.waiting_for))

    def say(self, word: int) -> None:
        """The instance speaks, if it is there."""
        if (newest := self.newest) is not None and newest.alive:
            number = newest.number
            self.feed([Ready(number), Beat(number), Extend(number, 3.0), Fault(number, "no")][word])

    def remove(self) -> None:
        if self.wish is not Wanted.GONE:
            self.feed(Removed())

    # What keeper and operating system do

    def carry_out(self, *, refuse: bool = False, ignores: bool = False, tough: int = 0) -> None:
        """The oldest order reaches the keeper; an instance comes into being, or cannot."""
        if not self.orders:
            return
        match self.orders.popleft():
            case Spawn(number) if refuse:
                self.reports.append(Ended(number, Exit(refused="no such program"), True, 0.5))
            case Spawn(number):
                for other in self.instances.values():
                    self.ask(other.empty, "never two instances", other, number)
                self.instances[number] = Instance(number, self.now, ignores, tough)
                self.reports.append(Started(number))
            case Signal(number, signal, scope) if number in self.instances:
                self._signal(self.instances[number], signal, scope)

    def _signal(self, instance: Instance, signal: int, scope: str) -> None:
        if instance.empty or (signal != KILL and instance.ignores):
            return
        if signal == KILL and instance.tough:
            instance.tough -= 1
            self.die(instance, Exit(signal=signal), 1)
        elif scope == "tree":
            self.die(instance, Exit(signal=signal), 0)
        elif instance.alive:
            self.die(instance, Exit(signal=signal), instance.others)

    def die(self, instance: Instance, how: Exit, others: int) -> None:
        """The leader dies if it lives, and `others` are left of its tree."""
        was_alive, was_empty = instance.alive, instance.empty
        instance.alive, instance.others = False, others
        if was_alive:
            instance.died = msgspec.structs.replace(how, lived=self.now - instance.born)
            self.reports.append(Ended(instance.number, instance.died, instance.empty, 0.5))
        elif instance.empty and not was_empty:
            self.reports.append(Emptied(instance.number))

    @property
    def newest(self) -> Instance | None:
        return self.instances.get(self.number)

    def tell(self) -> None:
        """The oldest report arrives."""
        if self.reports:
            event = self.reports.popleft()
            self.told.append(event)
            self.feed(event)

    def tell_again(self, index: int) -> None:
        """A report arrives that has arrived before: 0 is the last, 1 the one before it."""
        self.feed(self.told[-1 - index % len(self.told)])

    def tell_nonsense(self, index: int) -> None:
        """What cannot be true changes nothing: that what lives left nothing behind, or news of what is over."""
        process = self.process
        if process is None or process.state is State.STOPPING:
            return
        number = process.number
        news: list[Event] = [Emptied(number), *([] if process.state is State.RUNNING else [Resumed(number)])]
        if process.state not in ALIVE:
            news += [Started(number), Ended(number, Exit(code=3), True, 0.5), Lost(number)]
            news += [Ready(number), Beat(number), Fault(number, "no"), Extend(number, 3.0)]
        event = news[index % len(news)]
        self.cells[process.state, type(event)] += 1
        outcome = lifecycle.step(process, event, self.now)
        self.ask(outcome == (process, ()), "news that cannot be true changes nothing", event, process, outcome)

    def lose_keeper(self, *, record: bool = True) -> None:
        """Orders and reports are gone; another keeper tells what is left, and of the rest nobody knows how it ended."""
        self.orders.clear()
        self.reports.clear()
        newest = self.newest
        if self.number in self.over:
            return
        if newest is None or (newest.empty and not record):
            event: Event = Lost(self.number)
        elif newest.alive:
            event = Started(self.number)
        else:
            event = Ended(self.number, Exit(lived=self.now - newest.born), newest.empty, 0.5)
        self.reports.append(event)
        self.reports.append(Resumed(self.number))

    def lose_supervisor(self) -> None:
        """Another supervisor comes, knowing the files, what the former one wrote down, and what the keeper holds."""
        process, newest = self.process, self.newest
        self.orders.clear()
        self.reports.clear()
        if process is None:
            return
        wait = max(0.0, process.deadline - self.now) if process.deadline is not None else None
        memory = Memory(
            process.state, "g", process.wanted, process.number, process.reason, wait, process.last, process.restarts,
            "" if process.pending is None else process.pending.action.value,
            tuple(self.now - at for at in process.failed),
        )  # fmt: skip
        found = Applied("g", "d", process.policy, process.enabled)
        events: list[Event] = []
        if newest is not None and self.number not in self.over:
            self.process, again = adopted("web", self.number, newest.alive, found, memory, self.now)
            how = newest.died or Exit()
            told = Started(self.number) if newest.alive else Ended(self.number, how, newest.empty, 0.5)
            events = [*again, told, Resumed(self.number)]
            if self.wish is Wanted.GONE:
                events.insert(0, Removed())
        else:
            self.over.add(self.number)
            if self.wish is Wanted.GONE:
                self.process = None
                return
            self.process = remembered("web", found, memory, self.now)
            if self.process is None:
                self.process = Process(name="web", policy=found.policy, number=process.number, since=self.now)
                events = [Configured(found.policy, found.enabled, relaunch=True)]
                self.failed = []  # begins anew
        self.process = msgspec.structs.replace(self.process, waiting_for=self.waiting_for)
        self.due, self.sent, self.earliest_kill, self.killed = self.process.delay, 0, self.now, False
        wish, self.shut = self.wish, False
        for event in events:
            self.recovering = event is not events[-1]
            self.feed(event)
        self.ask(
            self.shut or self.wish is wish, "what was asked for survives the supervisor", wish, self.wish, self.process
        )

    def wait(self, seconds: float) -> None:
        """Time passes, and the supervisor hears of it."""
        self.now += seconds
        self.feed(Tick())

    def settle(self) -> None:
        """Left alone, with everything told and what starts living on, it comes to what is wanted in good time."""
        began = self.now
        for _ in range(ROUNDS):
            self.carry_out()
            self.tell()
            if self.orders or self.reports:
                continue
            if self.process is not None and self.process.state is State.STARTING and self.process.deadline is not None:
                self.say(0)
                continue
            alive = self.process is not None and self.process.state is State.RUNNING
            if alive or self.process is None or self.process.deadline is None or self.now - began > PATIENCE_S:
                break
            self.wait(max(0.0, self.process.deadline - self.now))
        self.ask(self._settled(), "left alone, it settles on what is wanted", self.process, self.wish, self.newest)

    def _settled(self) -> bool:
        process, newest = self.process, self.newest
        if any(not one.empty for one in self.instances.values() if one is not newest):
            return False
        if self.wish is Wanted.UP and process is not None and process.enabled and process.state is State.WAITING:
            return self.blocked and (newest is None or newest.empty)
        if self.wish is Wanted.UP and process is not None and process.enabled:
            if process.number == FORMER:
                return process.state is State.FATAL
            if process.state is State.FATAL:
                return process.deadline is None and (newest is None or newest.empty)
            if process.state is State.EXITED:
                plain = msgspec.structs.replace(process.policy, on_exit="restart")
                rests = process.last and decide(plain, process.last, 0.0, 0.0).action is Action.REST
                return bool(rests) and (newest is None or newest.empty)
            return process.state is State.RUNNING and newest is not None and newest.alive
        down = process is None if self.wish is Wanted.GONE else process is not None and process.state is State.STOPPED
        return down and (newest is None or newest.empty)


def _is_timed(process: Process) -> bool:
    """Whether something is awaited of a living instance."""
    policy = process.policy
    return (policy.ready_timeout if process.state is State.STARTING else policy.watchdog) is not None


Move = Callable[[World, Random], None]


def _die(world: World, chance: Random) -> None:
    if (newest := world.newest) is not None and newest.alive:
        how = chance.choice([Exit(code=0), Exit(code=3), Exit(code=7), Exit(signal=11)])
        world.die(newest, how, chance.choice([0, 0, 1, 2]))


def _leftovers_end(world: World, chance: Random) -> None:
    if (newest := world.newest) is not None and not newest.alive and newest.others:
        world.die(newest, Exit(), newest.others - 1)


REQUESTS: list[Event] = [Start(), Start(), Restart(), Restart(), Stop(), Stop(), Kill()]
# Each move with how often it is made: what users do, and what becomes of it.
BY_USERS: dict[Move, int] = {
    lambda world, chance: world.configure(chance.choice(POLICIES), chance.random() < 0.8, chance.random() < 0.5): 3,
    lambda world, chance: world.remove(): 1,
    lambda world, chance: world.feed(chance.choice(REQUESTS)): 8,
}
BY_ITSELF: dict[Move, int] = {
    lambda world, chance: world.carry_out(
        refuse=chance.random() < 0.2, ignores=chance.random() < 0.3, tough=chance.choice([0, 0, 2])
    ): 12,
    lambda world, chance: world.tell(): 12,
    lambda world, chance: world.tell_again(int(chance.expovariate(0.5))): 4,
    lambda world, chance: world.tell_nonsense(chance.randrange(36)): 4,
    lambda world, chance: world.lose_keeper(record=chance.random() < 0.5): 1,
    lambda world, chance: world.lose_supervisor(): 1,
    lambda world, chance: world.others_change(chance.random() < 0.3): 2,
    lambda world, chance: world.say(chance.choice([0, 0, 0, 0, 1, 1, 2, 3])): 8,
    lambda world, chance: world.wait(chance.choice([0.0, 0.1, 1.0, 1.0, 5.0, 40.0])): 10,
    _die: 10,
    _leftovers_end: 2,
}


def walk(seed: int, moves: int = 80) -> World:
    """Chance decides what happens in a world, whose users are eager or calm, and then it is left alone."""
    chance = Random(seed)
    world = World(chance.choice([State.STOPPED, State.WAITING, State.FATAL]), chance.choice(POLICIES))
    eagerness = chance.choice([0.05, 0.2, 0.4])
    world.feed(chance.choice(REQUESTS))
    for _ in range(moves):
        all_moves = BY_USERS if chance.random() < eagerness else BY_ITSELF
        (move,) = chance.choices([*all_moves], [*all_moves.values()])
        move(world, chance)
    world.settle()
    return world
