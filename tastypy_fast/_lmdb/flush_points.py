"""Keep the last flush point of a store whole while later commits are not flushed, and put it back after a power cut.

A flush point is a commit of which three things hold: its pages are on the disk; both meta pages as they were then are
in the file ``flushed``; and no process reuses a page of it, because a slot of LMDB's reader table names it. Commits in
between are left to the kernel. A power cut may tear them, but it cannot touch the flush point. The process that opens
the store first after another boot, and finds commits younger than the flush point, writes both meta pages of the flush
point back before LMDB opens the file. So a power cut takes what came after the last flush, and nothing else.

    flush     read both meta pages, flush the data file, save the note, move the slot
    opening   by the first process: put the flush point back if that is due; give the data file a new identity, note
              the newest commit under this boot, set the slot
    writing   each write transaction checks the slot right after its begin, before it takes a page

LMDB keeps the older meta page, too, so both are saved: a write transaction begins from the one that its number selects.
The identity, 16 random bytes behind the first meta page where LMDB writes nothing, tells whether a note belongs to the
data file. A copy by LMDB does not have it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import struct
from contextlib import suppress
from typing import Any, NamedTuple

from tastypy_fast._lmdb import boot_id, flush_notes
from tastypy_fast._lmdb.flush_notes import FILE_SIZE, METAS_SIZE, FlushNote, FlushNotes
from tastypy_fast._lmdb.page_format import MAGIC
from tastypy_fast._lmdb.reader_slot import ReaderSlot
from tastypy_fast._lmdb.safe_files import open_regular
from tastypy_fast._lmdb.store_dir import DATA, FLUSHED, LMDB_LOCK, creation_error, flush_folder
from tastypy_fast.exceptions import StorageError, StoreAccessError, StoreInUseError, UnsafeFileError

__all__ = ["FlushPoints", "find_due_note", "put_back", "recover", "remove_notes", "write_metas"]

# A meta page without the head of the page (mdb.c: MDB_meta).
_META_AT, _META_SIZE = 16, METAS_SIZE // 2
# LMDB writes the first 152 bytes of a meta page, and the whole page only when it creates the file.
_IDENTITY_AT = 1024
_IDENTITY = struct.Struct("=8s16s")
_IDENTITY_MAGIC = b"tpfIDENT"
# How often the meta pages are read while other processes commit.
_READINGS = 1000


class Metas(NamedTuple):
    """Both meta pages of a data file at one moment."""

    page_size: int
    raw: bytes
    newest: int
    is_sound: bool


def read_metas(descriptor: int) -> Metas | None:
    """Read both meta pages, between two commits. None for a file that LMDB has not begun.

    Needs no lock: a commit writes one of the two pages, so two readings that are alike are those of one moment.
    """
    page_size = os.sysconf("SC_PAGE_SIZE")
    head = os.pread(descriptor, 44, 0)
    if len(head) == 44 and struct.unpack_from("=I", head, _META_AT)[0] == MAGIC:
        page_size = struct.unpack_from("=I", head, 40)[0]
        if page_size & (page_size - 1) or not 512 <= page_size <= 0x8000:
            page_size = os.sysconf("SC_PAGE_SIZE")
    before = _read_both(descriptor, page_size)
    for _ in range(_READINGS):
        raw = _read_both(descriptor, page_size)
        if raw == before:
            break
        before = raw
    if len(raw) < METAS_SIZE:
        return None
    sound = [raw[at : at + _META_SIZE] for at in (0, _META_SIZE) if struct.unpack_from("=I", raw, at)[0] == MAGIC]
    newest = max((struct.unpack_from("=Q", meta, _META_SIZE - 8)[0] for meta in sound), default=0)
    return Metas(page_size, raw, newest, len(sound) == 2)


def _read_both(descriptor: int, page_size: int) -> bytes:
    return b"".join(os.pread(descriptor, _META_SIZE, _META_AT + number * page_size) for number in (0, 1))


def write_metas(descriptor: int, note: FlushNote) -> None:
    """Write the meta pages of a flush point into a data file, and flush it."""
    for number in (0, 1):
        raw = note.metas[number * _META_SIZE :][:_META_SIZE]
        _write_fully(descriptor, raw, _META_AT + number * note.page_size)
    flush_notes.flush_to_disk(descriptor)


def _write_fully(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        done = os.pwrite(descriptor, data, offset)
        data, offset = data[done:], offset + done


def _read_identity(descriptor: int) -> bytes | None:
    raw = os.pread(descriptor, _IDENTITY.size, _IDENTITY_AT)
    if len(raw) < _IDENTITY.size or raw[:8] != _IDENTITY_MAGIC:
        return None
    return raw[8:]


# Before LMDB opens the store


def find_due_note(path: str) -> FlushNote | None:
    """Return the flush point that has to be put back, because a power cut or a failed flush came after it, or None."""
    try:
        notes = FlushNotes(open_regular(os.path.join(path, FLUSHED), os.O_RDONLY))
    except FileNotFoundError:
        return None
    try:
        note: FlushNote | None = notes.read()
    finally:
        notes.close()
    if note is None:
        return None
    descriptor = open_regular(os.path.join(path, DATA), os.O_RDONLY)
    try:
        metas = read_metas(descriptor)
        if metas is None or _read_identity(descriptor) != note.identity:
            return None  # the data file was replaced
    finally:
        os.close(descriptor)
    if metas.newest <= note.txnid and metas.is_sound:
        return None
    return note if note.failed or note.boot != boot_id.boot_id() else None


def put_back(path: str, note: FlushNote) -> None:
    """Make a flush point the newest commit. No process has the store open."""
    descriptor = open_regular(os.path.join(path, DATA), os.O_RDWR)
    try:
        write_metas(descriptor, note)
    finally:
        os.close(descriptor)


def recover(path: str, alone: bool, writes: bool) -> None:
    """Put the last flush point back if that is due, before LMDB opens the files.

    ``alone`` means that no other process has the store open, not even to read. Raises StoreInUseError or
    StoreAccessError if the store cannot be used before that, and this process cannot do it.
    """
    note = find_due_note(path)
    if note is None:
        return
    if not alone:
        if note.failed and note.boot == boot_id.boot_id() and not writes:
            return  # the others read it as it is, too
        raise StoreInUseError(
            errno.EWOULDBLOCK, "the last flush point of this store has to be put back, because a power cut or a failed "
            "flush came after it, and another process has the store open. Wait for it to end", path
        )
    try:
        put_back(path, note)
    except OSError as error:
        if isinstance(error, UnsafeFileError) or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise StoreAccessError(
            error.errno, f"a power cut or a failed flush came after the last flush point of this store, which has to "
            f"be put back first, and this process may not write {DATA}. Open the store once where it may be written",
            path
        ) from error


def remove_notes(path: str) -> None:
    """Remove the file of flush points, so that what is written from here on is never put back."""
    name = os.path.join(path, FLUSHED)
    try:
        descriptor = open_regular(name, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        _refuse_hard_link(descriptor, name)
        _write_fully(descriptor, bytes(FILE_SIZE), 0)
        flush_notes.flush_to_disk(descriptor)
    finally:
        os.close(descriptor)
    os.unlink(name)
    flush_folder(path)


def _refuse_hard_link(descriptor: int, name: str) -> None:
    status = os.fstat(descriptor)
    if status.st_nlink > 1:
        raise UnsafeFileError(errno.EMLINK, "this file has another name (a hard link), so it was not written. Remove "
                                            "it from this folder", name)


# While LMDB has the store open


class FlushPoints:
    """The flush points of one open store in this process.

    ``open()`` comes before LMDB opens the store, and ``close()`` after LMDB has closed it, because closing any
    descriptor of ``lock.mdb`` would release LMDB's locks on it. ``flush()`` may run in any thread.
    """

    def __init__(self, path: str, boot: bytes) -> None:
        self._path = path
        self._boot = boot
        self._data = -1
        self._identity = bytes(16)
        self.slot: ReaderSlot | None = None
        self.notes: FlushNotes | None = None

    def open(self) -> None:
        """Map LMDB's lock file, unless it is mapped."""
        if self.slot is None:
            self.slot = ReaderSlot(open_regular(os.path.join(self._path, LMDB_LOCK), os.O_RDWR))

    def has_layout(self, db: Any) -> bool:
        """Return whether LMDB's reader table is where it should be."""
        return self.slot is not None and bool(self.slot.find_layout(db))

    def begin(self) -> None:
        """Make the newest commit a flush point. The caller has the store alone, and has written nothing."""
        assert self.slot is not None
        self._open_files(create=True)
        assert self.notes is not None
        note = self.notes.read()
        metas = self._metas()
        if note is None or note.txnid != metas.newest or note.identity != _read_identity(self._data):
            # What another process has left is on the disk before the data file gets an identity without a note.
            flush_notes.flush_to_disk(self._data)
        self._identity = secrets.token_bytes(16)
        _write_fully(self._data, _IDENTITY.pack(_IDENTITY_MAGIC, self._identity), _IDENTITY_AT)
        flush_notes.flush_to_disk(self._data)
        self.notes.save(metas.newest, metas.page_size, metas.raw, self._boot, self._identity, None, True)
        if not self.slot.set(metas.newest):
            raise StorageError(errno.EAGAIN, "LMDB's reader table has no place for the flush point. Close some of the "
                                             "processes that read this store", self._path)

    def join(self) -> None:
        """Use the flush points that the first process on this store has begun."""
        self._open_files(create=False)
        identity = _read_identity(self._data)
        if identity is None:
            raise StorageError(errno.EIO, f"{DATA} has no flush points, though other processes write it with them",
                               self._path)
        self._identity = identity

    def keep_slot(self) -> None:
        """Set the slot again if it was removed. The caller has the store alone."""
        assert self.slot is not None
        assert self.notes is not None
        if self.slot.get() is None:
            note = self.notes.read()
            if note is not None:
                self.slot.set(note.txnid)

    def _open_files(self, create: bool) -> None:
        if self.notes is not None:
            return
        name = os.path.join(self._path, FLUSHED)
        flags = os.O_RDWR | os.O_DSYNC
        self._close_files()
        self._data = open_regular(os.path.join(self._path, DATA), os.O_RDWR)
        try:
            is_new = create and not os.path.lexists(name)
            descriptor = open_regular(name, flags | (os.O_CREAT if create else 0), os.path.join(self._path, DATA))
        except UnsafeFileError:
            raise
        except FileNotFoundError as error:
            raise StorageError(errno.ENOENT, f"{FLUSHED} was removed while other processes have this store open; close "
                               f"it everywhere", self._path) from error
        except OSError as error:
            raise creation_error(error, self._path, "the store cannot be opened", FLUSHED) from error
        try:
            if create:
                _refuse_hard_link(descriptor, name)
                size = os.fstat(descriptor).st_size
                _write_fully(descriptor, bytes(max(0, FILE_SIZE - size)), size)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, UnsafeFileError):
                raise
            raise creation_error(error, self._path, "the store cannot be opened", FLUSHED) from error
        self.notes = FlushNotes(descriptor)
        if is_new:
            flush_folder(self._path)

    def _metas(self) -> Metas:
        metas = read_metas(self._data)
        if metas is None:
            raise StorageError(errno.EIO, f"{DATA} has lost its meta pages", self._path)
        return metas

    # Flushing

    def flush(self) -> None:
        """Make the newest commit of any process a flush point. Raises StorageError, and refuses writes, if that fails.

        What a failed flush should have written may be lost, though the next one succeeds: the kernel takes the pages
        for clean. So no commit after the last flush point is ever called saved again, and the process that next opens
        the store alone puts the flush point back.
        """
        slot, notes = self.slot, self.notes
        if slot is None or notes is None:
            raise self._closed()
        if slot.has_failed():
            raise self.refused()
        try:
            metas = self._metas()
            known = slot.get()
            if known is not None and known >= metas.newest:
                return  # the slot is moved when the note is on the disk
            # This thread's own descriptor, because another one may close the store meanwhile.
            descriptor = fcntl.fcntl(self._data, fcntl.F_DUPFD_CLOEXEC, 3)
            try:
                flush_notes.flush_to_disk(descriptor)
            finally:
                os.close(descriptor)
            is_saved = notes.save(metas.newest, metas.page_size, metas.raw, self._boot, self._identity, slot, False)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            if self.notes is None:
                raise self._closed() from error
            self._fail()
            raise self.refused(error) from error
        except ValueError as error:
            raise self._closed() from error
        if not is_saved:
            slot.mark_failed()
            raise self.refused()
        slot.move(metas.newest)

    def _closed(self) -> StorageError:
        return StorageError(errno.EBADF, "this store is closed", self._path)

    def _fail(self) -> None:
        """Refuse writes and flushes in all processes."""
        if self.slot is not None:
            self.slot.mark_failed()
        if self.notes is not None:
            with suppress(OSError, ValueError):
                self.notes.mark_failed()

    def has_failed(self) -> bool:
        """Return whether a flush has failed, in any process."""
        return self.slot is not None and bool(self.slot.has_failed())

    def refused(self, error: OSError | None = None) -> StorageError:
        """Return the error for a failed flush, and for everything that is refused after one."""
        reason = f"a flush of this store has failed ({error.strerror})" if error else "an earlier flush has failed"
        return StorageError(
            error.errno if error and error.errno else errno.EIO,
            f"{reason}, so what was written after the last flush point is not saved, and nothing more can be written. "
            f"close() it in every process and open it again: that puts the last flush point back", self._path
        )

    # Closing

    def close(self) -> None:
        """Close the files. LMDB was closed before."""
        if self.notes is not None:
            self.notes.close()
        self._let_go()

    def leave_to_parent(self) -> None:
        """Close the files in a forked child, which opens them again for itself. LMDB was closed before."""
        if self.notes is not None:
            self.notes.leave_to_parent()
        self._let_go()

    def _let_go(self) -> None:
        self.notes = None
        self._close_files()
        if self.slot is not None:
            self.slot.close()
        self.slot = None

    def _close_files(self) -> None:
        number, self._data = self._data, -1
        if number >= 0:
            os.close(number)
