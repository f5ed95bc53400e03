"""A worker of an application: `worker.py NOTES PORT CLIENT...`.

At its start it runs the CLIENT and notes "found OUTPUT". At SIGTERM it notes "told TIME open" or "told TIME refused",
by whether somebody listens on PORT, takes a second to finish, and notes "down TIME". Standard library only.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

NOTES, PORT, *CLIENT = sys.argv[1:]


def note(text: str) -> None:
    with open(NOTES, "a", encoding="ascii") as notes:
        notes.write(f"{text}\n")


def stop(_number: int, _frame: FrameType | None) -> None:
    with socket.socket() as peer:
        told = time.time()
        note(f"told {told} {'refused' if peer.connect_ex(('127.0.0.1', int(PORT))) else 'open'}")
    time.sleep(1)
    note(f"down {time.time()}")
    os._exit(0)


signal.signal(signal.SIGTERM, stop)
note(f"found {subprocess.run(CLIENT, capture_output=True, text=True, check=False).stdout.strip()}")
while True:
    signal.pause()
