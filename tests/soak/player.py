"""What the soak's colony runs where a shell is not enough: `player.py KIND LEDGER LOCKS [ARGUMENT...]`.

See player.sh. Standard library only, and little of it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

KIND, LEDGER, LOCKS, *ARGUMENTS = sys.argv[1:]
NAME = os.environ["NCOLONY_NAME"]


def note(word: str) -> None:
    ledger = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    os.write(ledger, f"{now:.2f} {NAME} {word} {os.getpid()} {os.environ['NCOLONY_INSTANCE']}\n".encode())
    os.close(ledger)


def tell(text: str) -> None:
    """Say something as sd_notify does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = os.environ["NOTIFY_SOCKET"]
        manager.connect("\0" + address[1:] if address.startswith("@") else address)
        manager.send(text.encode())


def telling() -> None:
    """Be ready, then just be there."""
    tell("READY=1\nSTATUS=open for business")
    note("up")
    os.execv("/bin/sleep", ["sleep", "1000000"])


def watched() -> None:
    """Say every second that all is well."""
    tell("READY=1")
    note("up")
    while True:
        tell("WATCHDOG=1")
        time.sleep(1)


def serving() -> None:
    """Answer whoever connects to port ARGUMENT 1; after a USR1 do not listen any more."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", int(ARGUMENTS[0])))
    server.listen(64)

    def deafen(_number: int, _frame: FrameType | None) -> None:
        server.close()
        while True:
            signal.pause()

    signal.signal(signal.SIGUSR1, deafen)
    note("up")
    while True:
        peer, _ = server.accept()
        try:
            peer.settimeout(2)
            if peer.recv(4096):
                peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except OSError:
            pass  # a look at the port alone, that is gone already
        peer.close()


os.umask(0o077)
held = os.open(f"{LOCKS}/{NAME}", os.O_RDWR | os.O_CREAT, 0o600)
os.set_inheritable(held, True)
try:
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    note("duplicate")
    sys.exit(3)
globals()[KIND]()
