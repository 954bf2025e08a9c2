"""Show a store as opening it would leave it, without writing into its folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tastypy_fast._lmdb.flush_points import find_due_note, put_back
from tastypy_fast._lmdb.store_dir import DATA, OWNER
from tastypy_fast.exceptions import UnsafeFileError

__all__ = ["as_opened"]


@contextmanager
def as_opened(path: str) -> Iterator[str]:
    """Yield the folder of a store, or of a temporary copy of it.

    A store whose last flush point has to be put back, because a power cut came after it, is not damaged: the next
    process that opens it does that. So it is copied, and the flush point is put back in the copy. That needs as much
    room among the temporary files as the data file has.
    """
    try:
        note = find_due_note(path)
    except (UnsafeFileError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
        note = None  # the caller finds out
    if note is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tastypy_fast-") as folder:
        while note is not None:
            shutil.copyfile(os.path.join(path, DATA), os.path.join(folder, DATA), follow_symlinks=False)
            before, note = note, find_due_note(path)
            if note == before:  # no process has put it back meanwhile
                put_back(folder, note)
                if os.path.lexists(os.path.join(path, OWNER)):
                    # What is in it tells that the store was complete once.
                    shutil.copyfile(os.path.join(path, OWNER), os.path.join(folder, OWNER), follow_symlinks=False)
                yield folder
                return
    yield path
