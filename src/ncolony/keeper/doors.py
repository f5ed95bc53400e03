"""Sockets that instances listen on: opened here, so that they outlive the instances and nobody is turned away."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

import kernel
from kernel import reach
from spawn import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from safe import Safe

# As in sd_listen_fds(3).
_FIRST = 3
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}


class Doors:
    """The sockets in the safe that are listened on."""

    def __init__(self, safe: Safe) -> None:
        self.safe = safe
        self.files: dict[str, tuple[int, int] | None] = {}  # to which file we have bound a unix socket

    def open_all(self, order: dict[str, Any]) -> list[list[Any]]:
        """Open what is not open yet; [key, the number it gets, where it is bound] of each. Raises Refused."""
        given = []
        for number, about in enumerate(order.get("sockets") or (), _FIRST):
            try:
                where = self._open(about, order.get("uid"), order.get("gid"))
            except OSError as error:
                raise Refused(f"cannot listen on {about['address']}: {error.strerror or error}") from None
            given.append([about["key"], number, where])
        return given

    def _open(self, about: dict[str, Any], uid: int | None, gid: int | None) -> str:
        key, path = about["key"], about["path"]
        if key in self.safe.held and path and not self._is_ours(key, path):
            self.safe.drop(key)  # somebody has removed its file: nobody finds it any more
        if key not in self.safe.held:
            self.safe.put(key, _bound(about))
            self.files[key] = _socket_file(path)
            reach("socket.opened")
        with _socket(self.safe.held[key]) as door:
            if door.type == socket.SOCK_STREAM:
                door.listen(about["backlog"])
            if path:
                _give(path, about["mode"], uid, gid)
            return str(door.getsockname())

    def close(self, key: str) -> None:
        """Close one; the file of a unix socket goes with it, unless somebody else listens there by now."""
        if key not in self.safe.sockets:
            return
        with _socket(self.safe.held[key]) as door:
            path = door.getsockname() if door.family == socket.AF_UNIX else ""
        self.safe.drop(key)
        if path and self._is_ours(key, path) and not _is_answered(path):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _is_ours(self, key: str, path: str) -> bool:
        """Whether the file there is still that of this socket. Of one that another keeper opened any will do."""
        return (file := _socket_file(path)) is not None and self.files.get(key, file) == file

    def take_from(self, pidfd: int, key: str, number: int, where: str) -> None:
        """Where nobody lives who kept it, take the socket from an instance that still has it, if we may."""
        if key in self.safe.held or (descriptor := kernel.pidfd_getfd(pidfd, number)) < 0:
            return
        try:
            with _socket(descriptor) as door:
                listens = door.type == socket.SOCK_DGRAM or door.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                is_it = bool(listens) and str(door.getsockname()) == where
        except OSError:
            is_it = False  # it has made something else of that number
        if is_it:
            self.safe.put(key, descriptor)
        else:
            os.close(descriptor)


@contextlib.contextmanager
def _socket(descriptor: int) -> Iterator[socket.socket]:
    """The socket behind a descriptor, which stays open."""
    found = socket.socket(fileno=descriptor)
    try:
        yield found
    finally:
        found.detach()


def _bound(about: dict[str, Any]) -> int:
    """A new socket, bound. Raises OSError."""
    family, path = _FAMILIES[about["family"]], about["path"]
    umask = os.umask(0o777 & ~about["mode"])  # so that nobody finds it with another mode, not even for a moment
    made = socket.socket(family, socket.SOCK_DGRAM if about["kind"] == "udp" else socket.SOCK_STREAM)
    try:
        if about["kind"] == "tcp":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, about["only"])
        if path and _socket_file(path) is not None and not _is_answered(path):
            os.unlink(path)
        made.bind(path or (about["host"], about["port"], *about["more"]))
        return made.detach()
    finally:
        made.close()
        os.umask(umask)


def _socket_file(path: str) -> tuple[int, int] | None:
    """What tells the socket's file at the path from another; None where there is none."""
    with contextlib.suppress(OSError):
        return (found.st_dev, found.st_ino) if stat.S_ISSOCK((found := os.lstat(path)).st_mode) else None
    return None


def _is_answered(path: str) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        return caller.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def _give(path: str, mode: int, uid: int | None, gid: int | None) -> None:
    """Make the file of a socket the user's. By a descriptor: the directory may be another's, who may swap files."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        found, it = os.fstat(descriptor), f"/proc/self/fd/{descriptor}"
        if not stat.S_ISSOCK(found.st_mode) or found.st_nlink > 1:
            raise OSError(errno.EPERM, "somebody has put something else in its place")
        if stat.S_IMODE(found.st_mode) != mode:
            os.chmod(it, mode)
        if (uid is not None and uid != found.st_uid) or (gid is not None and gid != found.st_gid):
            os.chown(it, -1 if uid is None else uid, -1 if gid is None else gid)
    finally:
        os.close(descriptor)
