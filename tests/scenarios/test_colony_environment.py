"""`env_file` and `env_secret`: what comes first, what files may look like, and where a secret must never be."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
from pathlib import Path
from typing import Any

import pytest

from colony import SLEEP, Colony, environment_of

RUN: dict[str, Any] = {"args": [SLEEP, "100000"]}
QUICK = ("-m", "0.2", "-M", "0.2")


def started(colony: Colony, name: str = "web", **fields: object) -> dict[str, str]:
    """The environment of a process, once it runs."""
    return environment_of(colony.wait_until_running(name, **fields))


def test_which_one_wins(colony: Colony) -> None:
    """What is inherited gives way to files, earlier files to later ones, these to `env`, and that to secrets."""
    for number in (1, 2):
        lines = [f"{name}=file{number}" for name in ("A", "B", "C", "D", "E")[number - 1 :]]
        (colony.root / f"file{number}").write_text("\n".join(lines) + "\n")
    (colony.root / "secret").write_text("secret\n")
    keys = {
        "env_inherit": ["A", "B", "C", "D", "E", "F"],
        "env_file": [str(colony.root / "file1"), str(colony.root / "file2")],
        "env": {"D": "env", "E": "env"},
        "env_secret": {"E": str(colony.root / "secret")},
    }
    colony.put("web", {**RUN, **keys})
    colony.start(env={**os.environ, **dict.fromkeys("ABCDEF", "inherited")})
    found = started(colony)
    assert [found[name] for name in "ABCDEF"] == ["file1", "file2", "file2", "env", "secret", "inherited"]


def test_ours_come_last(colony: Colony) -> None:
    """Neither files nor secrets replace what identifies an instance."""
    (colony.root / "file").write_text("NCOLONY_NAME=other\nNCOLONY_INSTANCE=x\nNCOLONY_INDEX=7\nNCOLONY_CONFIG={}\n")
    (colony.root / "secret").write_text("other")
    colony.put(
        "web",
        {
            **RUN,
            "env_file": str(colony.root / "file"),
            "env_secret": {"NCOLONY_NAME": str(colony.root / "secret")},
            "instances": 1,
        },
    )
    colony.start()
    found = started(colony, "web:0")
    assert (found["NCOLONY_NAME"], found["NCOLONY_INDEX"]) == ("web:0", "0")
    assert json.loads(found["NCOLONY_CONFIG"])["args"] == RUN["args"]
    assert found["NCOLONY_INSTANCE"] != "x"


FORMS = """
# a comment
   # another one

PLAIN=value
  INDENTED=value
export EXPORTED=value
SINGLE='one two'
DOUBLE="one two"
EMPTY=
EMPTY_QUOTED=""
INNER=it's
EQUALS=a=b=c
HASH=a#b
NOT_EXPANDED=$HOME/${X}`ls`
QUOTED_NOT_EXPANDED="$HOME"
ESCAPED="say \\"hi\\" for \\$5 \\\\ now"
SINGLE_RAW='a\\nb "c"'
BACKSLASH=a\\nb
TRAILING=value   \t
WITHIN=one two  three
UNICODE=grüße ☃
TWICE=first
TWICE=second
lower.dotted-name=value
HALF="open
MIXED='a"
TAB=a\tb
"""
EXPECTED = {
    "PLAIN": "value", "INDENTED": "value", "EXPORTED": "value", "SINGLE": "one two", "DOUBLE": "one two", "EMPTY": "",
    "EMPTY_QUOTED": "", "INNER": "it's", "EQUALS": "a=b=c", "HASH": "a#b", "NOT_EXPANDED": "$HOME/${X}`ls`",
    "QUOTED_NOT_EXPANDED": "$HOME", "ESCAPED": 'say "hi" for $5 \\ now', "SINGLE_RAW": 'a\\nb "c"',
    "BACKSLASH": "a\\nb", "TRAILING": "value", "WITHIN": "one two  three", "UNICODE": "grüße ☃", "TWICE": "second",
    "lower.dotted-name": "value", "HALF": '"open', "MIXED": "'a\"", "TAB": "a\tb",
}  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "dos"])
def test_the_forms_of_a_line(colony: Colony, end: str) -> None:
    """Quotes, comments, `export`, and nothing expanded; with the line ends of either world, the last one left out."""
    (colony.root / "file").write_bytes(FORMS.replace("\n", end).rstrip("\r\n").encode())
    colony.put("web", {**RUN, "env_file": str(colony.root / "file")})
    colony.start()
    found = started(colony)
    assert {name: found.get(name) for name in EXPECTED} == EXPECTED


@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028", "\u2029", "\xa0"])
def test_only_newlines_end_lines(colony: Colony, odd: str) -> None:
    """A character that some take for the end of a line, or for white space, is a part of the value."""
    (colony.root / "file").write_text(f"A=x{odd}B=y\nC=z{odd}\n", encoding="utf-8")
    colony.put("web", {**RUN, "env_file": str(colony.root / "file")})
    colony.start()
    found = started(colony)
    assert (found["A"], found["C"]) == (f"x{odd}B=y", f"z{odd}")
    assert "B" not in found


def fifo(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


BAD: dict[str, Any] = {
    "missing": lambda path: None,
    "directory": Path.mkdir,
    "fifo": fifo,
    "loop": loop,
    "huge": lambda path: path.write_bytes(b"A=" + b"x" * (2 << 20)),
    "latin": lambda path: path.write_bytes(b"A=caf\xe9\n"),
    "nul": lambda path: path.write_bytes(b"A=x\0y\n"),
}
BAD_LINES: dict[str, Any] = {
    "no-equals": lambda path: path.write_text("A\n"),
    "no-name": lambda path: path.write_text("=x\n"),
    "spaces": lambda path: path.write_text("TWO WORDS=x\n"),
}


@pytest.mark.parametrize("key", ["env_file", "env_secret"])
def test_what_cannot_be_read(colony: Colony, key: str) -> None:
    """A file that cannot be used is a BACKOFF whose reason names key and file; nobody hangs; mended, it starts."""
    bad = BAD | (BAD_LINES if key == "env_file" else {})
    for name, make in bad.items():
        path = colony.root / f"file-{name}"
        make(path)
        value = {"SECRET": str(path)} if key == "env_secret" else ["/dev/null", str(path)]
        if key == "env_file":
            value = value[1:]
        colony.put(name, {**RUN, key: value})
    colony.put("fine", RUN)
    colony.start(*QUICK)
    for name in bad:
        reason = colony.wait_for_status(name, state="BACKOFF")["reason"]
        assert key in reason, reason
        assert f"file-{name}" in reason, reason
    pid = colony.wait_until_running("fine")
    for name in bad:
        path = colony.root / f"file-{name}"
        good = colony.root / "good"
        good.write_text("A=good\n")
        if name == "directory":
            path.rmdir()
        good.rename(path)
    for name in bad:
        found = started(colony, name)
        assert found["A" if key == "env_file" else "SECRET"] in ("good", "A=good")
    assert colony.wait_until_running("fine", instance=1) == pid
    assert "Traceback" not in colony.log()


def test_a_running_process_needs_no_file(colony: Colony) -> None:
    """Files are read at each start: a change restarts nobody, and is there after the next start."""
    path = colony.root / "file"
    path.write_text("A=one\n")
    colony.put("web", {**RUN, "env_file": "file", "cwd": str(colony.root), "threshold": 0})
    colony.start(*QUICK)
    assert started(colony)["A"] == "one"
    path.write_text("A=two\n")
    colony.scan()
    pid = colony.wait_until_running("web", instance=1)
    os.kill(pid, signal.SIGKILL)
    assert started(colony, instance=2)["A"] == "two"
    path.unlink()
    colony.scan()
    colony.wait_until_running("web", instance=2)
    answer = colony.send({"type": "RESTART", "name": "web"})
    assert answer["state"] == "failed"
    assert str(path) in answer["why"]


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"word", "word"),
        (b"word\n", "word"),
        (b"word\n\n", "word\n"),
        (b" two words \n", " two words "),
        (b"a\nb\n", "a\nb"),
        (b"", ""),
        (b'"quoted"\n', '"quoted"'),
        ("grüße\n".encode(), "grüße"),
        (b"$HOME\n", "$HOME"),
    ],
)
def test_a_secret_is_the_whole_content(colony: Colony, content: bytes, value: str) -> None:
    """Nothing but one newline at the end is taken off."""
    (colony.root / "secret").write_bytes(content)
    colony.put("web", {**RUN, "env_secret": {"SECRET": str(colony.root / "secret")}})
    colony.start()
    assert started(colony)["SECRET"] == value


def test_a_secret_that_is_too_long(colony: Colony) -> None:
    """What no program can be given is refused with a reason, and does not show the secret."""
    word = secrets.token_hex(16)
    (colony.root / "secret").write_text(word * (200_000 // 32))
    colony.put("web", {**RUN, "env_secret": {"SECRET": str(colony.root / "secret")}})
    colony.start(*QUICK)
    reason = colony.wait_for_status("web", state="BACKOFF")["reason"]
    assert "too long" in reason.lower()
    assert word not in reason


def places_with(colony: Colony, needle: bytes, beside: set[Path]) -> list[Path]:
    """The files below the colony's root that hold these bytes."""
    files = (path for path in colony.root.rglob("*") if path.is_file() and path not in beside)
    return [path for path in files if needle in path.read_bytes()]


@pytest.mark.parametrize("where", ["env_secret", "env_file"])
def test_a_secret_is_nowhere_else(colony: Colony, where: str) -> None:
    """Through starts, failures, a kill and an upgrade it is in the environment of the process, and nowhere else.

    Not in the state directory, with its status, history, journals and events; not in any log, answer or NCOLONY_CONFIG;
    not on the command line or in the environment of supervisor or keeper.
    """
    word = secrets.token_hex(16)
    path, other = colony.root / "secret", colony.root / "other"
    path.write_text(f"{word}\n" if where == "env_secret" else f"SECRET={word}\n")
    keys = {where: {"SECRET": str(path)} if where == "env_secret" else str(path)}
    script = f"echo hello; exec {SLEEP} 100000"
    colony.put("web", {"args": ["/bin/sh", "-c", script], **keys})
    colony.put("copy", {**RUN, **keys, "instances": 2, "rollback_if_not_ready": 5})
    colony.put("nobody", {**RUN, **keys, "uid": 65534, "cwd": "/"} if os.getuid() == 0 else {**RUN, **keys})
    colony.put("failing", {"args": ["/bin/sh", "-c", "exit 3"], **keys})
    colony.put("missing", {"args": ["/no/such/program"], **keys})
    # One that cannot be used for another reason, with the secret in the same file.
    other.write_text(f"SECRET={word}\n{word}\nNO EQUALS {word}\n")
    colony.put("odd", {**RUN, "env_file": str(other)})
    colony.put("nul", {**RUN, "env_secret": {"A": str(colony.root / "with-nul")}})
    (colony.root / "with-nul").write_bytes(f"{word}\0{word}".encode())
    colony.start(*QUICK)
    for name in ("web", "copy:0", "copy:1", "nobody"):
        assert started(colony, name)["SECRET"] == word
    for name in ("failing", "missing", "odd", "nul"):
        colony.wait_for_status(name, state="BACKOFF")
    assert colony.send({"type": "RESTART-ALL"})["accepted"]
    colony.wait_until_running("web", instance=2)
    colony.scan()
    assert colony.send({"type": "UPGRADE"})["state"] == "done"
    colony.put("copy", {**RUN, **keys, "instances": 2, "rollback_if_not_ready": 5, "env": {"COLOUR": "red"}})
    colony.kill()
    colony.start(*QUICK)
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    os.kill(keeper, signal.SIGKILL)
    colony.wait_until_dead(keeper)
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    assert started(colony, "web")["SECRET"] == word
    keeper = colony.wait_for(colony.keeper_pid, "there is another keeper")
    for pid in (keeper, colony.supervisor_pid):
        for file in ("environ", "cmdline"):
            assert word.encode() not in Path(f"/proc/{pid}/{file}").read_bytes()
    assert word not in started(colony, "web")["NCOLONY_CONFIG"]
    for words in (["status", "--json"], ["status", "-l"], ["history", "failing", "--json", "--lines"]):
        shown = colony.ctl("--state", str(colony.state), *words, check=False)
        assert "failing" in shown or "exit" in shown or "[" in shown
        assert word not in shown
    assert word not in colony.log()
    assert places_with(colony, word.encode(), {path, other, colony.root / "with-nul"}) == []
    assert colony.stop() == 0
    assert places_with(colony, word.encode(), {path, other, colony.root / "with-nul"}) == []


def test_a_relative_path_is_below_the_working_directory(colony: Colony) -> None:
    """Without `cwd` it is below the supervisor's."""
    (colony.root / "file").write_text("A=ours\n")
    inside = colony.root / "inside"
    inside.mkdir()
    (inside / "file").write_text("A=its own\n")
    (inside / "secret").write_text("s")
    colony.put("plain", {**RUN, "env_file": "file"})
    colony.put("web", {**RUN, "env_file": ["file"], "env_secret": {"S": "secret"}, "cwd": "inside"})
    colony.start()
    assert started(colony, "plain")["A"] == "ours"
    found = started(colony, "web")
    assert (found["A"], found["S"]) == ("its own", "s")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"env_file": 5}, "env_file"),
        ({"env_file": [""]}, "env_file"),
        ({"env_secret": ["a"]}, "env_secret"),
        ({"env_secret": {"A": 5}}, r"env_secret\.A"),
        ({"env_secret": {"A=B": "x"}}, "env_secret"),
        ({"env_secret": {"": "x"}}, "env_secret"),
        ({"env_secret": {"A": ""}}, "env_secret"),
    ],
)
def test_what_makes_no_sense(colony: Colony, keys: dict[str, Any], said: str) -> None:
    """Values that cannot be are a problem that names the key."""
    colony.put("web", {**RUN, **keys})
    colony.start()
    assert re.search(said, colony.wait_for_problem("web"))
