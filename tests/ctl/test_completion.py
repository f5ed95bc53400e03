"""What a shell completes, asked of the shells themselves."""

from __future__ import annotations

import argparse
import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ctl_colony import PATIENCE_S, Colony

from ncolony.cli import _PROGRAMS, completion, main, parser

COMMANDS = Path(sys.executable).parent


def words(colony: Colony, *typed: str) -> list[str]:
    """What the last word may become, with the colony's directories given as options."""
    kind, found = completion.candidates(["ctl", *colony.options, *typed])
    assert kind == "words"
    return [text for text, _ in found]


@pytest.fixture
def filled(colony: Colony) -> Colony:
    """A colony with some definitions, and with copies that only the status knows."""
    for name, content in {
        "shop": {"args": ["a"], "group": "front end"},
        "my web": {"args": ["a"], "group": ["back"]},
        "web": {"args": ["a"], "instances": 2},
        "broken": [],
    }.items():
        (colony.config / name).write_text(json.dumps(content))
    (colony.config / "shop.bak").write_text("")
    (colony.config / "dir").mkdir()
    for name in ("web:0", "web:1"):
        colony.report(name, group=["copies"])
    return colony


# What may stand where, read off the parsers


@pytest.mark.parametrize("verb", sorted(parser._VERBS))
def test_every_command_and_option_is_offered(colony: Colony, verb: str) -> None:
    """Each verb is offered, and behind it each of its options, with what its help says."""
    assert verb in words(colony, verb[:2])
    actions = next(a for a in parser.build()._actions if isinstance(a, argparse._SubParsersAction)).choices[verb]
    actions._fill(actions)
    wanted = {max(a.option_strings, key=len): a.help for a in actions._actions}
    _, found = completion.candidates(["ctl", verb, "-"])
    assert dict(found) == wanted
    assert all(wanted.values())


def test_commands_beside_ctl_are_offered_where_they_may_stand() -> None:
    """The first word may be ctl, a verb or another command; behind ctl only a verb."""
    first, behind = ({text for text, _ in completion.candidates(typed)[1]} for typed in ([""], ["ctl", ""]))
    assert first == {*parser._VERBS, *_PROGRAMS, "ctl"}
    assert behind == set(parser._VERBS)
    assert completion.candidates(["schema", "c"]) == ("words", [("config", "")])
    assert completion.candidates(["schema", "config", ""]) == ("words", [])


def test_names_come_from_files_and_reports(filled: Colony) -> None:
    """Names are those of definitions and of reported copies; what is about files has only those of files."""
    everything = ["broken", "my web", "shop", "web", "web:0", "web:1"]
    for typed in (["stop", ""], ["stop", "web", ""], ["status", "-l", ""], ["restart", "--name", ""], ["restart", ""]):
        assert words(filled, *typed) == everything
    assert words(filled, "disable", "") == ["broken", "my web", "shop", "web"]
    assert words(filled, "stop", "--name=web:") == ["--name=web:0", "--name=web:1"]
    assert words(filled, "restart", "shop", "") == []
    assert words(filled, "restart", "shop", "--wait", "w") == []


def test_values_are_what_they_can_be(filled: Colony) -> None:
    """Groups, signals, users, choices and variables are offered where they belong; files and commands by the shell."""
    assert words(filled, "restart-group", "") == ["back", "copies", "front end"]
    assert words(filled, "add", "x", "--group=f") == ["--group=front end"]
    assert words(filled, "signal", "shop", "USR") == ["USR1", "USR2"]
    assert words(filled, "signal", "shop", "--scope", "") == ["process", "tree"]
    assert "root" in words(filled, "add", "x", "--uid", "")
    assert "--gid=root" in words(filled, "add", "x", "--gid=r")
    assert words(filled, "add", "x", "--env-inherit", "PAT") == ["PATH"]
    assert words(filled, "add", "x", "--env", "") == []
    for typed, kind in (
        (["check", ""], "files"),
        (["check", "a", ""], "files"),
        (["apply", ""], "directories"),
        (["add", "x", "--extras", ""], "files"),
        (["add", "x", "--cwd="], "directories"),
        (["add", "x", "--cmd", ""], "commands"),
        (["add", "x", "--", ""], "commands"),
        (["add", "x", "--", "ls", ""], "files"),
        (["--config", ""], "directories"),
    ):
        assert completion.candidates(["ctl", *typed]) == (kind, [])


def test_nothing_is_offered_where_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown verbs and directories that are not there lead to no candidates and no error."""
    for variable in ("NCOLONY_CTL_CONFIG", "NCOLONY_CTL_MESSAGES"):
        monkeypatch.delenv(variable, raising=False)
    for typed in (["nope", ""], ["stop", ""], ["--config", str(tmp_path / "no"), "stop", ""], ["stop", "--nope="]):
        assert completion.candidates(typed) == ("words", [])


def test_positionals_are_read_off_the_usage() -> None:
    """What a verb's usage names without an option is what it takes, each kind of usage that there is."""
    for usage, wanted in (
        ("NAME [--wait [SECONDS]]", [("NAME", False)]),
        ("NAME … [--wait [SECONDS]]", [("NAME", True)]),
        ("[NAME | GLOB] … [--long] [--json]", [("NAME", True)]),
        ("NAME SIGNAL [--scope process|tree] [--wait [SECONDS]]", [("NAME", False), ("SIGNAL", False)]),
        ("NAME [options] (--cmd CMD [--arg ARG] … | -- CMD [ARG] …)", [("NAME", False)]),
        ("[--wait [SECONDS]]", []),
        ("[FILE | DIR] … [--strict] [--json]", [("FILE", True)]),
    ):
        assert [(one.metavar, one.repeats) for one in completion._positionals(usage)] == wanted


@pytest.mark.parametrize(
    ("line", "found", "quote"),
    [
        ("a b", ["a", "b"], ""),
        ("a ", ["a", ""], ""),
        ("a  b\\ c", ["a", "b c"], ""),
        ("a 'b c", ["a", "b c"], "'"),
        ('a "b\\"c" \'\' ', ["a", 'b"c', "", ""], ""),
        ('a "b\\', ["a", "b"], '"'),
        ("a '", ["a", ""], "'"),
    ],
)
def test_lines_are_split_as_a_shell_does(line: str, found: list[str], quote: str) -> None:
    """Quotes and backslashes are understood, unfinished ones too."""
    assert completion._split(line) == (found, quote)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each script says how it is installed; another shell is a usage error."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"completion for {shell}: " in script
    assert f"completion --for {shell} " in script
    assert main(["completion", "tcsh"]) == 2


# The shells


class Shell:
    """An interactive shell in a terminal of its own. `\\C-x d` writes its command line to a file."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: Path, dumped: Path) -> None:
        self.dumped = dumped
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=cwd, start_new_session=True
        )
        os.close(slave)
        self.seen = b""
        self.wait_for(lambda: b"READY" in self.seen)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Take in what it writes until the condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.seen
            if select.select([self.master], [], [], 0.02)[0]:
                self.seen += os.read(self.master, 65536)

    def complete(self, line: str) -> str:
        """What the line is after a TAB."""
        self.dumped.unlink(missing_ok=True)
        os.write(self.master, b"\x15" + line.encode() + b"\t\x18d")
        self.wait_for(lambda: self.dumped.exists() and self.dumped.read_text().endswith("\n"))
        return self.dumped.read_text()[:-1]

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def environment(colony: Colony, **more: str) -> dict[str, str]:
    return {
        **colony.environment(),
        "PATH": f"{COMMANDS}:/usr/bin:/bin",
        "TERM": "dumb",
        "HOME": str(colony.root),
        "LC_ALL": "C.UTF-8",
        "NCOLONY_CTL_CONFIG": str(colony.config),
        "NCOLONY_CTL_MESSAGES": str(colony.messages),
        **more,
    }


@pytest.fixture
def bash(filled: Colony) -> Iterator[Shell]:
    """A bash that has read the script."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    dumped = filled.root / "line"
    (filled.root / "rc").write_text(
        "PS1='READY '\nbind 'set enable-bracketed-paste off'\nsource <(ncolony completion bash)\n"
        f"""bind -x '"\\C-xd": printf "%s\\n" "$READLINE_LINE" > {dumped}'\n"""
    )
    argv = ["bash", "--noprofile", "--rcfile", str(filled.root / "rc"), "-i"]
    shell = Shell(argv, environment(filled), filled.root, dumped)
    yield shell
    shell.close()


@pytest.fixture
def zsh(filled: Colony) -> Iterator[Shell]:
    """A zsh that has read the script."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    dumped = filled.root / "line"
    (filled.root / ".zshrc").write_text(
        f"autoload -Uz compinit && compinit -u -d {filled.root}/dump\nsource <(ncolony completion zsh)\n"
        f'dump() {{ print -r -- "$BUFFER" > {dumped} }}\nzle -N dump\nbindkey "^Xd" dump\n'
        'unsetopt automenu listbeep; PS1="READY "\n'
    )
    shell = Shell(["zsh", "-d", "-i"], environment(filled, ZDOTDIR=str(filled.root)), filled.root, dumped)
    yield shell
    shell.close()


# What is typed, and what bash, zsh and fish make of it.
LINES = [
    ("ncolony ctl histor", "ncolony ctl history "),
    ("ncolony upgr", "ncolony upgrade "),
    ("ncolony ctl rest", "ncolony ctl restart"),
    ("ncolony schema conf", "ncolony schema config "),
    ("ncolony ctl restart sh", "ncolony ctl restart shop "),
    ("ncolony ctl restart --na", "ncolony ctl restart --name "),
    ("ncolony ctl restart --name=sh", "ncolony ctl restart --name=shop "),
    ("ncolony ctl stop shop my", "ncolony ctl stop shop my\\ web "),
    ("ncolony ctl --state state stop web:", "ncolony ctl --state state stop web:"),
    ("ncolony ctl --state state stop web:1", "ncolony ctl --state state stop web:1 "),
    ("ncolony ctl restart-group fr", "ncolony ctl restart-group front\\ end "),
    ("ncolony ctl signal shop WIN", "ncolony ctl signal shop WINCH "),
    ("ncolony ctl apply sta", "ncolony ctl apply state/"),
    ("ncolony ctl --config=sta", "ncolony ctl --config=state/"),
    ("ncolony ctl check conf/sho", "ncolony ctl check conf/shop"),  # or conf/shop.bak: here any file will do
    ("ncolony ctl add x -- mkfif", "ncolony ctl add x -- mkfifo "),
]


def test_bash_completes(bash: Shell) -> None:
    """In an interactive bash, TAB completes commands, options, names with blanks and colons, files and programs."""
    found = [(line, bash.complete(line)) for line, _ in LINES]
    assert found == LINES
    assert bash.complete('ncolony ctl stop "my') == 'ncolony ctl stop "my web" '
    assert bash.complete("ncolony ctl stop 'my") == "ncolony ctl stop 'my web' "


def test_zsh_completes(zsh: Shell) -> None:
    """In an interactive zsh, TAB completes the same."""
    assert [(line, zsh.complete(line)) for line, _ in LINES] == LINES


def test_zsh_takes_the_script_as_a_file_of_functions(filled: Colony) -> None:
    """Saved as _ncolony in a directory of $fpath, the script completes too."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    functions = filled.root / "functions"
    functions.mkdir()
    env = environment(filled, ZDOTDIR=str(filled.root))
    script = subprocess.run(["ncolony", "completion", "zsh"], env=env, capture_output=True, text=True, check=True)
    (functions / "_ncolony").write_text(script.stdout)
    dumped = filled.root / "line"
    (filled.root / ".zshrc").write_text(
        f"fpath=({functions} $fpath); autoload -Uz compinit && compinit -u -d {filled.root}/dump\n"
        f'dump() {{ print -r -- "$BUFFER" > {dumped} }}\nzle -N dump\nbindkey "^Xd" dump\nPS1="READY "\n'
    )
    shell = Shell(["zsh", "-d", "-i"], env, filled.root, dumped)
    try:
        for _ in range(2):  # the first time it is loaded
            assert shell.complete("ncolony ctl restart sh") == "ncolony ctl restart shop "
    finally:
        shell.close()


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(filled: Colony) -> None:
    """Fish offers the same, with what each means."""
    asked = [line for line, _ in LINES]
    script = "ncolony completion fish | source\nfor line in $argv\n complete -C $line\n echo ---\nend"
    command = ["fish", "--no-config", "-c", script, "--", *asked]
    env = environment(filled, XDG_CONFIG_HOME=str(filled.root), XDG_DATA_HOME=str(filled.root))
    ran = subprocess.run(command, env=env, cwd=filled.root, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (ran.returncode, ran.stderr) == (0, "")
    answers = dict(zip(asked, ran.stdout.split("---\n"), strict=False))
    offered = {line: [one.partition("\t")[0] for one in answer.splitlines()] for line, answer in answers.items()}
    assert offered["ncolony ctl rest"] == ["restart", "restart-all", "restart-group"]
    assert offered["ncolony ctl stop shop my"] == ["my web"]
    assert offered["ncolony ctl --state state stop web:"] == ["web:0", "web:1"]
    assert offered["ncolony ctl restart --name=sh"] == ["--name=shop"]
    assert offered["ncolony ctl apply sta"] == ["state/"]
    assert offered["ncolony ctl --config=sta"] == ["--config=state/"]
    assert offered["ncolony ctl add x -- mkfif"] == ["mkfifo"]
    assert "history\tshow how the instances of a process ended" in answers["ncolony ctl histor"]
