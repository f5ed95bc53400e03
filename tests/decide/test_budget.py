"""How many processes fit into so many descriptors, who has his place, and who waits for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncolony.decide.budget import NO_ROOM, Half, Need, Seats, keeper_half, supervisor_half, tighter

PLAIN = Need()


def need(own: int = 1, *sockets: str) -> Need:
    """What a process takes."""
    return Need(own, frozenset(sockets))


def seats(most: int, **needs: Need) -> Seats:
    """Seats of which these are taken, or waited for."""
    found = Seats()
    found.half = Half(most + 40, most)
    for name, one in needs.items():
        found.take(name, one)
    return found


@pytest.mark.parametrize(
    ("allowed", "most"),
    [(0, 0), (16, 0), (34, 0), (35, 1), (64, 22), (128, 70), (256, 166), (512, 390), (1024, 902), (20_000, 19_878)],
)
def test_supervisor(allowed: int, most: int) -> None:
    """An eighth is for logs (64 at most), one for files (32) and 26 for the rest: what is left is for processes."""
    assert supervisor_half(allowed) == Half(allowed, most)


@pytest.mark.parametrize(
    ("told", "allowed", "most"),
    [
        ((64, 19), 64, 19),
        ((1024, 739), 1024, 739),
        ((1024, 739), 4096, 3811),  # raised since
        ((1024, 739), 512, 227),  # lowered since
        ((1024, 739), 64, 0),
    ],
)
def test_keeper(told: tuple[int, int], allowed: int, most: int) -> None:
    """What the keeper has told counts, with what has changed of its limit since."""
    assert keeper_half(told, allowed) == Half(allowed, most)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Half(100, 70), None, Half(100, 70)),
        (Half(100, 70), Half(100, 50), Half(100, 50)),
        (Half(100, 70), Half(900, 600), Half(100, 70)),
    ],
)
def test_tighter(one: Half, other: Half | None, expected: Half) -> None:
    """The half with the least room for processes sets the limit."""
    assert tighter(one, other) == expected


TABLE: list[tuple[str, int, dict[str, Need], list[str], int, int]] = [
    # what, for processes, who comes with what, who waits, taken, room for more
    ("nobody", 5, {}, [], 0, 5),
    ("plain", 5, {"a": PLAIN, "b": PLAIN}, [], 2, 3),
    ("exactly", 2, {"a": PLAIN, "b": PLAIN}, [], 2, 0),
    ("one too many", 2, {"a": PLAIN, "b": PLAIN, "c": PLAIN}, ["c"], 2, 0),
    ("two streams", 5, {"a": need(2), "b": need(2), "c": need(2)}, ["c"], 4, 1),
    ("a small one still fits", 5, {"a": need(4), "b": need(2), "c": PLAIN}, ["b"], 5, 0),
    ("a socket each", 4, {"a": need(1, "x"), "b": need(1, "y"), "c": PLAIN}, ["c"], 4, 0),
    ("a socket shared", 4, {"a": need(1, "x"), "b": need(1, "x"), "c": PLAIN}, [], 4, 0),
    ("all there is to have", 6, {"a": need(4, "x", "y")}, [], 6, 0),
    ("no room at all", 0, {"a": PLAIN}, ["a"], 0, 0),
]


@pytest.mark.parametrize(
    ("most", "needs", "waiting", "taken", "free"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_who_fits(most: int, needs: dict[str, Need], waiting: list[str], taken: int, free: int) -> None:
    """Whoever comes first has his place; who does not fit waits, and does not keep a smaller one out."""
    found = seats(most, **needs)
    assert list(found.waiting) == waiting
    assert (found.taken, found.free, len(found)) == (taken, free, len(needs) - len(waiting))
    assert all((name in found) is (name not in waiting) for name in needs)
    figures = found.figures()
    assert (figures["taken"], figures["room"], figures["waiting"]) == (taken, free, len(waiting))
    assert bool(found.problem()) is bool(waiting)


def test_a_place_is_kept() -> None:
    """Who has a place finds it again for his next instance, also when there are fewer by then."""
    found = seats(2, a=PLAIN, b=PLAIN, c=PLAIN)
    found.half = Half(20, 1)
    assert found.take("a", PLAIN) == found.take("b", PLAIN) == ""
    assert list(found.waiting) == ["c"]
    assert found.problem()


def test_who_needs_more_by_now() -> None:
    """Where a new definition needs more than there is, the process waits and keeps what it had."""
    found = seats(3, a=PLAIN, b=PLAIN)
    assert found.take("a", need(2)) == ""
    assert found.take("a", need(3)).startswith(NO_ROOM)
    assert found.taken == 3
    assert found.take("a", PLAIN) == ""
    assert (found.taken, list(found.waiting)) == (2, [])


def test_sockets_are_closed_with_the_last() -> None:
    """A socket is counted as long as somebody has it."""
    found = seats(5, a=need(1, "x"), b=need(1, "x"))
    found.release("a")
    assert found.taken == 2
    assert found.take("b", PLAIN) == ""
    assert found.taken == 1
    found.release("b")
    assert found.taken == 0


def test_whose_turn_it_is() -> None:
    """When somebody leaves, those that fit into his place are let in, in the order in which they came."""
    found = seats(3, a=need(2), b=PLAIN, c=need(3), d=PLAIN, e=PLAIN, f=PLAIN)
    assert found.next_in() == []
    assert found.release("a")
    assert found.next_in() == ["d", "e"]
    assert not found.release("c")  # nobody's place
    assert list(found.waiting) == ["d", "e", "f"]


def test_what_is_said() -> None:
    """Reasons and reports name what is allowed, what is taken, and what to do; numbers can be read."""
    found = Seats()
    found.half = Half(20_000, 19_715)
    assert found.report() == (
        "0 processes fit: they take 0 of the 19,715 descriptors for processes (20,000 are allowed); "
        "there is room for 19,715 more that take one each"
    )
    found.half = Half(64, 2)
    found.take("a", PLAIN)
    assert found.report().startswith("1 process fits: it takes 1 of the 2 descriptors")
    why = found.take("b", need(3))
    assert why == (
        "cannot run it: no descriptors left: 64 are allowed, 2 of them for processes, of which 1 is taken, "
        "and it takes 3; raise LimitNOFILE or ulimit -n"
    )
    assert found.report() == (
        "1 of 2 processes fit: they take 1 of the 2 descriptors for processes (64 are allowed); "
        "raise LimitNOFILE or ulimit -n"
    )


NEEDS = st.builds(need, st.integers(1, 4), st.sampled_from("xyz"))
STEPS = st.lists(st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), st.just(PLAIN), NEEDS)), max_size=30)


@given(st.integers(0, 12), STEPS)
def test_never_more_than_there_are(most: int, steps: list[tuple[str, Need | None]]) -> None:
    """Whatever comes and goes: no more is taken than there is, nothing is lost, and nobody both has and waits anew."""
    found = seats(most)
    has: dict[str, Need] = {}
    for name, one in steps:
        if one is None:
            found.release(name)
            has.pop(name, None)
        elif not found.take(name, one):
            has[name] = one
        assert found.taken == sum(it.own for it in has.values()) + len(
            {key for it in has.values() for key in it.sockets}
        )
        assert found.taken <= most
    for name in list(has):
        found.release(name)
    assert found.taken == 0
