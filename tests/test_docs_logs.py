"""What the page on output shows is more than text: what can be run of it here is run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from colony import Colony
from ncolony.cli.parser import build
from ncolony.model import config

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "logs.md").read_text(encoding="utf-8")
BIN = str(Path(sys.executable).parent)


def blocks(language: str) -> list[str]:
    """The examples in a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", PAGE)


def definitions() -> list[dict[str, Any]]:
    """The config files among them."""
    return [found for found in map(json.loads, blocks("json")) if "args" in found]


def here(colony: Colony, words: list[str], **more: str) -> list[str]:
    """A command of the page, with this Python and this colony's directories."""
    text = json.dumps(words)
    for said, meant in {"/messages": str(colony.messages), "/conf": str(colony.config), **more}.items():
        text = text.replace(said, meant)
    found: list[str] = json.loads(text)
    return found


def test_definitions_are_good() -> None:
    """Every config file on the page is one without a warning."""
    assert len(definitions()) == 2
    for found in definitions():
        definition = config.define("x", json.dumps(found).encode())
        assert isinstance(definition, config.Definition), definition
        assert definition.warnings == ()


def test_command_lines_are_good() -> None:
    """Every command line on the page can be parsed."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert line.startswith("$ ncolony ctl ")
        assert build().parse_args(shlex.split(line)[3:]).json is False


def test_pipe_into_a_collector(colony: Colony) -> None:
    """The pipe into a collector runs as a process of the colony, and hands on all output but its own."""
    out = colony.root / "received"
    [pipe] = [found for found in definitions() if found["args"][0] == "sh"]
    assert "exec fluent-bit -q -i stdin -o http://logs.example.com:9880" in pipe["args"][2]
    args = here(
        colony,
        pipe["args"],
        **{
            "exec fluent-bit -q -i stdin -o http://logs.example.com:9880": f"tee -a {out}",
            "ctl --messages": f"ctl --state {colony.state} --messages",
        },
    )
    colony.put("ship", {**pipe, "args": args})
    colony.start(env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"})
    colony.put("web", {"args": ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"]})
    # It prints what it receives, too.
    colony.wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") >= 50, "lines come")
    lines = [json.loads(line) for line in out.read_bytes().split(b"\n")[:50]]
    first = int(lines[0]["line"])
    assert [(line["name"], line["stream"], line["line"]) for line in lines] == [
        ("web", None, str(number)) for number in range(first, first + 50)
    ]
    [example] = [found for found in map(json.loads, blocks("json")) if "args" not in found]
    assert list(lines[0]) == list(example)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[0]["time"])
    assert len(example["time"]) == len(lines[0]["time"])


def test_vector_runs_a_good_command(colony: Colony) -> None:
    """The command in Vector's configuration prints what comes as JSON."""
    [text] = blocks("toml")
    source = tomllib.loads(text)["sources"]["colony"]
    assert (source["type"], source["mode"]) == ("exec", "streaming")
    program, *words = here(colony, source["command"])
    assert (program, words[-1]) == ("ncolony", "--json")
    colony.put("web", {"args": colony.payload("web", "say", "hello")})
    colony.start()
    colony.wait_for(lambda: colony.output("web") == b"hello\n", "it has printed")
    process = subprocess.Popen(
        [f"{BIN}/{program}", words[0], "--state", str(colony.state), *words[1:]], stdout=subprocess.PIPE
    )
    assert process.stdout
    try:
        assert json.loads(process.stdout.readline())["line"] == "hello"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_supervisors_log_as_json(colony: Colony) -> None:
    """In the supervisor's log as JSON a line of output is an event with tag, line and log_time, after 0x1E."""
    colony.put("web", {"args": colony.payload("web", "say", "hello")})
    colony.start(log_format="json")
    colony.wait_for(lambda: b'"line": "hello"' in colony.log_file.read_bytes(), "it is logged")
    [record] = [one for one in colony.log_file.read_bytes().split(b"\n") if b'"line": "hello"' in one]
    assert record.startswith(b"\x1e")
    event = json.loads(record[1:])
    assert (event["tag"], event["line"], type(event["log_time"])) == ("web", "hello", float)
