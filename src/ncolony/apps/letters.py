"""What a receiver of alerts gets: the record as JSON, as text for people, or as the text that chats take."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import msgspec

from ..decide.alerts import Alert, Held, Limit
from ..model.names import printable

VERSION = 1
HELD_BACK = "held-back"
FORMATS = ("json", "slack", "text")
# Chats show no more, or refuse it.
_MOST_TEXT = 3000

Letter = dict[str, Any]


def letter(
    alert: Alert,
    name: str,
    *,
    host: str,
    config: str,
    status: dict[str, Any] | None = None,
    past: dict[str, Any] | None = None,
    limit: Limit | None = None,
) -> Letter:
    """The record of an alert about the process `name`; `limit` has what is told of with it."""
    return {
        "version": VERSION,
        "id": identity(config, name, alert),
        "event": alert.event,
        "resolved": alert.resolved,
        "name": name,
        "at": alert.at,
        "since": alert.since,
        "host": host,
        "config": config,
        "reason": alert.reason,
        "status": status,
        "exit": past,
        "held_back": limit.count if limit else 0,
        "held": [msgspec.to_builtins(one) for one in limit.held] if limit else [],
    }


def identity(config: str, name: str, alert: Alert) -> str:
    """The same whenever the same is told, and of nothing else."""
    parts = (config, name, alert.event, repr(alert.at), str(alert.resolved))
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def held_in(record: Letter) -> tuple[Held, ...]:
    """What the letter tells of beside itself."""
    return tuple(Held(**one) for one in record["held"])


def encode(record: Letter, form: str) -> bytes:
    """The letter as it is sent, in one of `FORMATS`."""
    if form == "json":
        return msgspec.json.encode(record) + b"\n"
    if form == "text":
        return (text(record) + "\n").encode("utf-8", "backslashreplace")
    head, _, rest = text(record).partition("\n")
    said = f"{_for_chat(head)}\n```\n{_for_chat(rest)}\n```" if rest else _for_chat(head)
    return msgspec.json.encode({"text": said})


def _for_chat(words: str) -> str:
    """Slack asks for these three to be written so; a fence of the text's own would end ours."""
    cut = words if len(words) <= _MOST_TEXT else "…" + words[1 - _MOST_TEXT :]
    return cut.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("```", "'''")


def headline(record: Letter) -> str:
    """One line for people."""
    if record["event"] == HELD_BACK:
        return printable(f"{record['host']}: {_more(record)}")
    state = "is over: " if record["resolved"] else ""
    more = f" (and {_more(record)})" if record["held_back"] else ""
    what = f"{record['event']} {state}" if state else f"{record['event']}: "
    return printable(f"{record['host']}: {record['name']}: {what}{record['reason']}{more}")


def _more(record: Letter) -> str:
    named = [f"{one['name']} {one['event']}{' is over' if one['resolved'] else ''}" for one in record["held"]]
    rest = record["held_back"] - len(named)
    return f"{record['held_back']} more: {', '.join(named)}{f' and {rest} others' if rest > 0 else ''}"


def text(record: Letter) -> str:
    """The headline, when it was, and the last lines that the process printed."""
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record["at"]))
    said = [headline(record), when]
    status = record["status"]
    if status and status.get("state"):
        said.append(f"state {status['state']}{', ' + status['reason'] if status.get('reason') else ''}")
    past = record["exit"]
    if past and not record["resolved"]:
        said.append(f"last exit: {past.get('text', '')}")
        said += [f"| {line}" for line in past.get("lines") or []]
    return "\n".join(map(printable, said))


def variables(record: Letter) -> dict[str, str]:
    """The main fields as environment variables, for a command."""
    past = record["exit"] or {}
    found = {
        "EVENT": record["event"],
        "NAME": record["name"],
        "RESOLVED": "1" if record["resolved"] else "",
        "REASON": record["reason"],
        "HOST": record["host"],
        "CONFIG": record["config"],
        "AT": f"{record['at']:.6f}",
        "ID": record["id"],
        "STATE": (record["status"] or {}).get("state") or "",
        "EXIT": past.get("text") or "",
        "HELD_BACK": str(record["held_back"]),
        "TEXT": headline(record),
    }
    return {f"NCOLONY_{key}": value.replace("\0", "") for key, value in found.items()}
