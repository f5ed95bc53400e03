"""`ncolony startup`: the unit it writes is one that systemd takes, and it touches nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ncolony import ctllib
from ncolony.cli.startup import command_line, unit

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ncolony.service"
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def startup(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ncolony", "startup", *words]
    env = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")} | more
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)


def value_of(text: str, key: str) -> str:
    [line] = [line for line in text.splitlines() if line.startswith(f"{key}=")]
    return line.partition("=")[2]


def test_example_is_what_is_written() -> None:
    """The unit among the examples is the one that is generated for a Python in /opt/ncolony."""
    printed = startup("--print")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.replace(sys.executable, "/opt/ncolony/bin/python") == EXAMPLE.read_text(encoding="utf-8")


@needs_systemd
@pytest.mark.parametrize("user", [False, True], ids=["system", "user"])
def test_systemd_takes_it(tmp_path: Path, user: bool) -> None:
    """systemd-analyze has nothing to say about a unit, whatever characters are in its paths."""
    where = tmp_path / "a \"b\" 'c' %h $HOME \\e;é"
    where.mkdir()
    programs = tmp_path / "a b %h $HOME é;"
    programs.mkdir()
    python = programs / "python"
    python.symlink_to(sys.executable)
    for number, program in enumerate((sys.executable, str(python))):
        path = tmp_path / f"ncolony-test-{number}.service"
        text = unit(
            name="ncolony", user=user, python=program, config=f"{where}/conf", messages=f"{where}/\n;", state="/a b",
            more=["--pid", ""],
        )  # fmt: skip
        path.write_text(text, encoding="utf-8")
        verify = ["systemd-analyze", *(["--user"] if user else []), "verify", str(path)]
        env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        done = subprocess.run(verify, capture_output=True, text=True, timeout=60, env=env, check=False)
        about_it = [line for line in done.stderr.splitlines() if path.name in line]
        assert (done.returncode, about_it) == (0, []), done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["/bin/a", "plain-1", "x=y"], "/bin/a plain-1 x=y"),
        (["/bin/a", "two words", ""], '/bin/a "two words" ""'),
        (["/bin/a", "50%", "% h"], '/bin/a 50%% "%% h"'),
        (["/bin/a", "$HOME", "${X} y"], '/bin/a $$HOME "$${X} y"'),
        (["/bin/$a", "$HOME"], ":/bin/$a $HOME"),
        (["/bin/a", 'say "hi"', """both ' and \""""], """/bin/a 'say "hi"' "both ' and \\\"\""""),
        (["/bin/a", "back\\slash", "new\nline", ";"], '/bin/a "back\\\\slash" "new\\x0aline" ";"'),
        (["/bin/a", "é", "\u00a0"], '/bin/a "é" "\\xc2\\xa0"'),
    ],
)
def test_words_are_quoted(words: list[str], text: str) -> None:
    """Spaces, quotes, backslashes, percent and dollar signs and control characters reach the program as they are."""
    assert command_line(words) == text


@pytest.mark.parametrize("words", [["/bin/a", "\udcff"], ["/bin/a", "a\0b"], ["/it's"], ['/"a'], ["/a\\b"], ["/a\nb"]])
def test_words_that_no_unit_can_hold(words: list[str]) -> None:
    """A word that is not UTF-8 or contains NUL is refused, and a program that systemd would not run for its path."""
    with pytest.raises(ctllib.BadValue, match="cannot write a unit"):
        command_line(words)


def test_user_unit_is_written_and_removed(tmp_path: Path) -> None:
    """--user writes below the user's own directories, says what to run, replaces its own file, and removes it."""
    xdg = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state")}
    path = tmp_path / "config" / "systemd" / "user" / "colony.service"
    for _ in range(2):
        done = startup("--user", "--name", "colony", "--", "--killtime", "20", **xdg)
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{path}: written"
    said = done.stdout.split("\n  ")
    assert {"systemctl --user daemon-reload", "systemctl --user enable --now colony"} <= set(said)
    assert "loginctl enable-linger" in said[-1]
    text = path.read_text(encoding="utf-8")
    start = value_of(text, "ExecStart")
    assert start.endswith(f"--config {tmp_path}/config/colony/conf --killtime 20")
    assert f"--messages {tmp_path}/state/colony/messages" in start
    assert value_of(text, "WantedBy") == "default.target"
    assert path.stat().st_mode & 0o777 == 0o644
    wanted = path.parent / "default.target.wants" / path.name
    wanted.parent.mkdir()
    wanted.symlink_to(path)
    shown = startup("--user", "--name", "colony", "--remove", "--print", **xdg)
    assert (shown.returncode, path.exists(), "would be removed" in shown.stdout) == (0, True, True)
    removed = startup("--user", "--name", "colony", "--remove", **xdg)
    assert removed.returncode == 0, removed.stderr
    assert "systemctl --user stop colony" in removed.stdout
    assert (os.listdir(path.parent), os.listdir(wanted.parent)) == ([wanted.parent.name], [])
    again = startup("--user", "--name", "colony", "--remove", **xdg)
    assert (again.returncode, again.stderr) == (1, f"cannot remove {path}: there is no such unit\n")


def test_print_writes_nothing(tmp_path: Path) -> None:
    """With --print the unit goes to standard output and no file is made."""
    done = startup("--directory", str(tmp_path), "--config", "conf", "--messages", "m", "--state", "s", "--print")
    assert done.returncode == 0, done.stderr
    here = os.getcwd()
    for key in ("ExecStart", "ExecStopPost"):
        assert f" --messages {here}/m --config {here}/conf --state {here}/s" in value_of(done.stdout, key)
    assert list(tmp_path.iterdir()) == []


def test_file_of_somebody_else_stays(tmp_path: Path) -> None:
    """A unit that was not written by this command is neither replaced nor removed."""
    path = tmp_path / "ncolony.service"
    path.write_text("[Service]\nExecStart=/bin/true\n", encoding="utf-8")
    for verb, words in (("write", []), ("remove", ["--remove"])):
        done = startup("--directory", str(tmp_path), *words)
        assert done.returncode == 1
        assert done.stderr == f"cannot {verb} {path}: it was not written by `ncolony startup`\n"
    assert "ExecStart=/bin/true" in path.read_text(encoding="utf-8")


@as_root
def test_without_permission() -> None:
    """Who may not write the unit is told so in one line."""
    script = (
        "import os, shutil, sys; from ncolony.cli import main, startup; "
        "os.setgroups([]); os.setgid(54321); os.setuid(54321); "
        "sys.exit(main(['startup', '--directory', '/etc']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    expected = "cannot write /etc/ncolony.service: Permission denied; only root may (or use --user)\n"
    assert (done.returncode, done.stderr) == (1, expected)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--name", "a b"], 1, "cannot write a unit: 'a b' is no name for one"),
        (["--name", "../x"], 1, "is no name for one"),
        (["--print", "--", "--frequency", "never"], 1, "refuses its options: Parameter type"),
        (["--print", "--", "--nonsense"], 1, "refuses its options: option --nonsense not recognized"),
        (["--print", "--", "--state", "/x"], 2, "give --state before --"),
        (["--nonsense"], 2, "unrecognized arguments"),
    ],
)
def test_nonsense_is_refused(words: list[str], code: int, said: str) -> None:
    """A name that is none, and an option that the supervisor would refuse at boot, are refused now."""
    done = startup(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr.splitlines()[-1]
