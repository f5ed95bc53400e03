""" "Look now": inotify as a hint, whose silence means nothing; the periodic scan is the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from ..keeper import kernel

try:
    from inotify_simple import INotify, flags
except ImportError:  # not Linux
    INotify = None

_log = Logger(namespace="ncolony")
# None instead of names: anything may have changed.
Names = set[str] | None


@implementer(IReadDescriptor)
class Watcher:
    """Calls `changed(directory, names)` soon after something changes in a watched directory."""

    def __init__(self, reactor: Any, changed: Callable[[str, Names], None]) -> None:
        self._reactor, self._changed = reactor, changed
        self._inotify = None
        self._by_watch: dict[int, str] = {}
        self._armed: dict[str, int] = {}
        if INotify is not None and kernel.has("inotify"):
            try:
                self._inotify = INotify(nonblocking=True)
            except OSError as error:
                _log.warn("inotify is not to be had ({why}): changes are seen by the periodic scan", why=error.strerror)
        if self._inotify is not None:
            self._mask = (
                flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.CLOSE_WRITE | flags.CREATE | flags.ATTRIB
                | flags.MODIFY | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR
            )  # fmt: skip
            reactor.addReader(self)

    def arm(self, directory: str) -> None:
        """Watch the directory, or the one that has taken its place. Called again at every scan: it costs little."""
        if self._inotify is None:
            return
        try:
            watch = self._inotify.add_watch(directory, self._mask)
        except OSError:
            return  # missing, or out of watches: the periodic scan goes on
        if self._armed.get(directory) != watch:
            self._armed[directory] = watch
            self._by_watch[watch] = directory
            self._changed(directory, None)

    def doRead(self) -> None:
        """Turn what inotify says into one call per directory."""
        assert self._inotify is not None
        said: dict[str, Names] = {}
        for watch, mask, _cookie, name in self._inotify.read(timeout=0):
            if mask & flags.Q_OVERFLOW:
                said = dict.fromkeys(self._by_watch.values())
                break
            directory = self._by_watch.get(watch)
            if directory is None:
                continue
            if mask & (flags.IGNORED | flags.DELETE_SELF | flags.MOVE_SELF):
                if mask & (flags.IGNORED | flags.MOVE_SELF):
                    self._by_watch.pop(watch, None)
                    self._armed.pop(directory, None)
                said[directory] = None
            elif not name or name.startswith(".."):
                # The directory itself, or ..data: Kubernetes swaps it, and with it what every other name means.
                said[directory] = None
            elif (names := said.setdefault(directory, set())) is not None:
                names.add(name)
        for directory, names in said.items():
            self._changed(directory, names)

    def close(self) -> None:
        """Stop watching."""
        if self._inotify is not None:
            self._reactor.removeReader(self)
            self._inotify.close()
            self._inotify = None

    def fileno(self) -> int:
        return -1 if self._inotify is None else self._inotify.fileno()

    def connectionLost(self, reason: object) -> None:
        """Part of the interface; a descriptor of ours is never lost."""

    def logPrefix(self) -> str:
        return "inotify"
