"""A syslog collector for tests: `collector.py KIND ADDRESS FILE`, KIND one of tcp, udp, unix-datagram, unix-stream.

Whatever it has read it has written: each message as a line of FILE, JSON, in one write. ADDRESS is a port (0: any) or a
path. It prints the port, or the path, once it listens. With a fourth argument it reads nothing, or never closes.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys

KIND, ADDRESS, FILE, *HOW = sys.argv[1:]


def note(messages: list[bytes]) -> None:
    data = b"".join(json.dumps(message.decode("latin-1")).encode() + b"\n" for message in messages)
    while data:
        data = data[os.write(OUT, data) :]


def octets(buffer: bytes) -> tuple[list[bytes], bytes]:
    """Split octet-counted messages off."""
    messages = []
    while True:
        count, space, rest = buffer.partition(b" ")
        if not space or len(rest) < int(count):
            return messages, buffer
        messages.append(rest[: int(count)])
        buffer = rest[int(count) :]


def newlines(buffer: bytes) -> tuple[list[bytes], bytes]:
    *messages, rest = buffer.split(b"\n")
    return messages, rest


OUT = os.open(FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
# One that was killed may have written half a line, and then has not read it for good.
with open(FILE, "rb") as before:
    data = before.read()
os.ftruncate(OUT, data.rfind(b"\n") + 1)
internet = KIND in ("tcp", "udp")
is_stream = KIND in ("tcp", "unix-stream")
server = socket.socket(
    socket.AF_INET if internet else socket.AF_UNIX, socket.SOCK_STREAM if is_stream else socket.SOCK_DGRAM
)
if internet:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", int(ADDRESS)))
else:
    if os.path.exists(ADDRESS):
        os.unlink(ADDRESS)
    server.bind(ADDRESS)
if is_stream:
    server.listen()
print(server.getsockname()[1] if internet else ADDRESS, flush=True)

if "deaf" in HOW:
    select.select([], [], [])
buffers: dict[socket.socket, bytes] = {}
while True:
    for ready in select.select([server, *buffers], [], [])[0]:
        if not is_stream:
            note([ready.recv(1 << 16)])
        elif ready is server:
            buffers[server.accept()[0]] = b""
        else:
            try:
                data = ready.recv(1 << 14)
            except ConnectionResetError:
                data = b""
            messages, buffers[ready] = (octets if KIND == "tcp" else newlines)(buffers[ready] + data)
            note(messages)
            if not data:
                rest = buffers.pop(ready)
                if "lazy" not in HOW:
                    ready.close()
                else:
                    HOW.append(ready)  # type: ignore[arg-type]  # kept open
