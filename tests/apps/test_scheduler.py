"""The scheduler: the real program, and its parts on a reactor of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import defer, pollreactor
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.usage import UsageError

from ncolony import schedulelib
from ncolony.apps import scheduler
from ncolony.apps.scheduler.output import OVERFULL, BareOutput, Lines
from ncolony.apps.scheduler.performer import Scheduler
from ncolony.apps.scheduler.run import Run, somebody_lives
from ncolony.decide.schedule import Rules

LONG = "3600"


class Program:
    """A running `python -m twisted ncolony-scheduler`."""

    def __init__(self, args: list[str], log: list[str], prefix: list[str], **popen: Any) -> None:
        command = [*prefix, sys.executable, "-m", "twisted", *log, "ncolony-scheduler", *args]
        popen.setdefault("stdout", subprocess.PIPE)
        # As users have it.
        popen["env"] = {**popen.get("env", os.environ)}
        popen["env"].pop("PYTHONUNBUFFERED", None)
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **popen
        )

    def line(self) -> str:
        """Wait for the next line on standard output that is not an event of Twisted's own."""
        assert self.process.stdout is not None
        while data := self.process.stdout.readline():
            if not data.startswith(b"\x1e"):
                assert data.endswith(b"\n")
                return data[:-1].decode()
        raise AssertionError(f"ended early: {self.process.wait()}, {self.error()}")

    def rest(self) -> list[str]:
        """Wait for the end; return all the lines until then."""
        assert self.process.stdout is not None
        lines = self.process.stdout.read().decode().split("\n")
        assert lines.pop() == ""
        return [line for line in lines if not line.startswith("\x1e")]

    def error(self) -> str:
        """Wait for the end of standard error and return it."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def ask_to_stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Send SIGTERM; return the exit status."""
        self.ask_to_stop()
        return self.process.wait()


Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start schedulers that do not outlive the test."""
    programs: list[Program] = []

    def start_one(
        *words: str,
        frequency: str = LONG,
        timeout: str = LONG,
        grace: str = LONG,
        log: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
        **popen: Any,
    ) -> Program:
        args = [*(f"--arg={word}" for word in words), "--frequency", frequency, "--timeout", timeout, "--grace", grace]
        programs.append(Program(args, list(log), list(prefix), **popen))
        return programs[-1]

    yield start_one
    for program in programs:
        if program.process.poll() is None:
            # Twice: the second makes it kill a command that ignores the first.
            program.ask_to_stop()
            program.ask_to_stop()
            try:
                program.process.wait(20)
            except subprocess.TimeoutExpired:
                program.process.kill()
                program.process.wait()
        for stream in (program.process.stdout, program.process.stderr):
            if stream is not None:
                stream.close()


class Held:
    """A FIFO whose reading shows who still lives: it ends when everybody who holds its other end is gone."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(path)
        self._file: Any = None

    def wait_for_line(self) -> bytes:
        """Wait until a line is written."""
        if self._file is None:
            self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115 (it is held)
        line = b""
        while not line.endswith(b"\n"):
            got = self._file.read(1)
            assert got, "every writer ended"
            line += got
        return line

    def wait_until_gone(self) -> None:
        """Wait until all who held it have ended."""
        while self._file.read(4096):
            pass

    def close(self) -> None:
        """Close our end."""
        if self._file is not None:
            self._file.close()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    """A FIFO that commands hold."""
    fifo = Held(tmp_path / "held")
    yield fifo
    fifo.close()


def until_terminated(path: str, then: str) -> list[str]:
    """Return a command that holds and writes to the FIFO, waits for SIGTERM, and runs a line of code then.

    No shell: one that is forking when the signal comes can lose it for the child.
    """
    code = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]);"
        f"held = open({path!r}, 'wb', 0); held.write(b'up\\n'); signal.sigwait([signal.SIGTERM]); {then}"
    )
    return [sys.executable, "-ISuc", code]


# The schedule


def test_runs_at_once_and_prints_the_bare_line(start: Start) -> None:
    """The first run is immediate, its line stands alone, and SIGTERM between runs ends with 0."""
    program = start("echo", "hello")
    assert program.line() == "hello"
    program.ask_to_stop()
    assert program.rest() == []
    assert program.process.wait() == 0
    assert program.error() == ""


def test_runs_each_period_and_seconds_may_be_fractions(start: Start) -> None:
    """A frequency of a fraction of a second gives run after run."""
    program = start("sh", "-c", "echo $$", frequency="0.05")
    assert len({program.line() for _ in range(4)}) == 4


def test_arguments_reach_the_command_as_they_are(start: Start) -> None:
    """Dashes, spaces, empty words and any bytes are passed on."""
    program = start(sys.executable, "-c", "import sys; print(sys.argv[1:])", "--arg=x", "a b", "", "\udcff")
    assert program.line() == "['--arg=x', 'a b', '', '\\udcff']"


def test_a_missing_command_is_reported_and_tried_again(start: Start, tmp_path: Path) -> None:
    """A command that appears later is run at the next period."""
    command = tmp_path / "command"
    program = start(str(command), frequency="0.1")
    assert program.line() == f"cannot run '{command}': No such file or directory"
    assert program.line() == f"cannot run '{command}': No such file or directory"
    new = tmp_path / "new"
    new.write_text("#!/bin/sh\necho here\n")
    new.chmod(0o755)
    new.rename(command)
    while (line := program.line()) != "here":
        assert line.startswith("cannot run")


def test_a_command_that_may_not_be_run_is_reported(start: Start, tmp_path: Path) -> None:
    """The reason names what is wrong."""
    assert start(str(tmp_path)).line() == f"cannot run '{tmp_path}': Permission denied"


def test_a_failing_command_is_reported_after_its_output_and_tried_again(start: Start) -> None:
    """Each failing run gives its output, then one line with the exit code."""
    program = start("sh", "-c", "echo out; exit 3", frequency="0.05")
    assert [program.line() for _ in range(4)] == ["out", "'sh' ended with exit code 3"] * 2


def test_a_crash_is_reported_by_the_name_of_its_signal(start: Start) -> None:
    """A command that dies of a signal is said to."""
    assert start("sh", "-c", "kill -SEGV $$").line() == "'sh' was ended by signal SEGV"


# The end of a run


def test_timeout_terminates_the_whole_group(start: Start, held: Held) -> None:
    """After the timeout the command and its child get SIGTERM, and one line says so."""
    program = start("sh", "-c", f"exec 9>{held.path}; echo up >&9; sleep 1000; echo not reached", timeout="0.3")
    held.wait_for_line()
    held.wait_until_gone()
    assert program.line() == "'sh' was ended by signal TERM after its timeout of 0.3 s"


def test_who_ignores_sigterm_is_killed_after_the_grace_with_its_child(start: Start, held: Held) -> None:
    """SIGKILL goes to the group, so a child that ignores SIGTERM as well goes too."""
    script = f"trap '' TERM; exec 9>{held.path}; echo up >&9; sleep 1000 & sleep 1001"
    program = start("sh", "-c", script, timeout="1", grace="0.2")
    held.wait_for_line()
    held.wait_until_gone()
    assert program.line() == "'sh' was ended by signal KILL after its timeout of 1 s and grace of 0.2 s"


def test_who_obeys_sigterm_by_exiting_is_reported_with_its_code(start: Start, held: Held) -> None:
    """A clean exit on SIGTERM is still a run that took too long."""
    program = start(*until_terminated(held.path, "sys.exit(0)"), timeout="2")
    held.wait_for_line()
    assert program.line() == f"{sys.executable!r} ended with exit code 0 after its timeout of 2 s"


def test_leftovers_of_the_group_have_until_the_timeout(start: Start, held: Held) -> None:
    """A background child left in the group is ended by the same timeout, and the run is over then."""
    program = start("sh", "-c", f"exec 9>{held.path}; sleep 1000 & echo up >&9", timeout="1", frequency="0.2")
    held.wait_for_line()
    expected = "'sh' left processes running, which were ended by signal TERM after its timeout of 1 s"
    assert program.line() == expected
    assert program.line() == expected


def test_a_short_leftover_is_not_worth_a_word(start: Start, tmp_path: Path) -> None:
    """A child of the group that ends by itself within the timeout only makes the run last longer."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    program = start("sh", "-c", f"(read x <{gate}; echo child) & echo leader", frequency="0.05")
    for _ in range(2):
        assert program.line() == "leader"
        gate.write_text("go\n")
        assert program.line() == "child"


def test_a_process_in_another_session_that_holds_the_output_delays_nothing(start: Start, tmp_path: Path) -> None:
    """The next runs come although stdout is still open somewhere, and who holds it is left alone."""
    mark = tmp_path / "mark"
    script = f"[ -e {mark} ] || {{ : >{mark}; setsid sleep 1000 & echo $!; }}; echo run"
    program = start("sh", "-c", script, frequency="0.05")
    stranger = int(program.line())
    try:
        assert [program.line() for _ in range(3)] == ["run"] * 3
        os.kill(stranger, 0)
    finally:
        os.kill(stranger, signal.SIGKILL)


# The end of the scheduler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_running_command_and_then_us_with_0(start: Start, held: Held, number: signal.Signals) -> None:
    """The command's group gets SIGTERM, its last line is printed, and the exit status is 0."""
    program = start(*until_terminated(held.path, "print('bye'); sys.exit(1)"))
    held.wait_for_line()
    program.ask_to_stop(number)
    assert program.rest() == ["bye"]
    held.wait_until_gone()
    assert program.process.wait() == 0


def test_stopping_kills_after_the_grace(start: Start, held: Held) -> None:
    """A command that ignores SIGTERM does not keep the scheduler from ending."""
    program = start("sh", "-c", f"trap '' TERM; exec 9>{held.path}; echo up >&9; sleep 1000", grace="0.2")
    held.wait_for_line()
    program.ask_to_stop()
    held.wait_until_gone()
    assert program.process.wait() == 0


def test_grace_0_kills_at_once(start: Start, held: Held) -> None:
    """A grace of 0 is allowed."""
    program = start("sh", "-c", f"trap '' TERM; exec 9>{held.path}; echo up >&9; sleep 1000", grace="0")
    held.wait_for_line()
    assert program.stop() == 0
    held.wait_until_gone()


def test_a_second_signal_skips_to_kill(start: Start, held: Held) -> None:
    """Who asks twice does not wait for the grace."""
    program = start(*until_terminated(held.path, "print('no'); signal.sigwait([signal.SIGINT])"))
    held.wait_for_line()
    program.ask_to_stop()
    assert program.line() == "no"
    program.ask_to_stop()
    assert program.process.wait() == 0
    held.wait_until_gone()


# The command's surroundings


def test_the_command_has_a_session_of_its_own_and_no_input(start: Start) -> None:
    """It leads its own session and group, reads /dev/null, has no other descriptors, and inherits the environment."""
    code = (
        "import os; me = os.getpid(); listing = os.listdir('/proc/self/fd');"
        "print(os.getsid(0) == me, os.getpgrp() == me, os.readlink('/proc/self/fd/0'), len(listing), os.environ['X'])"
    )
    assert start(sys.executable, "-c", code, env={**os.environ, "X": "y z"}).line() == "True True /dev/null 4 y z"


def test_the_command_has_default_signal_dispositions(start: Start) -> None:
    """What whoever started us ignores is not ignored by the command."""
    program = start("grep", "^Sig[BI]", "/proc/self/status", prefix=("sh", "-c", 'trap "" INT HUP USR1; "$@"', "-"))
    # 32 and 33 are the C library's own, which glibc's posix_spawn leaves ignored in whoever started all this.
    internal = (1 << 31) | (1 << 32)
    assert [int(program.line().split()[1], 16) & ~internal for _ in range(2)] == [0, 0]
    # The shell in between passes no signal on: it is its child that must be told.
    child = Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children").read_text().split()
    os.kill(int(child[0]) if child else program.process.pid, signal.SIGTERM)
    assert program.process.wait() == 0


# Output


def test_output_of_any_kind_comes_as_lines(start: Start) -> None:
    """Binary, control characters, long lines and a last line without newline are printed, both streams."""
    code = (
        "import os; os.write(1, b'\\xff\\x00b\\x1b[1m\\tc\\r\\n\\xc3\\xa9\\n' + b'x' * 70000 + b'\\n\\nlast');"
        "os.close(1); os.write(2, b'no newline')"
    )
    program = start(sys.executable, "-c", code)
    lines = {program.line() for _ in range(7)}
    assert lines == {"\\xff\\x00b\\x1b[1m\tc", "é", "x" * 65536, "x" * (70000 - 65536), "", "last", "no newline"}


def test_lines_are_not_broken_where_reads_are(start: Start) -> None:
    """A line that is written in two halves is printed as one, when it is whole."""
    code = "import os, select; os.write(1, b'he'); select.select([], [], [], 0.05); os.write(1, b'llo\\nx\\n')"
    program = start(sys.executable, "-c", code)
    assert [program.line(), program.line()] == ["hello", "x"]


def test_much_output_is_complete(start: Start) -> None:
    """A megabyte in one go arrives whole and in order."""
    program = start("seq", "150000")
    for number in range(1, 150001):
        assert program.line() == str(number)


@pytest.mark.parametrize("log_format", [None, "json", "text"])
def test_a_log_file_gets_one_event_per_line(start: Start, tmp_path: Path, log_format: str | None) -> None:
    """With --log-file or --log-format, lines and problems are events of Twisted's log."""
    log = tmp_path / "log"
    options = ("--log-file", str(log), *(("--log-format", log_format) if log_format else ()))
    program = start("sh", "-c", "echo out; echo é{x} >&2; exit 3; ", log=options, env={**os.environ, "LC_ALL": "C"})
    while "exit code 3" not in (log.read_text() if log.exists() else ""):
        assert program.process.poll() is None
        time.sleep(0.01)
    assert program.stop() == 0
    assert program.rest() == []
    written = log.read_text()
    if log_format == "text":
        ends = [line.partition("[ncolony.scheduler#")[2] for line in written.splitlines()]
        assert sorted(end for end in ends if end) == ["error] 'sh' ended with exit code 3", "info] out", "info] é{x}"]
        return
    events = [json.loads(line.strip("\x1e")) for line in written.split("\n") if line]
    lines = {(event["stream"], event["line"], event["log_format"]) for event in events if "line" in event}
    assert lines == {("stdout", "out", "{line}"), ("stderr", "é{x}", "{line}")}
    assert [event["problem"] for event in events if "problem" in event] == ["'sh' ended with exit code 3"]


def test_an_explicit_format_makes_events_on_standard_output(start: Start) -> None:
    """--log-format alone sends the lines through Twisted's log to stdout."""
    program = start("echo", "hello", log=("--log-format=text",))
    while "[ncolony.scheduler#info] hello" not in program.line():
        pass


def test_a_full_disk_stops_nothing(start: Start, held: Held) -> None:
    """Runs go on where standard output cannot be written, and the exit status is 0."""
    with open("/dev/full", "wb") as full:
        program = start("sh", "-c", f"echo x; echo up >{held.path}", frequency="0.05", stdout=full)
    with open(held.path, "r+b", buffering=0):
        for _ in range(3):
            held.wait_for_line()
        assert program.stop() == 0


def test_a_reader_that_is_gone_stops_nothing(start: Start, held: Held) -> None:
    """Runs go on when nobody has the other end of standard output any more, and the exit status is 0."""
    program = start("sh", "-c", f"echo x; echo up >{held.path}", frequency="0.05")
    with open(held.path, "r+b", buffering=0):
        held.wait_for_line()
        assert program.process.stdout is not None
        program.process.stdout.close()
        for _ in range(3):
            held.wait_for_line()
        assert program.stop() == 0


def test_a_closed_standard_output_stops_nothing(start: Start, held: Held) -> None:
    """Runs go on without standard output."""
    program = start(
        "sh", "-c", f"echo x; echo up >{held.path}", frequency="0.05", prefix=("sh", "-c", 'exec "$@" >&-', "-")
    )
    with open(held.path, "r+b", buffering=0):
        for _ in range(3):
            held.wait_for_line()
        assert program.stop() == 0


def test_a_reader_that_does_not_read_holds_up_no_timeout_and_no_stop(start: Start, held: Held) -> None:
    """While standard output is full the timeout still ends runs, the next still start, and SIGTERM still works."""
    program = start("sh", "-c", f"echo up >{held.path}; exec yes", frequency="0.1", timeout="0.3", grace="0.3")
    with open(held.path, "r+b", buffering=0):
        for _ in range(3):
            held.wait_for_line()
        assert program.stop() == 0


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_how_the_bytes_are_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    """The same bytes give the same lines however they arrive, and no line has a line end in it."""
    whole = Lines()
    expected = [*whole.feed(data), *whole.end()]
    parts, lines, last = Lines(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        lines += parts.feed(data[last:cut])
        last = max(last, cut)
    assert [*lines, *parts.end()] == expected
    assert not any(len(line.splitlines()) > 1 for line in expected)


@pytest.mark.parametrize(
    ("data", "lengths"),
    [
        (b"x" * 65536 + b"\n", [65536]),
        (b"x" * 65537 + b"\n", [65536, 1]),
        (b"x" * 200000, [65536, 65536, 65536, 3392]),
        (b"x" * 65535 + "é".encode() + b"\n", [65535, 1]),
        (b"\x80" * 65537 + b"\n", [65536 * 4, 4]),
    ],
)
def test_long_lines_are_split_between_characters(data: bytes, lengths: list[int]) -> None:
    """A line longer than 64 KiB comes in pieces that lose nothing and break no character."""
    lines = Lines()
    assert [len(line) for line in [*lines.feed(data), *lines.end()]] == lengths


# Options


GOOD = {"--arg": "x", "--frequency": "10", "--timeout": "5", "--grace": "10"}


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_option_is_named(name: str) -> None:
    """Each option is required."""
    with pytest.raises(UsageError, match=f"^{name} is required"):
        scheduler.Options().parseOptions([f"{key}={value}" for key, value in GOOD.items() if key != name])


BAD = ["", "x", "nan", "inf", "-inf", "-1", "1e999", "10s", "0x10"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("--frequency", "--timeout", "--grace") for value in BAD),
        ("--frequency", "0"),
        ("--timeout", "0"),
        ("--frequency", "1e-9"),
        ("--arg", ""),
    ],
)
def test_a_senseless_value_is_refused_by_name(name: str, value: str) -> None:
    """What is not a sensible number of seconds, or no command, is an error that names the option."""
    with pytest.raises(UsageError, match=f"^{name}"):
        scheduler.Options().parseOptions([f"{key}={old}" for key, old in {**GOOD, name: value}.items()])


def test_options_are_parsed() -> None:
    """Fractions are numbers, a grace of 0 is allowed, and words keep their order."""
    options = scheduler.Options()
    options.parseOptions(["--arg=a", "--arg", "-b", "--frequency=0.5", "--timeout=1e1", "--grace=0"])
    expected = {"args": ["a", "-b"], "frequency": 0.5, "timeout": 10.0, "grace": 0.0}
    assert {name: options[name] for name in expected} == expected


def test_words_that_belong_nowhere_are_refused() -> None:
    """A command given without --arg is an error that says how to give it."""
    with pytest.raises(UsageError, match="unexpected 'hello'"):
        scheduler.Options().parseOptions([f"{key}={value}" for key, value in GOOD.items()] + ["hello"])


def test_a_usage_error_is_no_traceback() -> None:
    """The program says what is wrong on standard error and exits with EX_USAGE."""
    command = [sys.executable, "-m", "twisted", "ncolony-scheduler", "--arg=x", "--timeout=1", "--grace=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == os.EX_USAGE
    assert done.stderr.startswith("Error: --frequency is required\n")
    assert "Traceback" not in done.stderr


def test_upstreams_module_name_offers_the_same() -> None:
    """`ncolony.schedulelib` keeps working."""
    assert schedulelib.makeService is scheduler.makeService
    assert schedulelib.Options is scheduler.Options


# The parts, on a reactor of their own


class Collected:
    """An output that remembers."""

    full = False

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.problems: list[str] = []

    def when_room(self, call: Callable[[], None]) -> None:
        """Never full."""

    def lines(self, stream: str, lines: Sequence[str]) -> None:
        """Remember."""
        self.seen += [(stream, line) for line in lines]

    def problem(self, text: str) -> None:
        """Remember."""
        self.problems.append(text)

    def finish(self) -> Any:
        """Return a Deferred that has fired."""
        return defer.succeed(None)


@pytest.fixture
def reactor() -> Any:
    """A reactor that is not the process's own."""
    make: Callable[[], Any] = pollreactor.PollReactor
    return make()


def run(reactor: Any) -> None:
    """Run the reactor until it is stopped; it would swallow the exception by which pytest's own limit works."""
    limit = reactor.callLater(60, reactor.stop)
    reactor.run(installSignalHandlers=False)
    assert limit.active(), "nothing stopped the reactor in time"
    limit.cancel()


@pytest.mark.parametrize("use_pidfd", [True, False])
@pytest.mark.parametrize(
    ("script", "lines", "problems"),
    [
        ("echo hello", [("stdout", "hello")], []),
        ("printf x >&2; exit 7", [("stderr", "x")], ["'sh' ended with exit code 7"]),
        ("exec sleep 1000", [], ["'sh' was ended by signal TERM after its timeout of 0.2 s"]),
        ("exec >&- 2>&-; exec sleep 1000", [], ["'sh' was ended by signal TERM after its timeout of 0.2 s"]),
        (
            "sleep 1000 &",
            [],
            ["'sh' left processes running, which were ended by signal TERM after its timeout of 1.5 s"],
        ),
    ],
)
def test_a_run_ends_with_and_without_pidfds(
    reactor: Any, use_pidfd: bool, script: str, lines: list[tuple[str, str]], problems: list[str]
) -> None:
    """A run's end is noticed and told the same way where the system has no pidfds, and no descriptor is left open."""
    output = Collected()
    runs: list[Run] = []
    before = set(os.listdir("/proc/self/fd"))

    def begin() -> None:
        # A quick command must not be caught by a timeout that another one waits for.
        timeout = 0.2 if "exec sleep" in script else 1.5 if "sleep" in script else 60.0
        run = Run(reactor, output, ["sh", "-c", script], timeout, 60.0, use_pidfd=use_pidfd)
        runs.append(run)
        run.done.addCallback(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    run(reactor)
    assert (output.seen, output.problems) == (lines, problems)
    assert set(os.listdir("/proc/self/fd")) == before
    assert not somebody_lives(runs[0].pid)


def test_a_run_that_still_goes_on_is_not_doubled(reactor: Any, tmp_path: Path) -> None:
    """Periods that come while a run goes on are skipped, and the first one after its end is not."""
    output = Collected()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    service = Scheduler(reactor, output, ["sh", "-c", f"echo run; read x <{gate}"], Rules(every=0.02), 3600, 3600)
    skips: list[int] = []
    publisher: Any = globalLogPublisher
    with open(gate, "r+b", buffering=0) as holder:

        def seen(event: Any) -> None:
            if event["log_namespace"] == "ncolony.scheduler" and event["log_level"] is LogLevel.debug:
                skips.append(len(output.seen))
                if len(skips) == 5:
                    holder.write(b"go\n")
                elif len(output.seen) == 2:
                    publisher.removeObserver(seen)
                    service.stopService().addBoth(lambda _: reactor.stop())

        publisher.addObserver(seen)
        service.startService()
        run(reactor)
    assert max(skips[:5]) <= 1
    assert output.seen == [("stdout", "run")] * 2
    assert output.problems == []


@pytest.mark.parametrize("ended", [True, False])
def test_zombies_are_nobody(ended: bool) -> None:
    """A group in which only a zombie is left counts as empty, however late its parent reaps it."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)
    assert child.stdin is not None
    try:
        if ended:
            child.stdin.close()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert somebody_lives(child.pid) is not ended
    finally:
        child.stdin.close()
        child.wait()


def test_timers_follow_the_monotonic_clock(reactor: Any) -> None:
    """The reactor's time is the monotonic clock's, so that setting the wall clock moves no run."""
    scheduler.make_steady(reactor)
    before = time.monotonic()
    assert before <= reactor.seconds() <= time.monotonic()
    call = reactor.callLater(100, lambda: None)
    assert before + 100 <= call.getTime() <= time.monotonic() + 100
    call.cancel()


def test_stopping_twice_or_before_the_start_is_fine(reactor: Any) -> None:
    """A service that never began a run stops at once."""
    service = Scheduler(reactor, Collected(), ["true"], Rules(every=1), 1, 1)
    service.startService()
    fired: list[object] = []
    service.stopService().addCallback(fired.append)
    service.stopService().addCallback(fired.append)
    assert fired == [None, None]


class Reader:
    """Reads a pipe on a reactor until certain bytes have come, then stops the reactor."""

    def __init__(self, reactor: Any, fd: int, until: bytes) -> None:
        self.reactor = reactor
        self.fd = fd
        self.until = until
        self.data = bytearray()
        os.set_blocking(fd, False)

    def take(self) -> None:
        """Read what is there, and later what will be."""
        try:
            while piece := os.read(self.fd, 65536):
                self.data += piece
        except BlockingIOError:
            pass
        if self.data.endswith(self.until):
            self.reactor.stop()
        else:
            self.reactor.callLater(0.001, self.take)


def close_all(*fds: int) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)


def test_a_slow_reader_presses_back_on_the_command(reactor: Any) -> None:
    """While nobody reads, no more of the command's output is taken than is bounded; once somebody does, all comes."""
    read, write = os.pipe()
    output = BareOutput(reactor, write)
    code = "import os; [os.write(1, b'%08d\\n' % number * 1000) for number in range(400)]; os.write(1, b'end\\n')"
    service = Scheduler(reactor, output, [sys.executable, "-ISc", code], Rules(every=3600), 3600, 3600)
    reader = Reader(reactor, read, until=b"end\n")
    waiting = [0] * 10

    def read_once_nothing_changes() -> None:
        waiting.append(len(output._waiting))
        if output.full and len(set(waiting[-10:])) == 1:
            reader.take()
        else:
            reactor.callLater(0.01, read_once_nothing_changes)

    service.startService()
    reactor.callWhenRunning(read_once_nothing_changes)
    run(reactor)
    service.stopService()
    close_all(read, write, output.fileno())
    assert max(waiting) < OVERFULL
    assert reader.data == b"".join(b"%08d\n" % number * 1000 for number in range(400)) + b"end\n"


def test_last_words_that_nobody_reads_go_nowhere(reactor: Any) -> None:
    """Where nobody reads, the end is not waited for without bound, and nothing written afterwards can block."""
    read, write = os.pipe()
    output = BareOutput(reactor, write)
    while not output.full:
        output.lines("stdout", ["x" * 1000])
    reactor.callWhenRunning(lambda: output.finish().addBoth(lambda _: reactor.stop()))
    run(reactor)
    assert os.path.samestat(os.fstat(write), os.stat(os.devnull))
    close_all(read, write, output.fileno())


def test_slow_standard_output_drops_and_counts_only_past_its_bound(reactor: Any) -> None:
    """A reader that comes back gets what waited, then one line that counts what was dropped."""
    read, write = os.pipe()
    output = BareOutput(reactor, write)
    line = "x" * 65000
    count = 0
    while not output._dropped:
        output.lines("stdout", [line])
        count += 1
    output.lines("stdout", [line])
    assert output.full
    reader = Reader(reactor, read, until=b"standard output\n")
    reactor.callWhenRunning(reader.take)
    run(reactor)
    data = reader.data
    close_all(read, write, output.fileno())
    *lines, last = data.decode().splitlines()
    assert lines == [line] * (count - 1)
    assert last == "2 lines of output were dropped: nobody read standard output"
    assert not output.full
