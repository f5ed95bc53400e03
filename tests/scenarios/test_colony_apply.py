"""What `ctl diff` foretells is what a supervisor does when `ctl apply` has made it so."""

from __future__ import annotations

import json
from typing import Any

from colony import SLEEP, Colony


def test_what_diff_foretells_comes_true(colony: Colony) -> None:
    """Started, stopped, restarted and unchanged processes are those of `diff`; a live change leaves the pid alone."""
    base: dict[str, Any] = {}
    for name in ("same", "live", "again", "gone", "off"):
        base = colony.put(name, {"args": [SLEEP, "1000"]})
    colony.start()
    before = {name: colony.wait_until_running(name) for name in ("same", "live", "again", "gone", "off")}
    new = colony.root / "new"
    new.mkdir()
    wanted = {
        "same": {"$schema": "config.json", **base},
        "live": {**base, "kill_time": 2},
        "again": {**base, "env": {**base["env"], "A": "1"}},
        "off": {**base, "enabled": False},
        "fresh": base,
    }
    for name, content in wanted.items():
        (new / name).write_text(json.dumps(content, indent=1))
    told = json.loads(colony.ctl("diff", str(new), "--json", check=False))
    actions = {change["name"]: change["action"] for change in told["changes"]}
    assert actions == {
        "same": "unchanged",
        "live": "live",
        "again": "restart",
        "gone": "stop",
        "off": "stop",
        "fresh": "start",
    }

    colony.ctl("--state", str(colony.state), "apply", str(new), "--prune", "--wait", "50")
    after = {name: (colony.status(name) or {}).get("pid") for name in actions}
    assert (after["same"], after["live"]) == (before["same"], before["live"])
    assert after["again"] not in (None, before["again"])
    assert (after["gone"], after["off"]) == (None, None)
    assert after["fresh"] is not None
    assert json.loads(colony.ctl("diff", str(new), "--json"))["same"]
    assert colony.stop() == 0


def test_keys_for_editors_restart_nothing(colony: Colony) -> None:
    """`$schema` put into a file that runs is no change, and no warning."""
    colony.put("web", {"args": [SLEEP, "1000"]})
    colony.start()
    pid = colony.wait_until_running("web")
    colony.put("web", {"$schema": "https://example.com/config.json", "args": [SLEEP, "1000"]})
    colony.scan()
    status = colony.status("web")
    assert status is not None
    assert (status["pid"], status["instance"], status["warnings"]) == (pid, 1, [])
    assert colony.stop() == 0
