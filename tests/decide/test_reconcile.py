"""What the directory holds against what was applied, and what an earlier supervisor left in writing."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncolony.decide.lifecycle import Configured, Ended, Event, Process, Removed, Restart, State, Stop, Wanted, step
from ncolony.decide.reconcile import Applied, Memory, Policies, adopted, change, in_order, remembered
from ncolony.decide.restart import Exit, Policy

POLICY = Policy(1.0, 1.0, 8.0, 0.0, "always", (0,), ((15, 5.0),), "tree")
ONCE = msgspec.structs.replace(POLICY, restart="never")
BASE = Applied(generation="g1", digest="d1", policy=POLICY, enabled=True)
LIVE = msgspec.structs.replace(BASE, digest="d2", policy=ONCE)
LIVE_ELSEWHERE = msgspec.structs.replace(BASE, digest="d2")  # a live key that decisions do not need
RELAUNCH = msgspec.structs.replace(BASE, generation="g2", digest="d2")
DISABLED = msgspec.structs.replace(BASE, generation="g2", digest="d2", enabled=False)
OPTIONS = msgspec.structs.replace(BASE, policy=ONCE)  # the same file under other options


@pytest.mark.parametrize(
    ("before", "found", "event"),
    [
        (None, None, None),
        (None, BASE, Configured(POLICY, True, relaunch=True)),
        (None, DISABLED, Configured(POLICY, False, relaunch=True)),
        (BASE, BASE, None),
        (BASE, None, Removed()),
        (BASE, LIVE, Configured(ONCE, True, relaunch=False)),
        (BASE, LIVE_ELSEWHERE, Configured(POLICY, True, relaunch=False)),
        (BASE, RELAUNCH, Configured(POLICY, True, relaunch=True)),
        (BASE, DISABLED, Configured(POLICY, False, relaunch=True)),
        (DISABLED, BASE, Configured(POLICY, True, relaunch=True)),
        (BASE, OPTIONS, Configured(ONCE, True, relaunch=False)),
    ],
)
def test_each_change(before: Applied | None, found: Applied | None, event: Event | None) -> None:
    """What is new or different in a way that matters is one event; equal things are none."""
    assert change(before, found) == event


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sets(st.text(max_size=5)))
def test_the_order_is_the_same_each_time(names: set[str]) -> None:
    """Names are looked at in one order, whatever order they came in."""
    assert in_order(names) == in_order(reversed(list(names)))
    assert set(in_order(names)) == names


NOW = 1000.0
MEMORY = Memory(state="RUNNING", generation="g1", wanted="up", number=7, reason="why", wait=0.0)


def memory(**changes: object) -> Memory:
    return msgspec.structs.replace(MEMORY, **changes)


@pytest.mark.parametrize(
    "left",
    [
        None,
        memory(),
        *(memory(state=state) for state in ("STARTING", "STOPPING", "WAITING", "FATAL", "STOPPED", "nonsense", "")),
        memory(generation="g0", wanted="down"),
        memory(generation="g0", state="EXITED"),
        memory(generation="g0", state="BACKOFF", wait=5.0),
        memory(wanted="gone"),
        memory(wanted="nonsense"),
    ],
)
def test_what_simply_starts(left: Memory | None) -> None:
    """What is new, has changed, or ran is started like anything else."""
    assert remembered("web", BASE, left, NOW) is None


@pytest.mark.parametrize("state", [*State])
def test_what_was_stopped_stays_stopped(state: State) -> None:
    """A process that somebody stopped is not started by a new supervisor."""
    process = remembered("web", BASE, memory(state=state, wanted="down"), NOW)
    assert process is not None
    assert (process.state, process.wanted, process.number) == (State.STOPPED, Wanted.DOWN, 7)
    assert (process.policy, process.reason, process.deadline) == (POLICY, "why", None)


def test_what_has_finished_is_not_run_again() -> None:
    """A process that ended for good under its policy is as it was."""
    once = msgspec.structs.replace(BASE, policy=ONCE)
    process = remembered("web", once, memory(state="EXITED"), NOW)
    assert process is not None
    assert (process.state, process.wanted, process.number) == (State.EXITED, Wanted.UP, 7)
    assert (process.reason, process.deadline) == ("why", None)


def test_what_should_not_have_finished_runs_again() -> None:
    """A process that ended for good under a former policy starts when its policy is now to run always."""
    process = remembered("web", BASE, memory(state="EXITED"), NOW)
    assert process is None or process.state is not State.EXITED


def test_what_has_finished_runs_again_when_its_policy_changes() -> None:
    """A process that finished before this supervisor came is started by a policy of always, as any other is."""
    process = remembered("web", msgspec.structs.replace(BASE, policy=ONCE), memory(state="EXITED"), NOW)
    assert process is not None
    process, _ = step(process, Configured(POLICY, True, relaunch=False), NOW + 1)
    assert process.state is State.STARTING


@pytest.mark.parametrize(("wait", "due"), [(3.0, 3.0), (0.0, 0.0), (-50.0, 0.0), (1e9, 8.0)])
def test_a_crash_loop_goes_on_waiting(wait: float, due: float) -> None:
    """A process in backoff waits for what was left of its wait, never longer than the greatest delay of now."""
    process = remembered("web", BASE, memory(state="BACKOFF", wait=wait), NOW)
    assert process is not None
    assert (process.state, process.wanted, process.number) == (State.BACKOFF, Wanted.UP, 7)
    assert process.deadline == NOW + due
    assert process.delay >= due


@pytest.mark.parametrize("left", [memory(wanted="down"), memory(state="EXITED"), memory(state="BACKOFF", wait=5.0)])
def test_what_is_disabled_has_nothing_to_remember(left: Memory) -> None:
    """A disabled process is simply disabled."""
    disabled = msgspec.structs.replace(BASE, enabled=False)
    assert remembered("web", disabled, left, NOW) is None


@pytest.mark.parametrize("left", [memory(wanted="down"), memory(state="EXITED"), memory(state="BACKOFF", wait=5.0)])
def test_a_memory_ends_with_the_next_change(left: Memory) -> None:
    """What is remembered holds until the configuration changes: then an instance starts, with the next number."""
    process = remembered("web", msgspec.structs.replace(BASE, policy=ONCE), left, NOW)
    assert isinstance(process, Process)
    process, effects = step(process, Configured(ONCE, True, relaunch=True), NOW + 1)
    assert (process.state, process.number, len(effects)) == (State.STARTING, 8, 1)


def test_adopted_with_leftovers_of_its_own_end() -> None:
    """What ended by itself is judged by its policy again, and not simply started anew."""
    left = Memory("STOPPING", "g", "up", 3, "", 0.0, None, 7, "rest")
    process, events = adopted("web", 3, False, BASE, left, 10.0)
    assert (process.state, events) == (State.STARTING, ())
    down = msgspec.structs.replace(left, wanted="down")
    assert adopted("web", 3, False, BASE, down, 10.0)[0].state is State.STOPPING


@pytest.mark.parametrize(
    ("memory", "alive", "state", "wanted", "again"),
    [
        (None, True, State.STARTING, Wanted.UP, ()),
        (None, False, State.STARTING, Wanted.UP, ()),
        (("RUNNING", "up", 3), True, State.STARTING, Wanted.UP, ()),
        (("RUNNING", "down", 3), True, State.STARTING, Wanted.DOWN, (Stop(),)),
        (("STOPPED", "down", 2), False, State.STOPPING, Wanted.DOWN, ()),
        (("STOPPING", "up", 3), True, State.STARTING, Wanted.UP, (Restart(),)),
        (("STOPPING", "up", 3), False, State.STOPPING, Wanted.UP, ()),
        (("STOPPING", "down", 3), True, State.STARTING, Wanted.DOWN, (Stop(),)),
        (("STOPPING", "up", 2), True, State.STARTING, Wanted.UP, ()),
        (("STOPPING", "up", 2), False, State.STARTING, Wanted.UP, ()),
    ],
)
def test_adopted(
    memory: tuple[str, str, int] | None, alive: bool, state: State, wanted: Wanted, again: tuple[object, ...]
) -> None:
    """What a keeper holds goes on, and a stop that an earlier supervisor began goes on too."""
    left = None if memory is None else Memory(memory[0], "g", memory[1], memory[2], "", 0.0, None, 7)
    process, events = adopted("web", 3, alive, BASE, left, 10.0)
    assert (process.state, process.wanted, process.number, process.alive) == (state, wanted, 3, True)
    assert process.restarts == (7 if memory else 0)
    assert events == again


GIVES_UP = msgspec.structs.replace(BASE, policy=msgspec.structs.replace(POLICY, failures=3, within=60.0))


@pytest.mark.parametrize(("wait", "due"), [(None, None), (3.0, NOW + 3.0), (0.0, NOW), (-50.0, NOW)])
def test_what_was_given_up_stays_so(wait: float | None, due: float | None) -> None:
    """What an earlier supervisor gave up is left alone, until its time if it has one, and has a clean record."""
    process = remembered("web", GIVES_UP, memory(state="FATAL", wait=wait, failed=(1.0, 2.0)), NOW)
    assert process is not None
    assert (process.state, process.wanted, process.deadline) == (State.FATAL, Wanted.UP, due)
    assert (process.reason, process.failed) == ("why", ())


def test_failures_are_remembered() -> None:
    """When it failed is known to the next supervisor, in its own time."""
    waiting = remembered("web", GIVES_UP, memory(state="BACKOFF", wait=5.0, failed=(30.0, 10.0)), NOW)
    assert waiting is not None
    assert waiting.failed == (NOW - 30, NOW - 10)
    running, _ = adopted("web", 7, True, GIVES_UP, memory(failed=(30.0, 10.0)), NOW)
    assert running.failed == (NOW - 30, NOW - 10)


@pytest.mark.parametrize(
    ("how", "failed"),
    [
        (Exit(code=3, lived=50.0), (NOW - 30,)),
        (Exit(code=0, lived=0.5), (NOW - 30,)),
        (Exit(code=0, lived=50.0), (NOW - 30, NOW - 10)),
    ],
)
def test_an_end_that_is_told_again_counts_once(how: Exit, failed: tuple[float, ...]) -> None:
    """Of an end whose leftovers were being ended the next supervisor hears again: a failure counts once then."""
    left = memory(state="STOPPING", pending="wait", last=how, failed=(30.0, 10.0))
    process, _ = adopted("web", 7, False, GIVES_UP, left, NOW)
    assert process.failed == failed


def test_the_end_of_a_colony_is_no_memory() -> None:
    """A process that the colony ended with is simply started by the next supervisor."""
    ends = msgspec.structs.replace(BASE, policy=msgspec.structs.replace(ONCE, on_exit="shutdown"))
    assert remembered("web", ends, memory(state="EXITED"), NOW) is None


def test_a_fault_goes_on_where_it_was() -> None:
    """After what was being ended for a fault comes what was to come: after a job nothing. The fault counts once."""
    policy = msgspec.structs.replace(ONCE, job=True, failures=3, within=60.0)
    found = msgspec.structs.replace(BASE, policy=policy)
    left = memory(state="STOPPING", reason="watchdog: silent", pending="rest", failed=(1.0,))
    process, again = adopted("web", 7, True, found, left, NOW)
    for event in (*again, Ended(7, Exit(signal=15, lived=9.0), True, 0.0)):
        process, effects = step(process, event, NOW)
    assert (process.state, process.reason, effects) == (State.EXITED, "watchdog: silent", ())
    assert len(process.failed) == 1


JOB = msgspec.structs.replace(BASE, policy=msgspec.structs.replace(ONCE, job=True))


@pytest.mark.parametrize(
    ("left", "state", "number", "wanted"),
    [
        (memory(state="STARTING"), State.BACKOFF, 6, Wanted.UP),
        (memory(state="WAITING"), State.BACKOFF, 7, Wanted.UP),
        (memory(state="RUNNING"), State.STOPPED, 7, Wanted.DOWN),
        (memory(state="EXITED", wanted="down"), State.EXITED, 7, Wanted.DOWN),
        (memory(state="STOPPED", wanted="down", reason="stopped on request"), State.STOPPED, 7, Wanted.DOWN),
    ],
)
def test_a_job_without_an_instance(left: Memory, state: State, number: int, wanted: Wanted) -> None:
    """A run whose start never reached a keeper is begun at once, in its own number; one that has run is not."""
    found = remembered("job", JOB, left, NOW)
    assert found is not None
    assert (found.state, found.number, found.wanted) == (state, number, wanted)
    assert (found.deadline == NOW) is (state is State.BACKOFF)


@pytest.mark.parametrize("alive", [True, False])
def test_a_job_that_has_ended_was_not_stopped(alive: bool) -> None:
    """That it is wanted no more after its run is no reason to stop what the keeper still holds."""
    process, again = adopted("job", 7, alive, JOB, memory(state="EXITED", wanted="down"), NOW)
    assert (process.state, process.wanted, again) == (State.STARTING, Wanted.UP, ())


def test_why_it_is_stopped_is_known_to_the_next_supervisor() -> None:
    """A stop that is carried on with keeps its reason: a job that took too long was not stopped by its user."""
    left = memory(state="STOPPING", wanted="down", reason="it takes longer than its timeout of 5 s")
    _, again = adopted("job", 7, True, JOB, left, NOW)
    assert again == (Stop("it takes longer than its timeout of 5 s"),)
    process, again = adopted("job", 7, False, JOB, left, NOW)
    assert (process.state, process.reason, again) == (State.STOPPING, left.reason, ())


def test_policies_that_nobody_has_are_forgotten() -> None:
    """Equal policies are one object as long as somebody has them; of all that ever were, few are remembered."""
    policies = Policies()
    here = [msgspec.structs.replace(POLICY, threshold=float(number)) for number in range(1000)]
    used = [policies.shared(one, lambda: here) for one in here]
    for number in range(20_000):
        policies.shared(msgspec.structs.replace(POLICY, jitter=number / 20_000), lambda: used)
    assert len(policies) <= 2000
    assert all(policies.shared(msgspec.structs.replace(one), lambda: used) is one for one in used)
