"""The two command lines: whatever the words, they are understood, or refused with a usage message."""

from __future__ import annotations

import argparse
import contextlib
import io
import os

from fuzzing import Scratch, import_all, is_plain
from twisted.python.usage import UsageError

from ncolony import cli, ctllib
from ncolony.cli.parser import build
from ncolony.service import Options

import_all(cli)
import_all(ctllib)
# What would wait, or look at other files than those of the test.
_NOT_RUN = ("--w", "--e", "--m", "--con", "--st", "--c", "--s")
_MOST_WORDS = 20


def one(data: bytes) -> None:
    """The words of the command line are the lines of the input."""
    words = [os.fsdecode(word) for word in data.split(b"\n")[:_MOST_WORDS] if b"\0" not in word]
    _check_supervisor(words)
    _check_ctl(words)
    if words[:1] in (["completion"], ["schema"]):
        _check_beside(words)
    waits = "wait" in words or any(word.startswith("-") and {"f", "w"} & set(word) for word in words)
    if not waits and not any(word.startswith(_NOT_RUN) for word in words):
        _check_run(words)


def _check_supervisor(words: list[str]) -> None:
    options = Options()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            options.parseOptions(words)
        except UsageError as error:
            assert str(error)
            return
        except SystemExit:
            return
    for key in ("frequency", "threshold", "killtime", "minrestartdelay", "maxrestartdelay"):
        assert 0 <= options[key] < float("inf"), (key, options[key])
    assert options["frequency"] > 0
    assert isinstance(options["log-budget"], int)


def _check_ctl(words: list[str]) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            found = build().parse_args(["--messages", "m", "--config", "c", *words])
        except SystemExit as left:
            assert left.code in (0, 2), left.code
            assert left.code == 0 or said.getvalue()
        except ctllib.Error as error:
            assert is_plain(str(error))
        else:
            assert isinstance(found, argparse.Namespace) and callable(found.func)


def _check_beside(words: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert cli.main(words) in (0, 1, 2)


def _check_run(words: list[str]) -> None:
    """Carried out in an empty colony: an exit status and one line at most for each name."""
    with Scratch() as root:
        for name in ("config", "messages", "state"):
            (root / name).mkdir()
        places = [f"--{name}={root}/{name}" for name in ("config", "messages", "state")]
        out, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            status = cli.main(["ctl", *places, *words])
        assert status in (0, 1, 2, 3, 4), status
        assert status in (0, 3) or said.getvalue()
        if status != 2:
            assert is_plain(said.getvalue()), said.getvalue()
        if status not in (0, 2):
            assert is_plain(out.getvalue()), out.getvalue()
