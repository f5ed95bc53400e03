"""The bytes of one message file become a request or a Problem."""

from __future__ import annotations

import msgspec

from .config import Problem


class Restart(msgspec.Struct, frozen=True, tag="RESTART"):
    """Stop the process if it runs and start it, with the newest definition and without waiting for a backoff."""

    name: str


class RestartAll(msgspec.Struct, frozen=True, tag="RESTART-ALL"):
    """Restart every process that should run."""


class RestartGroup(msgspec.Struct, frozen=True, tag="RESTART-GROUP"):
    """Restart every process of the group that should run."""

    group: str


class Stop(msgspec.Struct, frozen=True, tag="STOP"):
    """Stop the process and keep it stopped until it is started, restarted or its configuration changes."""

    name: str


class Start(msgspec.Struct, frozen=True, tag="START"):
    """Start the process if it is stopped, waiting or given up."""

    name: str


class Scan(msgspec.Struct, frozen=True, tag="SCAN"):
    """Read the config directory now."""


Message = Restart | RestartAll | RestartGroup | Stop | Start | Scan
TYPES = tuple(str(kind.__struct_config__.tag) for kind in (Restart, RestartAll, RestartGroup, Stop, Start, Scan))
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def decode(name: str, data: bytes) -> Message | Problem:
    """The request in `data`, or the Problem with the message file `name`. Never raises."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = str(error).replace("`", "")
        return Problem(
            name,
            "",
            "not JSON: " + why.removeprefix("JSON is malformed: ")
            if why.startswith("JSON")
            else why[:1].lower() + why[1:],
        )


class Answer(msgspec.Struct, frozen=True):
    """What became of a message: written when it is accepted, rewritten when it is done or has failed."""

    accepted: bool
    state: str  # accepted, done or failed
    why: str = ""
    names: tuple[str, ...] = ()
    generation: str = ""
