"""What `ncolony.ctllib` offers, wherever in the package it lives."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

from ncolony import ctllib

PACKAGE = Path(ctllib.__file__).parent


def imported_for_type_checkers() -> dict[str, str]:
    """Name -> module of each `from .MODULE import NAME as NAME` in the package."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
        if alias.asname == alias.name
    }


def test_type_checkers_see_what_is_there() -> None:
    """What is loaded when first asked for and what type checkers are told is the same."""
    assert imported_for_type_checkers() == ctllib._ELSEWHERE


@pytest.mark.parametrize("name", ctllib.__all__)
def test_what_is_offered_is_there_and_at_home_here(name: str) -> None:
    """Every name offered exists, says that it lives in ncolony.ctllib, and is told by dir()."""
    found = getattr(ctllib, name)
    assert (found.__module__, name in dir(ctllib)) == ("ncolony.ctllib", True)
    assert found.__doc__


def test_no_module_hides_what_is_offered() -> None:
    """A module of the package bears no name that is offered: importing it would put it in that one's place."""
    assert {path.stem for path in PACKAGE.glob("*.py")} & set(ctllib.__all__) == set()


def test_reports_can_be_pickled() -> None:
    """A status travels between processes under the name that programs know it by."""
    one = ctllib.Status("x", {"state": "RUNNING"})
    assert pickle.loads(pickle.dumps(one)).record == one.record
    assert b"ctllib.reports" not in pickle.dumps(one)
