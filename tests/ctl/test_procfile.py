"""Procfiles and .env files, as foreman and its kin write them."""

from __future__ import annotations

import pytest

from ncolony.cli.procfile import parse
from ncolony.model.variables import parse_variables


def test_procfile() -> None:
    """Names keep their order, commands their colons and spaces; comments and blank lines say nothing."""
    text = "\ufeff# ours\n\nweb: bundle exec rails -b tcp://0:$PORT\r\n  worker-2 :  run  # all of it\nrelease:true\n"
    found = parse(text)
    assert list(found.items()) == [
        ("web", "bundle exec rails -b tcp://0:$PORT"),
        ("worker-2", "run  # all of it"),
        ("release", "true"),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("web: a\nnonsense\n", "line 2: expected NAME: COMMAND, found 'nonsense'"),
        ("web:\n", "line 1: expected NAME: COMMAND, found 'web:'"),
        ("two words: a", "line 1: expected NAME: COMMAND"),
        ("web: a\n\nweb: b", "line 3: there is a 'web' already"),
    ],
)
def test_what_is_no_procfile(text: str, why: str) -> None:
    """A line that is none of that, and a name that comes twice, is refused with its number."""
    with pytest.raises(ValueError, match=why):
        parse(text)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ("A=", ""),
        ("export A = spaced out ", "spaced out"),
        ("A=x # a comment", "x"),
        ("A=x#y", "x#y"),
        ("A='single # \\n $B'", "single # \\n $B"),
        ('A="double # \\"q\\" \\n $B" # a comment', 'double # "q" \n $B'),
        ("A=a=b", "a=b"),
    ],
)
def test_variable(line: str, value: str) -> None:
    """Values with and without quotes, escapes and comments."""
    assert parse_variables(f"# first\n\n{line}\n") == {"A": value}


@pytest.mark.parametrize("line", ["A", "1A=x", "a b=c", "=x"])
def test_what_is_no_variable(line: str) -> None:
    """Anything else is refused with its line's number."""
    with pytest.raises(ValueError, match="line 2: expected NAME=VALUE"):
        parse_variables(f"B=1\n{line}\n")
