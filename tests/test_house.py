"""The house stands: imports go one way, the keeper is small and alone, functions are short or say why not."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "ncolony"
# A room may import from itself and from those that stand before it.
ROOMS = ["model", "decide", "keeper", "system", "ctllib", "cli", "client", "apps", "supervisor", "service"]
# Doors lead to a room and hold nothing: `python -m ncolony`, and modules under the names that they had upstream.
DOORS = {"__init__", "__main__", "schedulelib", "beatcheck", "httpcheck"}
LARGEST_DOOR = 20
# The rooms of rules and words: whatever they know comes in as an argument.
PURE = ["model", "decide"]
NOT_IN_PURE = {"os", "time", "random", "twisted", "subprocess", "socket", "threading", "asyncio", "select", "secrets"}
# What starts in under 60 ms cannot import Twisted, whose reactor alone takes 120.
WITHOUT_TWISTED = [
    "ctllib/",
    "cli/",
    "client/beat",
    "client/notify",
    "client/__init__",
    "system/files",
    "system/places",
    "system/lines",
    "system/log",
    "system/timeindex",
    "system/locks",
]
# The keeper is another program; its language is shared with it, and what the kernel is asked for.
SHARED_WITH_KEEPER = {
    ("system", "ncolony.keeper.wire"),
    ("system", "ncolony.keeper.kernel"),
    ("system", "ncolony.keeper.kept"),
    ("supervisor", "ncolony.keeper.kernel"),
}
# The two apart: checks and schedules are other processes, over the same files.
APART = [("apps", "supervisor"), ("supervisor", "apps")]
# Upstream's ctllib has `main` and `PARSER`; they stay, made from cli when somebody asks for them.
ALLOWED = {("ctllib", "cli")}
# Lines of code, without blanks, comments and docstrings. The aim is 700; adopting what a former keeper started, and
# proving whom a signal reaches, make up most of the rest, then two streams and memory, and what is kept for instances:
# they belong where the pids and pipes are. See docs/adr/0006, 0008, 0009 and 0011.
LONGEST_KEEPER = 2250
LONGEST_FUNCTION = 60
MODULES = sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Every imported module as an absolute dotted name, its line, and whether a function holds the import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ["ncolony", *path.relative_to(SOURCE).parts[:-1]]
    inside = {
        id(inner)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from ncolony import ctllib` names a room in the list of names.
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno, id(node) in inside


def test_every_module_has_a_room() -> None:
    """Every module of the package stands in one of the rooms, or is a door to one."""
    assert {room_of(path) for path in MODULES} <= set(ROOMS) | DOORS


@pytest.mark.parametrize("door", sorted(DOORS))
def test_doors_hold_nothing(door: str) -> None:
    """A door is a few lines."""
    assert len((SOURCE / f"{door}.py").read_text(encoding="utf-8").splitlines()) <= LARGEST_DOOR


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    """A module imports only from its own room and from rooms that stand before it."""
    room = room_of(path)
    if room in DOORS:
        return
    wrong = []
    for name, line, in_function in imports(path):
        parts = name.split(".")
        if parts[0] != "ncolony" or len(parts) < 2 or parts[1] not in ROOMS:
            continue
        there = parts[1]
        if there == room or (in_function and (room, there) in ALLOWED):
            continue
        before = room in ROOMS and ROOMS.index(there) < ROOMS.index(room)
        shared = (room, ".".join(parts[:3])) in SHARED_WITH_KEEPER
        if (there == "keeper" and not shared) or not before or (room, there) in APART:
            wrong.append(f"line {line}: {room} imports {name}")
    assert not wrong


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) in PURE], ids=lambda p: str(p.relative_to(SOURCE)))
def test_rules_and_words_touch_nothing(path: Path) -> None:
    """model and decide import no clock, no chance, no operating system and no Twisted."""
    assert {name.split(".")[0] for name, _, _ in imports(path)} & NOT_IN_PURE == set()


def test_command_line_is_free_of_twisted() -> None:
    """Nothing that the command line is made of imports Twisted, not even inside a function."""
    wrong = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in MODULES
        if str(path.relative_to(SOURCE)).removesuffix(".py").startswith(tuple(WITHOUT_TWISTED))
        for name, line, _ in imports(path)
        if name.split(".")[0] == "twisted"
    ]
    assert not wrong


def test_keeper_stands_alone() -> None:
    """The keeper imports the standard library and its own modules, nothing else."""
    keeper = sorted((SOURCE / "keeper").glob("*.py"))
    assert keeper
    own = {path.stem for path in keeper}
    wrong = [
        f"{path.name}:{line}: {name}"
        for path in keeper
        for name, line, _ in imports(path)
        if (top := name.split(".")[0]) not in sys.stdlib_module_names and top not in own
    ]
    assert not wrong


@pytest.mark.parametrize("name", sorted(name for _, name in SHARED_WITH_KEEPER))
def test_what_is_shared_with_the_keeper_stands_alone(name: str) -> None:
    """What another room imports from the keeper imports no other module of it, whose bare names mean nothing there."""
    path = SOURCE.parent / f"{name.replace('.', '/')}.py"
    own = {path.stem for path in (SOURCE / "keeper").glob("*.py")}
    assert not {imported.split(".")[0] for imported, _, _ in imports(path)} & own


def test_keeper_names_hide_no_standard_module() -> None:
    """No module of the keeper, which runs with its folder first on the path, bears the name of a standard one."""
    names = {path.stem for path in (SOURCE / "keeper").glob("*.py")} - {"__main__", "__init__"}
    assert names & set(sys.stdlib_module_names) == set()


def test_keeper_reads_in_one_sitting() -> None:
    """The keeper's sources together are short enough to be read at once."""
    lines = sum(len(code_lines(path)) for path in (SOURCE / "keeper").glob("*.py"))
    assert 0 < lines <= LONGEST_KEEPER


def code_lines(path: Path) -> set[int]:
    """The numbers of the lines that hold code: neither blank, nor comment, nor docstring."""
    text = path.read_text(encoding="utf-8")
    kinds = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in kinds:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            found -= set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_functions_are_short_or_say_why_not(path: Path) -> None:
    """A function of more than 60 lines carries a comment with "long because" in it or on the line before."""
    with tokenize.open(path) as file:
        text = file.read()
    comments = {number for number, line in enumerate(text.splitlines(), 1) if "long because" in line.partition("#")[2]}
    wrong = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        last = node.end_lineno or node.lineno
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        if last - node.lineno + 1 > LONGEST_FUNCTION and not comments & set(range(first - 1, last + 1)):
            wrong.append(f"{node.name}, line {node.lineno}: {last - node.lineno + 1} lines")
    assert not wrong
