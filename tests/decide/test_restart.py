"""How an instance ended decides what follows."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncolony.decide.restart import Action, Decision, Exit, Policy, decide, exit_code, is_failure, rests

START, WAIT, REST = Action.START, Action.WAIT, Action.REST


def policy(
    restart: str = "always",
    *,
    threshold: float = 1.0,
    delays: tuple[float, float] = (1.0, 60.0),
    jitter: float = 0.0,
    codes: tuple[int, ...] = (0,),
) -> Policy:
    return Policy(threshold, *delays, jitter, restart, codes, ((15, 5.0),), "tree")


QUICK, LONG = 0.2, 50.0
GOOD, BAD, SIGNAL, UNKNOWN = Exit(code=0), Exit(code=3), Exit(signal=9), Exit()


def after(lived: float, how: Exit) -> Exit:
    return Exit(code=how.code, signal=how.signal, lived=lived)


REFUSED = Exit(refused="no such program: slep")


@pytest.mark.parametrize(
    ("restart", "ended", "action"),
    [
        ("always", after(LONG, GOOD), START),
        ("always", after(LONG, BAD), START),
        ("always", after(LONG, SIGNAL), START),
        ("always", after(LONG, UNKNOWN), START),
        ("always", after(QUICK, GOOD), WAIT),
        ("always", after(QUICK, BAD), WAIT),
        ("always", after(QUICK, SIGNAL), WAIT),
        ("always", after(QUICK, UNKNOWN), WAIT),
        ("always", REFUSED, WAIT),
        ("on-failure", after(LONG, GOOD), REST),
        ("on-failure", after(LONG, BAD), START),
        ("on-failure", after(LONG, SIGNAL), START),
        ("on-failure", after(LONG, UNKNOWN), START),
        ("on-failure", after(QUICK, GOOD), REST),
        ("on-failure", after(QUICK, BAD), WAIT),
        ("on-failure", after(QUICK, SIGNAL), WAIT),
        ("on-failure", after(QUICK, UNKNOWN), WAIT),
        ("on-failure", REFUSED, WAIT),
        ("never", after(LONG, GOOD), REST),
        ("never", after(LONG, BAD), REST),
        ("never", after(LONG, SIGNAL), REST),
        ("never", after(LONG, UNKNOWN), REST),
        ("never", after(QUICK, GOOD), REST),
        ("never", after(QUICK, BAD), REST),
        ("never", REFUSED, REST),
    ],
)
def test_each_policy_and_end(restart: str, ended: Exit, action: Action) -> None:
    """Always starts again, on-failure only after a failure (an unknown end is one), never not at all."""
    decision = decide(policy(restart), ended, 0.0, 0.0)
    assert decision.action is action
    assert decision.reason.startswith(str(ended))


@pytest.mark.parametrize(("code", "action"), [(0, WAIT), (3, REST), (5, REST), (4, WAIT)])
def test_success_codes_say_what_success_is(code: int, action: Action) -> None:
    """Only the codes in success_codes are a success, 0 included."""
    assert decide(policy("on-failure", codes=(3, 5)), Exit(code=code), 0.0, 0.0).action is action


def test_a_refusal_is_never_a_success() -> None:
    """What could not be started did not succeed, and did not live, whatever else is said of it."""
    odd = Exit(code=0, lived=LONG, refused="no such user: x")
    assert decide(policy("on-failure"), odd, 0.0, 0.0).action is WAIT


@pytest.mark.parametrize(("lived", "action"), [(0.0, WAIT), (0.999, WAIT), (1.0, START), (1.001, START)])
def test_the_threshold_belongs_to_the_healthy(lived: float, action: Action) -> None:
    """A life shorter than the threshold is an instant death; one as long is not."""
    assert decide(policy(), Exit(code=3, lived=lived), 0.0, 0.0).action is action


# (delays, jitter), (delay that is due, luck) -> (wait, what another instant death would wait)
@pytest.mark.parametrize(
    ("delays", "jitter", "due", "luck", "wait", "later"),
    [
        ((1.0, 60.0), 0.0, 0.0, 0.0, 1.0, 2.0),
        ((1.0, 60.0), 0.0, 2.0, 0.0, 2.0, 4.0),
        ((1.0, 60.0), 0.0, 32.0, 0.0, 32.0, 60.0),
        ((1.0, 60.0), 0.0, 60.0, 0.0, 60.0, 60.0),
        ((1.0, 60.0), 0.5, 0.0, 0.0, 1.0, 2.0),
        ((1.0, 60.0), 0.5, 0.0, 1.0, 1.5, 2.0),
        ((1.0, 60.0), 0.5, 8.0, 0.5, 10.0, 16.0),
        ((1.0, 60.0), 0.5, 50.0, 1.0, 60.0, 60.0),
        ((1.0, 60.0), 1.0, 60.0, 1.0, 60.0, 60.0),
        # The policy has changed since the delay was computed.
        ((5.0, 60.0), 0.0, 2.0, 0.0, 5.0, 10.0),
        ((1.0, 6.0), 0.0, 32.0, 0.0, 6.0, 6.0),
        # From nothing there would be no doubling.
        ((0.0, 60.0), 0.0, 0.0, 0.0, 0.0, 0.05),
        ((0.0, 60.0), 0.0, 0.05, 0.0, 0.05, 0.1),
        ((0.0, 0.01), 0.0, 0.0, 0.0, 0.0, 0.01),
        ((0.0, 0.0), 1.0, 0.0, 1.0, 0.0, 0.0),
    ],
)
def test_each_delay(
    delays: tuple[float, float], jitter: float, due: float, luck: float, wait: float, later: float
) -> None:
    """The delay grows from the least to the greatest, and jitter adds a share of it at most."""
    decision = decide(policy(delays=delays, jitter=jitter), Exit(code=3, lived=QUICK), due, luck)
    assert decision.action is WAIT
    assert (decision.delay, decision.next_delay) == pytest.approx((wait, later))


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (Exit(code=3, lived=0.2), "exit code 3"),
        (Exit(signal=15, lived=0.2), "killed by 15"),
        (Exit(signal=11, signal_name="SEGV", core=True), "SEGV (core dumped)"),
        (Exit(), "nobody knows"),
        (REFUSED, REFUSED.refused),
    ],
)
def test_the_reason_says_how_it_ended(ended: Exit, said: str) -> None:
    """Every decision bears a reason that people can read."""
    for restart in ("always", "never"):
        assert said in decide(policy(restart), ended, 0.0, 0.0).reason


seconds = st.floats(0, 1e6)
ends = st.builds(
    Exit,
    code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    lived=seconds,
    refused=st.sampled_from(["", "", "no such program"]),
)
policies = st.builds(
    lambda restart, threshold, delays, jitter, codes: policy(
        restart, threshold=threshold, delays=(min(delays), max(delays)), jitter=jitter, codes=tuple(codes)
    ),
    st.sampled_from(["always", "on-failure", "never"]),
    seconds,
    st.tuples(seconds, seconds),
    st.floats(0, 1),
    st.lists(st.integers(0, 255), max_size=3),
)
lucks = st.floats(0, 1)
quickly = settings(max_examples=100, deadline=None, derandomize=True)


@quickly
@given(policies, ends, seconds, lucks)
def test_a_wait_stays_within_its_bounds(chosen: Policy, ended: Exit, due: float, luck: float) -> None:
    """Whatever was due and whatever the luck: a wait is from -m to -M, and so is the next."""
    decision = decide(chosen, ended, due, luck)
    if decision.action is WAIT:
        assert chosen.min_delay <= decision.delay <= chosen.max_delay
        assert chosen.min_delay <= decision.next_delay <= chosen.max_delay
    else:
        assert (decision.delay, decision.next_delay) == (0.0, 0.0)


@quickly
@given(policies, ends, seconds, lucks)
def test_a_healthy_life_forgets_the_delay(chosen: Policy, ended: Exit, due: float, luck: float) -> None:
    """After a life of at least the threshold nothing waits, whatever was due."""
    if ended.lived < chosen.threshold or ended.refused:
        return
    decision = decide(chosen, ended, due, luck)
    assert decision.action in (START, REST)
    assert decision == decide(chosen, ended, 0.0, 0.0)


@quickly
@given(policies, ends, seconds, lucks)
def test_who_rests(chosen: Policy, ended: Exit, due: float, luck: float) -> None:
    """An instance is the last exactly under never, or under on-failure when its code is a success."""
    success = ended.code in chosen.success_codes and not ended.refused
    rests = chosen.restart == "never" or (chosen.restart == "on-failure" and success)
    assert (decide(chosen, ended, due, luck).action is REST) == rests


@quickly
@given(st.tuples(seconds, seconds), st.floats(0, 1), st.lists(lucks, min_size=2, max_size=40))
def test_instant_deaths_double_the_wait(delays: tuple[float, float], jitter: float, luck: list[float]) -> None:
    """In a row of instant deaths each wait is twice the one before, jitter apart, until the greatest."""
    least, most = min(delays), max(delays)
    due, waits = 0.0, list[Decision]()
    for one in luck:
        waits.append(decide(policy(delays=(least, most), jitter=jitter), Exit(code=1), due, one))
        due = waits[-1].next_delay
    assert least <= waits[0].delay <= least * (1 + jitter) * (1 + 1e-9)
    for before, now in pairwise(waits):
        bare = before.next_delay
        assert bare <= now.delay <= min(bare * (1 + jitter) * (1 + 1e-9), most)
        assert now.next_delay == pytest.approx(min(max(2 * bare, 0.05), most))
    if len(luck) > 30 and least > 0.01:
        assert waits[-1].delay == most


# Giving up, and the end of the colony


@pytest.mark.parametrize(
    ("ended", "fails"),
    [
        (after(LONG, GOOD), False),
        (after(QUICK, GOOD), True),
        (after(LONG, BAD), True),
        (after(LONG, SIGNAL), True),
        (after(LONG, UNKNOWN), True),
        (REFUSED, True),
        (Exit(code=0, lived=LONG, refused="no such user: x"), True),
        (Exit(code=0, lived=1.0), False),
    ],
)
def test_what_is_a_failure(ended: Exit, fails: bool) -> None:
    """A failure is an end that is no success, or too soon, or a start that was refused."""
    assert is_failure(policy(), ended) is fails


LIMITED = msgspec.structs.replace(policy(), failures=3, within=60.0, retry_after=5.0)


@pytest.mark.parametrize(
    ("chosen", "ended", "failures", "action", "delay"),
    [
        (LIMITED, after(QUICK, BAD), 2, WAIT, 1.0),
        (LIMITED, after(QUICK, BAD), 3, Action.GIVE_UP, 5.0),
        (LIMITED, after(QUICK, BAD), 4, Action.GIVE_UP, 5.0),
        (LIMITED, after(LONG, BAD), 2, START, 0.0),
        (LIMITED, after(LONG, BAD), 3, Action.GIVE_UP, 5.0),
        (LIMITED, REFUSED, 3, Action.GIVE_UP, 5.0),
        (msgspec.structs.replace(LIMITED, retry_after=None), after(QUICK, BAD), 3, Action.GIVE_UP, 0.0),
        (msgspec.structs.replace(LIMITED, failures=0), after(QUICK, BAD), 1000, WAIT, 1.0),
        (msgspec.structs.replace(LIMITED, restart="never"), after(QUICK, BAD), 3, REST, 0.0),
        (msgspec.structs.replace(LIMITED, restart="on-failure"), after(QUICK, GOOD), 3, REST, 0.0),
        (msgspec.structs.replace(LIMITED, restart="on-failure"), after(QUICK, BAD), 3, Action.GIVE_UP, 5.0),
        (msgspec.structs.replace(LIMITED, on_exit="shutdown"), after(QUICK, BAD), 3, Action.END, 0.0),
        (msgspec.structs.replace(LIMITED, on_exit="shutdown"), after(LONG, GOOD), 0, Action.END, 0.0),
        (msgspec.structs.replace(LIMITED, on_exit="shutdown", restart="never"), REFUSED, 0, Action.END, 0.0),
    ],
)
def test_giving_up_and_ending(chosen: Policy, ended: Exit, failures: int, action: Action, delay: float) -> None:
    """So many failures are enough where there is a limit; an end of the colony goes before everything else."""
    decision = decide(chosen, ended, 0.0, 0.0, failures)
    assert (decision.action, decision.delay) == (action, delay)
    assert str(ended) in decision.reason


@pytest.mark.parametrize(("failures", "said"), [(1, "1 failure within 60 s"), (3, "3 failures within 60 s")])
def test_the_reason_of_giving_up(failures: int, said: str) -> None:
    """It says how many failures there were, and how the last one ended."""
    chosen = msgspec.structs.replace(LIMITED, failures=failures)
    assert said in decide(chosen, after(QUICK, BAD), 0.0, 0.0, failures).reason


@quickly
@given(policies, ends, seconds, lucks, st.integers(0, 5), st.integers(0, 5))
def test_a_limit_changes_nothing_else(
    chosen: Policy, ended: Exit, due: float, luck: float, most: int, failures: int
) -> None:
    """Below its limit, and for what rests, a policy that gives up decides as it would without."""
    limited = msgspec.structs.replace(chosen, failures=most, within=1.0)
    decision, plain = decide(limited, ended, due, luck, failures), decide(chosen, ended, due, luck, failures)
    gives_up = 0 < most <= failures and not rests(chosen, ended)
    assert (decision.action is Action.GIVE_UP) == gives_up
    if not gives_up:
        assert decision == plain


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (Exit(code=0), 0),
        (Exit(code=3), 3),
        (Exit(code=255), 255),
        (Exit(signal=9), 137),
        (Exit(signal=15), 143),
        (Exit(signal=64), 192),
        (REFUSED, 127),
        (Exit(), 1),
    ],
)
def test_the_exit_code_of_a_colony(ended: Exit, code: int) -> None:
    """It is the code that a shell would tell; what nobody knows is a failure."""
    assert exit_code(ended) == code
