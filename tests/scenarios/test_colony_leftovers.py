"""What is kept of processes that are gone does not grow with their number."""

from __future__ import annotations

import os

from colony import SLEEP, Colony


def forwarded(colony: Colony) -> set[str]:
    """The processes of which it is on disk how far their output was forwarded."""
    return {name for name in os.listdir(colony.state / "forwarded") if not name.endswith(".new")}


def test_of_who_never_printed_nothing_is_left(colony: Colony) -> None:
    """How far output was forwarded is known of a removed process as long as there is a log of it, and no longer."""
    colony.put("quiet", {"args": [SLEEP, "1000"]})
    colony.put("loud", colony.put("mute", {"args": ["/bin/sh", "-c", f"echo hello; exec {SLEEP} 1000"]}))
    colony.put("mute", {"args": [SLEEP, "1000"], "log": {"forward": False}})
    colony.start()
    for name in ("quiet", "loud", "mute"):
        colony.wait_until_running(name)
    colony.wait_for(lambda: colony.lines("loud") == ["hello"], "its output is forwarded")
    for name in ("quiet", "loud", "mute"):
        colony.remove(name)
        colony.wait_until_forgotten(name)
    colony.wait_for(lambda: forwarded(colony) == {"loud"}, "only who has a log is known")


def test_what_an_earlier_supervisor_left_is_tidied_up(colony: Colony) -> None:
    """A supervisor removes at its start what is known of output of processes that have neither a file nor a log."""
    (colony.state / "forwarded").mkdir(parents=True)
    for name in ("ghost", "web"):
        (colony.state / "forwarded" / name).write_text("0" * 20, encoding="ascii")
    colony.put("web", {"args": [SLEEP, "1000"]})
    colony.start()
    colony.wait_until_running("web")
    colony.wait_for(lambda: forwarded(colony) == {"web"}, "only who exists is known")
