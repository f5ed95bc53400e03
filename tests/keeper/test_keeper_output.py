"""Output: every line once, whatever dies; bounded files; slow readers; full disks."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
from bench import PYTHON, Bench, Line, Message, is_alive, state_of, wait_for

from ncolony.keeper.kernel import peek

KILL = signal.SIGKILL
# Numbered lines of 100 bytes, as fast as they are taken.
WRITER = """
import os
def line(number): return b"%08d %s\\n" % (number, b"x" * 90)
for block in range(0, LINES, 100):
    data = b"".join(map(line, range(block, block + 100)))
    while data:
        data = data[os.write(1, data):]
"""


def writer(lines: int, then: str = "") -> list[str]:
    """A program that prints `lines` numbered lines and then does something else."""
    return [*PYTHON, WRITER.replace("LINES", str(lines)) + then]


def numbers(output: bytes) -> list[int]:
    """The numbers of the lines, all of which must be whole."""
    lines = output.split(b"\n")
    assert lines.pop() == b""
    assert all(len(line) == 99 for line in lines)
    return [int(line[:8]) for line in lines]


def check_names(bench: Bench, name: str) -> None:
    """Each rotated file is named by the offset in the stream at which it begins."""
    *rotated, _ = bench.files(name)
    at = int(rotated[0].stem) if rotated else 0
    for path in rotated:
        assert path.name == f"{at:020d}.log"
        at += path.stat().st_size


def read_on(line: Line, name: str) -> Message:
    """Wait for word of output and say that it was forwarded."""
    told = line.wait_for("output", name=name)
    line.say("read", name=name, to=told["to"])
    return told


def test_output_of_both_streams_in_order(bench: Bench, line: Line) -> None:
    """Standard output and standard error are in the log in the order in which they were written."""
    script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done"
    identity, _ = bench.start(line, ["/bin/sh", "-c", script], name="web")
    line.wait_for("exited", id=identity)
    expected = "".join(f"out {i}\nerr {i}\n" for i in range(1, 6)).encode()
    assert bench.output("web") == expected
    last = line.wait_for("output", name="web", last=True)
    assert last["to"] == len(expected)


def test_last_output_is_told_before_the_exit(bench: Bench, line: Line) -> None:
    """What an instance wrote last is in the log, and told of as its last, when the end of its tree is told."""
    for _ in range(20):
        identity, _ = bench.start(line, ["/bin/sh", "-c", "printf bye"])
        line.wait_for("exited", id=identity)
        assert bench.output(identity) == b"bye"
        assert not [m for m in line.heard if m["is"] == "output" and m["name"] == identity and m["to"] != 3]
        assert line.wait_for("output", name=identity, last=True)["to"] == 3


def test_instances_of_a_name_share_one_stream(bench: Bench, line: Line) -> None:
    """The next instance of a process writes on where the last one ended."""
    for text in ("one", "two", "three"):
        identity, _ = bench.start(line, ["/bin/echo", text], name="web")
        line.wait_for("exited", id=identity)
        line.say("forget", id=identity)
    assert bench.output("web") == b"one\ntwo\nthree\n"


def test_silent_process_has_no_log(bench: Bench, line: Line) -> None:
    """A process that prints nothing leaves no file."""
    identity, _ = bench.start(line, ["/bin/true"])
    line.wait_for("exited", id=identity)
    assert list(bench.logs.iterdir()) == []


def test_every_line_once_through_deaths_of_the_keeper(bench: Bench, line: Line) -> None:
    """A flood of lines is in the log once each and in order, however often the keeper is killed meanwhile."""
    line.close()
    second = bench.call()
    second.hello()
    log = {"max_bytes": 300_000, "keep": 1000}
    order = bench.order(writer(100_000), name="flood", log={"forward": False, **log})
    second.say(**order)
    second.wait_for("started", id=order["id"])
    size, deaths = 0, 0
    while size < 6_000_000:

        def grown(size: int = size) -> int:
            now = sum(path.stat().st_size for path in (bench.logs / "flood").glob("*[!x]") if path.exists())
            return now if now > size + 700_000 else 0

        size = wait_for(grown, "the log has grown")
        bench.kill_keeper()
        third = bench.start_keeper()
        third.hello()
        third.say("log", name="flood", log={"forward": False, **log})
        deaths += 1
    held = third.hello()[order["id"]]
    if held["alive"]:
        third.wait_for("exited", id=order["id"])
    assert deaths >= 2  # how many fit in depends on the machine
    assert numbers(bench.output("flood")) == list(range(100_000))
    check_names(bench, "flood")


@pytest.mark.parametrize("max_bytes", [4096, 50_000])
def test_rotation_is_at_the_end_of_lines(bench: Bench, line: Line, max_bytes: int) -> None:
    """Every rotated file ends with a whole line, is named by its offset, and together they are the stream."""
    settings = {"forward": False, "max_bytes": max_bytes, "keep": 1000}
    identity, _ = bench.start(line, writer(20_000), name="loud", log=settings)
    line.wait_for("exited", id=identity)
    files = bench.files("loud")
    assert len(files) > 3
    for path in files:
        assert path.read_bytes().endswith(b"\n")
    assert numbers(bench.output("loud")) == list(range(20_000))
    check_names(bench, "loud")


def test_index_of_times(bench: Bench, line: Line) -> None:
    """Beside each file an index tells offsets and times, both rising, the first the offset of the file's begin."""
    settings = {"forward": False, "max_bytes": 50_000, "keep": 100}
    identity, _ = bench.start(line, writer(20_000), name="loud", log=settings)
    line.wait_for("exited", id=identity)
    before = (0, 0)
    for path in bench.files("loud"):
        index = path.with_suffix(".index")
        entries = list(struct.iter_unpack("!QQ", index.read_bytes()))
        begin = int(path.stem) if path.suffix == ".log" else sum(p.stat().st_size for p in bench.files("loud")[:-1])
        assert entries[0][0] == begin
        for entry in entries:
            assert entry[0] >= before[0]
            assert entry[1] >= before[1]
            before = entry


@pytest.mark.parametrize("attended", [True, False])
def test_kept_files_are_bounded(bench: Bench, line: Line, attended: bool) -> None:
    """A log that is not forwarded keeps its newest lines within max_bytes for each of keep + 1 files."""
    settings = {"forward": False, "max_bytes": 100_050, "keep": 2}
    order = bench.order(writer(30_000), name="loud", log=settings)
    line.say(**order)
    line.wait_for("started", id=order["id"])
    if not attended:
        line.close()
        line = bench.call()
    held = line.hello()
    if order["id"] not in held or held[order["id"]]["alive"]:
        line.wait_for("exited", id=order["id"])
    kept = bench.output("loud")
    found = numbers(kept)
    assert found == list(range(found[0], 30_000))
    assert len(bench.files("loud")) == 3
    # A file ends with the line that fills it, and the last one is not full.
    assert 200_100 <= len(kept) <= 3 * 100_100


def test_smallest_log_is_bounded(bench: Bench, line: Line) -> None:
    """A log of the smallest size that may be asked for does not become a multiple of it in a burst."""
    identity, _ = bench.start(line, writer(5_000), name="small", log={"forward": False, "max_bytes": 4096, "keep": 1})
    line.wait_for("exited", id=identity)
    assert numbers(bench.output("small"))[-1] == 4_999
    assert len(bench.output("small")) <= 3 * 4096


def test_budget_is_shared(tmp_path: Path) -> None:
    """Two loud processes together stay within the budget of the log directory."""
    bench = Bench(tmp_path)
    try:
        line = bench.start_keeper(budget=1_000_000)
        line.hello()
        gate = os.open(bench.gate, os.O_RDWR)
        waits = f"import os\nos.read(os.open({str(bench.gate)!r}, os.O_RDONLY), 1)\n" + WRITER.replace(
            "LINES", "20_000"
        )
        both = [bench.start(line, [*PYTHON, waits], name=name, log={"forward": False})[0] for name in ("one", "two")]
        os.write(gate, b"go")
        for identity in both:
            line.wait_for("exited", id=identity)
        os.close(gate)
        total = sum(len(bench.output(name)) for name in ("one", "two"))
        assert 200_000 < total <= 1_000_000
    finally:
        bench.close()


def is_stuck(bench: Bench, identity: str, pid: int) -> bool:
    """Whether the writer sleeps because its FIFO is full."""
    return bench.is_full(identity) and state_of(pid) == "S"


def test_slow_supervisor_holds_the_writer_back(bench: Bench, line: Line) -> None:
    """While a supervisor is connected and behind, the process waits in its write; each line reaches it in the end."""
    settings = {"max_bytes": 20_000, "keep": 1}
    identity, pid = bench.start(line, writer(20_000), name="loud", log=settings)
    wait_for(lambda: is_stuck(bench, identity, pid), "the writer is held back")
    line.barrier()
    before = bench.output("loud")
    assert len(before) < 1_000_000
    assert numbers(before[: len(before) // 100 * 100])[0] == 0  # nothing unread was thrown away
    line.barrier()
    assert len(bench.output("loud")) == len(before)
    collected, at = b"", 0
    while True:
        told = line.wait_for("output", name="loud")
        for path in bench.files("loud"):
            start = int(path.stem) if path.suffix == ".log" else None
            if start is None:
                rotated = bench.files("loud")[:-1]
                start = int(rotated[-1].stem) + rotated[-1].stat().st_size if rotated else 0
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # rotated since it was listed: it is told of again
                continue
            if start <= at < start + len(data):
                piece = data[at - start : told["to"] - start]
                collected, at = collected + piece, at + len(piece)
        line.say("read", name="loud", to=at)
        if told["last"] and at == told["to"]:
            break
    assert numbers(collected) == list(range(20_000))


def test_held_back_log_costs_nobody_else(bench: Bench, line: Line) -> None:
    """While one process is held back another one's output flows and the keeper sleeps."""
    identity, pid = bench.start(line, writer(20_000), name="loud", log={"max_bytes": 20_000, "keep": 1})
    wait_for(lambda: is_stuck(bench, identity, pid), "the writer is held back")
    other, _ = bench.start(line, ["/bin/echo", "hello"], name="other")
    line.wait_for("exited", id=other)
    assert bench.output("other") == b"hello\n"
    wait_for(lambda: state_of(bench.pid) == "S", "the keeper sleeps")
    line.say("signal", id=identity, signal=KILL, scope="tree")
    assert line.wait_for("exited", id=identity)["empty"] is True


def test_nobody_is_held_back_without_a_supervisor(bench: Bench, line: Line) -> None:
    """When the supervisor dies, a process that was held back writes on, and the oldest output goes."""
    identity, pid = bench.start(line, writer(20_000), name="loud", log={"max_bytes": 20_000, "keep": 1})
    wait_for(lambda: is_stuck(bench, identity, pid), "the writer is held back")
    line.close()
    wait_for(lambda: state_of(pid) == "", "the writer has ended")
    second = bench.call()
    held = second.hello()[identity]
    assert (held["alive"], held["end"]["code"]) == (False, 0)
    assert numbers(bench.output("loud"))[-1] == 19_999
    assert numbers(bench.output("loud"))[0] > 0


def test_reader_that_keeps_up_sees_everything(bench: Bench, line: Line) -> None:
    """Word of output comes again after each answer, up to the last line."""
    identity, _ = bench.start(line, writer(20_000), name="loud", log={"max_bytes": 1_000_000, "keep": 3})
    at = 0
    while True:
        told = read_on(line, "loud")
        assert told["to"] >= at
        at = told["to"]
        if told["last"]:
            break
    assert at == 2_000_000
    line.wait_for("exited", id=identity)


def test_word_of_output_waits_for_the_answer(bench: Bench, line: Line) -> None:
    """Until the supervisor has answered, more output is not told of: a flood is not a flood of messages."""
    script = f"for i in $(seq 500); do echo $i; done; read x < {bench.gate}"
    identity, _ = bench.start(line, ["/bin/sh", "-c", script], name="loud")
    wait_for(lambda: bench.output("loud").endswith(b"\n500\n"), "all is written")
    line.barrier()
    assert len([message for message in line.heard if message["is"] == "output"]) == 1
    size = len(bench.output("loud"))
    while read_on(line, "loud")["to"] < size:
        pass
    bench.open_gate()
    line.wait_for("exited", id=identity)


def test_any_bytes(bench: Bench, line: Line) -> None:
    """Binary output without any newline is kept byte for byte."""
    data = os.urandom(700_000).replace(b"\n", b"n")
    (bench.root / "data").write_bytes(data)
    settings = {"forward": False, "max_bytes": 100_000, "keep": 100}
    identity, _ = bench.start(line, ["/bin/cat", str(bench.root / "data")], name="raw", log=settings)
    line.wait_for("exited", id=identity)
    assert bench.output("raw") == data
    check_names(bench, "raw")


def test_line_longer_than_a_file(bench: Bench, line: Line) -> None:
    """A line of 3 MB is kept whole across files, and the lines around it too."""
    script = (
        "import os\nos.write(1, b'before\\n')\nd = b'y' * 3_000_000 + b'\\nafter\\n'\nwhile d: d = d[os.write(1, d):]"
    )
    settings = {"forward": False, "max_bytes": 200_000, "keep": 100}
    identity, _ = bench.start(line, [*PYTHON, script], name="long", log=settings)
    line.wait_for("exited", id=identity)
    assert bench.output("long") == b"before\n" + b"y" * 3_000_000 + b"\nafter\n"


def test_reopen(bench: Bench, line: Line) -> None:
    """After a log file was moved away, reopening puts what comes next into a new one."""
    script = f"echo one; read x < {bench.gate}; echo two"
    identity, _ = bench.start(line, ["/bin/sh", "-c", script], name="web")
    wait_for(lambda: bench.output("web") == b"one\n", "the first line is written")
    os.rename(bench.logs / "web" / "current", bench.root / "moved")
    line.say("reopen")
    line.barrier()
    bench.open_gate()
    line.wait_for("exited", id=identity)
    assert (bench.root / "moved").read_bytes() == b"one\n"
    assert (bench.logs / "web" / "current").read_bytes() == b"two\n"


def test_removed_log_directory_comes_back_when_reopened(bench: Bench, line: Line) -> None:
    """After the log directory was removed, reopening puts what comes next into a new one."""
    script = f"echo one; read x < {bench.gate}; echo two"
    identity, _ = bench.start(line, ["/bin/sh", "-c", script], name="web")
    wait_for(lambda: bench.output("web") == b"one\n", "the first line is written")
    shutil.rmtree(bench.logs)
    line.say("reopen")
    line.barrier()
    bench.open_gate()
    line.wait_for("exited", id=identity)
    assert bench.output("web") == b"two\n"


def test_removed_log_directory_comes_back_at_the_next_rotation(bench: Bench, line: Line) -> None:
    """A log whose directory was removed does not grow for ever out of sight: at its limit a new one is begun."""
    then = f"open({str(bench.gate)!r}).read()\nfor _ in range(9): os.write(1, b'late\\n' * 10_000)"
    settings = {"forward": False, "max_bytes": 50_000, "keep": 1}
    identity, _ = bench.start(line, writer(100, then), name="web", log=settings)
    wait_for(lambda: len(bench.output("web")) == 10_000, "the first lines are written")
    shutil.rmtree(bench.logs)
    bench.open_gate()
    line.wait_for("exited", id=identity)
    kept = bench.output("web")
    assert kept.endswith(b"late\n" * 10)


def test_log_directory_that_cannot_be_made(bench: Bench, line: Line) -> None:
    """Where no log can be written the process runs on, the reason is told, and writing resumes once it can be."""
    bench.logs.rmdir()
    bench.logs.write_text("in the way")
    script = f"echo one; read x < {bench.gate}; echo two; read x < {bench.gate}"
    identity, pid = bench.start(line, ["/bin/sh", "-c", script], name="web")
    trouble = line.wait_for("trouble", name="web")
    assert re.match(rf"cannot write {bench.logs}/web/current: (Not a directory|File exists)", trouble["why"])
    line.barrier()
    assert is_alive(pid)
    bench.logs.unlink()
    bench.open_gate()
    over = line.wait_for("trouble", name="web", why="")
    assert over["dropped"] == len("one\n")
    assert bench.output("web") == b"two\n"
    bench.open_gate()
    line.wait_for("exited", id=identity)


# Run in a mount namespace of its own, on a disk of 1 MB: prints what happened as JSON.
FULL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
sys.path.insert(0, HERE)
from bench import PYTHON, Bench, is_alive, wait_for
root = Path(ROOT)
bench = Bench(root)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(bench.logs)], check=True)
said = {}
try:
    line = bench.start_keeper()
    line.hello()
    script = (
        "import os\\n"
        "def put(data):\\n"
        "    while data: data = data[os.write(1, data):]\\n"
        "put(b'early\\\\n' * 500_000)\\n"
        "open(%r).read()\\n"
        "put(b'late\\\\n' * 10)\\n"
    ) % str(bench.gate)
    identity, pid = bench.start(line, [*PYTHON, script], name="web", log={"forward": False, "max_bytes": 1 << 24})
    trouble = line.wait_for("trouble", name="web")
    said["why"] = trouble["why"]
    bench_gate = os.open(bench.gate, os.O_WRONLY)  # opens once the process has written everything
    said["alive"] = is_alive(pid)
    wait_for(lambda: bench.waiting(identity) == 0, "everything is taken")
    line.barrier()
    stored = bench.output("web")
    said["stored"] = len(stored)
    said["whole"] = stored == (b"early\\n" * 500_000)[: len(stored)]
    for path in bench.files("web"):
        path.unlink()
    line.say("reopen")
    line.barrier()
    os.close(bench_gate)
    over = line.wait_for("trouble", name="web", why="")
    said["dropped"] = over["dropped"]
    line.wait_for("exited", id=identity)
    said["late"] = bench.output("web").decode()
finally:
    bench.close()
print(json.dumps(said))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_full_disk(bench: Bench) -> None:
    """On a full disk the process runs on and its output is dropped and counted; with space again writing resumes."""
    here = str(Path(__file__).parent)
    script = FULL_DISK.replace("HERE", repr(here)).replace("ROOT", repr(str(bench.root / "inside")))
    command = ["unshare", "-m", PYTHON[0], "-c", script]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "No space left on device" in said["why"]
    assert said["alive"] is True
    assert said["stored"] > 500_000
    assert said["whole"] is True
    assert said["dropped"] + said["stored"] == 3_000_000
    assert said["late"] == "late\n" * 10


def start_split(bench: Bench, line: Line, argv: list[str], **fields: object) -> str:
    """Start an instance whose streams are kept apart; its identity."""
    log = {"split": True, **fields.pop("log", {})}  # type: ignore[dict-item]
    order = bench.order(argv, log=log, **fields)  # type: ignore[arg-type]
    bench.make_fifo(f"{order['id']}.err")
    line.say(**order)
    line.wait_for("started", id=order["id"])
    return str(order["id"])


BOTH = """
import os
for number in range(LINES):
    os.write(1, b"out %d\\n" % number)
    os.write(2, b"err %d\\n" % number)
"""


def test_streams_apart(bench: Bench, line: Line) -> None:
    """Where that is asked for, standard error is a stream of its own, told of by its own name, and cut by itself."""
    identity = start_split(bench, line, ["/bin/sh", "-c", "echo out; printf err >&2"], name="web")
    end = line.wait_for("exited", id=identity)
    assert (end["since"], end["since_stderr"]) == (0, 0)
    assert (bench.output("web"), bench.output("web/stderr")) == (b"out\n", b"err")
    assert line.wait_for("output", name="web", last=True)["to"] == 4
    assert line.wait_for("output", name="web/stderr", last=True)["to"] == 3
    assert (bench.logs / "web" / "stderr" / "cuts").read_bytes() == struct.pack("!Q", 3)
    assert not (bench.logs / "web" / "cuts").exists()
    wait_for(lambda: not list((bench.state / "fifo").iterdir()), "its FIFOs are removed")
    line.say("forget", id=identity)
    second = start_split(bench, line, ["/bin/sh", "-c", "echo more >&2"], name="web")
    end = line.wait_for("exited", id=second)
    assert (end["since"], end["since_stderr"]) == (4, 3)


def test_streams_apart_through_deaths_of_the_keeper(bench: Bench, line: Line) -> None:
    """The next keeper goes on with both streams; what was printed while there was none is in them too."""
    count = 30_000
    argv = [*PYTHON, BOTH.replace("LINES", str(count))]
    identity = start_split(bench, line, argv, name="web", log={"forward": False, "max_bytes": 100_000, "keep": 1000})
    size = 0
    for _ in range(4):
        size = wait_for(
            lambda size=size: len(bench.output("web/stderr")) > size and len(bench.output("web/stderr")),  # type: ignore[misc]
            "it prints",
        )
        bench.kill_keeper()
        line = bench.start_keeper()
        held = line.hello()[identity]
    if held["alive"]:
        line.wait_for("exited", id=identity)
    for name, word in (("web", b"out"), ("web/stderr", b"err")):
        assert bench.output(name) == b"".join(word + b" %d\n" % number for number in range(count))


def test_what_the_supervisor_does_with_output_is_kept_for_it(bench: Bench, line: Line) -> None:
    """What a start order says in `follow` comes back as it was, from the next keeper too."""
    identity, _ = bench.start(line, ["/bin/sleep", "1000"], follow={"any": ["thing"]})
    bench.kill_keeper()
    assert bench.start_keeper().hello()[identity]["follow"] == {"any": ["thing"]}


def test_drop_rather_than_wait(bench: Bench, line: Line) -> None:
    """With overflow "drop" a process is not held back by a supervisor that is behind; the oldest output goes."""
    log = {"max_bytes": 20_000, "keep": 1, "overflow": "drop"}
    identity, _ = bench.start(line, writer(20_000), name="loud", log=log)
    line.wait_for("exited", id=identity)
    found = numbers(bench.output("loud"))
    assert found == list(range(found[0], 20_000))
    assert 0 < len(found) < 1000


def test_compressed_files_are_counted_and_thrown_away(bench: Bench, line: Line) -> None:
    """A file that was compressed meanwhile keeps its place in the stream, and goes when its time has come."""
    log = {"forward": False, "max_bytes": 50_000, "keep": 4}
    identity, _ = bench.start(line, writer(2_100), name="loud", log=log)
    line.wait_for("exited", id=identity)
    *rotated, _ = bench.files("loud")
    assert [int(path.stem) for path in rotated] == [0, 50_000, 100_000, 150_000]
    for path in rotated:
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    bench.kill_keeper()
    (bench.logs / "loud" / "current.index").unlink()  # so that only the names and sizes tell where it begins
    line = bench.start_keeper()
    line.hello()
    line.say("forget", id=identity)
    identity, _ = bench.start(line, writer(1_700), name="loud", log=log)
    assert line.wait_for("exited", id=identity)["since"] == 210_000
    left = {path.name for path in (bench.logs / "loud").iterdir()}
    starts = {int(name.partition(".")[0]) for name in left if name[0].isdigit()}
    assert starts == {150_000, 200_000, 250_000, 300_000}
    assert f"{150_000:020d}.log.gz" in left


def test_index_tells_when_late_output_came(bench: Bench, line: Line) -> None:
    """Output that came soon after other output is not said to have come with what was printed much later."""
    script = f"echo one; echo two; read x < {bench.gate}; echo three"
    identity, _ = bench.start(line, ["/bin/sh", "-c", script], name="web")
    wait_for(lambda: bench.output("web") == b"one\ntwo\n", "two lines are written")
    seen = time.time_ns()
    time.sleep(0.1)  # what comes after it is much later
    bench.open_gate()
    line.wait_for("exited", id=identity)
    entries = list(struct.iter_unpack("!QQ", (bench.logs / "web" / "current.index").read_bytes()))
    first_beyond_one = next(ns for offset, ns in entries if offset > 4)
    assert first_beyond_one <= seen + 10_000_000
    assert entries[-1][0] == 14
    assert entries[-1][1] > seen + 90_000_000


def test_a_look_into_a_fifo_takes_nothing(tmp_path: Path) -> None:
    """What the keeper looks at to find the end of a line is still there, and looking at nothing does not block."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        assert peek(fifo, 100) == b""
        os.write(fifo, b"a line\nand more")
        assert peek(fifo, 100) == b"a line\nand more"
        assert peek(fifo, 8) == b"a line\na"
        assert os.read(fifo, 100) == b"a line\nand more"
    finally:
        os.close(fifo)
