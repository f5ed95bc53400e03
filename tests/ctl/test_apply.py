"""`ctl apply`: the config directory says what another directory says, or nothing is written."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ctl_colony import Colony

from ncolony import ctllib
from ncolony.cli import main

BASE: dict[str, Any] = {"args": ["sleep", "9"]}


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """The directory of new files."""
    directory = tmp_path / "new"
    directory.mkdir()
    return directory


def put(directory: Path, **files: Any) -> None:
    for name, content in files.items():
        (directory / name.replace("_", ":")).write_text(json.dumps(content))


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_bytes_are_kept_and_a_second_time_changes_nothing(colony: Colony, new: Path) -> None:
    """Each file is copied byte for byte; applied again, everything is unchanged and no file is touched."""
    text = '{"args": ["sleep", "9"],\n\n   "a.b":"\\u00e9 é"}\n\n'
    (new / "web").write_text(text)
    put(new, db=BASE)
    ran = colony.run("apply", str(new))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "db: changed\nweb: changed\n", "")
    assert (colony.config / "web").read_text() == text
    before = {name: (colony.config / name).stat().st_ctime_ns for name in names(colony.config)}
    ran = colony.run("apply", str(new))
    assert (ran.returncode, ran.stdout) == (0, "db: unchanged\nweb: unchanged\n")
    assert {name: (colony.config / name).stat().st_ctime_ns for name in names(colony.config)} == before
    assert names(colony.config) == ["db", "web"]


def test_nothing_is_written_when_a_file_is_bad(colony: Colony, new: Path) -> None:
    """One problem anywhere, told in a line each, and no file is written, nor removed."""
    put(colony.config, old=BASE)
    put(new, a=BASE, b={"args": [], "nice": 99}, web={**BASE, "instances": 1}, web_0=BASE)
    (new / "torn").write_text("{")
    ran = colony.run("apply", str(new), "--prune")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert [line.partition(": ")[0] for line in ran.stderr.splitlines()] == [
        f"cannot use {new}/b",
        f"cannot use {new}/b",
        f"cannot use {new}/torn",
        f"cannot use {new}/web:0",
    ]
    assert names(colony.config) == ["old"]
    with pytest.raises(ctllib.BadFiles) as raised:
        ctllib.apply(colony.places, new)
    assert [one.key for one in raised.value.problems] == ["args", "nice", "", ""]


def test_files_that_stay_are_looked_at_too(colony: Colony, new: Path) -> None:
    """A new file whose name a copy has that stays is refused, unless what has it goes."""
    put(colony.config, web={**BASE, "instances": 1}, bad={"args": []})
    put(new, web_0=BASE)
    with pytest.raises(ctllib.BadFiles, match="web with instances of 1"):
        ctllib.apply(colony.places, new)
    assert ctllib.apply(colony.places, new, prune=True).files == {
        "bad": "removed",
        "web": "removed",
        "web:0": "changed",
    }


def test_what_stays_wrong_elsewhere_is_no_hindrance(colony: Colony, new: Path) -> None:
    """Files in the config directory that were bad before do not keep others from being applied."""
    put(colony.config, web={**BASE, "instances": 1}, web_0=BASE, bad={"args": []})
    put(new, db=BASE)
    assert ctllib.apply(colony.places, new).files == {"db": "changed"}


def test_pruning_removes_definitions_and_nothing_else(colony: Colony, new: Path) -> None:
    """--prune removes what DIR does not have; ignored names and directories stay. Without it, all stays."""
    put(colony.config, web=BASE, old=BASE)
    for ignored in (".hidden", "web.bak", "#web#"):
        (colony.config / ignored).write_text("")
    (colony.config / "sub").mkdir()
    put(new, web=BASE)
    (new / ".git").mkdir()
    (new / "web.swp").write_text("not ours")
    assert colony.run("apply", str(new)).stdout == "web: unchanged\n"
    assert "old" in names(colony.config)
    ran = colony.run("apply", "--prune", str(new))
    assert (ran.returncode, ran.stdout) == (0, "old: removed\nweb: unchanged\n")
    assert names(colony.config) == ["#web#", ".hidden", "sub", "web", "web.bak"]


def test_pruning_everything_away_takes_more_than_an_empty_directory(colony: Colony, new: Path) -> None:
    """An empty DIR is more often a mistake than a wish: --prune refuses; with nothing to remove it is fine."""
    put(colony.config, web=BASE)
    ran = colony.run("apply", str(new), "--prune")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"cannot apply '{new}': it has no config file, and to prune would remove all 1\n"
    assert names(colony.config) == ["web"]
    (colony.config / "web").unlink()
    assert colony.run("apply", str(new), "--prune").returncode == 0


def test_a_dry_run_says_the_same_and_does_nothing(colony: Colony, new: Path) -> None:
    """--dry-run prints what would be done; no file changes. With --wait it does not wait."""
    put(colony.config, old=BASE, web=BASE)
    put(new, web={**BASE, "nice": 1})
    ran = colony.run("apply", str(new), "--prune", "--dry-run", "--wait")
    assert (ran.returncode, ran.stdout) == (0, "old: removed\nweb: changed\n")
    assert colony.definition("web") == BASE
    assert "old" in names(colony.config)


def test_modes_are_not_wider_than_the_source(colony: Colony, new: Path) -> None:
    """A private file stays private, one that anybody may write or run is not so here, and a wider copy is narrowed."""
    put(new, private=BASE, wide=BASE, program=BASE)
    for name, bits in (("private", 0o600), ("wide", 0o666), ("program", 0o755)):
        (new / name).chmod(bits)
    umask = os.umask(0)
    try:
        ctllib.apply(colony.places, new)
        found = {name: mode(colony.config / name) for name in names(new)}
        assert found == {"private": 0o600, "wide": 0o664, "program": 0o644}
        (colony.config / "private").chmod(0o644)
        (colony.config / "wide").chmod(0o640)
        again = ctllib.apply(colony.places, new)
    finally:
        os.umask(umask)
    assert again.files == {"private": "changed", "wide": "unchanged", "program": "unchanged"}
    assert mode(colony.config / "private") == 0o600


def test_json_for_those_that_ask_for_changed(colony: Colony, new: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json has `changed`, what became of each file, and the problems, in every case."""
    put(new, web=BASE)
    command = ["--config", str(colony.config), "apply", str(new), "--json"]
    said = []
    for code in (0, 0):
        assert main(command) == code
        said.append(json.loads(capsys.readouterr().out))
    put(new, web={**BASE, "nice": 99})
    assert main(command) == 1
    said.append(json.loads(capsys.readouterr().out))
    assert said[0] == {"changed": True, "files": {"web": "changed"}, "problems": []}
    assert said[1] == {"changed": False, "files": {"web": "unchanged"}, "problems": []}
    assert (said[2]["changed"], said[2]["files"], said[2]["problems"][0]["key"]) == (False, {}, "nice")


def test_what_cannot_be_replaced_is_told(colony: Colony, new: Path) -> None:
    """A directory in the place of a file is a problem, found before anything is written; a missing one an error."""
    put(new, a=BASE, web=BASE)
    (colony.config / "web").mkdir()
    ran = colony.run("apply", str(new))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"cannot use {new}/web: in the config directory, a directory has this name\n"
    assert names(colony.config) == ["web"]
    for options, source in (([], "/no/where"), (["--config", "/no/where"], str(new))):
        ran = colony.run(*options, "apply", source)
        assert (ran.returncode, ran.stderr) == (1, "cannot read '/no/where': No such file or directory\n")


def test_a_link_or_a_bad_file_is_replaced(colony: Colony, new: Path) -> None:
    """What is in the way under the same name is replaced by a file, what a link leads to stays as it was."""
    put(colony.root, elsewhere=BASE)
    (colony.config / "web").symlink_to(colony.root / "elsewhere")
    (colony.config / "db").write_text("{")
    put(new, web={**BASE, "nice": 1}, db=BASE)
    assert ctllib.apply(colony.places, new).is_changed
    assert not (colony.config / "web").is_symlink()
    assert json.loads((colony.root / "elsewhere").read_text()) == BASE


def test_waiting_sees_what_comes_of_it(colony: Colony, new: Path) -> None:
    """--wait returns when every file is in effect, and fails with a line where it is not in time."""
    put(new, web=BASE, db=BASE)
    put(colony.config, old=BASE)
    colony.report("old")

    def act() -> None:
        from ctl_colony import wait_for

        wait_for(lambda: not (colony.config / "old").exists())
        (colony.state / "status" / "old").unlink()
        for name in ("web", "db"):
            colony.report(name, digest=colony.digest(name))

    with colony.meanwhile(act):
        ran = colony.run("apply", str(new), "--prune", "--wait", "50")
    assert (ran.returncode, ran.stderr) == (0, "")
    put(new, web={**BASE, "nice": 1})
    ran = colony.run("apply", str(new), "--wait=0.01")
    assert ran.returncode == 1
    assert ran.stdout == "db: unchanged\nweb: changed\n"
    [line] = ran.stderr.splitlines()
    assert line.startswith("cannot see 'web' applied")
