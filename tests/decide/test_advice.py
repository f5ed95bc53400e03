"""What is told to somebody who asks why: for every state and every cause."""

from __future__ import annotations

from typing import Any

import pytest

from ncolony.decide import advice, lifecycle

NOW = 1_000_000.0
PATH = "/conf/web"
LOGS = "see what it printed: ctl logs web"
AGAIN = "do not wait for the next try: ctl restart web"


def case(
    state: str, past: list[dict[str, Any]] | None = None, *, supervised: bool = True, name: str = "web", **more: Any
) -> advice.Case:
    """A process in a state; what is given belongs to its record, `definition` apart."""
    definition = more.pop("definition", {"args": ["x"]})
    record = {"name": name, "state": state, "wanted": "up", "reason": "", "enabled": True, "problem": None, **more}
    return advice.Case(
        record, past or [], definition, now=NOW, supervised=supervised, ctl="ctl", path=PATH, start="START"
    )


def ended(**more: Any) -> dict[str, Any]:
    """A line of history."""
    return {"at": NOW - 5, "code": None, "signal": None, "text": "", "reason": "", "lines": [], **more}


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ({"code": 3}, []),
        ({"code": 126}, ["126 is what a shell says when a program may not be executed"]),
        ({"code": 127}, ["127 is what a shell says when a program is not on its PATH"]),
        ({"code": 0}, [f'it ends by itself: keep it in the foreground, or set "restart": "on-failure" in {PATH}']),
        (
            {"text": "cannot run 'x': not found on PATH"},
            [f"give the program's full path in args, or a PATH in env, in {PATH}"],
        ),
        ({"text": "cannot run '/x': No such file or directory"}, [f"correct the program in args in {PATH}"]),
        ({"text": "cannot run '/x': Permission denied"}, ["let its user execute the program"]),
        ({"text": "cannot run '/x': Exec format error"}, ["the program is none for this machine"]),
        ({"text": "cannot enter directory '/x': No such file or directory"}, ["create the directory, or correct cwd"]),
        ({"text": "cannot become user 'x': there is no such user"}, ["create the user, or correct uid"]),
        ({"text": "cannot become group 'x': there is no such group"}, ["create the group, or correct gid"]),
        ({"text": "cannot become user 'x': the supervisor does not run as root"}, ["run the supervisor as root"]),
        ({"text": "cannot read env_file '/x': Is a directory"}, [f"see to it that it can start: {PATH}"]),
        ({"text": "ended, nobody knows how"}, []),
        ({"signal": "KILL", "oom": True}, ["memory ran out"]),
        ({"signal": "KILL"}, ["something else killed it: the kernel's log may know"]),
        ({"signal": "TERM", "reason": "used 600M, memory_max is 512M"}, ["raise memory_max"]),
        ({"signal": "SEGV", "core": True}, ["it crashed and left a core dump"]),
        ({"signal": "ABRT"}, [f'it crashed: "limits": {{"core": "unlimited"}} in {PATH} makes it leave a core dump']),
        ({"signal": "XCPU"}, ["it reached a limit: raise limits"]),
        ({"signal": "TERM"}, ["somebody sent it SIGTERM: to stop it for good, ctl stop web"]),
        ({"signal": "USR1"}, []),
        ({"code": 1, "lines": ["OSError: [Errno 98] Address already in use"]}, ["another program has its port"]),
        ({"code": 1, "lines": ["write: No space left on device"]}, ["a disk is full"]),
        ({"code": 1, "lines": ["ModuleNotFoundError: No module named 'x'"]}, ["its Python lacks a module"]),
    ],
    ids=str,
)
def test_every_cause_has_its_advice(last: dict[str, Any], told: list[str]) -> None:
    """Whatever ended the last instance, the advice of BACKOFF, FATAL and EXITED begins with what to do about it."""
    for state, then in (
        ("BACKOFF", [AGAIN]),
        ("FATAL", ["then start it again: ctl restart web"]),
        ("EXITED", ["run it again: ctl start web"]),
    ):
        if state == "EXITED" and last.get("code") == 0:
            continue  # there it is no failure
        said = advice.advise(case(state, [ended(**last)]))
        refused = str(last.get("text", "")).startswith("cannot ")
        wanted = [*told, *([] if refused else [LOGS]), *then]
        assert len(said) == len(wanted), said
        assert all(one.startswith(start) for one, start in zip(said, wanted, strict=True)), said


STATES = {
    "running": (case("RUNNING"), True, []),
    "running, as older supervisors say": (case("RUNNING", ready_at=None), True, []),
    "not ready": (
        case("RUNNING", ready_at=NOW + 1),
        False,
        ["wait until it counts as ready: ctl wait web --for ready"],
    ),
    "ended often": (
        case("RUNNING", [ended(code=1)] * 3, ready_at=NOW),
        True,
        ["see how it ended 3 times within an hour: ctl history web --lines", LOGS],
    ),
    "ended long ago": (case("RUNNING", [ended(code=1, at=NOW - 3601)] * 9), True, []),
    "restarted often": (case("RUNNING", [ended(code=1, reason="restarted on request")] * 9), True, []),
    "much memory": (
        case("RUNNING", memory=95, memory_max=100),
        True,
        [f"it is close to its memory_max and will be restarted above it: raise it in {PATH}"],
    ),
    "enough memory": (case("RUNNING", memory=50, memory_max=100), True, []),
    "starting": (case("STARTING"), False, ["wait until it runs: ctl wait web"]),
    "stopping": (case("STOPPING", wanted="down"), False, ["wait: ctl wait web --for stopped"]),
    "held": (
        case("STOPPING", wanted="down", holding=["pid 1 (sleep)"]),
        False,
        ["end at once what it waits for: ctl signal web KILL --scope tree"],
    ),
    "stopped": (case("STOPPED", wanted="down"), True, ["have it run: ctl start web"]),
    "disabled": (case("STOPPED", wanted="down", enabled=False), True, ["have it run: ctl enable web"]),
    "no copies": (
        case("STOPPED", wanted="down", definition={"instances": 0}),
        True,
        [f"have it run: set instances to 1 or more in {PATH}"],
    ),
    "not seen": (case("STOPPED"), False, ["have the supervisor look at its files: ctl scan --wait"]),
    "finished": (
        case("EXITED", [ended(code=0)]),
        True,
        ["run it again: ctl start web", f'to have it run all the time, set "restart": "always" in {PATH}'],
    ),
    "finished with another code": (
        case("EXITED", [ended(code=5)], definition={"success_codes": [5]}),
        True,
        ["run it again: ctl start web", f'to have it run all the time, set "restart": "always" in {PATH}'],
    ),
    "failed": (case("EXITED", [ended(code=1)]), False, [LOGS, "run it again: ctl start web"]),
    "backoff": (case("BACKOFF", [ended(code=1)]), False, [LOGS, AGAIN]),
    "backoff, history lost": (case("BACKOFF", last_exit={"code": 1}), False, [LOGS, AGAIN]),
    "given up": (case("FATAL", [ended(code=1)]), False, [LOGS, "then start it again: ctl restart web"]),
    "given up for a while": (case("FATAL", [ended(code=1)], next_try=NOW + 9), False, [LOGS, AGAIN]),
    "bad file": (
        case("FATAL", problem="cannot use web: x", reason="cannot use web: x"),
        False,
        [f"correct {PATH}: it is applied by itself then"],
    ),
    "bad file, running": (
        case("RUNNING", problem="cannot use web: x"),
        False,
        [f"correct {PATH}: it is applied by itself then"],
    ),
    "rolled back": (
        case("RUNNING", rolled_back="not ready in 5 s"),
        False,
        [f"correct {PATH}, whose newest version was taken back: the next one is tried by itself"],
    ),
    "waiting": (
        case("WAITING", waiting_for=["db"]),
        False,
        ["it starts by itself once that is so; not to wait for it: ctl start web"],
    ),
    "unknown": (
        case("UNKNOWN", problem="cannot read its status: x"),
        False,
        ["have its record written anew: ctl restart web"],
    ),
    "from the future": (case("DANCING"), False, ["have its record written anew: ctl restart web"]),
    "deserted": (case("RUNNING", supervised=False), False, ["start the supervisor: START"]),
    "deserted, starting": (case("STARTING", supervised=False), False, ["start the supervisor: START"]),
    "deserted, stopping": (case("STOPPING", supervised=False), False, ["start the supervisor: START"]),
    "deserted, not seen": (case("STOPPED", supervised=False), False, ["start the supervisor: START"]),
}


@pytest.mark.parametrize("name", STATES)
def test_every_state_has_its_advice(name: str) -> None:
    """Whether it is as wanted, and what can be done, for each state and what may be known beside it."""
    asked, as_wanted, told = STATES[name]
    assert (advice.is_as_wanted(asked), advice.advise(asked)) == (as_wanted, told)


def test_no_state_is_forgotten() -> None:
    """The table above has every state there is."""
    assert {str(state.value) for state in lifecycle.State} <= {asked.status["state"] for asked, _, _ in STATES.values()}


def test_whoever_is_not_well_is_advised() -> None:
    """What is not as wanted always comes with something to do."""
    assert not [name for name, (_, as_wanted, told) in STATES.items() if not as_wanted and not told]


@pytest.mark.parametrize(
    ("record", "by"),
    [
        ({"wanted": "up"}, "its file"),
        ({"wanted": "gone"}, "its file was removed"),
        ({"wanted": "down", "enabled": False}, "it is disabled in its file"),
        ({"wanted": "down", "reason": "killed on request"}, "killed on request"),
        ({"wanted": "down"}, "stopped on request"),
    ],
)
def test_it_is_said_who_wants_it_so(record: dict[str, Any], by: str) -> None:
    """The file, a request, or the file's absence."""
    assert advice.wanted_by(record) == by


def test_commands_can_be_typed_as_they_stand() -> None:
    """A name with spaces is quoted for the shell."""
    assert advice.advise(case("STOPPED", wanted="down", name="my web")) == ["have it run: ctl start 'my web'"]
