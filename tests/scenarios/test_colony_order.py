"""Processes that wait for each other, and what shows that one is ready."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colony import Colony

QUIET = {"args": ["true"], "enabled": False}
BOUND = {"when": "started", "bind": True}


@pytest.fixture(autouse=True)
def nobody_looks(colony: Colony) -> Iterator[None]:
    """Whether something is ready is said by the test itself: no companion looks. At the end nobody is waited for."""
    colony.put("ncolony-check", QUIET)
    yield
    for path in colony.config.iterdir():
        content = json.loads(path.read_bytes())
        if content.get("kill_time"):
            colony.put(path.name, {**content, "kill_time": 0.1})
    if colony.process is not None and not colony.has_exited():
        colony.scan()


def serving(colony: Colony, name: str, **more: Any) -> dict[str, Any]:
    return {"args": colony.payload(name, "serve"), "threshold": 0.2, **more}


def put(colony: Colony, name: str, **more: Any) -> None:
    colony.put(name, serving(colony, name, **more))


def shows(**more: Any) -> dict[str, Any]:
    """A `ready` that nobody meets by itself."""
    return {"ready": {"exec": ["false"], **more}}


def report(colony: Colony, name: str, what: str = "ready", **more: Any) -> dict[str, Any]:
    return colony.send({"type": "REPORT", "name": name, "what": what, **more})


def unready(colony: Colony, name: str, **more: Any) -> dict[str, Any]:
    """Wait until its instance exists, and has still to show that it is ready."""
    status = colony.wait_for_status(name, state="STARTING", reason="has not shown yet that it is ready", **more)
    colony.wait_for(lambda: status["pid"] in colony.pids(name), f"{name} has noted its start")
    return status


def starts(colony: Colony, count: int, *names: str) -> list[str]:
    """The processes by the time at which they noted their newest start, of so many."""
    for name in names:
        colony.wait_for_notes(name, count)
    return sorted(names, key=lambda name: (colony.notes_directory / name).stat().st_mtime_ns)


def test_ready_is_shown(colony: Colony) -> None:
    """It is STARTING, with a pid, until it is reported ready; then RUNNING, ready at once, and an event says so."""
    put(colony, "db", **shows())
    colony.start()
    colony.wait_for_notes("db")
    status = unready(colony, "db")
    assert (status["pid"], status["ready_at"]) == (colony.pids("db")[0], None)
    assert report(colony, "db", instance=1)["state"] == "done"
    status = colony.wait_for_status("db", state="RUNNING")
    assert status["ready_at"] <= status["since"] + 0.001
    assert '"event":"ready","name":"db"' in (colony.state / "events").read_text()


def test_a_report_about_another_instance_is_refused(colony: Colony) -> None:
    """Ready is said of one instance: the answer to another says that it is over."""
    put(colony, "db", **shows())
    colony.start()
    unready(colony, "db", instance=1)
    answer = report(colony, "db", instance=7)
    assert (answer["state"], answer["why"]) == ("failed", "it is about instance 7 of db, which is over")
    unready(colony, "db", instance=1)


def test_not_ready_in_time(colony: Colony) -> None:
    """What does not show it within its time is stopped and tried again, later each time; the history says why."""
    put(colony, "db", **shows(timeout=0.2), min_restart_delay=0.05, max_restart_delay=0.1)
    colony.start()
    colony.wait_for_notes("db", 3)
    status = colony.wait_for_status("db", state="BACKOFF")
    assert status["reason"] == "not ready within 0.2 s"
    history = (colony.state / "history" / "db").read_text().splitlines()
    assert '"reason":"not ready within 0.2 s"' in history[0]


def test_ready_survives_the_supervisor(colony: Colony) -> None:
    """What was shown to one supervisor need not be shown to the next; what was not, still has its time."""
    put(colony, "db", **shows())
    put(colony, "late", **shows())
    colony.start()
    unready(colony, "db")
    report(colony, "db")
    before = colony.wait_for_status("db", state="RUNNING")
    unready(colony, "late")
    colony.kill()
    colony.start()
    after = colony.wait_for_status("db", state="RUNNING")
    assert after["pid"] == before["pid"]
    late = unready(colony, "late")
    report(colony, "late", instance=late["instance"])
    colony.wait_for_status("late", state="RUNNING", pid=late["pid"])


@pytest.mark.parametrize("order", [*itertools.permutations(["db", "migrate", "web"])])
def test_order_of_start_and_stop(colony: Colony, order: tuple[str, ...]) -> None:
    """Whatever the order of files: each starts when the other is so far, and stops before it."""
    files = {
        "db": serving(colony, "db", **shows()),
        "migrate": {"args": colony.payload("migrate", "leave", 0, 0.3), "restart": "never", "after": {"db": "ready"}},
        "web": {"args": colony.payload("web", "serve"), "after": {"migrate": "completed", "db": "ready"}},
    }
    colony.start()
    for name in order:
        colony.put(name, files[name])
        colony.scan()
    ready = "db to be ready (it is STARTING)"
    colony.wait_for_status("migrate", state="WAITING", waiting_for=[ready])
    colony.wait_for_status("web", state="WAITING", waiting_for=["migrate to be completed (it is WAITING)", ready])
    unready(colony, "db")
    report(colony, "db")
    colony.wait_for_status("migrate", state="EXITED")
    colony.wait_until_running("web")
    assert starts(colony, 1, "web", "db") == ["db", "web"]
    assert colony.stop() == 0
    events = (colony.state / "events").read_text()
    assert events.index('"event":"stopped","name":"web"') < events.index('"event":"stopping","name":"db"')


def test_whom_nobody_defines(colony: Colony) -> None:
    """A missing one is waited for, plainly, and may come later."""
    put(colony, "web", after={"db": "started"})
    colony.start()
    waiting = colony.wait_for_status("web", state="WAITING")["waiting_for"]
    assert waiting == ["db to be started (there is no such process)"]
    put(colony, "db")
    colony.wait_until_running("web")


def test_a_circle_is_a_problem_of_its_files(colony: Colony) -> None:
    """Files that wait for each other have a problem each and do not start; the change of one heals the other."""
    put(colony, "a", after={"b": "started"})
    put(colony, "b", after={"c": "started"})
    put(colony, "c", after={"a": "started"})
    put(colony, "d")
    colony.start()
    for name, way in (("a", "a → b → c → a"), ("b", "b → c → a → b"), ("c", "c → a → b → c")):
        assert colony.wait_for_problem(name) == f"cannot use {name}: after: they wait for each other: {way}"
    colony.wait_until_running("d")
    assert colony.notes("a") == colony.notes("b") == []
    put(colony, "b")
    for name in ("a", "b", "c"):
        colony.wait_until_running(name, problem=None)


def test_what_runs_is_not_harmed_by_a_circle(colony: Colony) -> None:
    """A change that closes a circle does not come into force: what runs goes on, and the change back is none."""
    put(colony, "a")
    put(colony, "b", after={"a": "started"})
    colony.start()
    pids = [colony.wait_until_running(name) for name in ("a", "b")]
    put(colony, "a", after={"b": "started"}, env={"A": "1"})
    for name in ("a", "b"):
        assert "they wait for each other" in colony.wait_for_problem(name)
    assert [colony.wait_until_running(name) for name in ("a", "b")] == pids
    put(colony, "a")
    assert [colony.wait_until_running(name, problem=None) for name in ("a", "b")] == pids
    assert [len(colony.wait_for_notes(name)) for name in ("a", "b")] == [1, 1]


def test_a_restart_of_the_other_changes_nothing_unless_bound(colony: Colony) -> None:
    """Who is not bound to the other runs on when that restarts; who is bound stops, waits and starts anew."""
    put(colony, "db", **shows())
    put(colony, "free", after={"db": "ready"})
    put(colony, "bound", after={"db": {"when": "ready", "bind": True}})
    colony.start()
    unready(colony, "db")
    report(colony, "db")
    free, bound = colony.wait_until_running("free"), colony.wait_until_running("bound")
    colony.post({"type": "RESTART", "name": "db"})
    colony.wait_for_status("bound", state="WAITING", waiting_for=["db to be ready (it is STARTING)"])
    colony.wait_until_dead(bound)
    unready(colony, "db", instance=2)
    report(colony, "db", instance=2)
    assert colony.wait_until_running("bound") != bound
    assert colony.wait_until_running("free") == free
    assert len(colony.notes("free")) == 1


def test_stopping_what_others_are_bound_to(colony: Colony) -> None:
    """What is bound to a process that is stopped waits, and comes back with it."""
    put(colony, "db")
    put(colony, "bound", after={"db": {"when": "started", "bind": True}})
    colony.start()
    pid = colony.wait_until_running("bound")
    colony.send({"type": "STOP", "name": "db"})
    colony.wait_for_status("bound", state="WAITING", wanted="up")
    colony.wait_until_dead(pid)
    colony.send({"type": "START", "name": "db"})
    colony.wait_until_running("bound")


def test_restart_all_keeps_the_order(colony: Colony) -> None:
    """When all are restarted, who needs another stops before it and starts after it."""
    put(colony, "db", **shows())
    put(colony, "web", after={"db": "ready"})
    put(colony, "top", after={"web": "started"})
    colony.start()
    unready(colony, "db")
    report(colony, "db")
    for name in ("web", "top"):
        colony.wait_for_notes(name)
    message = colony.post({"type": "RESTART-ALL"})
    unready(colony, "db", instance=2)
    assert colony.status("web")["state"] == colony.status("top")["state"] == "WAITING"  # type: ignore[index]
    report(colony, "db", instance=2)
    assert colony.wait_for_answer(message)["state"] == "done"
    colony.wait_until_running("top", instance=2)
    assert starts(colony, 2, "web", "db") == ["db", "web"]
    web, top = (colony.wait_for_status(name, state="RUNNING", instance=2)["started"] for name in ("web", "top"))
    assert web < top  # which of them was the first to come so far as to note it is chance
    colony.wait_for_notes("top", 2)
    assert [len(colony.notes(name)) for name in ("db", "web", "top")] == [2, 2, 2]


def test_the_second_signal_spares_nobody(colony: Colony) -> None:
    """Asked twice to end, the colony waits for no order."""
    put(colony, "db")
    colony.put("web", {"args": colony.payload("web", "signals"), "after": {"db": "started"}, "kill_time": 60})
    colony.start()
    colony.wait_for_notes("web")
    os.kill(colony.supervisor_pid, signal.SIGTERM)
    colony.wait_for_notes("web", 1, "got TERM")
    os.kill(colony.supervisor_pid, signal.SIGTERM)
    assert colony.wait_for_exit() == 0


def test_healthy_is_reported(colony: Colony) -> None:
    """`healthy` waits for the word of who looks; the word holds for one instance, whoever supervises it."""
    put(colony, "db")
    put(colony, "web", after={"db": "healthy"})
    colony.start()
    colony.wait_until_running("db")
    colony.wait_for_status("web", state="WAITING", waiting_for=["db to be healthy (it runs)"])
    report(colony, "db", "unhealthy", instance=1, why="no answer")
    colony.wait_for_status("db", healthy=False, health="no answer")
    report(colony, "db", "healthy", instance=1)
    colony.wait_until_running("web")
    report(colony, "db", "unhealthy", instance=1, why="no answer")
    colony.wait_for_status("db", healthy=False)
    colony.kill()
    colony.start()
    colony.wait_for_status("db", state="RUNNING", instance=1, healthy=False, health="no answer")
    colony.send({"type": "RESTART", "name": "db"})
    colony.wait_for_status("db", state="RUNNING", instance=2, healthy=None)


def test_a_job_runs_when_it_is_told_to(colony: Colony, tmp_path: Path) -> None:
    """A job does not start by itself, runs once for each START, and its file can change without a run."""
    colony.put("ncolony-jobs", QUIET)
    job = {"args": colony.payload("job", "leave", 0), "schedule": {"every": 3600}}
    colony.put("job", job)
    colony.start()
    status = colony.wait_for_status("job", state="STOPPED", wanted="down", reason="waits for its schedule")
    assert status["job"]
    assert colony.send({"type": "START", "name": "job"})["state"] == "done"
    colony.wait_for_status("job", state="EXITED", wanted="down", instance=1)
    colony.put("job", {**job, "env": {"A": "1"}})
    colony.send({"type": "RESTART-ALL"})
    assert colony.send({"type": "START", "name": "job"})["state"] == "done"
    colony.wait_for_status("job", state="EXITED", instance=2)
    assert len(colony.notes("job")) == 2
    colony.kill()
    colony.start()
    colony.wait_for_status("job", state="EXITED", instance=2)
    colony.put("job", {"args": colony.payload("job", "serve")})
    colony.wait_until_running("job", instance=3)


def test_companions_come_and_go(colony: Colony) -> None:
    """Who looks after checks runs as long as a file needs it; a file of its name takes its place."""
    colony.remove("ncolony-check")
    put(colony, "web")
    colony.start()
    colony.wait_until_running("web")
    colony.wait_for_notes("web", 1)
    assert colony.status("ncolony-check") is None
    put(colony, "web", check=[{"exec": ["true"], "period": 3600}])
    colony.wait_for_status("ncolony-check", wanted="up")
    assert len(colony.notes("web")) == 1  # it did not restart
    colony.put("ncolony-check", {"args": colony.payload("ncolony-check", "serve")})
    colony.wait_for_notes("ncolony-check", 1)
    colony.remove("ncolony-check")
    put(colony, "web")
    colony.wait_until_forgotten("ncolony-check")


def stubborn(colony: Colony, name: str, **more: Any) -> None:
    """A process that ends at INT, and notes every other signal."""
    colony.put(name, {"args": colony.payload(name, "signals", "INT"), "threshold": 0.2, "kill_time": 60, **more})


def let_go(colony: Colony, name: str) -> None:
    """Have a stubborn process end that was told to."""
    colony.wait_for_notes(name, 1, "got TERM")
    os.kill(colony.pids(name)[-1], signal.SIGINT)


@pytest.mark.parametrize("when", ["started", "ready"])
def test_who_is_bound_outlives_the_supervisor(colony: Colony, when: str) -> None:
    """The next supervisor finds both as they were, whatever their names: nobody is restarted."""
    for name, other in (("web", "zdb"), ("web2", "adb")):
        put(colony, other)
        put(colony, name, after={other: {"when": when, "bind": True}})
    colony.start()
    names = ("adb", "web", "web2", "zdb")
    pids = [colony.wait_until_running(name) for name in names]
    colony.kill()
    colony.start()
    colony.scan()
    assert [colony.wait_until_running(name) for name in names] == pids


def test_health_outlives_the_supervisor(colony: Colony) -> None:
    """What was said of an instance still holds with the next supervisor, also for who is bound to it."""
    put(colony, "db")
    put(colony, "sick")
    put(colony, "web", after={"db": {"when": "healthy", "bind": True}})
    colony.start()
    colony.wait_until_running("db")
    colony.wait_until_running("sick")
    report(colony, "db", "healthy", instance=1)
    report(colony, "sick", "unhealthy", instance=1, why="no answer")
    pid = colony.wait_until_running("web")
    colony.wait_for_status("sick", healthy=False)
    colony.wait_for_status("db", healthy=True)
    colony.kill()
    colony.start()
    colony.scan()
    colony.wait_for_status("db", state="RUNNING", healthy=True)
    colony.wait_for_status("sick", state="RUNNING", healthy=False, health="no answer")
    assert colony.wait_until_running("web") == pid


def test_what_died_while_nobody_looked_takes_along_who_is_bound(colony: Colony) -> None:
    """A process that ended for good without a supervisor: the next one stops who is bound to it."""
    colony.put("zdb", {"args": colony.payload("zdb", "serve"), "restart": "never"})
    put(colony, "web", after={"zdb": {"when": "ready", "bind": True}})
    colony.put("zdb", {"args": colony.payload("zdb", "serve"), "restart": "never", "threshold": 0.1})
    colony.start()
    colony.wait_until_running("web")
    db = colony.wait_until_running("zdb")
    colony.kill()
    os.kill(db, signal.SIGKILL)
    colony.wait_until_dead(db)
    colony.start()
    colony.wait_for_status("web", state="WAITING", waiting_for=["zdb to be ready (it is EXITED)"])


@pytest.mark.parametrize("change", ["removed", "free", "disabled"])
def test_who_waits_and_is_changed_does_not_start_for_that(colony: Colony, change: str) -> None:
    """What waits and is removed or disabled never runs; with another definition that waits no more it runs once."""
    put(colony, "web", after={"db": "started"})
    colony.start()
    colony.wait_for_status("web", state="WAITING")
    if change == "removed":
        colony.remove("web")
        colony.wait_until_forgotten("web")
    else:
        put(colony, "web", env={"A": "1"}, enabled=change != "disabled")
        if change == "disabled":
            colony.wait_for_status("web", state="STOPPED", reason="disabled")
        else:
            pid = colony.wait_until_running("web", instance=1)
            colony.wait_for(lambda: pid in colony.pids("web"), "web has noted its start")
    colony.scan()
    assert len(colony.notes("web")) == (1 if change == "free" else 0)


def test_who_rests_and_has_to_wait_now_does_not_start(colony: Colony) -> None:
    """A change that starts a stopped process, and has it wait for another, does not start it before that."""
    put(colony, "web")
    colony.start()
    colony.wait_for_notes("web")
    colony.send({"type": "STOP", "name": "web"})
    put(colony, "web", env={"A": "1"}, after={"db": "started"})
    colony.wait_for_status("web", state="WAITING", instance=1)
    colony.scan()
    assert len(colony.notes("web")) == 1


@pytest.mark.parametrize("change", ["removed", "free"])
def test_who_needed_another_and_does_not_any_more(colony: Colony, change: str) -> None:
    """A restart of all that waits for one process comes to its end when that process is removed, or needs nobody."""
    put(colony, "db")
    put(colony, "mid", after={"db": "started"})
    stubborn(colony, "web", after={"mid": "started"})
    colony.start()
    colony.wait_for_notes("web")
    message = colony.post({"type": "RESTART-ALL"})
    colony.wait_for_notes("web", 1, "got TERM")
    if change == "removed":
        colony.remove("mid")
    else:
        put(colony, "mid")
    colony.wait_until_running("db", instance=2)
    let_go(colony, "web")
    if change == "removed":
        colony.wait_until_forgotten("mid")
        put(colony, "mid")
    assert colony.wait_for_answer(message)["state"] in ("done", "failed")


def test_bound_to_who_is_bound(colony: Colony) -> None:
    """Whoever is bound to another ends before that, however long the chain, when all end."""
    put(colony, "db")
    colony.put("mid", {"args": colony.payload("mid", "signals", "TERM"), "after": {"db": BOUND}})
    stubborn(colony, "web", after={"mid": BOUND})
    colony.start()
    colony.wait_for_notes("web")
    os.kill(colony.supervisor_pid, signal.SIGTERM)
    colony.wait_for_notes("web", 1, "got TERM")
    assert colony.notes("mid", "got") == []
    let_go(colony, "web")
    assert colony.wait_for_exit() == 0
    assert len(colony.notes("mid", "got TERM")) == 1


def test_a_restart_of_all_that_is_cut_short_keeps_the_order(colony: Colony) -> None:
    """The next supervisor goes on with it: what others need restarts after those."""
    colony.put("db", {"args": colony.payload("db", "signals", "TERM")})
    stubborn(colony, "web", after={"db": "started"})
    colony.start()
    colony.wait_for_notes("web")
    message = colony.post({"type": "RESTART-ALL"})
    colony.wait_for_notes("web", 1, "got TERM")
    colony.kill()
    colony.start()
    colony.scan()
    assert colony.notes("db", "got") == []
    let_go(colony, "web")
    assert colony.wait_for_answer(message)["state"] == "done"
    colony.wait_until_running("web", instance=2)
    colony.wait_until_running("db", instance=2)


def test_an_end_that_is_cut_short_keeps_the_order(colony: Colony) -> None:
    """A supervisor that carries on with the end of the colony still spares those that others need."""
    colony.put("db", {"args": colony.payload("db", "signals", "TERM")})
    stubborn(colony, "web", after={"db": "started"})
    colony.start()
    colony.wait_for_notes("web")
    colony.post({"type": "SHUTDOWN"})
    colony.wait_for_notes("web", 1, "got TERM")
    colony.kill()
    colony.launch()
    colony.wait_for_notes("web", 2, "got TERM")
    assert colony.notes("db", "got") == []
    let_go(colony, "web")
    assert colony.wait_for_exit() == 0
    assert len(colony.notes("db", "got TERM")) == 1


def test_a_binding_that_comes_later(colony: Colony) -> None:
    """What already misses the other when it is bound to it is stopped, and waits."""
    put(colony, "db")
    put(colony, "web", after={"db": "started"})
    colony.start()
    colony.wait_until_running("web")
    colony.send({"type": "STOP", "name": "db"})
    put(colony, "web", after={"db": BOUND})
    colony.wait_for_status("web", state="WAITING")


def test_a_success_that_is_one_by_a_later_word(colony: Colony) -> None:
    """An end that counts as success since the codes of success were changed lets those go on that wait for it."""
    colony.put("db", {"args": colony.payload("db", "leave", 3), "restart": "never"})
    put(colony, "web", after={"db": "completed"})
    colony.start()
    colony.wait_for_status("web", state="WAITING", waiting_for=["db to be completed (it is EXITED)"])
    colony.put("db", {"args": colony.payload("db", "leave", 3), "restart": "never", "success_codes": [3]})
    colony.wait_until_running("web")
    assert len(colony.notes("db")) == 1


def test_a_way_back_that_closes_a_circle(colony: Colony) -> None:
    """What comes back and waits for one that waits for it is a problem of both, which says so; a change heals it."""
    put(colony, "b")
    put(colony, "a", after={"b": "started"})
    colony.start()
    colony.wait_until_running("a")
    put(colony, "a", **shows(), rollback_if_not_ready=2)
    unready(colony, "a")
    put(colony, "b", after={"a": "ready"}, env={"A": "1"})
    for name in ("a", "b"):
        colony.wait_for(
            lambda name=name: "wait for each other" in ((colony.status(name) or {}).get("problem") or ""), name
        )
    put(colony, "b")
    for name in ("a", "b"):
        colony.wait_until_running(name)


def test_a_circle_does_not_make_forget(colony: Colony) -> None:
    """However many supervisors see only a circle: once it is healed, numbers go on and what was stopped is so still."""
    put(colony, "a")
    put(colony, "b")
    colony.start()
    for name in ("a", "b"):
        colony.wait_until_running(name)
        colony.send({"type": "STOP", "name": name})
    colony.send({"type": "START", "name": "b"})
    colony.wait_for_status("b", instance=2, state="RUNNING")
    colony.send({"type": "STOP", "name": "b"})
    put(colony, "a", after={"b": "started"})
    put(colony, "b", after={"a": "started"})
    for name in ("a", "b"):
        colony.wait_for_problem(name)
    for _ in range(2):
        colony.kill()
        colony.start()
        colony.scan()
    for name in ("a", "b"):
        colony.wait_for_status(name, state="FATAL", wanted="down")
    put(colony, "a")
    colony.wait_for_status("a", state="STOPPED", instance=1, problem=None, reason="stopped on request")
    put(colony, "b")
    colony.wait_for_status("b", state="STOPPED", instance=2, problem=None, reason="stopped on request")
