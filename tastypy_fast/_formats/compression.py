"""Files that are plain, gzip (``.gz``) or Zstandard (``.zst``), as their names say, in constant memory."""

from __future__ import annotations

import errno
import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

from tastypy_fast._optional import optional_import
from tastypy_fast.exceptions import DamagedInputError, StorageError

__all__ = ["create_file", "join_lines", "line_too_large", "open_lines"]

_LEVEL = 6
# (so few that what they unpack to is small, too)
_PACKED_AT_ONCE = 1 << 14
_LINES_AT_ONCE = 500
# No value of a store is longer. (A file without an end, such as /dev/zero, or one that unpacks to such, is one line.)
LONGEST_LINE = 1 << 32


def join_lines(lines: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Some hundred lines at a time as one, with their number."""
    while batch := list(islice(lines, _LINES_AT_ONCE)):
        yield len(batch), b"".join(batch)


@contextmanager
def create_file(path: str) -> Iterator[Any]:
    """A new binary file to write; it is on the disk when the block ends."""
    kind = os.path.splitext(path)[1]
    packer: Any = None
    with open(path, "xb") as file:
        if kind == ".gz":
            # Without a name and a time in it, so that the same data are the same bytes.
            packer = gzip.GzipFile("", "wb", _LEVEL, file, 0)
        elif kind == ".zst":
            packing = _zstandard().ZstdCompressor(write_checksum=True)
            packer = packing.stream_writer(file, closefd=False)
        if packer is None:
            yield file
        else:
            with packer:
                yield packer
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def open_lines(path: str) -> Iterator[Iterator[bytes]]:
    """The lines of a file, with their ends, as long as the block lasts. They raise DamagedInputError where it does not
    unpack, and for a line that is longer than any of a store.
    """
    kind = os.path.splitext(path)[1]
    with open(path, "rb") as file:
        if kind == ".gz":
            yield _unpacked(_gunzipped(file), (zlib.error, gzip.BadGzipFile))
        elif kind == ".zst":
            zstandard = _zstandard()
            yield _unpacked(_lines(io.BufferedReader(_Joining(_frames(file, zstandard)))), (zstandard.ZstdError,))
        else:
            yield _lines(file)


def _lines(file: Any) -> Iterator[bytes]:
    for line in iter(partial(file.readline, LONGEST_LINE), b""):
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            raise DamagedInputError(f"this line is longer than {LONGEST_LINE:,} bytes, which no store holds")
        yield line


def line_too_large(where: str) -> StorageError:
    """The error for a line that is too long for the memory of this process."""
    return StorageError(errno.ENOMEM, f"{where}: there is not enough memory for this line; nothing of it was taken")


def _unpacked(lines: Iterable[bytes], errors: tuple[type[Exception], ...]) -> Iterator[bytes]:
    try:
        yield from lines
    except EOFError:
        raise DamagedInputError("here the file ends, and what is packed in it does not: it was cut short") from None
    except errors as error:
        raise DamagedInputError(f"what follows does not unpack ({error}): the file was changed or cut short") from error


def _gunzipped(file: BinaryIO) -> Iterator[bytes]:
    yield from _lines(gzip.GzipFile("", "rb", fileobj=file))
    if not file.tell():  # (which the library takes for nothing, packed)
        raise EOFError


def _frames(file: BinaryIO, zstandard: Any) -> Iterator[bytes]:
    """What is packed in a Zstandard file. (The library's own reader takes a file that was cut short for a whole one,
    and the first of several frames for all.)"""
    frame = None
    while chunk := file.read(_PACKED_AT_ONCE):
        while chunk:
            if frame is None:
                frame = zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(chunk)
            chunk = b""
            if frame.eof:
                chunk, frame = frame.unused_data, None
    if frame is not None or not file.tell():
        raise EOFError


class _Joining(io.RawIOBase):
    """Chunks as one stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def _zstandard() -> Any:
    return optional_import("zstandard", "zstd", "a file ending with .zst")
