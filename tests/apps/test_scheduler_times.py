"""The scheduler on its times: real runs on a clock that travels, and the real program with what it remembers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from twisted.internet import defer, pollreactor
from twisted.python.usage import UsageError

from ncolony.apps import scheduler
from ncolony.apps.scheduler.failures import MOST_WAITING, Failures
from ncolony.apps.scheduler.history import LINES_KEPT, LONGEST_KEPT, History, Record
from ncolony.apps.scheduler.options import rules_of
from ncolony.apps.scheduler.performer import Scheduler
from ncolony.apps.scheduler.state import Saved, StateFile
from ncolony.decide.cron import cron, shown
from ncolony.decide.schedule import Memory, Overlap, Rules
from ncolony.model.cron import zone

BERLIN, LORD_HOWE, SANTIAGO = "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago"
HOUR, DAY = 3600.0, 86400.0


# A clock that travels


class Traveller(pollreactor.PollReactor):
    """A reactor on which time stands still while a run goes on, and otherwise passes at once until something is due.

    `jumps` are (seconds of the monotonic clock, what is then added to the wall clock alone).
    """

    def __init__(self, wall: float, jumps: Sequence[tuple[float, float]] = ()) -> None:
        self.mono = 1000.0
        self.wall = wall
        self._jumps = [(1000.0 + at, by) for at, by in jumps]
        self._patience = time.monotonic() + 60
        self.is_busy: Callable[[], bool] = bool
        super().__init__()

    def seconds(self) -> float:
        """The monotonic clock."""
        return self.mono

    def timeout(self) -> Any:
        """How long to wait for descriptors: not at all, since then it is later."""
        wait = super().timeout()
        if time.monotonic() > self._patience:
            self.stop()
        if not wait:
            return wait
        if self.is_busy():
            return 0.05
        if self._jumps and self._jumps[0][0] <= self.mono + wait:
            at, by = self._jumps.pop(0)
            self.wall += by + at - self.mono
            self.mono = at
        else:
            self.wall, self.mono = self.wall + wait, self.mono + wait
        return 0


class Collected:
    """An output that remembers."""

    full = False

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.problems: list[str] = []

    def when_room(self, call: Callable[[], None]) -> None:
        """Never full."""

    def lines(self, stream: str, lines: Sequence[str]) -> None:
        """Remember."""
        self.seen += lines

    def problem(self, text: str) -> None:
        """Remember."""
        self.problems.append(text)

    def finish(self) -> Any:
        """Return a Deferred that has fired."""
        return defer.succeed(None)


def travel(
    path: Path, rules: Rules, start: float, seconds: float, jumps: Sequence[tuple[float, float]] = (), **more: Any
) -> tuple[list[Record], Collected]:
    """Let a scheduler run `true` for so long; return the records of its runs and what it said."""
    make: Callable[[], Any] = lambda: Traveller(start, jumps)  # noqa: E731 (its base is not typed)
    reactor, output = make(), Collected()
    history = History(str(path / "history"), 10_000)
    args = more.pop("args", ["true"])
    service = Scheduler(reactor, output, args, rules, None, 10.0, history=history, wall=lambda: reactor.wall, **more)
    reactor.is_busy = lambda: bool(service._under)
    reactor.callLater(seconds, lambda: service.stopService().addBoth(lambda _: reactor.stop()))
    service.startService()
    reactor.run(installSignalHandlers=False)
    assert reactor.mono >= 1000 + seconds, "it took too long"
    return records(path / "history"), output


def records(path: Path) -> list[Record]:
    """What a history holds."""
    return [msgspec.json.decode(line, type=Record) for line in path.read_bytes().splitlines()]


def at(text: str, name: str = "UTC") -> float:
    """The moment at which the clock of a zone shows this, for the first time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(name)).timestamp()


def begun(runs: list[Record], name: str = "UTC") -> list[str]:
    """When runs began, on the clock of a zone, to the minute."""
    return [shown(run.started, zone(name)).replace(":00+", "+").replace(":00-", "-") for run in runs]


@pytest.mark.parametrize(
    ("expression", "name", "start", "expected"),
    [
        ("30 2 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"]),
        ("30 2 * * *", BERLIN, "2026-10-24 12:00", ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]),
        ("0 0 * * *", SANTIAGO, "2026-09-05 12:00", ["2026-09-06 01:00-03:00", "2026-09-07 00:00-03:00"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04 12:00", ["2026-04-05 01:45+11:00", "2026-04-06 01:45+10:30"]),
        ("*/45 1 * * *", LORD_HOWE, "2026-04-05 01:10", ["2026-04-05 01:45+11:00", "2026-04-05 01:45+10:30"]),
        ("0 12 29 2 *", BERLIN, "2028-02-28 00:00", ["2028-02-29 12:00+01:00"]),
        ("0 12 L * *", BERLIN, "2027-02-27 13:00", ["2027-02-28 12:00+01:00"]),
        ("0 0 1 1 *", BERLIN, "2037-12-31 12:00", ["2038-01-01 00:00+01:00"]),
        ("14 3 19 1 *", "UTC", "2038-01-18 12:00", ["2038-01-19 03:14+00:00"]),
    ],
)
def test_runs_on_the_days_of_the_calendar(
    tmp_path: Path, expression: str, name: str, start: str, expected: list[str]
) -> None:
    """Real runs begin at the moments of the tables: changed clocks, leap day, the end of 32 bits."""
    rules = Rules(cron=cron(expression, name, zone("UTC")))
    runs, output = travel(tmp_path, rules, at(start, name), 1.8 * DAY)
    assert begun(runs, name)[: len(expected)] == expected
    assert [run.due for run in runs] == [run.started for run in runs]
    assert output.problems == []


def test_a_wildcard_runs_through_the_repeated_hour(tmp_path: Path) -> None:
    """What comes every ten minutes comes six times in each of the two hours that the clock shows alike."""
    rules = Rules(cron=cron("*/10 * * * *", BERLIN, zone("UTC")))
    runs, _ = travel(tmp_path, rules, at("2026-10-25 01:55", BERLIN), 2 * HOUR)
    assert {run.started - runs[0].started for run in runs} == {600.0 * number for number in range(12)}


def test_a_clock_that_is_set_back_an_hour_repeats_no_run(tmp_path: Path) -> None:
    """At 12:30 the clock is set to 11:30: the run of 12:00 does not come again."""
    rules = Rules(cron=cron("0 0-23 * * *", None, zone("UTC")))
    runs, output = travel(tmp_path, rules, at("2026-05-01 11:30"), 3.9 * HOUR, [(HOUR, -HOUR)])
    assert begun(runs) == ["2026-05-01 12:00+00:00", "2026-05-01 13:00+00:00", "2026-05-01 14:00+00:00"]
    assert output.problems == []


def test_a_clock_that_was_wrong_is_believed_when_it_is_right(tmp_path: Path) -> None:
    """At 12:30 the clock is set back by a month: the runs go on at once by the new time."""
    rules = Rules(cron=cron("0 0-23 * * *", None, zone("UTC")))
    runs, output = travel(tmp_path, rules, at("2026-05-01 11:30"), 1.9 * HOUR, [(HOUR, -30 * DAY)])
    assert begun(runs) == ["2026-05-01 12:00+00:00", "2026-04-01 13:00+00:00"]
    assert output.problems == ["'true' clock-back: the clock was set back by more than 10800 s"]


@pytest.mark.parametrize("catch_up", [False, True])
def test_a_sleep_or_a_clock_that_is_set_forward(tmp_path: Path, catch_up: bool) -> None:
    """While the machine sleeps three runs are missed: none is made up for, or one run does for all of them."""
    rules = Rules(cron=cron("0 0-23 * * *", None, zone("UTC")), catch_up=catch_up)
    runs, output = travel(tmp_path, rules, at("2026-05-01 11:30"), 2 * HOUR, [(HOUR + 30, 3.25 * HOUR)])
    # It wakes at 15:45:30, when it looked last at 12:30, and sees it within a minute.
    woken = ["2026-05-01 15:46+00:00"] if catch_up else []
    assert begun(runs) == ["2026-05-01 12:00+00:00", *woken, "2026-05-01 16:00+00:00"]
    if catch_up:
        missed = "'true' missed 2 runs, due last at {}: one run makes up for all of them"
        assert output.problems[1:] == ["'true' caught-up: it was missed"]
    else:
        missed = "'true' missed 3 runs, due last at {}: nobody was there, or the clock was set"
        assert output.problems[1:] == []
    here = datetime.fromtimestamp(at("2026-05-01 15:00")).astimezone().isoformat(" ")
    assert output.problems[0] == missed.format(here)


def test_a_period_knows_no_time_of_day(tmp_path: Path) -> None:
    """Whatever becomes of the clock, `every` counts the seconds for which the machine was awake."""
    jumps = [(100.0, 3 * HOUR), (200.0, -DAY), (1500.0, 30 * DAY)]
    runs, output = travel(tmp_path, Rules(every=600.0), at("2026-05-01 12:00"), 1900.0, jumps)
    gone = [0.0, 0.0 + 3 * HOUR - DAY, 3 * HOUR - DAY, 3 * HOUR + 29 * DAY]
    starts = [run.started - at("2026-05-01 12:00") for run in runs]
    assert starts == [600.0 * number + jump for number, jump in enumerate(gone)]
    assert output.problems == []


def test_retries_on_the_clock(tmp_path: Path) -> None:
    """A run that fails is tried again after 5, 10 and 20 seconds, unless the next one is due before."""
    rules = Rules(cron=cron("*/25 * * * * *", None, zone("UTC")), retries=5, retry_delay=5.0)
    runs, output = travel(tmp_path, rules, at("2026-05-01 12:00:20"), 27.0, args=["false"])
    assert [(run.started - at("2026-05-01 12:00"), run.attempt) for run in runs] == [(25, 0), (30, 1), (40, 2)]
    assert output.problems == [
        "'false' ended with exit code 1",
        "'false' retrying: it is tried again in 5 s, for the 1. of 5 times",
        "'false' ended with exit code 1",
        "'false' retrying: it is tried again in 10 s, for the 2. of 5 times",
        "'false' ended with exit code 1",
        "'false' retrying: it is tried again in 20 s, for the 3. of 5 times",
    ]


def test_jitter_on_the_clock(tmp_path: Path) -> None:
    """Each run is put off by chance, and the record tells when it was due."""
    chances = iter([0.5, 0.25, 1.0, 0.0, *[0.5] * 1000])
    rules = Rules(cron=cron("0 * * * *", None, zone("UTC")), jitter=600.0)
    runs, _ = travel(tmp_path, rules, at("2026-05-01 11:50"), 2.5 * HOUR, luck=lambda: next(chances))
    assert [run.due for run in runs] == [at("2026-05-01 12:00"), at("2026-05-01 13:00"), at("2026-05-01 14:00")]
    put_off = [run.started - (run.due or 0) for run in runs]
    assert put_off[0] == 300.0
    assert all(0 <= seconds <= 600 for seconds in put_off)


# The real program


class Program:
    """A running `python -m twisted ncolony-scheduler`."""

    def __init__(self, *args: str, **env: str) -> None:
        command = [sys.executable, "-m", "twisted", "ncolony-scheduler", *args]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env={**os.environ, **env}
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout

    def line(self) -> str:
        """Wait for the next line that is not an event of Twisted's own."""
        while data := self.output.readline():
            if not data.startswith(b"\x1e"):
                return data.decode().rstrip("\n")
        raise AssertionError(f"ended early: {self.process.wait()}")

    def lines(self, count: int) -> list[str]:
        """Wait for so many lines."""
        return [self.line() for _ in range(count)]

    def stop(self) -> list[str]:
        """Send SIGTERM and wait for a clean end; return the lines until then."""
        self.process.send_signal(signal.SIGTERM)
        lines = [line for line in self.output.read().decode().split("\n") if line[:1] not in ("", "\x1e")]
        assert self.process.wait() == 0
        return lines


Start = Callable[..., Program]
SOON = ("--timeout=60", "--grace=60")


@pytest.fixture
def start() -> Iterator[Start]:
    """Start schedulers that do not outlive the test."""
    programs: list[Program] = []

    def start_one(*args: str, command: Sequence[str] = ("true",), **env: str) -> Program:
        programs.append(Program(*(f"--arg={word}" for word in command), *args, **env))
        return programs[-1]

    yield start_one
    for program in programs:
        if program.process.poll() is None:
            # Twice: the second makes it kill a command that ignores the first.
            program.process.send_signal(signal.SIGTERM)
            program.process.send_signal(signal.SIGTERM)
            try:
                program.process.wait(20)
            except subprocess.TimeoutExpired:
                program.process.kill()
                program.process.wait()
        program.output.close()


def test_every_second_for_real(start: Start) -> None:
    """A cron expression of every second gives a run in each second, just after it has begun."""
    program = start("--cron=* * * * * *", command=("date", "+%s.%N"))
    times = [float(line) for line in program.lines(5)]
    seconds = [int(moment) for moment in times]
    assert len(set(seconds)) == 5
    assert seconds == sorted(seconds)
    assert program.stop() == []


def test_a_cron_job_needs_no_timeout_and_no_period(start: Start) -> None:
    """With --cron alone the run goes on until it ends or we do, and nothing runs at the start."""
    program = start("--cron=* * * * * *", command=("sh", "-c", "echo up; exec sleep 1000"))
    assert program.line() == "up"
    assert program.stop() == []


@pytest.mark.parametrize("name", [BERLIN, LORD_HOWE, "EST5EDT,M3.2.0,M11.1.0"])
def test_the_machines_own_time_zone(name: str) -> None:
    """Without a --timezone the machine's is followed, through all its changes, and TZ may say what it is."""
    code = (
        "from ncolony.system.clock import local_offset;"
        "print([local_offset(moment) for moment in range(1800000000, 1900000000, 1000000)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, "TZ": name}, check=True)
    known = zone("America/New_York" if name.startswith("EST") else name)
    assert json.loads(done.stdout) == [known(moment) for moment in range(1_800_000_000, 1_900_000_000, 1_000_000)]


def gated(tmp_path: Path, script: str) -> tuple[list[str], Path]:
    """A command that runs a script and then waits until its gate (of its own number) is opened."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    return ["sh", "-c", f"{script}; read x <{gate}"], gate


def test_allow_runs_side_by_side(start: Start, tmp_path: Path) -> None:
    """Several runs at once print whole lines, and all of them are ended at the end."""
    code = "import os, time; os.write(1, b'a'); time.sleep(0.02); os.write(1, b'%d\\n' % os.getpid()); time.sleep(1000)"
    program = start("--frequency=0.1", "--overlap=allow", *SOON, command=(sys.executable, "-ISc", code))
    pids = [int(line.removeprefix("a")) for line in program.lines(3)]
    for pid in pids:
        os.kill(pid, 0)
    program.stop()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_replace_ends_the_old_run_first(start: Start, tmp_path: Path) -> None:
    """A due run has the one before it ended, which is said, and begins after that."""
    lock, gate = tmp_path / "lock", tmp_path / "gate"
    os.mkfifo(gate)
    script = f"trap 'rmdir {lock}; exit 7' TERM; mkdir {lock} || echo both; echo up; exec 3<>{gate}; read x <&3"
    program = start("--frequency=1", "--overlap=replace", "--retries=3", *SOON, command=("sh", "-c", script))
    assert program.lines(5) == [
        "up",
        "'sh' ended with exit code 7: a newer run takes its place",
        "up",
        "'sh' ended with exit code 7: a newer run takes its place",
        "up",
    ]


def test_queue_holds_one_and_a_stop_drops_it(start: Start, tmp_path: Path) -> None:
    """A due run waits for the one before it; when we stop meanwhile, it does not begin any more."""
    command, gate = gated(tmp_path, "echo run")
    state = tmp_path / "state"
    program = start("--frequency=0.2", "--overlap=queue", f"--state-file={state}", *SOON, command=command)
    assert program.line() == "run"
    while b'"queued"' not in state.read_bytes():
        time.sleep(0.01)
    gate.write_text("go\n")
    assert program.line() == "run"
    while b'"queued"' not in state.read_bytes():
        time.sleep(0.01)
    assert program.stop() == []


def test_a_failed_run_is_tried_again_until_it_succeeds(start: Start, tmp_path: Path) -> None:
    """Two failures are told with what follows, then the third try succeeds and nothing is said of it."""
    count = tmp_path / "count"
    script = f"echo x >>{count}; [ $(wc -l <{count}) = 3 ] && echo done"
    history = tmp_path / "history"
    options = ("--frequency=3600", "--retries=4", "--retry-delay=0.05", f"--history={history}")
    program = start(*options, *SOON, command=("sh", "-c", script))
    assert program.lines(5) == [
        "'sh' ended with exit code 1",
        "'sh' retrying: it is tried again in 0.05 s, for the 1. of 4 times",
        "'sh' ended with exit code 1",
        "'sh' retrying: it is tried again in 0.1 s, for the 2. of 4 times",
        "done",
    ]
    while len(records(history)) < 3:
        time.sleep(0.01)
    assert program.stop() == []
    assert [(run.attempt, run.success) for run in records(history)] == [(0, False), (1, False), (2, True)]


def test_the_last_retry_is_the_last(start: Start) -> None:
    """When the retries are used up that is said, also for a command that cannot be run at all."""
    program = start("--frequency=3600", "--retries=1", "--retry-delay=0.05", *SOON, command=("/no/such",))
    assert program.lines(4) == [
        "cannot run '/no/such': No such file or directory",
        "'/no/such' retrying: it is tried again in 0.05 s, for the 1. of 1 times",
        "cannot run '/no/such': No such file or directory",
        "'/no/such' gave-up: it has failed 2 times",
    ]


# What is run when a run has failed


def test_a_failure_is_told_to_a_command(start: Start, tmp_path: Path) -> None:
    """The command finds in its environment which run failed and how; its own output is printed as well."""
    script = 'echo "$NCOLONY_JOB_EXIT,$NCOLONY_JOB_SIGNAL,$NCOLONY_JOB_ATTEMPT,$NCOLONY_JOB_RETRIES_LEFT,$1"'
    script += '; echo "$NCOLONY_JOB_OUTPUT|$NCOLONY_JOB_TEXT|$NCOLONY_JOB_COMMAND|$HOME"'
    handler = [f"--on-failure-exec={word}" for word in ("sh", "-c", script, "-", "a b")]
    options = ["--frequency=3600", "--retries=1", "--retry-delay=0.5"]
    program = start(*options, *SOON, *handler, command=("sh", "-c", "echo 'it is'; echo broken; exit 3"), HOME="/h")
    job = "sh -c 'echo '\"'\"'it is'\"'\"'; echo broken; exit 3'"
    told = ["it is", "broken|ended with exit code 3|" + job + "|/h"]
    lines = program.lines(14)
    handled = [line for line in lines if line not in ("it is", "broken") and not line.startswith("'sh'")]
    assert handled == ["3,,0,1,a b", told[1], "3,,1,0,a b", told[1]]
    assert lines.count("it is") == 4
    assert program.stop() == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("sh", "-c", "kill -KILL $$"), ",KILL,was ended by signal KILL"),
        (("/no/such",), ",,cannot run '/no/such': No such file or directory"),
        (("sleep", "1000"), ",TERM,was ended by signal TERM after its timeout of 0.3 s"),
        (
            ("sh", "-c", "sleep 1000 &"),
            "0,,left processes running, which were ended by signal TERM after its timeout of",
        ),
    ],
)
def test_each_way_to_fail_is_told(start: Start, command: tuple[str, ...], expected: str) -> None:
    """A signal, a command that cannot be run, a timeout and left processes are failures."""
    script = 'echo "told $NCOLONY_JOB_EXIT,$NCOLONY_JOB_SIGNAL,$NCOLONY_JOB_TEXT"'
    handler = [f"--on-failure-exec={word}" for word in ("sh", "-c", script)]
    program = start("--frequency=3600", "--timeout=0.3", "--grace=60", *handler, command=command)
    while not (line := program.line()).startswith("told "):
        pass
    assert line.startswith(f"told {expected}")


def test_success_and_our_own_stop_are_no_failures(start: Start, tmp_path: Path) -> None:
    """The command is not run for a run that succeeds, is replaced, or is ended because we end."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = f"trap 'exit 1' TERM; echo run; exec 3<>{gate}; read x <&3"
    handler = [f"--on-failure-exec={word}" for word in ("echo", "told")]
    options = ("--frequency=1", "--overlap=replace")
    program = start(*options, *SOON, *handler, command=("sh", "-c", script))
    assert program.lines(3) == ["run", "'sh' ended with exit code 1: a newer run takes its place", "run"]
    assert "told" not in program.stop()
    program = start("--frequency=0.1", *SOON, *handler, command=("echo", "fine"))
    assert program.lines(4) == ["fine"] * 4


def test_a_command_for_failures_that_cannot_be_run(start: Start) -> None:
    """That it cannot be run is said, and the job goes on."""
    program = start("--frequency=0.1", *SOON, "--on-failure-exec=/no/such", command=("false",))
    lines = program.lines(6)
    assert lines.count("cannot run '/no/such' for a failure: No such file or directory") >= 2
    assert lines.count("'false' ended with exit code 1") >= 2


def test_failures_are_told_one_after_the_other_and_not_without_bound() -> None:
    """While the command runs for one failure others wait, up to a bound beyond which they are only printed."""
    make: Callable[[], Any] = pollreactor.PollReactor
    reactor, output = make(), Collected()
    failures = Failures(reactor, output, ["sh", "-c", "echo $NCOLONY_JOB_RUN"], ["job", "with\0nul"])

    def tell_all() -> None:
        for number in range(MOST_WAITING + 3):
            failures.tell(record(number), 0)

    def look() -> None:
        if len(output.seen) == MOST_WAITING + 1:
            failures.stop().addCallback(lambda _: reactor.stop())
        else:
            reactor.callLater(0.01, look)

    reactor.callWhenRunning(tell_all)
    reactor.callWhenRunning(look)
    reactor.run(installSignalHandlers=False)
    assert output.seen == [str(number) for number in range(MOST_WAITING + 1)]
    assert output.problems == [f"cannot run 'sh' for a failure: {MOST_WAITING} others wait for it"] * 2


# History


def record(number: int) -> Record:
    return Record(
        run=number,
        attempt=0,
        due=None,
        started=1.0,
        ended=2.0,
        lasted=1.0,
        code=1,
        signal=None,
        success=False,
        text="ended with exit code 1",
        lines=("a\0b",),
    )


def test_the_history_of_a_run(start: Start, tmp_path: Path) -> None:
    """A line of JSON tells when a run was due, began and ended, how, and what it printed last."""
    history = tmp_path / "history"
    script = f"i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); done; printf %{LONGEST_KEPT + 50}s x; exit 4"
    before = time.time()
    program = start("--frequency=3600", *SOON, f"--history={history}", command=("sh", "-c", script))
    while program.line() != "'sh' ended with exit code 4":
        pass
    assert program.stop() == []
    (run,) = records(history)
    assert (run.run, run.attempt, run.code, run.signal, run.success) == (1, 0, 4, None, False)
    assert run.text == "ended with exit code 4"
    assert run.due is not None
    assert before <= run.due <= run.started <= run.ended <= time.time()
    assert run.lasted == pytest.approx(run.ended - run.started)
    assert run.lines == (*(f"line {number}" for number in range(31 - LINES_KEPT, 30)), " " * LONGEST_KEPT)
    assert history.stat().st_mode & 0o777 == 0o600


def test_a_history_is_bounded(tmp_path: Path) -> None:
    """It holds the newest records, at least as many as asked for and at most twice that, also after a restart."""
    path = tmp_path / "history"
    for first in (0, 17, 34):
        history = History(str(path), 10)
        for number in range(first, first + 17):
            history.add(record(number))
            runs = [run.run for run in records(path)]
            assert runs == list(range(number + 1 - len(runs), number + 1))
            assert min(number + 1, 10) <= len(runs) <= 20


def test_a_torn_line_harms_no_other(tmp_path: Path) -> None:
    """After a record that was cut off the next one begins a line of its own."""
    path = tmp_path / "history"
    History(str(path), 10).add(record(1))
    with open(path, "ab") as file:
        file.write(b'{"run":2,"att')
    history = History(str(path), 10)
    history.add(record(3))
    first, torn, last = path.read_bytes().splitlines()
    assert [json.loads(line)["run"] for line in (first, last)] == [1, 3]
    assert torn == b'{"run":2,"att'


@pytest.mark.parametrize("kind", ["text", "fifo", "directory", "missing"])
def test_what_is_no_history_is_left_alone(start: Start, tmp_path: Path, kind: str) -> None:
    """A file that holds something else is not touched: one line says so, and the runs come without a history."""
    path = tmp_path / "history"
    if kind == "text":
        path.write_text("precious\n")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path = tmp_path / "no" / "such"
    program = start("--frequency=0.1", *SOON, f"--history={path}", command=("echo", "run"))
    line, *more = program.lines(4)
    assert line.startswith(f"cannot write --history {path}: ")
    assert more == ["run"] * 3
    assert program.stop().count(line) == 0
    if kind == "text":
        assert path.read_text() == "precious\n"


# State


def test_a_killed_scheduler_carries_on(start: Start, tmp_path: Path) -> None:
    """After SIGKILL the next one knows when the last run was due: it makes none before its time."""
    state, history = tmp_path / "state", tmp_path / "history"
    options = ("--frequency=1", *SOON, f"--state-file={state}", f"--history={history}")
    for _ in range(3):
        program = start(*options, command=("echo", "run"))
        program.lines(2)
        program.process.kill()
        program.process.wait()
    due = [run.due for run in records(history)]
    assert len(due) >= 3  # the end of each second run may not have been noted any more
    gaps = [(later or 0) - (earlier or 0) for earlier, later in pairwise(due)]
    assert all(gap > 0.5 and abs(gap - round(gap)) < 0.2 for gap in gaps), gaps
    assert state.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("catch_up", [False, True])
def test_catching_up_after_a_downtime(start: Start, tmp_path: Path, catch_up: bool) -> None:
    """Two days after the last run, one run makes up for those that were missed, if that is wanted."""
    state = tmp_path / "state"
    long_ago = time.time() - 2 * DAY
    saved = Saved("0 0 0-23 * * * UTC", Memory(last=long_ago, number=7))
    state.write_bytes(msgspec.json.encode(saved))
    options = ["--cron=0 0 0-23 * * *", "--timezone=UTC", f"--state-file={state}", *["--catch-up"] * catch_up]
    program = start(*options, command=("echo", "run"))
    first = program.line()
    assert first.startswith("'echo' missed 4")
    if catch_up:
        assert program.lines(2) == ["'echo' caught-up: it was missed", "run"]
    # Within an hour there is no other; that nothing is left to be caught up is written down.
    assert program.stop() == []
    memory = msgspec.json.decode(state.read_bytes(), type=Saved).memory
    assert memory.last is not None
    assert time.time() - memory.last <= HOUR + 60
    assert memory.number == (8 if catch_up else 7)
    assert memory.going == ()


def test_other_times_have_no_past(start: Start, tmp_path: Path) -> None:
    """When --cron has been changed, nothing is made up for that was never due."""
    state = tmp_path / "state"
    state.write_bytes(msgspec.json.encode(Saved("0 3 * * *", Memory(last=time.time() - 9 * DAY))))
    program = start("--cron=* * * * * *", "--catch-up", f"--state-file={state}", command=("echo", "run"))
    assert program.line() == "run"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"times": 1}', b"\xff"])
def test_a_state_file_that_cannot_be_read(start: Start, tmp_path: Path, content: bytes) -> None:
    """One line says so, and the job begins anew."""
    state = tmp_path / "state"
    state.write_bytes(content)
    program = start("--frequency=3600", *SOON, f"--state-file={state}", command=("echo", "run"))
    assert program.line().startswith("cannot read --state-file: ")
    assert program.line() == "run"
    assert program.stop() == []
    assert msgspec.json.decode(state.read_bytes(), type=Saved).memory.number == 1


def test_a_state_file_that_cannot_be_written(start: Start, tmp_path: Path) -> None:
    """One line says so, not one for each run, and the runs come all the same."""
    program = start("--frequency=0.1", *SOON, f"--state-file={tmp_path}/no/such", command=("echo", "run"))
    lines = program.lines(5)
    assert lines[0] == "cannot write --state-file: No such file or directory"
    assert lines[1:] == ["run"] * 4


def test_a_run_that_was_going_when_we_were_killed_is_not_repeated(tmp_path: Path) -> None:
    """What was going is nobody's any more: it is neither awaited nor tried again."""
    path = tmp_path / "state"
    rules = Rules(every=100.0, retries=3)
    memory = Memory(last=at("2026-05-01 12:00"), number=1, going=(msgspec.json.decode(b'{"number": 1}', type=Any),))
    path.write_bytes(msgspec.json.encode({"times": "every 100 s", "memory": msgspec.to_builtins(memory)}))
    runs, output = travel(tmp_path, rules, at("2026-05-01 12:00:30"), 190.0, state=StateFile(str(path), rules))
    assert [(run.run, run.started - at("2026-05-01 12:00")) for run in runs] == [(2, 100.0), (3, 200.0)]
    assert output.problems == []


# Options


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--cron=61 * * * *"], "--cron: expected a cron expression, but its minute"),
        (["--cron=0 0 30 2 *"], "--cron: expected .* never comes, found '0 0 30 2 \\*'"),
        (["--cron="], "--cron: expected a cron expression: five fields"),
        (["--cron=@daily", "--timezone=Mars"], "--timezone: expected a time zone .*, found 'Mars'"),
        (["--cron=@daily", "--frequency=1"], "--frequency and --cron exclude each other"),
        (["--cron=@daily", "--timeout=0"], "--timeout must be"),
        (["--cron=@daily", "--grace=x"], "--grace must be"),
        (["--timezone=UTC", "--frequency=1", *SOON], "--timezone goes with --cron alone"),
        (["--cron=@daily", "--jitter=-1"], "--jitter must be"),
        (["--cron=@daily", "--jitter=1e9"], "--jitter must be a number of seconds, a year at most"),
        (["--cron=@daily", "--overlap=maybe"], "--overlap must be one of skip, queue, replace, allow, not 'maybe'"),
        (["--cron=@daily", "--retries=-1"], "--retries must be a whole number from 0 to 1000, not '-1'"),
        (["--cron=@daily", "--retries=1.5"], "--retries must be a whole number"),
        (["--cron=@daily", "--retries=99999999999999"], "--retries must be a whole number"),
        (["--cron=@daily", "--retry-delay=0"], "--retry-delay must be"),
        (["--cron=@daily", "--history-keep=5"], "--history-keep goes with --history alone"),
        (["--cron=@daily", "--history=x", "--history-keep=0"], "--history-keep must be"),
        (["--cron=@daily", "--history="], "--history must be a path"),
        (["--cron=@daily", "--state-file="], "--state-file must be a path"),
        (["--cron=@daily", "--on-failure-exec="], "--on-failure-exec: the command is empty"),
    ],
)
def test_what_makes_no_sense_is_refused(options: list[str], why: str) -> None:
    """A senseless value, or options that exclude each other, are an error that names the option."""
    with pytest.raises(UsageError, match=f"^{why}"):
        scheduler.Options().parseOptions(["--arg=x", *options])


def test_options_become_rules() -> None:
    """Every option about times reaches the schedule."""
    options = scheduler.Options()
    options.parseOptions(
        (
            "--arg=x --cron=@daily --timezone=Europe/Berlin --jitter=5 --overlap=queue --retries=2 --retry-delay=3"
            " --catch-up --on-failure-exec=a --on-failure-exec=-b"
        ).split()
    )
    expected = cron("@daily", BERLIN, zone("UTC"))
    assert rules_of(options) == Rules(
        cron=expected, jitter=5.0, overlap=Overlap.QUEUE, retries=2, retry_delay=3.0, catch_up=True
    )
    assert (options["timeout"], options["grace"], options["on-failure-exec"]) == (None, 10.0, ["a", "-b"])
    assert rules_of({"frequency": 5.0}) == Rules(every=5.0)
