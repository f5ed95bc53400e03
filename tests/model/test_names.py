"""Which names can be names of processes."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncolony.model.names import LONGEST, is_ignored, printable, problem_with_name


@pytest.mark.parametrize(
    "name", ["web", "a b", "web.1", "-x", "#half", "half#", "tmp", "x.new.y", "naïve", "网", "a:0"]
)
def test_a_good_name(name: str) -> None:
    """Any text that is a file's name and not somebody's leftover can name a process."""
    assert problem_with_name(name) is None
    assert not is_ignored(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "empty"),
        ("a/b", "'/'"),
        ("../x", "'/'"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\x1b[31m", "control"),
        ("a\x7f", "control"),
        ("a\x85", "control"),
        ("a\udcff", "UTF-8"),
        ("x" * (LONGEST + 1), "longer"),
        ("é" * (LONGEST // 2 + 1), "longer"),
        (".", "ignored"),
        ("..", "ignored"),
    ],
)
def test_a_bad_name(name: str, said: str) -> None:
    """A name that cannot be used is refused with the reason."""
    assert said in (problem_with_name(name) or "")


@pytest.mark.parametrize(
    "name", [".hidden", "..data", "x.new", "x~", "~", ".x.swp", "x.swp", "x.tmp", "x.bak", "#x#", "##", "#"]
)
def test_leftovers_are_ignored_and_cannot_be_names(name: str) -> None:
    """What editors, mounts and half-done writes leave behind is never a process."""
    assert is_ignored(name)
    assert problem_with_name(name) is not None


def test_the_longest_name_leaves_room_for_its_new_file() -> None:
    """A name of the greatest length is good, and `.new` after it still fits into a file's name."""
    assert problem_with_name("x" * LONGEST) is None
    assert LONGEST + len(".new") <= 255


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(st.characters(codec=None), max_size=300))
def test_a_good_name_is_a_file_name_that_survives(name: str) -> None:
    """A name that is accepted is one component of a path, fits, and comes back from bytes as it was."""
    if problem_with_name(name) is not None:
        return
    data = os.fsencode(name)
    assert os.fsdecode(data) == name
    assert 0 < len(data) <= LONGEST
    assert os.path.basename(name) == name
    assert not set(data) & set(range(0x20))
    assert name not in (".", "..")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_what_is_shown_is_always_text(data: bytes) -> None:
    """Whatever bytes name a file, they can be shown on one line and put into JSON."""
    shown = printable(os.fsdecode(data))
    assert shown.isprintable()
    assert json.loads(json.dumps(shown).encode()) == shown


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(st.characters(codec=None), max_size=100))
def test_half_a_character_is_shown_too(text: str) -> None:
    """Whatever text JSON can hold, lone surrogates included, can be shown on one line and written as UTF-8."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(st.characters(codec="utf-8"), max_size=100).filter(str.isprintable))
def test_plain_text_is_shown_as_it_is(name: str) -> None:
    """A name without odd characters is not touched."""
    assert printable(name) == name
