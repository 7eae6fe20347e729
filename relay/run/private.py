"""Directories for the user alone."""

from __future__ import annotations

import errno
import os
import stat


def make(directory: str) -> int:
    """Make a directory for the user alone, and those above it that are missing; return its mode.

    None is made in a directory of somebody else's, and the last one must be the user's: `sudo -E` leaves another's
    HOME. Raises OSError.
    """
    missing = []
    at = os.path.abspath(directory)
    while not os.path.isdir(at):
        missing.append(at)
        at = os.path.dirname(at)
    if os.stat(at).st_uid != os.geteuid():
        raise _not_ours(at)
    for path in reversed(missing):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass  # another relay was first
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory)
    if found.st_uid != os.geteuid():
        raise _not_ours(directory)
    return found.st_mode


def _not_ours(path: str) -> PermissionError:
    return PermissionError(errno.EPERM, "it is another user's", path)
