"""How files are noticed, and what files can never do."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from colony import MARK, SLEEP, Colony, arguments_of, is_alive, put_whole

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="strict modes are root's, and so are mounts")

# So long that what is noticed in a test was noticed by itself, not by the periodic scan.
RARELY = ("--frequency", "600")


def test_a_renamed_file_takes_effect_at_once(colony: Colony) -> None:
    """A file renamed into place, changed or removed takes effect long before the periodic scan."""
    colony.start()
    begun = time.monotonic()
    colony.put("web", {"args": [SLEEP, "100000"]})
    pid = colony.wait_until_running("web", timeout=9)
    colony.put("web", {"args": [SLEEP, "200000"]})
    again = colony.wait_until_running("web", timeout=9, instance=2)
    colony.remove("web")
    colony.wait_until_forgotten("web", timeout=9)
    assert time.monotonic() - begun < 9  # all three, where the scan comes every ten seconds
    assert not is_alive(pid)
    assert not is_alive(again)


def test_a_file_written_in_place(colony: Colony) -> None:
    """A file that is written in place and in pieces is a problem at most until its last piece is there."""
    colony.start(*RARELY)
    data = json.dumps({"args": [SLEEP, "100000"], "env": {MARK: colony.mark}}).encode()
    with (colony.config / "web").open("wb", buffering=0) as target:
        target.write(data[:10])
        colony.wait_for_problem("web")
        target.write(data[10:])
    colony.wait_until_running("web")
    colony.wait_for_status("web", problem=None)


def test_a_running_process_and_a_rewrite_in_place(colony: Colony) -> None:
    """While a running process's file is rewritten in place the last good definition runs on."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start(*RARELY)
    pid = colony.wait_until_running("web")
    data = json.dumps({"args": [SLEEP, "200000"], "env": {MARK: colony.mark}}).encode()
    with (colony.config / "web").open("wb", buffering=0) as target:
        target.write(data[:10])
        colony.wait_for_problem("web")
        assert is_alive(pid)
        target.write(data[10:])
    again = colony.wait_until_running("web", instance=2)
    assert arguments_of(again) == [SLEEP, "200000"]


def test_the_periodic_scan_is_the_truth(colony: Colony) -> None:
    """What inotify cannot tell, a change behind a symlink into another directory, is seen within --frequency."""
    elsewhere = colony.root / "elsewhere"
    elsewhere.mkdir()
    env = {MARK: colony.mark}
    put_whole(elsewhere, "real", json.dumps({"args": [SLEEP, "100000"], "env": env}).encode())
    (colony.config / "web").symlink_to(elsewhere / "real")
    colony.start("--frequency", "0.2")
    colony.wait_until_running("web")
    put_whole(elsewhere, "real", json.dumps({"args": [SLEEP, "200000"], "env": env}).encode())
    assert arguments_of(colony.wait_until_running("web", instance=2)) == [SLEEP, "200000"]


def config_map(directory: Path, version: str, files: dict[str, object]) -> None:
    """Write the files as Kubernetes' atomic writer does: a hidden directory and the swap of a symlink to it."""
    hidden = directory / f"..{version}"
    hidden.mkdir()
    for name, config in files.items():
        (hidden / name).write_text(json.dumps(config))
    (directory / "..data_tmp").symlink_to(hidden.name)
    (directory / "..data_tmp").rename(directory / "..data")
    for name in files:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    for path in directory.iterdir():
        if path.is_symlink() and not path.name.startswith("..") and path.name not in files:
            path.unlink()


def test_config_map_mount(colony: Colony) -> None:
    """A mounted ConfigMap works: all files are symlinks, and one swap of `..data` changes, adds and removes."""
    env = {MARK: colony.mark}
    one: dict[str, object] = {"args": [SLEEP, "100000"], "env": env}
    two: dict[str, object] = {"args": [SLEEP, "200000"], "env": env}
    config_map(colony.config, "2026_1", {"same": one, "changed": one, "removed": one})
    colony.start(*RARELY)
    pids = {name: colony.wait_until_running(name) for name in ("same", "changed", "removed")}
    config_map(colony.config, "2026_2", {"same": one, "changed": two, "added": one})
    assert arguments_of(colony.wait_until_running("changed", instance=2)) == [SLEEP, "200000"]
    colony.wait_until_running("added")
    colony.wait_until_forgotten("removed")
    assert not is_alive(pids["removed"])
    assert colony.wait_until_running("same", instance=1) == pids["same"]
    assert colony.known() == {"same", "changed", "added"}


def test_ignored_names(colony: Colony) -> None:
    """Hidden files, temporary files, editors' backups and directories are no processes."""
    names = [".hidden", "..data", "web.new", "web~", ".web.swp", "web.swp", "web.tmp", "web.bak", "#web#"]
    for name in names:
        (colony.config / name).write_text(json.dumps({"args": colony.payload("ignored", "serve")}))
    (colony.config / "directory").mkdir()
    (colony.config / "directory" / "inner").write_text(json.dumps({"args": colony.payload("ignored", "serve")}))
    colony.start()
    for name in names:
        (colony.config / name).write_text(json.dumps({"args": colony.payload("ignored", "serve", "again")}))
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.wait_until_running("web")
    colony.scan()
    assert colony.notes("ignored") == []
    assert colony.known() == {"web"}


BAD: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n\t",
    "text": b"args: [sleep, 5]",
    "number": b"5",
    "null": b"null",
    "list": b'["sleep", "100000"]',
    "string": b'"sleep"',
    "nothing": b"{}",
    "half": b'{"args": ["sleep", "100',
    "two": b'{"args": ["sleep", "100000"]} {"args": ["sleep", "100000"]}',
    "latin": b'{"args": ["sleep", "100000"], "owner": "caf\xe9"}',
    "latin-argument": b'{"args": ["sleep", "\xff"]}',
    "surrogate": b'{"args": ["sleep", "\\ud800"]}',
    "zeros": b"\0" * 4096,
    "random": bytes(range(256)) * 16,
    "deep": b'{"args": ["sleep", "100000"], "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "unfinished-deep": b'{"a":' * 50_000,
    "huge": b'{"args": ["sleep", "100000"], "x": "' + b"y" * 10_000_000 + b'"}',
    "args-text": b'{"args": "sleep 100000"}',
    "args-empty": b'{"args": []}',
    "args-blank": b'{"args": [""]}',
    "args-number": b'{"args": ["sleep", 100000]}',
    "args-null": b'{"args": null}',
    "args-nul": b'{"args": ["sleep", "100000\\u0000"]}',
    "env-list": b'{"args": ["sleep", "100000"], "env": ["A=b"]}',
    "env-number": b'{"args": ["sleep", "100000"], "env": {"A": 5}}',
    "env-equals": b'{"args": ["sleep", "100000"], "env": {"A=B": "c"}}',
    "env-nul": b'{"args": ["sleep", "100000"], "env": {"A": "\\u0000"}}',
    "env_inherit-text": b'{"args": ["sleep", "100000"], "env_inherit": "HOME"}',
    "uid-negative": b'{"args": ["sleep", "100000"], "uid": -1}',
    "uid-huge": b'{"args": ["sleep", "100000"], "uid": 99999999999999999999999999}',
    "uid-fraction": b'{"args": ["sleep", "100000"], "uid": 1.5}',
    "gid-list": b'{"args": ["sleep", "100000"], "gid": [1]}',
    "group-number": b'{"args": ["sleep", "100000"], "group": 5}',
    "cwd-number": b'{"args": ["sleep", "100000"], "cwd": 5}',
    "umask-text": b'{"args": ["sleep", "100000"], "umask": "rwx"}',
    "enabled-text": b'{"args": ["sleep", "100000"], "enabled": "yes"}',
    "restart-word": b'{"args": ["sleep", "100000"], "restart": "sometimes"}',
    "success_codes-text": b'{"args": ["sleep", "100000"], "success_codes": ["0"]}',
    "threshold-negative": b'{"args": ["sleep", "100000"], "threshold": -1}',
    "threshold-text": b'{"args": ["sleep", "100000"], "threshold": "1"}',
    "threshold-nan": b'{"args": ["sleep", "100000"], "threshold": NaN}',
    "threshold-infinite": b'{"args": ["sleep", "100000"], "threshold": 1e999}',
    "kill_time-null": b'{"args": ["sleep", "100000"], "kill_time": [5]}',
    "min_restart_delay-negative": b'{"args": ["sleep", "100000"], "min_restart_delay": -0.5}',
    "max_restart_delay-object": b'{"args": ["sleep", "100000"], "max_restart_delay": {}}',
    "stop-signal": b'{"args": ["sleep", "100000"], "stop": [["NOSUCH", 1]]}',
    "stop-shape": b'{"args": ["sleep", "100000"], "stop": ["TERM", 5]}',
    "stop-seconds": b'{"args": ["sleep", "100000"], "stop": [["TERM", -5]]}',
    "log-text": b'{"args": ["sleep", "100000"], "log": "quiet"}',
}


def test_no_content_can_hurt(colony: Colony) -> None:
    """Whatever a file holds is a problem of its name, naming the key at fault, and everybody else runs on."""
    colony.put("before", {"args": [SLEEP, "100000"]})
    colony.start()
    pid = colony.wait_until_running("before")
    for name, data in BAD.items():
        colony.put(name, data)
    colony.put("zz-after", {"args": [SLEEP, "100000"]})
    colony.wait_until_running("zz-after")
    colony.scan()
    silent = {name for name in BAD if not (colony.status(name) or {}).get("problem")}
    assert not silent, f"no problem is shown for {silent}\n{colony.evidence()}"
    for name in BAD:
        status = colony.status(name)
        assert status
        assert (status["pid"], status["instance"]) == (None, 0), status
        key, dash, _ = name.partition("-")
        # What is no JSON has no keys yet.
        if dash and name not in ("latin-argument", "unfinished-deep", "threshold-nan", "threshold-infinite"):
            assert key in status["problem"].replace(name, ""), status
    assert colony.wait_until_running("before", instance=1) == pid


def test_what_is_not_a_file_is_a_problem(colony: Colony) -> None:
    """A FIFO, a socket-like device and a dangling symlink are problems of their names; opening them never blocks."""
    os.mkfifo(colony.config / "fifo")
    (colony.config / "dangling").symlink_to("nowhere")
    (colony.config / "loop").symlink_to("loop")
    (colony.config / "device").symlink_to("/dev/zero")
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start(*RARELY)
    colony.wait_until_running("web")
    for name in ("fifo", "dangling", "loop", "device"):
        assert name in colony.wait_for_problem(name)
    colony.put("zz", {"args": [SLEEP, "100000"]})
    colony.wait_until_running("zz")


def test_a_dangling_link_comes_true(colony: Colony) -> None:
    """A symlink whose target appears becomes a process within --frequency."""
    (colony.config / "web").symlink_to(colony.root / "later")
    colony.start("--frequency", "0.2")
    colony.wait_for_problem("web")
    data = json.dumps({"args": [SLEEP, "100000"], "env": {MARK: colony.mark}}).encode()
    put_whole(colony.root, "later", data)
    colony.wait_until_running("web")
    colony.wait_for_status("web", problem=None)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_a_problem(colony: Colony) -> None:
    """A file that may not be read is a problem of its name."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    (colony.config / "web").chmod(0)
    colony.start()
    colony.wait_for_problem("web")


def test_bad_names(colony: Colony) -> None:
    """A name that is not UTF-8 or holds control characters runs nothing, is told of, and hurts nobody."""
    data = json.dumps({"args": colony.payload("bad", "serve"), "env": {MARK: colony.mark}}).encode()
    put_whole(colony.config, b"caf\xe9", data)
    put_whole(colony.config, "two\nlines", data)
    put_whole(colony.config, "esc\x1b[31m", data)
    colony.put("caf\u00e9 \u2603", {"args": [SLEEP, "100000"]})
    colony.start()
    colony.wait_until_running("caf\u00e9 \u2603")

    def told() -> bool:
        texts = [*(colony.supervisor() or {}).get("problems", [])]
        texts += [str((colony.status(name) or {}).get("problem") or "") for name in colony.known()]
        said = "\n".join(texts)
        return all(part in said for part in ("caf", "two", "esc"))

    colony.wait_for(told, "all three names are told of")
    colony.scan()
    assert colony.notes("bad") == []
    assert "\x1b" not in colony.log()


def test_odd_but_good_names(colony: Colony) -> None:
    """Names with spaces, quotes, a percent sign, a brace, a leading dash or 200 characters are names as any other."""
    names = ["two words", "it's", 'say "x"', "100%", "a{b}", "-n", "--help", "x" * 200, "a:0", "$HOME", "*", "web.py"]
    for name in names:
        colony.put(name, {"args": [SLEEP, "100000"]})
    colony.start()
    pids = {name: colony.wait_until_running(name) for name in names}
    assert len(set(pids.values())) == len(names)
    assert colony.send({"type": "RESTART", "name": "a{b}"})["state"] == "done"
    colony.wait_until_running("a{b}", instance=2)


def test_a_vanished_config_directory_stops_nothing(colony: Colony) -> None:
    """When the directory is gone nothing stops and we say so; when it is back it is read again."""
    config = {"args": [SLEEP, "100000"]}
    for name in ("same", "removed"):
        colony.put(name, config)
    colony.start("--frequency", "0.2")
    pids = {name: colony.wait_until_running(name) for name in ("same", "removed")}
    away = colony.root / "away"
    colony.config.rename(away)
    colony.wait_for(lambda: (colony.supervisor() or {}).get("problems"), "the missing directory is told of")
    colony.scan()
    assert {name: colony.wait_until_running(name, instance=1) for name in pids} == pids
    assert all(is_alive(pid) for pid in pids.values())
    (away / "removed").unlink()
    put_whole(away, "added", (away / "same").read_bytes())
    away.rename(colony.config)
    colony.wait_until_running("added")
    colony.wait_until_forgotten("removed")
    assert colony.wait_until_running("same", instance=1) == pids["same"]
    colony.wait_for(lambda: not (colony.supervisor() or {"problems": 1})["problems"], "nothing is wrong any more")
    # And it is watched as before.
    colony.put("added", {"args": [SLEEP, "200000"]})
    colony.wait_until_running("added", instance=2)


def test_a_vanished_messages_directory_stops_nothing(colony: Colony) -> None:
    """When the messages directory is gone processes run on; when it is back messages are handled."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start("--frequency", "0.2")
    pid = colony.wait_until_running("web")
    colony.messages.rmdir()
    colony.put("echo", {"args": [SLEEP, "100000"]})
    colony.wait_until_running("echo")
    colony.messages.mkdir(exist_ok=True)
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    assert colony.wait_until_running("web", instance=2) != pid


@needs_root
def test_strict_modes(colony: Colony) -> None:
    """As root, a config file that anybody may write is a problem; its last good definition runs on."""
    config = {"args": [SLEEP, "100000"]}
    colony.put("web", config)
    colony.put("open", config)
    (colony.config / "open").chmod(0o666)
    colony.start("--frequency", "0.2")
    pid = colony.wait_until_running("web")
    colony.wait_for_problem("open")
    (colony.config / "web").chmod(0o646)
    colony.wait_for_problem("web")
    colony.scan()
    assert colony.wait_until_running("web", instance=1) == pid
    status = colony.status("open")
    assert status and status["instance"] == 0
    (colony.config / "open").chmod(0o644)
    colony.wait_until_running("open")


@needs_root
def test_strict_modes_of_the_directory(colony: Colony) -> None:
    """As root, files in a directory that anybody may write are problems, unless it is sticky."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.config.chmod(0o777)
    colony.start("--frequency", "0.2")
    colony.wait_for_problem("web")
    status = colony.status("web")
    assert status and status["instance"] == 0
    colony.config.chmod(0o1777)
    colony.wait_until_running("web")


@needs_root
def test_no_strict_modes(colony: Colony) -> None:
    """--no-strict-modes lifts the rule about files and directories that anybody may write."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    (colony.config / "web").chmod(0o666)
    colony.config.chmod(0o777)
    colony.start("--no-strict-modes")
    colony.wait_until_running("web")


@needs_root
def test_read_only_mounts_are_exempt_from_strict_modes(colony: Colony) -> None:
    """A ConfigMap is mode 0777 on a read-only mount, where nobody can write: it is used as it is."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    (colony.config / "web").chmod(0o666)
    colony.config.chmod(0o777)
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    colony.start(prefix=["unshare", "--mount", "sh", "-c", mount, str(colony.config)])
    colony.wait_until_running("web")
