"""From a definition to an order: which program, which environment, which user."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ncolony
from ncolony.model.config import Definition, Problem, ProcessConfig, decode, define
from ncolony.system.launch import (
    Impossible,
    Owner,
    Surroundings,
    environment,
    find_owner,
    find_program,
    order,
)

SOURCE = str(Path(ncolony.__file__).parent.parent)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
MISSING_UID = next(number for number in range(54321, 60000) if number not in {p.pw_uid for p in pwd.getpwall()})


def config(**keys: Any) -> ProcessConfig:
    found = decode("web", json.dumps({"args": ["/bin/true"], **keys}).encode())
    assert not isinstance(found, Problem), found
    return found


def program(directory: Path, name: str = "tool", mode: int = 0o755) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text("#!/bin/sh\n")
    (directory / name).chmod(mode)
    return directory / name


class TestFindProgram:
    """find_program"""

    def test_with_a_slash(self) -> None:
        """A program with a slash is taken as said, whether it is there or not."""
        assert find_program("/no/thing", "/bin", "/bin") == "/no/thing"
        assert find_program("./x", None, None) == "./x"

    def test_order_of_paths(self, tmp_path: Path) -> None:
        """The child's PATH comes before ours, and each in its order."""
        child, ours = program(tmp_path / "child"), program(tmp_path / "ours")
        assert find_program("tool", str(child.parent), str(ours.parent)) == str(child)
        assert find_program("tool", "/nothing", f"/none:{ours.parent}:{child.parent}") == str(ours)
        assert find_program("tool", None, str(ours.parent)) == str(ours)
        assert find_program("tool", str(child.parent), None) == str(child)

    def test_what_cannot_be_run_is_passed_over(self, tmp_path: Path) -> None:
        """A file that is not executable, and a directory, are not the program."""
        program(tmp_path / "plain", mode=0o644)
        (tmp_path / "directory" / "tool").mkdir(parents=True)
        good = program(tmp_path / "good")
        path = ":".join(str(tmp_path / name) for name in ("plain", "directory", "good"))
        assert find_program("tool", path, None) == str(good)

    def test_relative_and_empty_parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative part of PATH becomes absolute; an empty one is not the current directory."""
        program(tmp_path / "bin")
        program(tmp_path, "here")
        monkeypatch.chdir(tmp_path)
        assert find_program("tool", "bin", None) == str(tmp_path / "bin" / "tool")
        with pytest.raises(Impossible, match="'here': not found on PATH"):
            find_program("here", ":", "")

    def test_links_are_not_resolved(self, tmp_path: Path) -> None:
        """A virtual environment's python is run by the name of its link, or it would lose its packages."""
        real = program(tmp_path / "real")
        (tmp_path / "venv").mkdir()
        (tmp_path / "venv" / "tool").symlink_to(real)
        assert find_program("tool", None, str(tmp_path / "venv")) == str(tmp_path / "venv" / "tool")

    def test_nowhere(self) -> None:
        """A program on neither PATH is a clear error."""
        with pytest.raises(Impossible, match="cannot run 'no such tool': not found on PATH"):
            find_program("no such tool", "/bin", "/usr/bin")


OURS = {"HOME": "/root", "LANG": "C", "LC_ALL": "C.UTF-8", "LC_CTYPE": "x", "PATH": "/bin", "A[1]": "odd"}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, {}),
        ({"env": {"A": "1", "B": ""}}, {"A": "1", "B": ""}),
        ({"env_inherit": ["HOME", "MISSING"]}, {"HOME": "/root"}),
        ({"env_inherit": ["LC_*"]}, {"LC_ALL": "C.UTF-8", "LC_CTYPE": "x"}),
        ({"env_inherit": ["L[AC]*"]}, {"LANG": "C", "LC_ALL": "C.UTF-8", "LC_CTYPE": "x"}),
        ({"env_inherit": ["?OME"]}, {"HOME": "/root"}),
        ({"env_inherit": ["lang"]}, {}),
        ({"env_inherit": ["A[1]"]}, {"A[1]": "odd"}),
        ({"env_inherit": ["*"]}, OURS),
        ({"env_inherit": ["*"], "env": {"HOME": "/srv"}}, {**OURS, "HOME": "/srv"}),
        ({"env_inherit": ["HOME"], "env": {"HOME": ""}}, {"HOME": ""}),
    ],
)
def test_environment(keys: dict[str, Any], expected: dict[str, str]) -> None:
    """Nothing is inherited but what is asked for by name or glob, and `env` has the last word."""
    assert environment(config(**keys), OURS) == expected


# Files


quickly = settings(max_examples=100, deadline=None, derandomize=True)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\0"), max_size=30)


def variables(directory: Path, text: str, **keys: Any) -> dict[str, str]:
    (directory / "file").write_bytes(text.encode())
    return environment(config(env_file="file", **keys), {}, str(directory))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@quickly
@given(name=names, value=values.map(lambda value: value.replace("'", "")))
def test_any_value_in_single_quotes(place: Path, name: str, value: str) -> None:
    """Whatever one line can hold, but for a single quote, is taken as it is between single quotes."""
    assert variables(place, f"A=1\nB=2\n{name}='{value}'\n") == {"A": "1", "B": "2"} | {name: value}


@quickly
@given(name=names, value=values)
def test_any_value_in_double_quotes(place: Path, name: str, value: str) -> None:
    """So it is between double quotes, with a backslash before each of the four characters that are special there."""
    escaped = "".join(f"\\{one}" if one in '\\"$`' else one for one in value)
    assert variables(place, f'export {name}="{escaped}"') == {name: value}


@quickly
@given(given_lines=st.dictionaries(names, st.from_regex(r"[a-z][a-z =$]{0,10}[a-z]", fullmatch=True), max_size=5))
def test_plain_lines(place: Path, given_lines: dict[str, str]) -> None:
    """Plain values are taken as they are, and a file of nothing is fine."""
    text = "".join(f" {name}={value} # why\n\n# {name}=x\n" for name, value in given_lines.items())
    assert variables(place, text) == given_lines


@quickly
@given(text=st.binary(max_size=60))
def test_no_file_is_a_crash(place: Path, text: bytes) -> None:
    """Whatever the bytes: variables that exec will take, or a reason that names the file and shows none of it."""
    (place / "odd").write_bytes(text)
    try:
        found = environment(config(env_file="odd"), {}, str(place))
    except Impossible as impossible:
        assert str(place / "odd") in str(impossible)
    else:
        assert all(name and "=" not in name and "\0" not in name + value for name, value in found.items())


def test_an_error_tells_the_line_and_not_its_content(tmp_path: Path) -> None:
    """What is wrong is told by the number of the line: it may hold a secret."""
    with pytest.raises(Impossible, match=r"file, line 3: expected NAME=VALUE$"):
        variables(tmp_path, "A=1\n# nothing\nhunter2\n")


@as_root
@pytest.mark.parametrize("entry", pwd.getpwall(), ids=lambda entry: entry.pw_name)
def test_owner_by_name_and_number(entry: pwd.struct_passwd) -> None:
    """With a user alone, by name or number, gid and groups are that user's own."""
    own = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    assert find_owner(entry.pw_name, None) == Owner(entry.pw_uid, entry.pw_gid, own)
    if pwd.getpwuid(entry.pw_uid).pw_name == entry.pw_name:
        assert find_owner(entry.pw_uid, None) == Owner(entry.pw_uid, entry.pw_gid, own)
        assert find_owner(str(entry.pw_uid), None) == Owner(entry.pw_uid, entry.pw_gid, own)


@as_root
class TestFindOwner:
    """find_owner, as root"""

    def test_nobody_asked(self) -> None:
        """Without uid and gid nothing changes."""
        assert find_owner(None, None) == Owner(None, None, None)

    def test_number_without_an_entry(self) -> None:
        """A number without a passwd entry has itself as its group and no other."""
        assert find_owner(MISSING_UID, None) == Owner(MISSING_UID, MISSING_UID, ())

    def test_user_and_group(self) -> None:
        """A group given as well is the group, and the user's other groups stay."""
        entry = pwd.getpwnam("nobody")
        owner = find_owner("nobody", 12345)
        assert (owner.uid, owner.gid) == (entry.pw_uid, 12345)
        assert owner.groups is not None
        assert set(owner.groups) == set(os.getgrouplist("nobody", 12345))
        assert 0 not in owner.groups

    def test_group_alone(self) -> None:
        """A group alone changes the group, and leaves no supplementary groups."""
        assert find_owner(None, 12345) == Owner(None, 12345, ())
        assert find_owner(None, "daemon") == Owner(None, 1, ())
        assert find_owner(None, "12345") == Owner(None, 12345, ())

    def test_root_itself(self) -> None:
        """To be root when we are is no error."""
        assert find_owner(0, None).uid == 0

    @pytest.mark.parametrize(
        ("user", "group", "why"),
        [
            ("no-such-user", None, "cannot become user 'no-such-user': there is no such user"),
            ("", None, "cannot become user '': there is no such user"),
            ("-1", None, "cannot become user '-1': there is no such user"),
            ("٣", None, "cannot become user '٣': there is no such user"),
            (None, "no-such-group", "cannot become group 'no-such-group': there is no such group"),
            ("nobody", "no-such-group", "cannot become group 'no-such-group': there is no such group"),
        ],
    )
    def test_unknown(self, user: str | None, group: str | None, why: str) -> None:
        """An unknown name is a clear error."""
        with pytest.raises(Impossible) as caught:
            find_owner(user, group)
        assert str(caught.value) == why

    def test_without_root(self) -> None:
        """Without root one may be oneself, and nobody else."""
        script = (
            f"import os, sys; sys.path[:0] = [{SOURCE!r}, *{[p for p in sys.path if 'site-packages' in p]!r}]\n"
            "from ncolony.system.launch import find_owner, Impossible\n"
            "os.setgroups([]); os.setresgid(54322, 54322, 54322); os.setresuid(54321, 54321, 54321)\n"
            "for pair in ((54321, None), (54321, 54322), (None, 54322), ('54321', None), (None, None)):\n"
            "    owner = find_owner(*pair)\n"
            "    assert (owner.uid, owner.gid, owner.groups) == (None, None, None), pair\n"
            "for pair in ((0, None), ('nobody', None), (54321, 0), (None, 'root'), (1, 54322)):\n"
            "    try: find_owner(*pair)\n"
            "    except Impossible as why: print(why)\n"
        )
        done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=30)
        assert done.stdout.splitlines() == [
            "cannot become user 0: the supervisor does not run as root",
            "cannot become user 'nobody': the supervisor does not run as root",
            "cannot become group 0: the supervisor does not run as root",
            "cannot become group 'root': the supervisor does not run as root",
            "cannot become user 1: the supervisor does not run as root",
        ], done.stderr


def test_order(tmp_path: Path) -> None:
    """An order holds program, arguments, environment, directory, umask and user; the supervisor's if none is said."""
    around = Surroundings({"PATH": "/bin", "SECRET": "x"}, str(tmp_path), 0o077, 100)
    keys = {"args": ["sh", "-c", "true"], "env": {"A": "1"}, "cwd": "below", "umask": "027"}
    definition = define("web", json.dumps(keys).encode())
    assert not isinstance(definition, Problem), definition
    found = order(definition.config, around, {"NCOLONY_NAME": "web"})
    assert found["path"] == found["argv"][0] == "/bin/sh"
    assert found["argv"][1:] == ["-c", "true"]
    assert found["env"] == {"A": "1", "NCOLONY_NAME": "web"}
    assert (found["cwd"], found["umask"], found["nofile"]) == (str(tmp_path / "below"), 0o027, 100)
    assert (found["uid"], found["gid"], found["groups"]) == (None, None, None)


def test_present_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The present surroundings are this process's own, which stay as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOME_NAME", "some value")
    before = os.umask(0o037)
    try:
        found = Surroundings.present(5)
    finally:
        assert os.umask(before) == 0o037
    assert (found.cwd, found.umask, found.nofile) == (str(tmp_path), 0o037, 5)
    assert found.environ["SOME_NAME"] == "some value"


def test_why_it_cannot_be_started_is_one_printable_line() -> None:
    """A path with control characters is quoted in a way that harms no terminal."""
    found = define("web", b'{"args": ["x"], "env_file": "/\\u001b[31m\\n"}')
    assert isinstance(found, Definition)
    with pytest.raises(Impossible) as caught:
        order(found.config, Surroundings({}, "/", 0o22, None), {})
    assert str(caught.value) == r"cannot read env_file: /\x1b[31m\n: No such file or directory"
