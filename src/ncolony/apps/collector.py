"""Ways to a collector of syslog messages, each of which can tell whether what was sent has arrived."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import termios
import time
from collections.abc import Iterator, Sequence

# A connection is given up when what was sent is not acknowledged for this long. Linux would try for 15 minutes.
_UNANSWERED_S = 120
_CONNECT_S = 10.0
# After half a connection is closed the collector has this long to close the other, having read everything.
CLOSING_S = 60.0
# A datagram to where nobody listens is answered in far less, on the same machine.
_REFUSAL_S = 0.1
# What of datagrams over UDP is sent before a pause, so that no buffer need be larger: together about 6 MB/s.
_BURST, _PAUSE_S = 1 << 15, 0.005
_LOOK_S = 0.01


class Gone(Exception):
    """The collector is not there, or is not any more; the text says why."""


class Stopped(Exception):
    """We were asked to stop while we waited."""


class Bell:
    """Ends all waiting in another thread."""

    def __init__(self) -> None:
        self._hear, self._rope = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._heeded = True

    def ring(self) -> None:
        """From now on `wait` raises Stopped."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._rope, b"!")

    def ignore(self) -> None:
        """From now on it does not, for what must be done even so."""
        self._heeded = False

    def wait(self, seconds: float, file: int = -1, events: int = 0) -> bool:
        """Wait so long, or until something happens to the file; whether it has."""
        waiting = select.poll()
        if self._heeded:
            waiting.register(self._hear, select.POLLIN)
        if file >= 0:
            waiting.register(file, events)
        happened = [descriptor for descriptor, _ in waiting.poll(max(0.0, seconds) * 1000)]
        if self._hear in happened:
            raise Stopped
        return file in happened


class Link:
    """A way to a collector, open only while there is something to send."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._socket: socket.socket | None = None

    def send(self, messages: Sequence[bytes]) -> None:
        """Send the messages, waiting as long as it takes.

        :raises Gone: when the collector is gone; then nothing since the last `confirm` is sure to have arrived.
        """
        with _as_gone():
            if self._socket is None:
                self._socket = self._open()
            self._send(self._socket, messages)

    def confirm(self, patience: float = CLOSING_S) -> str:
        """Wait until the collector has read all that was sent; what is to be said about how it does that, if anything.

        :raises Gone: when it has not.
        """
        if self._socket is None:
            return ""
        with _as_gone():
            return self._confirm(self._socket, patience)

    def close(self) -> None:
        """Give up what was not confirmed."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        raise NotImplementedError

    def _send(self, to: socket.socket, messages: Sequence[bytes]) -> None:
        raise NotImplementedError

    def _confirm(self, to: socket.socket, patience: float) -> str:
        raise NotImplementedError

    def _write(self, to: socket.socket, data: bytes) -> None:
        _check(to)
        view = memoryview(data)
        while view:
            try:
                view = view[to.send(view) :]
            except BlockingIOError:
                self._bell.wait(_UNANSWERED_S, to.fileno(), select.POLLOUT)

    def _send_each(self, to: socket.socket, message: bytes) -> None:
        while True:
            try:
                to.send(message)
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    raise
                # Only for the first can be waited; the device that has no room does not say when it has.
                file = to.fileno() if error.errno == errno.EAGAIN else -1
            self._bell.wait(_LOOK_S, file, select.POLLOUT)

    def _drain(self, to: socket.socket) -> None:
        """Wait until what was sent has been read (a socket of this machine) or acknowledged."""
        while _unread(to):
            _check_error(to)
            self._bell.wait(_LOOK_S)


@contextlib.contextmanager
def _as_gone() -> Iterator[None]:
    try:
        yield
    except socket.gaierror as error:
        raise Gone(str(error.args[-1])) from error
    except OSError as error:
        raise Gone(error.strerror or str(error)) from error


def _unread(to: socket.socket) -> int:
    return int(struct.unpack("i", fcntl.ioctl(to, termios.TIOCOUTQ, b"\0\0\0\0"))[0])


def _check_error(to: socket.socket) -> None:
    if number := to.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(number, os.strerror(number))


def _check(to: socket.socket) -> None:
    """Find out whether the other end of a stream was closed. What a collector says is not listened to."""
    try:
        while to.recv(1 << 12):
            pass
    except BlockingIOError:
        return
    raise Gone("the collector has closed the connection")


class Tcp(Link):
    """A TCP connection, with octet counting (RFC 6587, 3.4.1).

    That bytes were acknowledged only means that the other kernel has them. A collector that is killed takes those with
    it, so from time to time our half of the connection is closed: a collector closes its half when it has read all, and
    its kernel resets the connection where it has not.
    """

    def __init__(self, bell: Bell, host: str, port: int) -> None:
        super().__init__(bell)
        self._host, self._port = host, port
        self._closes = True

    def _open(self) -> socket.socket:
        refused: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
            to = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            try:
                to.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_S * 1000)
                with contextlib.suppress(BlockingIOError):
                    to.connect(address)
                if not self._bell.wait(_CONNECT_S, to.fileno(), select.POLLOUT):
                    raise TimeoutError(errno.ETIMEDOUT, "no answer")
                _check_error(to)
                return to
            except OSError as error:
                to.close()
                refused = error
            except BaseException:
                to.close()
                raise
        assert refused is not None
        raise refused

    def _send(self, to: socket.socket, messages: Sequence[bytes]) -> None:
        self._write(to, b"".join(b"%d %b" % (len(message), message) for message in messages))

    def _confirm(self, to: socket.socket, patience: float) -> str:
        if not self._closes:
            self._drain(to)
            _check(to)
            return ""
        to.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + patience
        while True:
            try:
                if not to.recv(1 << 12):
                    break
                continue
            except BlockingIOError:
                pass
            left = deadline - time.monotonic()
            if left > 0:
                self._bell.wait(left, to.fileno(), select.POLLIN)
            elif _unread(to):
                raise Gone("it does not read")
            else:
                self._closes = False
                self.close()
                return "it does not close connections: what it has not read when it dies may be lost"
        # Its end may have come before our last bytes did, and then they are answered by a reset.
        self._drain(to)
        _check_error(to)
        self.close()
        return ""


class Udp(Link):
    """Datagrams over UDP (RFC 5426).

    What gets lost on the way, or in the buffers of a collector that is killed, is lost. That nobody listens is noticed
    where the collector's machine says so.
    """

    def __init__(self, bell: Bell, host: str, port: int) -> None:
        super().__init__(bell)
        self._host, self._port, self._burst = host, port, 0

    def _open(self) -> socket.socket:
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        to = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        to.connect(address)
        return to

    def _send(self, to: socket.socket, messages: Sequence[bytes]) -> None:
        for message in messages:
            self._send_each(to, message)
            self._burst += len(message)
            if self._burst >= _BURST:
                self._burst = 0
                self._bell.wait(_PAUSE_S)

    def _confirm(self, to: socket.socket, patience: float) -> str:
        self._bell.wait(min(_REFUSAL_S, patience), to.fileno(), 0)
        _check_error(to)
        return ""


class Unix(Link):
    """A socket of this machine, such as /dev/log: datagrams, or a stream with a newline behind each message.

    The kernel tells how much of what we sent was not read yet.
    """

    def __init__(self, bell: Bell, path: str) -> None:
        super().__init__(bell)
        self._path = path
        self._identity: tuple[int, int, int] | None = None

    def _open(self) -> socket.socket:
        to = self._connect(socket.SOCK_DGRAM)
        self._identity = self._identify()
        return to

    def _connect(self, kind: int) -> socket.socket:
        to = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
        try:
            to.connect(self._path)
            return to
        except OSError as error:
            to.close()
            if error.errno == errno.EPROTOTYPE and kind == socket.SOCK_DGRAM:
                return self._connect(socket.SOCK_STREAM)
            raise

    def _identify(self) -> tuple[int, int, int]:
        found = os.stat(self._path)
        return found.st_dev, found.st_ino, found.st_ctime_ns

    def _send(self, to: socket.socket, messages: Sequence[bytes]) -> None:
        if to.type == socket.SOCK_STREAM:
            self._write(to, b"".join(b"%b\n" % message for message in messages))
            return
        for message in messages:
            self._send_each(to, message)

    def _confirm(self, to: socket.socket, patience: float) -> str:
        deadline = time.monotonic() + patience
        while _unread(to):
            if time.monotonic() > deadline:
                raise Gone("it does not read")
            self._bell.wait(_LOOK_S)
        # Read, or thrown away because the collector died: then it is not there any more, or another one is.
        if to.type == socket.SOCK_STREAM:
            _check(to)
            return ""
        self._connect(socket.SOCK_DGRAM).close()
        if self._identify() != self._identity:
            raise Gone("there is another collector now")
        return ""
