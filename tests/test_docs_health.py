"""What the page on health shows is more than text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ncolony.apps.checks.plans import Plan, beat_plan_of, http_plan_of, plan_of
from ncolony.model import config

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "health.md").read_text(encoding="utf-8")
DEFINITIONS: list[dict[str, Any]] = [json.loads(text) for text in re.findall(r"(?ms)^```json\n(.*?)^```", PAGE)]
READERS = {"ncolony.beatcheck": beat_plan_of, "ncolony.httpcheck": http_plan_of}


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda one: " ".join(one["args"][:2]))
def test_definitions_are_good(definition: dict[str, Any]) -> None:
    """Every config file on the page is one without a warning, and asks for what it is there to show."""
    data = json.dumps(definition).encode()
    found = config.define("x", data)
    assert isinstance(found, config.Definition), found
    assert found.warnings == ()
    reading = next((READERS[key] for key in definition if key in READERS), plan_of)
    plan = reading("x", data, 0.0)
    assert isinstance(plan, Plan)
    assert plan.is_empty is ("ncolony-beatcheck" in definition["args"])


def test_every_way_is_shown() -> None:
    """Each way of being ready that is asked for, and both keys of earlier versions, have an example."""
    ways = {way for one in DEFINITIONS for way in one.get("ready", {})}
    assert {"tcp", "http", "exec", "log"} <= ways
    assert READERS.keys() <= {key for one in DEFINITIONS for key in one}
