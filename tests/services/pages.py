"""What gunicorn serves: "ok", after a moment. In $NOTES: "up COPY PID" and, for the first request, "served COPY"."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

_COPY = os.environ.get("NCOLONY_INDEX", "")
_noted: set[str] = set()


def note(text: str) -> None:
    if text not in _noted:
        _noted.add(text)
        with open(os.environ["NOTES"], "a", encoding="ascii") as notes:
            notes.write(f"{text}\n")


note(f"up {_COPY} {os.getppid()}")


def application(_environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
    note(f"served {_COPY}")
    time.sleep(0.01)
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
