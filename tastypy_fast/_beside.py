"""A folder that appears whole or not at all: filled beside its place, and renamed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from tastypy_fast._files import flush_folder
from tastypy_fast.exceptions import NotAStoreError

__all__ = ["made_beside"]


@contextmanager
def made_beside(target: str) -> Iterator[str]:
    """A new, empty folder to fill, which gets the name ``target`` when the block ends well and is removed otherwise.

    Raises NotAStoreError where something has that name. A killed process leaves the folder ``target.*.part``, which
    can be deleted.
    """
    if os.path.lexists(target):
        raise _taken(target)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    folder = f"{target}.{secrets.token_hex(4)}.part"
    try:
        os.mkdir(folder)
        yield folder
        flush_folder(folder)
        try:
            os.rename(folder, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise _taken(target) from None
            raise
        flush_folder(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _taken(target: str) -> NotAStoreError:
    return NotAStoreError(errno.EEXIST, "there is something at this path already, which is left alone; use a new path",
                          target)
