"""A disk that loses its power: what is certainly on it, and what may be.

A flush makes certain what was written to its file before it began. Of later writes an arbitrary part reaches the disk,
as one of ``MODES`` says. Names are like that, too: creating, renaming and removing a file is certain once its folder
was flushed. Of the later changes in one folder, the first ones reach the disk, up to an arbitrary one.

The choices are adversarial. They show what may happen on a file system that keeps its promises, not how often it does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from tests.power_cuts.recorder import Event

__all__ = ["MODES", "PAGE", "Disk", "File", "write_image"]

PAGE = 4096
SECTOR = 512

# What reaches the disk of the writes since the last flush.
MODES = (
    "none",
    "all",
    "prefix",  # those up to a moment
    "half",  # half of the pages, each as one of the later writes left it
    "most",  # nine of ten pages
    "few",  # one of ten pages
    "metas",  # only the two meta pages
    "all but one",  # all pages but one
    "torn",  # half of the pages, some of them only in part, by sectors of 512 bytes
    "old",  # most pages, each as one of the later writes left it
)
_SHARE = {"half": 0.5, "most": 0.9, "few": 0.1, "torn": 0.5, "old": 0.7}


class _Write:
    """A write, or a truncation, that may not be on the disk yet."""

    __slots__ = ("data", "index", "is_lost", "offset")

    def __init__(self, index: int, offset: int, data: bytes | None, is_lost: bool = False) -> None:
        self.index = index
        self.offset = offset
        # None for a truncation to ``offset`` bytes.
        self.data = data
        # A flush of it has failed. The kernel takes its pages for written, so the next flush does not write them.
        self.is_lost = is_lost


def _put(image: bytearray, offset: int, data: bytes) -> None:
    if len(image) < offset + len(data):
        image.extend(bytes(offset + len(data) - len(image)))
    image[offset : offset + len(data)] = data


def _pages(offset: int, data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (page, offset, part) for each page that a write touches."""
    at = offset
    while at < offset + len(data):
        end = min((at // PAGE + 1) * PAGE, offset + len(data))
        yield at // PAGE, at, data[at - offset : end - offset]
        at = end


class File:
    """The content of one file."""

    def __init__(self, content: bytes = b"") -> None:
        self.durable = bytearray(content)
        self.pending: list[_Write] = []

    def write(self, index: int, offset: int, data: bytes) -> None:
        """Add a write. Indexes ascend."""
        self.pending.append(_Write(index, offset, data))

    def truncate(self, index: int, size: int) -> None:
        """Add a truncation, or a growth with zeros."""
        self.pending.append(_Write(index, size, None))

    def flush(self, before: int) -> None:
        """Make certain what was written before the index ``before``."""
        lost = [item for item in self.pending if item.is_lost]
        again: set[int] = set()
        if lost:
            # A page that was written again after the failed flush is written as a whole.
            for item in self.pending:
                if not item.is_lost and item.index < before and item.data is not None:
                    again.update(page for page, _, _ in _pages(item.offset, item.data))
        rest = []
        for item in self.pending:
            if item.index >= before:
                rest.append(item)
            elif item.data is None:
                self._resize(self.durable, item.offset)
            elif not item.is_lost:
                _put(self.durable, item.offset, item.data)
            else:
                for page, at, part in _pages(item.offset, item.data):
                    if page in again:
                        _put(self.durable, at, part)
                    else:
                        rest.append(_Write(item.index, at, part, True))
        self.pending = rest

    def fail_flush(self, before: int) -> None:
        """Let a flush fail: what was written before the index ``before`` may never reach the disk."""
        for item in self.pending:
            item.is_lost = item.is_lost or item.index < before

    def flush_range(self, index: int) -> None:
        """Make the write with this index certain, with what was written to the same pages before. (O_DSYNC)"""
        own = next(item for item in self.pending if item.index == index)
        touched = {page for page, _, _ in _pages(own.offset, own.data)}
        rest = []
        for item in self.pending:
            if item.data is None:
                rest.append(item)
                continue
            for page, at, part in _pages(item.offset, item.data):
                if page in touched:
                    _put(self.durable, at, part)
                else:
                    rest.append(_Write(item.index, at, part, item.is_lost))
        self.pending = rest

    @staticmethod
    def _resize(image: bytearray, size: int) -> None:
        del image[size:]
        image.extend(bytes(size - len(image)))

    def after_power_cut(self, mode: str, rng: Random) -> bytearray:
        """Return the content that is found after a power cut."""
        image = bytearray(self.durable)
        if not self.pending or mode == "none":
            return image
        if mode in ("all", "prefix"):
            count = len(self.pending) if mode == "all" else rng.randrange(len(self.pending) + 1)
            for item in self.pending[:count]:
                if item.data is None:
                    self._resize(image, item.offset)
                else:
                    _put(image, item.offset, item.data)
            return image
        return self._with_some_pages(image, mode, rng)

    def _with_some_pages(self, image: bytearray, mode: str, rng: Random) -> bytearray:
        writes = [item for item in self.pending if item.data is not None]
        for item in self.pending:
            if item.data is None and rng.random() < 0.5:
                self._resize(image, item.offset)
        # Page -> its content after each of the later writes to it, oldest first.
        versions: dict[int, list[bytes]] = {}
        for item in writes:
            for page, at, part in _pages(item.offset, item.data):
                earlier = versions.setdefault(page, [])
                content = bytearray(earlier[-1] if earlier else image[page * PAGE : (page + 1) * PAGE])
                _put(content, at - page * PAGE, part)
                earlier.append(bytes(content))
        skipped = rng.choice(list(versions)) if mode == "all but one" and versions else None
        for page, contents in versions.items():
            if mode == "metas":
                is_taken = page < 2
            elif mode == "all but one":
                is_taken = page != skipped
            else:
                is_taken = rng.random() < _SHARE[mode]
            if not is_taken:
                continue
            content = rng.choice(contents) if mode in ("old", "half") else contents[-1]
            if mode == "torn" and rng.random() < 0.3:
                content = _torn(bytes(image[page * PAGE : (page + 1) * PAGE]), content, rng)
            _put(image, page * PAGE, content)
        return image


def _torn(old: bytes, new: bytes, rng: Random) -> bytes:
    """Return a page of which only some sectors were written."""
    mixed = bytearray(old.ljust(len(new), b"\0"))
    for at in range(0, len(new), SECTOR):
        if rng.random() < 0.5:
            mixed[at : at + SECTOR] = new[at : at + SECTOR]
    return bytes(mixed)


class _Change:
    """A change of names in one folder: a new file or folder, a new name, or a removal."""

    __slots__ = ("index", "name", "node", "old_name")

    def __init__(self, index: int, name: str, node: File | None = None, old_name: str | None = None) -> None:
        self.index = index
        self.name = name
        # The file or folder that is new; FOLDER for a folder.
        self.node = node
        self.old_name = old_name

    @property
    def folder(self) -> str:
        return os.path.dirname(self.name)


FOLDER = File()


class Disk:
    """All files below one folder, as events change them."""

    def __init__(self, root: Path, is_empty: bool = False) -> None:
        """Begin with what is below ``root`` now, all of it certain, or with nothing."""
        self.root = os.path.realpath(root)
        self._files: dict[int, File] = {}
        self._folders: dict[int, str] = {os.stat(root).st_ino: self.root}
        self._certain: dict[str, File] = {}
        self._changes: list[_Change] = []
        # The names as the programs see them.
        self._now: dict[str, File] = {}
        self._flushes: dict[tuple[int, int], int] = {}
        # A write with O_DSYNC that is on its way. It is certain when the next event comes.
        self._dsync: tuple[File, int] | None = None
        for folder, names, files in () if is_empty else os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                self._certain[path] = FOLDER
                self._folders[os.stat(path).st_ino] = path
            for name in files:
                path = os.path.join(folder, name)
                self._certain[path] = self._files[os.stat(path).st_ino] = File(Path(path).read_bytes())
        self._now = dict(self._certain)

    def apply(self, index: int, event: Event) -> None:
        """Apply the next event of a recording."""
        if self._dsync is not None:
            file, written = self._dsync
            file.flush_range(written)
            self._dsync = None
        if event.kind in ("write", "dsync_write"):
            file = self._file(event.inode)
            file.write(index, event.offset, event.data)
            if event.kind == "dsync_write":
                self._dsync = file, index
        elif event.kind == "truncate":
            self._file(event.inode).truncate(index, event.offset)
        elif event.kind == "flush_begin":
            self._flushes[event.pid, event.inode] = index
        elif event.kind == "flush_end":
            self._flushed(event)
        elif event.kind in ("create", "mkdir", "rename", "unlink"):
            self._rename(index, event)

    def _file(self, inode: int) -> File:
        return self._files.setdefault(inode, File())

    def _flushed(self, event: Event) -> None:
        before = self._flushes.pop((event.pid, event.inode))
        if event.inode in self._folders:
            if event.offset == 0:
                self._flush_folder(self._folders[event.inode], before)
        elif event.offset == 0:
            self._file(event.inode).flush(before)
        else:
            self._file(event.inode).fail_flush(before)

    def _flush_folder(self, folder: str, before: int) -> None:
        rest = []
        for change in self._changes:
            if change.folder == folder and change.index < before:
                _change_names(self._certain, change)
            else:
                rest.append(change)
        self._changes = rest

    def _rename(self, index: int, event: Event) -> None:
        *old, name = event.data.decode().split("\0")
        change = _Change(index, name, old_name=old[0] if old else None)
        if event.kind == "create":
            if name in self._now:  # two processes created it at once, and each saw that it was missing
                return
            change.node = self._files[event.inode] = File()
            self._folders.pop(event.inode, None)
        elif event.kind == "mkdir":
            change.node = FOLDER
            self._folders[event.inode] = name
            self._files.pop(event.inode, None)
        _change_names(self._now, change)
        self._changes.append(change)

    def is_certain(self) -> bool:
        """Whether a power cut now has only one result."""
        return not self._changes and not any(file.pending for file in self._now.values())

    def as_seen(self) -> dict[str, bytes | None]:
        """Return what programs find now, which is also what they find when all that wrote it are killed."""
        return self._image(self._now, lambda path, file: file.after_power_cut("all", Random(0)))

    def after_power_cut(self, mode: str, rng: Random, main: str = "data.mdb") -> dict[str, bytes | None]:
        """Return what is found after a power cut: the content of each file by its relative name, None for a folder.

        The mode is that of files with the name ``main``. The others, and the names, have a mode of their own.
        """
        names = dict(self._certain)
        # Of the changes in one folder, the first ones.
        by_folder: dict[str, list[_Change]] = {}
        for change in self._changes:
            by_folder.setdefault(change.folder, []).append(change)
        kept = {change for changes in by_folder.values()
                for change in changes[: rng.choice((0, len(changes), rng.randrange(len(changes) + 1)))]}
        for change in self._changes:
            if change in kept:
                _change_names(names, change)
        return self._image(names, lambda path, file: file.after_power_cut(
            mode if os.path.basename(path) == main else rng.choice(MODES), rng
        ))

    def _image(self, names: dict[str, File], content: Callable[[str, File], bytearray]) -> dict[str, bytes | None]:
        image: dict[str, bytes | None] = {}
        for path, node in sorted(names.items()):
            name, parent = os.path.relpath(path, self.root), os.path.relpath(os.path.dirname(path), self.root)
            if parent in image or parent == ".":  # a file without its folder cannot be found
                image[name] = None if node is FOLDER else bytes(content(path, node))
        return image


def _change_names(names: dict[str, File], change: _Change) -> None:
    if change.node is not None:
        names[change.name] = change.node
    elif change.old_name is None:
        names.pop(change.name, None)
    elif change.old_name in names:
        names[change.name] = names.pop(change.old_name)


def write_image(image: dict[str, bytes | None], root: Path) -> None:
    """Make the files of an image in the empty folder ``root``."""
    for name, content in image.items():
        if content is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content)
