"""What ncolony-jobs is made of: names of messages, luck, notes, definitions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.python.usage import UsageError

from ncolony.apps import job, jobs
from ncolony.apps.jobfiles import Definitions, Notes, luck, message_name
from ncolony.model import config
from ncolony.model.names import problem_with_name


@given(st.floats(0, 4e9), st.text(max_size=250), st.integers(1, 10**9), st.integers(0, 1000))
def test_messages_have_legal_names(at: float, name: str, number: int, attempt: int) -> None:
    """Whatever the job is called, the message about its run has a name that the supervisor takes."""
    assert problem_with_name(message_name(at, name, f"{number}-{attempt}")) is None


@given(st.lists(st.floats(0, 4e9), min_size=2))
def test_names_of_messages_sort_by_time(moments: list[float]) -> None:
    """Runs that are due earlier have names that come earlier."""
    names = [message_name(at, "job", "1-0") for at in sorted(moments)]
    assert names == sorted(names)


def test_the_same_run_has_the_same_name() -> None:
    """Time, job, number and attempt make a name, each another one."""
    names = {message_name(1.5, "a", "1-0"), message_name(1.5, "b", "1-0"), message_name(2.5, "a", "1-0")}
    names |= {message_name(1.5, "a", "2-0"), message_name(1.5, "a", "1-1")}
    assert len(names) == 5
    assert message_name(1.5, "a", "1-0") in names


@given(st.text(), st.none() | st.floats(0, 4e9))
def test_luck_is_a_share_and_always_the_same(name: str, last: float | None) -> None:
    """A job's luck is from 0 to 1, and the same for whoever asks after a restart."""
    assert 0 <= luck(name, last) <= 1
    assert luck(name, last) == luck(name, last if last is None else float(json.loads(json.dumps(last))))


def test_many_jobs_have_different_luck() -> None:
    """Jobs of one time are spread over their jitter."""
    shares = sorted(luck(f"job{number}", 1000.0) for number in range(200))
    assert shares[0] < 0.1
    assert shares[-1] > 0.9
    assert len(set(shares)) == 200


def put(directory: Path, name: str, content: Any) -> None:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (directory / f"{name}.new").write_bytes(text)
    (directory / f"{name}.new").rename(directory / name)


def test_definitions_are_those_with_a_schedule(tmp_path: Path) -> None:
    """Only jobs are known; a file that cannot be used leaves the last good one; a removed one is gone."""
    found = Definitions(str(tmp_path))
    put(tmp_path, "web", {"args": ["a"]})
    put(tmp_path, "job", {"args": ["a"], "schedule": {"every": 5}})
    put(tmp_path, "escaped", b'{"args": ["a"], "\\u0073chedule": {"every": 5}}')
    assert found.scan() == {"job", "escaped"}
    put(tmp_path, "job", b'{"args": ["a"], "schedule": {"every"')
    put(tmp_path, "bad", {"args": ["a"], "schedule": {"every": -1}})
    assert found.scan() == set()
    assert found.good.keys() == {"job", "escaped"}
    put(tmp_path, "job", {"args": ["b"], "schedule": {"every": 6}})
    put(tmp_path, "escaped", {"args": ["a"]})
    assert found.scan(["job", "escaped"]) == {"job", "escaped"}
    assert found.good["job"].args == ("b",)
    (tmp_path / "job").unlink()
    assert found.scan() == {"job"}
    assert not found.good
    assert found.is_gone("job")


def test_a_directory_that_vanishes_removes_no_job(tmp_path: Path) -> None:
    """Only files that are gone from a directory that is there are gone."""
    directory = tmp_path / "conf"
    directory.mkdir()
    put(directory, "job", {"args": ["a"], "schedule": {"every": 5}})
    found = Definitions(str(directory))
    found.scan()
    directory.rename(tmp_path / "away")
    assert found.scan() == set()
    assert not found.is_gone("job")
    assert found.good.keys() == {"job"}
    (tmp_path / "away").rename(directory)
    found.scan()
    assert found.good.keys() == {"job"}


def test_notes_are_whole_or_not_there(tmp_path: Path) -> None:
    """What is written is read; what makes no sense counts as nothing; a full or missing directory is no end."""
    notes = Notes(str(tmp_path / "jobs"))
    assert notes.get("a") is None
    assert notes.put("a", b"x")
    assert notes.get("a") == b"x"
    assert notes.names() == ["a"]
    for data in (b"", b"7", b"[]", b"\xff", b'{"next": "soon"}', b'{"runs": [{"number": []}]}'):
        assert job._kept_in(data) is None
    notes.forget("a")
    notes.forget("a")
    assert notes.names() == []
    (tmp_path / "jobs").rmdir()
    assert not notes.put("a", b"x")


def test_rules_say_what_the_file_says() -> None:
    """Every key of `schedule` reaches those who decide, but `grace`, which is the supervisor's."""
    said = {
        "every": 5, "jitter": 1, "timeout": 2, "overlap": "queue", "retries": 3, "retry_delay": 4,
        "catch_up": True, "late_after": 6, "grace": 7,
    }  # fmt: skip
    found = config.decode("job", json.dumps({"args": ["a"], "schedule": said}).encode())
    assert isinstance(found, config.ProcessConfig)
    rules = job.rules_of(found)
    assert (rules.every, rules.jitter, rules.timeout, rules.overlap.value) == (5, 1, 2, "queue")
    assert (rules.retries, rules.retry_delay, rules.catch_up, rules.late_after) == (3, 4, True, 6)


@pytest.mark.parametrize(
    ("words", "said"), [([], "--messages DIR"), (["--messages", "m"], "--config DIR"), (["x"], "'x'")]
)
def test_wrong_options_are_told(words: list[str], said: str) -> None:
    """What is missing or too much is named."""
    with pytest.raises(UsageError, match=said):
        jobs.Options().parseOptions(words)  # type: ignore[no-untyped-call]


def test_a_state_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    """It does not start where it cannot write, and says why."""
    (tmp_path / "file").touch()
    places = ["--messages", str(tmp_path), "--config", str(tmp_path), "--state", str(tmp_path / "file")]
    command = [sys.executable, "-m", "twisted", "ncolony-jobs", *places]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("cannot start: cannot use ")
    assert len(done.stderr.splitlines()) == 1
