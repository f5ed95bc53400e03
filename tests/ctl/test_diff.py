"""`ctl diff`: what would happen if other files were the configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ctl_colony import Colony

from ncolony import ctllib
from ncolony.cli import main
from ncolony.model import config

BASE: dict[str, Any] = {"args": ["sleep", "9"]}
OTHER: dict[str, Any] = {
    "args": ["sleep", "8"],
    "env": {"A": "1"},
    "env_inherit": ["PATH"],
    "uid": 0,
    "gid": 0,
    "group": "g",
    "cwd": "/",
    "umask": "022",
    "enabled": False,
    "restart": "never",
    "success_codes": [1],
    "threshold": 2,
    "kill_time": 2,
    "min_restart_delay": 2,
    "max_restart_delay": 2,
    "jitter": 0.5,
    "stop": [["INT", 1]],
    "stop_scope": "process",
    "nice": 5,
    "oom_score_adj": 5,
    "limits": {"nofile": 99},
    "give_up": {"failures": 1, "within": 1},
    "instances": 1,
    "memory_max": "1G",
    "on_exit": "shutdown",
    "on_give_up": "shutdown",
    "env_file": "x",
    "env_secret": {"S": "/s"},
    "rollback_if_not_ready": 3,
    "after": {"db": "ready"},
    "check": [{"tcp": "localhost:80"}],
    "ready": {"notify": True},
    "schedule": {"every": 60},
    "sockets": {"http": "tcp::0"},
    "watchdog": 5,
    "log": {"stderr": True},
}


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """The directory of new files."""
    directory = tmp_path / "new"
    directory.mkdir()
    return directory


def put(directory: Path, **files: Any) -> None:
    for name, content in files.items():
        (directory / name.replace("_", ":")).write_text(json.dumps(content))


def changes(colony: Colony, new: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    found = ctllib.diff(colony.places, new)
    assert found.problems == ()
    return [(change.name, change.action, change.keys) for change in found.changes]


def test_the_same_is_the_same(colony: Colony, new: Path) -> None:
    """Equal values, whatever the white space, the order and the keys of editors, are no difference: status 0."""
    put(colony.config, web={**BASE, "nice": 5})
    (new / "web").write_text('{ "$schema": "x",  "nice": 5,\n"args":["sleep","9"]}')
    ran = colony.run("diff", str(new))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert changes(colony, new) == [("web", "unchanged", ())]


def test_each_kind_of_change_is_told(colony: Colony, new: Path) -> None:
    """Start, restart, stop and live changes are told, with the keys that differ and never their values: status 1."""
    put(colony.config, stays=BASE, goes=BASE, lives={**BASE, "kill_time": 1, "log": {"keep": 1}})
    put(colony.config, again={**BASE, "env": {"A": "old", "B": "1"}, "env_secret": {"S": "/old/path"}, "x.y": 1})
    put(new, stays=BASE, comes=BASE, lives={**BASE, "kill_time": 2, "log": {"keep": 2}})
    put(new, again={**BASE, "env": {"A": "new", "C": "1"}, "env_secret": {"S": "/new/path"}, "kill_time": 3})
    ran = colony.run("diff", str(new))
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.splitlines() == [
        "again: restart: env.A, env.B, env.C, env_secret.S, kill_time, x.y",
        "comes: start (new)",
        "goes: stop (removed)",
        "lives: live: kill_time, log.keep",
    ]


@pytest.mark.parametrize("key", sorted(config.KNOWN_KEYS - {"enabled", "instances"}))
def test_every_key_restarts_or_is_live(colony: Colony, new: Path, key: str) -> None:
    """A change of a live key is live, one of any other key a restart, and it is this key that is told."""
    put(colony.config, web=BASE)
    put(new, web=BASE | {key: OTHER[key]})
    [(_, action, keys)] = changes(colony, new)
    assert action == ("live" if key in config.LIVE_KEYS else "restart")
    assert [one.partition(".")[0] for one in keys] == [key]


def test_an_empty_value_differs_from_none(colony: Colony, new: Path) -> None:
    """`"env": {}` where there was no env is told as what it is: a restart, for `env`."""
    put(colony.config, web=BASE)
    put(new, web={**BASE, "env": {}})
    assert changes(colony, new) == [("web", "restart", ("env",))]


def test_scaling_starts_and_stops_copies(colony: Colony, new: Path) -> None:
    """Another number of instances starts or stops the copies at the end, and leaves the others alone."""
    put(colony.config, up={**BASE, "instances": 1}, down={**BASE, "instances": 3}, none={**BASE, "instances": 0})
    put(new, up={**BASE, "instances": 3}, down={**BASE, "instances": 1}, none={**BASE, "instances": 1})
    assert changes(colony, new) == [
        ("down:0", "unchanged", ()),
        ("down:1", "stop", ("instances",)),
        ("down:2", "stop", ("instances",)),
        ("none:0", "start", ("instances",)),
        ("up:0", "unchanged", ()),
        ("up:1", "start", ("instances",)),
        ("up:2", "start", ("instances",)),
    ]


def test_copies_change_with_their_file(colony: Colony, new: Path) -> None:
    """Other keys restart every copy; copies in the place of one process, and the reverse, stop it and start them."""
    put(colony.config, web={**BASE, "instances": 2}, one=BASE, many={**BASE, "instances": 1})
    put(new, web={**BASE, "instances": 2, "nice": 1}, one={**BASE, "instances": 1}, many=BASE)
    found = {
        change.name: (change.action, change.file, change.why) for change in ctllib.diff(colony.places, new).changes
    }
    assert found == {
        "web:0": ("restart", "web", ""),
        "web:1": ("restart", "web", ""),
        "one": ("stop", "one", "copies take its place"),
        "one:0": ("start", "one", "one copy more"),
        "many": ("start", "many", "takes the place of copies"),
        "many:0": ("stop", "many", "one copy less"),
    }


def test_what_is_disabled_starts_and_stops_nothing(colony: Colony, new: Path) -> None:
    """Disabling stops, enabling starts, and whatever happens to a disabled definition is live."""
    off = {**BASE, "enabled": False}
    put(colony.config, a=BASE, b=off, c=off, d=off)
    put(new, a=off, b=BASE, c={**off, "nice": 1}, e=off)
    assert changes(colony, new) == [
        ("a", "stop", ("enabled",)),
        ("b", "start", ("enabled",)),
        ("c", "live", ("nice",)),
        ("d", "live", ()),
        ("e", "live", ()),
    ]


def test_new_files_with_problems_are_trouble(colony: Colony, new: Path) -> None:
    """A problem of a new file is told on stderr, what it would do on stdout, and the status is 2."""
    put(colony.config, web=BASE, db={"args": []}, old={"args": []})
    put(new, web={**BASE, "nice": 99}, fresh={"args": []}, db=BASE)
    ran = colony.run("diff", str(new))
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == [
        f"cannot use {new}/fresh: args: expected at least one string, the program, found []",
        f"cannot use {new}/web: nice: expected a number from -20 to 19, found 99",
    ]
    assert ran.stdout.splitlines() == [
        "db: start (the file that is there now cannot be used)",
        "fresh: unchanged (the new file cannot be used)",
        "old: stop (removed)",
        "web: unchanged (the new file cannot be used; its last good definition stays)",
    ]


def test_files_that_share_a_name_are_trouble(colony: Colony, new: Path) -> None:
    """New files of which one has the name of the other's copy are a problem."""
    put(new, web={**BASE, "instances": 1}, web_0=BASE)
    assert [one.name for one in ctllib.diff(colony.places, new).problems] == ["web:0"]


def test_missing_directories_are_trouble(colony: Colony, new: Path) -> None:
    """A directory that is not there is an error, and its status is 2 as well."""
    for options, source in (([], "/no/where"), (["--config", "/no/where"], str(new))):
        ran = colony.run(*options, "diff", source)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr == "cannot read '/no/where': No such file or directory\n"


def test_json_tells_all(colony: Colony, new: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json is an object with every process, unchanged ones too; the messages directory is not asked for."""
    put(colony.config, web=BASE, same=BASE)
    put(new, web={**BASE, "env": {"A": "secret"}}, same=BASE)
    assert main(["--config", str(colony.config), "diff", str(new), "--json"]) == 1
    out = capsys.readouterr().out
    assert "secret" not in out
    assert json.loads(out) == {
        "same": False,
        "changes": [
            {"name": "same", "file": "same", "action": "unchanged", "keys": [], "why": ""},
            {"name": "web", "file": "web", "action": "restart", "keys": ["env.A"], "why": ""},
        ],
        "problems": [],
    }


def test_numbers_beyond_all_bounds_are_compared(colony: Colony, new: Path) -> None:
    """Whatever a definition may hold can be compared."""
    (colony.config / "web").write_text('{"args": ["a"], "x": 100000000000000000000000, "y": 1e999}')
    (new / "web").write_text('{"args": ["a"], "x": 100000000000000000000001, "y": 1e999}')
    assert changes(colony, new) == [("web", "restart", ("x",))]
