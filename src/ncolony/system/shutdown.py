"""Ending a colony that has a keeper but no supervisor. Standard library only: the command line starts quickly."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time

from ..keeper.wire import PROTOCOL, Unpacker, pack
from .locks import is_held

_AGAIN_S = 0.01


class Unfinished(TimeoutError):
    """The keeper has not ended everything in time; the text says how far it came."""


class Died(ConnectionError):
    """The keeper ended without saying that everything else has."""


def end_keeper(state: str, timeout: float) -> None:
    """Have the keeper of this state directory stop everything and end; returns when it has.

    :raises BlockingIOError: when a supervisor is alive, which is then the one to ask.
    :raises FileNotFoundError: when there is no keeper either.
    :raises Unfinished: when it has not ended within `timeout` seconds.
    :raises Died: when it ended before everything else had.
    :raises OSError: when it cannot be reached.
    """
    until = time.monotonic() + timeout
    directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # For us alone to open, as the supervisor's own: whoever could would have the power to keep us from it.
    turn = os.open(f"{state}/shutdown.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    locks = [turn]
    try:
        # A keeper has one peer, and the newest wins: two of us would throw each other out.
        waited = _wait_for_turn(turn, until)
        for name in ("supervisor.lock", "lock"):
            with contextlib.suppress(FileNotFoundError):
                locks.append(os.open(f"{state}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
                # Shared: it keeps a supervisor from starting, but whoever asks is not told that one runs.
                fcntl.flock(locks[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
        try:
            peer = _connect(state, directory, until)
        except FileNotFoundError:
            if waited:  # for somebody who had the same wish
                return
            raise
        with peer:
            _converse(peer, until)
    finally:
        for descriptor in (directory, *locks):
            os.close(descriptor)


def _wait_for_turn(turn: int, until: float) -> bool:
    """Be the only one who does this; whether somebody else was."""
    waited = False
    while True:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return waited
        except BlockingIOError:
            waited = True
        if time.monotonic() > until:
            raise Unfinished("somebody else is already shutting it down")
        time.sleep(_AGAIN_S)


def _connect(state: str, directory: int, until: float) -> socket.socket:
    """A connection to the keeper; one that is just starting is waited for."""
    # A socket's path may be 107 bytes at most, the state directory's is the user's affair.
    through = f"/proc/self/fd/{directory}"
    path = f"{through if os.path.isdir(through) else state}/keeper.sock"
    while True:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.settimeout(max(_AGAIN_S, until - time.monotonic()))
        try:
            peer.connect(path)
            return peer
        except (FileNotFoundError, ConnectionRefusedError, TimeoutError):
            peer.close()
            if not _keeper_lives(state):
                raise FileNotFoundError(errno.ENOENT, "nothing runs") from None
        except BlockingIOError:  # too many wait to be let in
            peer.close()
        except OSError:
            peer.close()
            raise
        if time.monotonic() > until:
            raise Unfinished("it takes no connection")
        time.sleep(_AGAIN_S)


def _keeper_lives(state: str) -> bool:
    try:
        return is_held(f"{state}/keeper.lock")
    except FileNotFoundError:
        return False


def _converse(peer: socket.socket, until: float) -> None:
    """Ask for the shutdown and hear the keeper out until it hangs up."""
    unpacker = Unpacker()
    welcome = leaving = False
    try:
        peer.sendall(pack({"do": "hello", "protocol": PROTOCOL}))
        while data := _receive(peer, until):
            for message in unpacker.feed(data):
                leaving |= message.get("is") == "leaving"
                if message.get("is") == "welcome" and not welcome:
                    welcome = True
                    peer.sendall(pack({"do": "shutdown"}))
    except ConnectionError:
        pass  # what it said before decides
    except TimeoutError:
        raise Unfinished("it still waits for processes to end" if welcome else "it does not answer") from None
    except ValueError as error:
        raise OSError(errno.EPROTO, f"it speaks another language: {error}") from None
    if not leaving:
        raise Died(errno.ECONNRESET, "it ended before everything else had")


def _receive(peer: socket.socket, until: float) -> bytes:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    peer.settimeout(left)
    return peer.recv(1 << 18)
