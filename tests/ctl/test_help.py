"""What the commands say of themselves."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ctl_colony import Colony

import ncolony
from ncolony.cli import _PROGRAMS, main, overview, parser


def verbs() -> dict[str, argparse.ArgumentParser]:
    [action] = [a for a in parser.build()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


@pytest.mark.parametrize("words", [["--version"], ["ctl", "--version"]])
def test_the_version_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`ncolony --version` and `ncolony ctl --version` say which it is, without any directory."""
    assert main(words) == 0
    assert capsys.readouterr().out == f"ncolony {ncolony.__version__}\n"


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_every_command_is_in_the_overview(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`ncolony --help` has a line for each verb and for each command beside ctl, once, with what it does."""
    assert main([word]) == 0
    shown = capsys.readouterr().out.splitlines()
    rows = [line.split(maxsplit=1) for line in shown if re.match("  [^ ]", line)]
    commands = [row[0] for row in rows if row[0] != "python"]
    assert sorted(commands) == sorted([*parser._VERBS, *_PROGRAMS])
    assert [row for row in rows if len(row) < 2] == []


def test_every_verb_has_a_group() -> None:
    """A new verb is put into one of the overview's groups, not left under the last heading."""
    assert set(parser._VERBS) - set(" ".join(overview._GROUPS.values()).split()) == set()


@pytest.mark.parametrize("verb", sorted(parser._VERBS))
def test_help_of_a_verb_is_complete(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`ncolony ctl VERB --help` needs no directory and says what it does, what it takes and each option with a text."""
    assert main(["ctl", verb, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    text, usage, _, _ = parser._VERBS[verb]
    assert f"{verb} {' '.join(usage.split())}" in shown
    assert f"{text.capitalize()}." in shown
    one = verbs()[verb]
    one._fill(one)  # type: ignore[attr-defined]
    for action in one._actions:
        assert action.help
        assert all(option in shown for option in action.option_strings)
        if action.help is not argparse.SUPPRESS:
            assert " ".join(action.help.replace("%%", "%").split()) in shown


@pytest.mark.parametrize("program", sorted(_PROGRAMS))
def test_help_of_a_program(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`ncolony PROGRAM --help` says how it is used."""
    assert main([program, "--help"]) == 0
    assert f"usage: ncolony {program}" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["config", "message"])
def test_schemas_are_printed(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`ncolony schema` prints the file that is in the package."""
    assert main(["schema", kind]) == 0
    shipped = Path(ncolony.__file__).parent / "schema" / f"{kind}.json"
    printed = capsys.readouterr().out
    assert printed == shipped.read_text("utf-8")
    assert json.loads(printed)["$schema"].startswith("https://json-schema.org/draft/2020-12/")


def test_unknown_schemas_are_refused(colony: Colony) -> None:
    """Another kind is a usage error that names those that there are."""
    ran = subprocess.run([sys.executable, "-m", "ncolony", "schema", "x"], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "config" in ran.stderr
    assert "message" in ran.stderr
