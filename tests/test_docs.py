"""The documentation knows everything there is to set, send, read and call, and its links lead somewhere."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import msgspec
import pytest

from ncolony.model import config, message, status

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("changes/README.md"), *DOCS.rglob("*.md")])


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def first_cells(text: str) -> str:
    """What stands in the first column of the page's tables."""
    return "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))


def in_code(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize("key", sorted(config.KNOWN_KEYS))
def test_config_key_is_explained(key: str) -> None:
    """Every key of a config file has a row in the configuration reference."""
    assert key in in_code(first_cells(page("configuration")))


@pytest.mark.parametrize("key", config.LogConfig.__struct_fields__)
def test_log_key_is_explained(key: str) -> None:
    """Every key of `log` has a row in the configuration reference."""
    assert key in in_code(first_cells(page("configuration").partition("### `log`")[2]))


def test_no_row_without_a_key() -> None:
    """The table of keys has no row for a key that does not exist."""
    table = page("configuration").partition("## Keys\n")[2].partition("\n### ")[0]
    assert in_code(first_cells(table)) == config.KNOWN_KEYS


def test_live_keys_are_named() -> None:
    """The keys said to apply without a restart are exactly those that do."""
    said = page("configuration").partition("The live keys are ")[2].partition("\n\n")[0]
    supported = (config.LIVE_KEYS & config.KNOWN_KEYS) | config.LIVE_LOG_KEYS
    assert in_code(said) - {"log"} == supported


@pytest.mark.parametrize("kind", message.TYPES)
def test_message_type_is_explained(kind: str) -> None:
    """Every type of message has a row."""
    assert kind in in_code(first_cells(page("messages")))


@pytest.mark.parametrize("struct", [message.Answer, status.Status], ids=lambda struct: struct.__name__)
def test_record_fields_are_explained(struct: type[msgspec.Struct]) -> None:
    """Every field of an answer and of a status has a row."""
    assert set(struct.__struct_fields__) <= in_code(first_cells(page("messages")))


def test_last_exit_fields_are_explained() -> None:
    """Every field of `last_exit` is named in its row."""
    [row] = [line for line in page("messages").splitlines() if line.startswith("| `last_exit`")]
    assert set(status.LastExit.__struct_fields__) <= in_code(row)


def test_states_are_explained() -> None:
    """Every state of a process has a row in the introduction."""
    from ncolony.decide import lifecycle

    states = {str(getattr(state, "value", state)) for state in lifecycle.State}
    assert states == in_code(first_cells(page("introduction").partition("## States")[2]))


def subcommands() -> dict[str, argparse.ArgumentParser]:
    from ncolony.cli.parser import build

    [action] = [a for a in build()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


def test_subcommands_are_explained() -> None:
    """Every subcommand of `ctl` has a row on the command line's page, and every row a subcommand."""
    table = page("commands").partition("| subcommand |")[2].partition("\n\n")[0]
    documented = {text.split()[0] for text in in_code(first_cells("| subcommand |" + table))}
    assert documented == set(subcommands())


def test_options_of_subcommands_are_explained() -> None:
    """Every long option of every subcommand is named on the command line's page."""
    text = page("commands")
    options = {
        option
        for parser in subcommands().values()
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and action.help is not argparse.SUPPRESS
    }
    assert {option for option in options if not re.search(rf"`{option}[` ]|{option}=", text)} <= {"--help"}


@pytest.mark.parametrize(
    ("modules", "name"),
    [
        (("ncolony.service",), "running"),
        (("ncolony.apps.scheduler",), "scheduler"),
        (("ncolony.apps.syslog",), "logs"),
        (("ncolony.apps.jobs",), "jobs"),
        (("ncolony.apps.health",), "hearts"),
        (("ncolony.apps.notify",), "notify"),
        (("ncolony.apps.checks.service", "ncolony.beatcheck", "ncolony.httpcheck"), "health"),
    ],
    ids=["ncolony", "scheduler", "syslog", "jobs", "health", "notify", "checks"],
)
def test_plugin_options_are_explained(modules: tuple[str, ...], name: str) -> None:
    """Every option of the supervisor and of each other plugin has a row on its page, short form included."""
    import importlib

    cells = in_code(first_cells(page(name)))
    documented = {word for cell in cells for word in cell.split() if word.startswith("-")}
    wanted = set()
    for module in modules:
        options = importlib.import_module(module).Options()
        wanted |= {f"--{option.rstrip('=')}" for option in options.longOpt}
        wanted |= {f"-{letter}" for letter in options.shortOpt.replace(":", "")}
    assert wanted - {"--help", "--version", "-h"} == {
        option for option in documented if not option.startswith("--log-f")
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link, and every included file, exists."""
    text = re.sub(r"```console.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(\s*([^)#\s]+)", text) + re.findall(r"\{literalinclude\} (\S+)", text)
    missing = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert not missing


def test_every_page_is_reachable() -> None:
    """Every page is in a table of contents."""
    contents = page("index")
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")} - {"index"}
    decisions = {name for name in pages if re.match(r"adr/0", name)}  # included by pattern
    assert {name for name in pages - decisions if f"\n{name}\n" not in contents} == set()


def test_make_targets_are_real() -> None:
    """Every `make TARGET` that a page names exists."""
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    named = {
        target for path in PAGES for target in re.findall(r"\bmake ([a-z]+)\b(?=`| +#|$)", path.read_text("utf-8"))
    }
    assert named <= targets
