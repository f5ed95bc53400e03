"""TLS of the standard library's on a transport of Twisted's, so that https needs nothing more to be installed."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

# Certificates that the machine trusts may change while we run.
_KEPT_S = 3600.0
_CHUNK = 1 << 16


class Contexts:
    """How servers are believed: one way for those whose certificate counts, one for the others."""

    def __init__(self) -> None:
        self._made: dict[bool, tuple[float, ssl.SSLContext]] = {}

    def get(self, insecure: bool) -> ssl.SSLContext:
        """The context. Making one takes some 20 ms, since all certificates that the system trusts are read.

        :raises OSError: when they cannot be read (ssl.SSLError is one).
        """
        made_at, context = self._made.get(insecure, (0.0, None))
        if context is None or time.monotonic() - made_at > _KEPT_S:
            context = ssl.create_default_context()
            if insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._made[insecure] = time.monotonic(), context
        return context


class Broken(Exception):
    """The peer cannot be talked to; the text says why."""


class Tls:
    """Encrypts for one connection. `send` gets what is to be written to it."""

    def __init__(self, context: ssl.SSLContext, host: str, send: Callable[[bytes], None]) -> None:
        self._incoming, self._outgoing, self._send = ssl.MemoryBIO(), ssl.MemoryBIO(), send
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._unsent = b""
        self._shaken = False

    def write(self, data: bytes) -> None:
        """Encrypt and send, once both have agreed on how.

        :raises Broken: when they do not agree.
        """
        self._unsent += data
        self._go_on()

    def feed(self, data: bytes) -> bytes:
        """What the received bytes say.

        :raises Broken: when they make no sense.
        """
        self._incoming.write(data)
        self._go_on()
        parts = []
        try:
            while self._shaken and (part := self._ssl.read(_CHUNK)):
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            pass  # the peer has said all
        except ssl.SSLError as error:
            raise Broken(_in_words(error)) from None
        self._flush()
        return b"".join(parts)

    def _go_on(self) -> None:
        try:
            if not self._shaken:
                self._ssl.do_handshake()
                self._shaken = True
            if self._unsent:
                self._ssl.write(self._unsent)
                self._unsent = b""
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._flush()  # so that the peer learns what was wrong
            raise Broken(_in_words(error)) from None
        self._flush()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._send(data)


def _in_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    return f"no TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
