"""Who else could have put something where we look: for a supervisor that runs as root and believes what it finds there.

Who owns a directory, and who is in the group that may write it, was chosen by whoever named it to us. Anybody was not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

# As many as Linux follows itself (path_resolution(7)).
_MOST_LINKS = 40


def why_open(directory: str) -> str:
    """Why anybody could put another file in the place of one in `directory`, or of the directory; "" when nobody can.

    In a directory with the sticky bit, such as /tmp, everybody can add files, but not replace those of others.

    :raises OSError: when it is not there.
    """
    path = os.path.realpath(directory)
    found = os.stat(directory)
    if _is_open(directory, found) and not found.st_mode & stat.S_ISVTX:
        return _anybody(path, found)
    if not _is_the_same(path, found):
        return ""  # below a name that only the kernel knows, such as the root of a process elsewhere (proc(5))
    while (above := os.path.dirname(path)) != path:
        holder = os.stat(above)
        if _is_open(above, holder):
            if not holder.st_mode & stat.S_ISVTX:
                return f"{_anybody(above, holder)}, in which {path} is"
            if why := _why_added(path, found, above, holder):
                return why
        path, found = above, holder
    return ""


def why_not_trusted(path: str, found: os.stat_result) -> str:
    """Why the file `path`, whose directory is not open to all, may be anybody's; "" when it is not.

    `found` is what stat(2) says of it, behind symbolic links.

    :raises OSError: when it is gone.
    """
    if _is_open(path, found):
        return _anybody(path, found)
    place, itself = os.path.dirname(path), os.lstat(path)
    if why := _why_added(path, itself, place, os.stat(place)):
        return why
    if not stat.S_ISLNK(itself.st_mode):
        return ""
    target = os.path.realpath(path)
    place = os.path.dirname(target)
    return why_open(place) or _why_added(target, found, place, os.stat(place))


def open_directory(path: str) -> int:
    """A descriptor of the directory `path`, which is absolute. As root, no link that another user made leads there.

    What is opened by it stays in that directory, whoever exchanges names meanwhile.

    :raises OSError: when it is not there, or such a link is.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if os.geteuid() != 0:
        return os.open(path, flags)
    names, links = path.split("/")[::-1], 0
    directory = os.open("/", flags)
    try:
        while names:
            name = names.pop()
            found = os.stat(name or ".", dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode):
                inner = os.open(name or ".", flags | os.O_NOFOLLOW, dir_fd=directory)
            elif found.st_dev == os.stat("/proc").st_dev:
                # A link of the kernel's, which leads where its text may not (proc(5), /proc/PID/root).
                inner = os.open(name, flags, dir_fd=directory)
            else:
                links += 1
                if found.st_uid != 0:
                    raise OSError(errno.EPERM, f"{name} is a symbolic link of user {found.st_uid}")
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(name, dir_fd=directory)
                names += target.split("/")[::-1]
                inner = os.open("/" if target.startswith("/") else ".", flags, dir_fd=directory)
            os.close(directory)
            directory = inner
    except OSError:
        os.close(directory)
        raise
    return directory


def _is_the_same(path: str, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), found)
    except OSError:
        return False


def _why_added(path: str, found: os.stat_result, place: str, holder: os.stat_result) -> str:
    """Why anybody could have put `path` into the directory `place`, where everybody may add something; or ""."""
    if not _is_open(place, holder):
        return ""
    if found.st_uid not in (0, os.geteuid(), holder.st_uid):
        return f"{path} belongs to user {found.st_uid}, and anybody may add files to {place}"
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        return f"{path} has several names, and anybody may add files to {place}"
    return ""


def _is_open(path: str, found: os.stat_result) -> bool:
    """Whether anybody may write it: where a mount is read-only, modes mean nothing."""
    if not found.st_mode & 0o002:
        return False
    with contextlib.suppress(OSError):
        return not os.statvfs(path).f_flag & os.ST_RDONLY
    return True


def _anybody(path: str, found: os.stat_result) -> str:
    return f"anybody may write {path} (mode {found.st_mode & 0o7777:o})"
