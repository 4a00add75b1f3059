"""Locks on files, which the system releases however their holder ends; some systems have none."""

from __future__ import annotations

import errno
import fcntl

#: What flock fails with where the file system (an NFS without lockd) or the sandbox has no locks.
_NONE = frozenset((errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL))


def take_lock(file: int, *, shared: bool = False, wait: bool = True) -> bool:
    """Locks an open file; False where there are no locks to be had.

    Raises BlockingIOError if it is locked by another and is not to be waited for.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, operation if wait else operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NONE:
            return False
        raise
    return True
