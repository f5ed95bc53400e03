"""Directories of config files: checked, compared and applied, whatever is in them."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from fuzzing import Scratch, files_in, import_all, is_one_line, is_plain, lay_out

from ncolony import cli, ctllib
from ncolony.cli.parser import build
from ncolony.ctllib.applying import BadFiles, apply
from ncolony.ctllib.checking import check
from ncolony.ctllib.differing import diff
from ncolony.model.config import Definition, define
from ncolony.model.names import printable, problem_with_name

import_all(cli)
_PLACES = ["--config", "/", "--messages", "/"]
_VIEWS = [
    vars(build().parse_args([*_PLACES, *words]))
    for words in (["check"], ["check", "--json"], ["diff", "/"], ["diff", "/", "--json"], ["apply", "/", "--dry-run"])
]


def one(data: bytes) -> None:
    """What is said of any files is printable, and what is applied is afterwards there and makes no difference."""
    with Scratch() as root:
        for name in ("config", "source"):
            (root / name).mkdir()
        lay_out(root, files_in(data))
        places = ctllib.Places(root / "config", root / "messages")
        for options in _VIEWS:
            _check_view({**options, "config": str(root / "config"), "source": str(root / "source")})
        _check_finding(root)
        _check_applying(places, root)


def _check_view(options: dict[str, Any]) -> None:
    out, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        status = cli._guarded(lambda _: cli._run(options), [])
    assert status in (0, 1, 2), status
    assert is_plain(out.getvalue()), out.getvalue()
    assert is_plain(said.getvalue()), said.getvalue()
    if options["json"] and out.getvalue():
        json.loads(out.getvalue())


def _check_finding(root: Path) -> None:
    """A file has a problem exactly when it makes no definition."""
    found = check([root / "source"], strict_modes=False)
    assert all(is_one_line(str(finding)) for finding in found), found
    bad = {finding.name for finding in found if not finding.is_warning}
    for path in (root / "source").iterdir():
        if path.is_file() and problem_with_name(path.name) is None:
            is_bad = not isinstance(define(path.name, path.read_bytes()), Definition)
            assert not is_bad or printable(path.name) in bad, path.name
            assert is_bad or printable(path.name) not in bad or ":" in path.name, path.name


def _check_applying(places: ctllib.Places, root: Path) -> None:
    try:
        expected = diff(places, root / "source")
        outcome = apply(places, root / "source", prune=True)
    except BadFiles as bad:
        assert bad.problems and is_one_line(str(bad)), str(bad)
        return
    except ctllib.Error as error:
        assert is_one_line(str(error)), str(error)
        return
    assert not expected.problems
    assert set(outcome.files.values()) <= {"changed", "unchanged", "removed"}
    assert diff(places, root / "source").is_same, expected
    assert not apply(places, root / "source", prune=True).is_changed
