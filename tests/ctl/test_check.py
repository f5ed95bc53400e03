"""`ctl check`: what is wrong with config files, without a supervisor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ctl_colony import Colony

from ncolony import ctllib
from ncolony.cli import main

SLEEP = "/bin/sleep"


def write(directory: Path, **files: Any) -> None:
    """Config files with these contents; `web_0` is for the name "web:0"."""
    for name, content in files.items():
        (directory / name.replace("_", ":")).write_text(json.dumps(content))


def findings(*paths: Path) -> list[tuple[str, str, bool]]:
    """Name, key and whether it is a warning, of everything that is found."""
    return [(one.name, one.key, one.is_warning) for one in ctllib.check(paths)]


def test_good_files_are_good(colony: Colony) -> None:
    """Files with nothing wrong end in 0, with a line that says so."""
    write(colony.config, web={"args": [SLEEP, "9"]}, db={"args": ["sh"], "a.b": 1, "$schema": "x", "extra": {}})
    ran = colony.run("check")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "no problems, no warnings\n", "")


def test_every_problem_has_a_line_with_file_key_and_value(colony: Colony) -> None:
    """A file with several problems gets a line for each, and the status is 1."""
    content = {"nice": 99, "env": {"A": 5}, "log": {"keep": -1, "max_bytes": 1}, "stop": [["NOPE", 1]], "arg": []}
    write(colony.config, web=content)
    (colony.config / "torn").write_text('{"args": [')
    (colony.config / "sub").mkdir()
    (colony.config / ".hidden").write_text("no JSON")
    ran = colony.run("check")
    assert ran.returncode == 1
    lines = ran.stdout.splitlines()
    web, torn = colony.config / "web", colony.config / "torn"
    assert sorted(lines[1:-1]) == sorted(
        [
            f"cannot use {web}: args: is missing",
            f"cannot use {web}: env.A: expected str, found a number",
            f"cannot use {web}: nice: expected a number from -20 to 19, found 99",
            f"cannot use {web}: log.keep: expected a number from 0 to 100000, found -1",
            f"cannot use {web}: log.max_bytes: expected 4096 bytes or more, found 1",
            f'cannot use {web}: stop: no such signal: NOPE, found [["NOPE",1]]',
            f"warning: {web}: arg: unknown key, did you mean args?",
        ]
    )
    assert lines[0].startswith(f"cannot use {torn}: not JSON: ")
    assert lines[-1] == "7 problems, 1 warning"


def test_files_and_directories_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With files or directories no other directory is asked for; one that is not there is an error."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir(), bad.mkdir()
    write(good, web={"args": [SLEEP]})
    write(bad, web={"args": []})
    env = {key: value for key, value in os.environ.items() if not key.startswith("NCOLONY")}
    command = [sys.executable, "-m", "ncolony", "check"]
    for words, code in ((["good"], 0), (["good/web"], 0), (["good", "bad"], 1), (["bad/web"], 1), (["good", "no"], 1)):
        ran = subprocess.run([*command, *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert ran.returncode == code, ran
    assert ran.stderr == "cannot read 'no': No such file or directory\n"
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "--config" in ran.stderr


def test_the_config_directory_alone_suffices(colony: Colony, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a messages directory the config directory is checked."""
    write(colony.config, web={"args": [1]})
    assert main(["ctl", "--config", str(colony.config), "check"]) == 1
    assert "args[0]: expected str, got int, found 1" in capsys.readouterr().out


def test_copies_and_files_do_not_share_names(colony: Colony) -> None:
    """A file whose name is that of another file's copy is a problem; one beyond the copies, or of none, is not."""
    write(colony.config, web={"args": [SLEEP], "instances": 2}, web_1={"args": [SLEEP]}, web_2={"args": [SLEEP]})
    write(colony.config, db={"args": [SLEEP]}, db_0={"args": [SLEEP]})
    assert findings(colony.config) == [("web:1", "", False)]
    assert findings(colony.config / "web", colony.config / "web:1") == [("web:1", "", False)]
    assert findings(colony.config / "web:1") == []


def test_directories_are_colonies_of_their_own(tmp_path: Path) -> None:
    """Files of two directories do not get in each other's way."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    write(tmp_path / "one", web={"args": [SLEEP], "instances": 1})
    write(tmp_path / "other", web_0={"args": [SLEEP]})
    assert findings(tmp_path / "one", tmp_path / "other") == []


def test_what_this_machine_lacks_is_doubtful(colony: Colony, tmp_path: Path) -> None:
    """Unknown users, files that are not there and programs that are not on PATH are warnings."""
    there = tmp_path / "there"
    there.write_text("A=1")
    write(
        colony.config,
        a={"args": ["no_such_program"], "uid": "no_such_user", "gid": "no_such_group", "cwd": "/no/such/directory"},
        b={"args": ["/no/such/program"], "env_file": ["/no/such/file", str(there)], "env_secret": {"A": "/no/secret"}},
        c={"args": [str(there)], "uid": "root", "gid": 0, "cwd": str(tmp_path), "env_file": "there"},
        d={"args": ["./there"], "cwd": str(tmp_path), "env_secret": {"A": "there", "B": "missing"}},
        e={"args": ["./unknown"], "env_file": "unknown"},
        f={"args": ["perhaps"], "env_file": str(there)},
        g={"args": ["mine"], "env": {"PATH": str(tmp_path)}},
    )
    (tmp_path / "mine").write_text("#!/bin/sh\n")
    (tmp_path / "mine").chmod(0o755)
    assert findings(colony.config) == [
        ("a", "uid", True),
        ("a", "gid", True),
        ("a", "cwd", True),
        ("a", "args", True),
        ("b", "env_file", True),
        ("b", "env_secret.A", True),
        ("b", "args", True),
        ("c", "args", True),
        ("d", "env_secret.B", True),
        ("d", "args", True),
    ]


def test_warnings_fail_only_when_asked_to(colony: Colony) -> None:
    """Warnings alone end in 0, with --strict in 1."""
    write(colony.config, web={"args": [SLEEP], "envs": {}, "arg": 1})
    assert colony.run("check").returncode == 0
    ran = colony.run("check", "--strict")
    assert ran.returncode == 1
    assert ran.stdout.splitlines()[-1] == "no problems, 2 warnings"


def test_files_that_wait_for_each_other(colony: Colony) -> None:
    """A circle is a problem of each of its files; whom no file of the directory defines is a warning."""
    after = {"a": {"b": "ready"}, "b": {"a": "started"}, "c": {"a": "ready", "nobody": "ready"}, "d": {"c": "ready"}}
    write(colony.config, **{name: {"args": [SLEEP], "after": one} for name, one in after.items()})
    assert findings(colony.config) == [("a", "after", False), ("b", "after", False), ("c", "after", True)]
    ran = colony.run("check")
    assert ran.returncode == 1
    assert "they wait for each other: a → b → a" in ran.stdout
    assert findings(colony.config / "c") == []


def test_names_that_are_ignored_or_impossible(colony: Colony) -> None:
    """A file that is named although its name would be ignored gets a warning; an impossible name is a problem."""
    write(colony.config, **{"web.new": {"args": [SLEEP]}, "a\nb": {"args": [SLEEP]}})
    assert findings(colony.config / "web.new") == [("web.new", "", True)]
    assert findings(colony.config) == [("a\\nb", "", False)]
    assert colony.run("check").stdout.count("\n") == 2


def test_what_is_no_file_is_a_problem(colony: Colony) -> None:
    """A pipe, a link to nothing and a file of more than 1 MiB are problems; nothing blocks."""
    os.mkfifo(colony.config / "a")
    (colony.config / "b").symlink_to("nowhere")
    (colony.config / "c").write_bytes(b" " * (1 << 20) + b" ")
    assert findings(colony.config) == [(name, "", False) for name in "abc"]


def test_json_has_every_part(colony: Colony) -> None:
    """--json is a list of findings; nothing else is printed."""
    write(colony.config, web={"args": [SLEEP], "nice": 99, "envs": {}})
    ran = colony.run("check", "--json")
    assert ran.returncode == 1
    path = str(colony.config / "web")
    assert json.loads(ran.stdout) == [
        {
            "file": path,
            "name": "web",
            "level": "problem",
            "key": "nice",
            "why": "expected a number from -20 to 19, found 99",
        },
        {"file": path, "name": "web", "level": "warning", "key": "envs", "why": "unknown key, did you mean env?"},
    ]


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory of whose parents none keeps others out."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only a root supervisor is strict")
def test_files_that_anybody_may_write(open_directory: Path) -> None:
    """As root, a file that anybody may write is a problem, and so is each in such a directory, unless not strict."""
    write(open_directory, web={"args": [SLEEP]}, db={"args": [SLEEP]})
    (open_directory / "web").chmod(0o666)
    assert findings(open_directory) == findings(open_directory / "web") == [("web", "", False)]
    open_directory.chmod(0o777)
    assert findings(open_directory) == [("db", "", False), ("web", "", False)]
    assert ctllib.check([open_directory], strict_modes=False) == []
    assert main(["check", "--no-strict-modes", str(open_directory)]) == 0
