""" "Look now": inotify as a hint, whose silence means nothing; the periodic scan is the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from ..keeper import kernel
from . import mounts

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
        self._told: set[str] = set()  # directories of which we are told everything
        self._said: dict[str, Names] = {}  # and not passed on yet
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
            self._told.discard(directory)
            if mounts.tells_of_changes(directory):
                self._told.add(directory)
            self._changed(directory, None)

    def is_told(self, directory: str) -> bool:
        """Whether the kernel tells of every change there, but for what a link leads to."""
        return directory in self._told and directory in self._armed

    def take(self, directory: str) -> Names:
        """What has changed there until now, and is not passed on yet: that is up to the caller then.

        What happened before something that the caller knows of is among it.
        """
        if not self.is_told(directory):
            return None
        self._read()
        names = self._said.pop(directory, set())
        if self._said:
            self._reactor.callLater(0, self._pass_on)
        return names

    def doRead(self) -> None:
        """Turn what inotify says into one call per directory."""
        self._read()
        self._pass_on()

    def _pass_on(self) -> None:
        while self._said:
            directory = next(iter(self._said))
            self._changed(directory, self._said.pop(directory))

    def _read(self) -> None:
        if self._inotify is None:
            return
        said = self._said
        for watch, mask, _cookie, name in self._inotify.read(timeout=0):
            if mask & flags.Q_OVERFLOW:
                said |= dict.fromkeys(self._by_watch.values())
                continue
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
