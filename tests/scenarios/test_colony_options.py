"""The supervisor's own options and its start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from colony import SLEEP, Colony


def outcomes(*commands: list[str]) -> list[tuple[int, str]]:
    """Run the commands at the same time; the exit code and all output of each."""
    started = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in commands]
    found = []
    for process in started:
        output, _ = process.communicate(timeout=60)
        found.append((process.returncode, output))
    return found


def ncolony(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "twisted", "ncolony", *arguments]


def test_missing_directories_are_usage_errors(tmp_path: Path) -> None:
    """Without --config or --messages there is a clear usage error and no traceback."""
    conf, messages = tmp_path / "conf", tmp_path / "messages"
    (first, no_config), (second, no_messages), (third, neither) = outcomes(
        ncolony("--messages", str(messages)), ncolony("--config", str(conf)), ncolony()
    )
    for code, output, missing in (
        (first, no_config, "--config"),
        (second, no_messages, "--messages"),
        (third, neither, "--"),
    ):
        assert code != 0, output
        assert "Traceback" not in output
        # The usage text lists every option; what is wrong stands in a line that is not part of that list.
        assert any(missing in line and not line.lstrip().startswith("-") for line in output.splitlines()), output
    assert not conf.exists()
    assert not messages.exists()


@pytest.mark.parametrize("option", ["frequency", "threshold", "killtime", "minrestartdelay", "maxrestartdelay"])
def test_senseless_seconds_are_usage_errors(option: str, tmp_path: Path) -> None:
    """An option in seconds that is not a number, is negative or is nan is a usage error that shows the value."""
    places = ["--messages", str(tmp_path / "messages"), "--config", str(tmp_path / "conf"), "--state", str(tmp_path)]
    values = ("soonish", "-17.5", "nan")
    found = outcomes(*(ncolony(*places, f"--{option}={value}") for value in values))
    for value, (code, output) in zip(values, found, strict=True):
        assert code != 0, (value, output)
        assert "Traceback" not in output
        assert value in output
        assert option in output


def test_the_least_delay_is_not_above_the_most(tmp_path: Path) -> None:
    """--minrestartdelay above --maxrestartdelay is a usage error, given in either form."""
    places = ["--messages", str(tmp_path / "messages"), "--config", str(tmp_path / "conf"), "--state", str(tmp_path)]
    long = ncolony(*places, "--minrestartdelay=77", "--maxrestartdelay=33")
    short = ncolony(*places, "-m", "7200")  # the largest delay is 3600 when not given
    for code, output in outcomes(long, short):
        assert code != 0, output
        assert "Traceback" not in output
        assert any("minrestartdelay" in line and not line.lstrip().startswith("-") for line in output.splitlines())


def test_missing_directories_are_created(colony: Colony) -> None:
    """Config, messages, pid, state and log directories are created when missing, parents included."""
    colony.config.rmdir()
    colony.messages.rmdir()
    colony.config = colony.root / "far" / "away" / "conf"
    colony.messages = colony.root / "also" / "messages"
    pids = colony.root / "run" / "pids"
    colony.start("--pid", str(pids))
    for directory in (colony.config, colony.messages, colony.state, pids):
        assert directory.is_dir()
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.wait_until_running("web")


def test_a_second_supervisor_refuses(colony: Colony) -> None:
    """A second supervisor on the same state directory ends with one clear line and disturbs nobody."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start()
    pid = colony.wait_until_running("web")
    ((code, output),) = outcomes([*colony.command()[:3], *colony.command()[5:]])
    assert code != 0
    assert f"cannot start: ncolony (pid {colony.supervisor_pid}) already supervises" in output
    assert "Traceback" not in output
    colony.scan()
    assert colony.wait_until_running("web", instance=1) == pid


def test_json_log(colony: Colony) -> None:
    """With --log-format=json each line a process prints is one JSON event with its name as `tag`, and `line`."""
    colony.put("web", {"args": colony.payload("web", "say", "hello", 'with "quotes"')})
    colony.start(log_format="json")

    def events() -> list[tuple[str, str]]:
        records = [text for text in colony.log().split("\x1e") if text.endswith("\n")]
        decoded = [json.loads(record) for record in records]
        return [(event["tag"], event["line"]) for event in decoded if "line" in event]

    colony.wait_for(lambda: len(events()) >= 2, "both lines are logged")
    assert events() == [("web", "hello"), ("web", 'with "quotes"')]


def test_log_level_applies_to_the_supervisor(colony: Colony) -> None:
    """`python -m twisted --log-level` is honoured: at `error` a healthy colony's log holds no event of ours."""
    command = colony.command()
    command.insert(command.index("ncolony"), "--log-level=error")
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start(command=command)
    colony.wait_until_running("web")
    assert colony.stop() == 0
    assert "web" not in colony.log()


def test_nothing_on_disk_is_open_to_others(colony: Colony) -> None:
    """The state directory is ours alone to write, whatever the umask the supervisor was started with."""
    before = os.umask(0)
    try:
        colony.start()
    finally:
        os.umask(before)
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.wait_until_running("web")
    assert colony.state.stat().st_mode & 0o022 == 0


def test_an_unusable_state_directory_is_told(colony: Colony) -> None:
    """A state directory that cannot be made is one clear line and a non-zero exit."""
    (colony.root / "file").write_text("")
    colony.state = colony.root / "file" / "state"
    ((code, output),) = outcomes([*colony.command()[:3], *colony.command()[5:]])
    assert code != 0
    assert "cannot" in output
    assert str(colony.state) in output
    assert "Traceback" not in output


def test_directories_whose_names_are_no_text(new_colony: Callable[[str], Colony]) -> None:
    """A colony lives in directories whose names are not UTF-8 as in any others, and `ctl` speaks with it."""
    colony = new_colony("\udcff")
    colony.put("web", {"args": [SLEEP, "1000"]})
    colony.start()
    first = colony.wait_until_running("web")
    assert "RUNNING" in colony.ctl("--state", str(colony.state), "status", "web")
    colony.ctl("--state", str(colony.state), "restart", "web", "--wait")
    colony.wait_until_dead(first)
    supervisor = colony.supervisor()
    assert supervisor is not None
    assert r"\xff" in supervisor["config"]
    assert colony.stop() == 0
