"""What becomes of what processes print."""

from __future__ import annotations

import json

from colony import Colony


def test_both_streams_line_by_line(colony: Colony) -> None:
    """Each line of stdout and of stderr is one event in the supervisor's log, prefixed with the name, in order."""
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; echo; echo '  indented'; exec sleep 100000"
    colony.put("web", {"args": ["/bin/sh", "-c", script]})
    colony.start()
    expected = [f"{stream} {number}" for number in (1, 2, 3) for stream in ("out", "err")]
    colony.wait_for(lambda: "  indented" in colony.lines("web"), "the last line is logged")
    assert colony.lines("web") == [*expected, "", "  indented"]
    assert colony.output("web").decode().splitlines() == [*expected, "", "  indented"]


def test_names_are_not_mixed(colony: Colony) -> None:
    """Lines of processes that print at the same time stay whole, each under its own name."""
    names = [f"p{number}" for number in range(5)]
    for name in names:
        colony.put(name, {"args": colony.payload(name, "lines", 200)})
    colony.start()
    expected = [f"line {number}" for number in range(1, 201)]
    colony.wait_for(lambda: all(expected[-1] in colony.lines(name) for name in names), "all is logged")
    for name in names:
        assert colony.lines(name) == expected


def raw(colony: Colony, name: str, data: bytes) -> None:
    """Have a process of the name print the bytes and end."""
    (colony.root / f"{name}.bytes").write_bytes(data)
    args = colony.payload(name, "raw", colony.root / f"{name}.bytes")
    colony.put(name, {"args": args, "restart": "never"})


def test_no_final_newline(colony: Colony) -> None:
    """A last line without a newline is logged when the process ends."""
    raw(colony, "web", b"first\nsecond without end")
    colony.start()
    colony.wait_for(lambda: len(colony.lines("web")) >= 2, "both lines are logged")
    assert colony.lines("web") == ["first", "second without end"]
    assert colony.output("web") == b"first\nsecond without end"


def test_text_that_is_not_ascii(colony: Colony) -> None:
    """UTF-8 is logged as it is, also where a read could cut it in two."""
    text = "é☃𝄞" * 20_000
    raw(colony, "web", f"héllo wörld\n{text}\n".encode())
    colony.start()
    colony.wait_for_status("web", state="EXITED")
    colony.wait_for(lambda: sum(line.count("𝄞") for line in colony.lines("web")) >= 20_000, "all is logged")
    assert colony.lines("web")[0] == "héllo wörld"
    joined = "".join(colony.lines("web")[1:])
    assert (joined.count("é"), joined.count("☃"), joined.count("𝄞")) == (20_000, 20_000, 20_000)


def test_binary(colony: Colony) -> None:
    """Any byte is accepted, kept as it came, and harmless in the log: control bytes are shown escaped."""
    data = bytes(range(256)) * 20 + b"\nafter\n" + b"\x1b[31mred\x1b[0m\ttab\r\n\x00\x07\n" + b"\xff\xfe\n" + b"end\n"
    raw(colony, "web", data)
    colony.start()
    colony.wait_for(lambda: "end" in colony.lines("web"), "the last line is logged")
    assert colony.output("web") == data
    logged = colony.log_file.read_bytes()
    assert not set(logged) & (set(range(32)) - {ord("\n"), ord("\t")})
    assert "after" in colony.lines("web")
    assert any("[31mred" in line and "tab" in line for line in colony.lines("web"))
    assert "Traceback" not in colony.log()


def test_what_looks_like_a_format(colony: Colony) -> None:
    """Braces and percent signs in a line are text, not a format of the log's."""
    lines = ["{log_level}", "{0} {} {x!r}", "%s %d %(x)s %", "{", "}}", "[echo] not echo's"]
    raw(colony, "web", "".join(f"{line}\n" for line in lines).encode())
    colony.start()
    colony.wait_for(lambda: len(colony.lines("web")) >= len(lines), "all lines are logged")
    assert colony.lines("web") == lines


def test_a_long_line_is_split(colony: Colony) -> None:
    """A line of 200 KB comes in pieces of at most 64 KiB, nothing missing; what follows is as it was."""
    raw(colony, "web", b"short\n" + b"Q" * 200_000 + b"\nafter\n")
    colony.start()
    colony.wait_for(lambda: "after" in colony.lines("web"), "the line after is logged")
    pieces = colony.lines("web")[1:-1]
    assert colony.lines("web")[0] == "short"
    assert len(pieces) == 4
    assert sum(piece.count("Q") for piece in pieces) == 200_000
    assert max(piece.count("Q") for piece in pieces) <= 65536
    assert colony.output("web") == b"short\n" + b"Q" * 200_000 + b"\nafter\n"


def test_a_very_long_line(colony: Colony) -> None:
    """A line of 5 MB is accepted as any other."""
    raw(colony, "web", b"Q" * 5_000_000 + b"\nafter\n")
    colony.start()
    colony.wait_for(lambda: "after" in colony.lines("web"), "the line after is logged")
    assert sum(line.count("Q") for line in colony.lines("web")) == 5_000_000


def test_a_burst(colony: Colony) -> None:
    """Of a burst of 20,000 lines each is in the supervisor's log, once, in order."""
    colony.put("web", {"args": colony.payload("web", "lines", 20_000)})
    colony.start()
    expected = [f"line {number}" for number in range(1, 20_001)]
    colony.wait_for_notes("web", beginning="printed")
    colony.wait_for(lambda: colony.log().endswith("[web] line 20000\n") or None, "the last line is logged", 60)
    assert [line for line in colony.lines("web") if line.startswith("line ")] == expected


def test_a_burst_and_an_end(colony: Colony) -> None:
    """A process that prints 5,000 lines and ends at once loses none of them, time after time."""
    data = b"".join(b"line %d\n" % number for number in range(5000))
    (colony.root / "data").write_bytes(data)
    colony.put("web", {"args": colony.payload("web", "raw", colony.root / "data"), "restart": "never"})
    colony.start()
    colony.wait_for_status("web", state="EXITED")
    assert colony.send({"type": "RESTART", "name": "web"})
    colony.wait_for_notes("web", 2)
    colony.wait_for_status("web", state="EXITED", instance=2)
    assert colony.stop() == 0
    assert colony.lines("web") == data.decode().splitlines() * 2
    assert colony.output("web") == data * 2


def test_forward_false(colony: Colony) -> None:
    """With `"log": {"forward": false}` the output is kept in logs/ and not in the supervisor's log."""
    args = colony.payload("quiet", "say", "for the file only")
    colony.put("quiet", {"args": args, "log": {"forward": False}})
    colony.put("loud", {"args": colony.payload("loud", "say", "for the log")})
    colony.start()
    colony.wait_for_notes("quiet")
    colony.wait_for(lambda: colony.output("quiet") == b"for the file only\n", "it is kept")
    colony.wait_for(lambda: colony.lines("loud") == ["for the log"], "the other one is logged")
    assert colony.stop() == 0
    assert "for the file only" not in colony.log()


def test_the_log_says_why_a_process_ended(colony: Colony) -> None:
    """An exit is an event that names the process and its exit code, and does not repeat its output."""
    args = ["/bin/sh", "-c", "echo the only line; exit 23"]
    colony.put("web", {"args": args, "restart": "never"})
    colony.start()
    colony.wait_for_status("web", state="EXITED")
    assert colony.stop() == 0
    assert colony.log().count("the only line") == 1
    assert any("web" in line and "23" in line for line in colony.log().splitlines())


def test_a_bad_file_is_told_in_the_log(colony: Colony) -> None:
    """A problem with a config file is also in the log, once while it stays the same."""
    colony.put("web", b'{"args": 5}')
    colony.start("--frequency", "0.1")
    colony.wait_for_problem("web")
    for _ in range(3):
        colony.scan()
    assert colony.stop() == 0
    told = [line for line in colony.log().splitlines() if "web" in line and "args" in line]
    assert len(told) == 1


def test_json_events_of_a_json_printer(colony: Colony) -> None:
    """A process that prints JSON is logged in text as it printed, byte for byte."""
    printed = json.dumps({"level": "info", "msg": 'with "quotes" and \\ and {braces}'})
    raw(colony, "web", printed.encode() + b"\n")
    colony.start()
    colony.wait_for(lambda: colony.lines("web"), "the line is logged")
    assert colony.lines("web") == [printed]
