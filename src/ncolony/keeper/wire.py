"""Messages between supervisor and keeper: JSON objects, each behind its length in four bytes."""

from __future__ import annotations

import json
import os
import struct

TYPE_CHECKING = False  # as in typing, whose import would cost the keeper memory
if TYPE_CHECKING:
    from typing import Any

# Raised when a message changes its meaning; a supervisor understands this version and the one before.
PROTOCOL = 4
# The FIFO of an instance is named by its identity, and with this behind it is that of its standard error alone.
STDERR = ".err"
# ... and with this, the one in which it says that it is ready.
READY = ".ready"
# An address of a socket in the file system is 107 bytes long at most.
_LONGEST_ADDRESS = 107
# A start order carries arguments and environment, which execve limits to a few MiB; a welcome lists 10,000 instances.
_LARGEST = 64 << 20
_length = struct.Struct("!I")
_encode = json.JSONEncoder(separators=(",", ":")).encode


def pack(message: dict[str, Any]) -> bytes:
    """The bytes of one message."""
    body = _encode(message).encode()
    return _length.pack(len(body)) + body


def identity_of(name: str) -> str:
    """The identity in the name of a FIFO."""
    return name.removesuffix(STDERR).removesuffix(READY)


def notify_address(state: str, identity: str) -> str:
    """Where an instance says how it is (sd_notify): a path, or where that is too long "@" and a name."""
    path = f"{state}/notify/{identity}"
    return path if len(os.fsencode(path)) <= _LONGEST_ADDRESS else f"@ncolony/{identity}"


class Unpacker:
    """Turns a stream of bytes back into messages."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages completed by `data`. Raises ValueError when the peer does not speak this protocol."""
        rest = self._rest
        rest += data
        messages, at = [], 0
        while len(rest) - at >= 4:
            (length,) = _length.unpack_from(rest, at)
            if length > _LARGEST:
                raise ValueError(f"a message of {length} bytes")
            if len(rest) - at - 4 < length:
                break
            message = _unpacked(rest[at + 4 : at + 4 + length])
            if isinstance(message, dict):  # nothing else says anything
                messages.append(message)
            at += 4 + length
        del rest[:at]
        return messages


def _unpacked(body: bytearray) -> object:
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("a message that is nested too deeply") from None
