"""Read and write lines of plain, gzip (``.gz``) and Zstandard (``.zst``) files. Memory use is constant."""

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
# The number of compressed bytes that are read at once. It is small, because they may expand a thousandfold.
_COMPRESSED_CHUNK = 1 << 14
_LINES_PER_CHUNK = 500
# The limit on a line, in bytes. No store holds a longer value. Without a limit, an endless file would fill the memory,
# for example /dev/zero or a file that decompresses to endless data.
LONGEST_LINE = 1 << 32


def join_lines(lines: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Join some hundred lines at a time. Yields (number of lines, bytes)."""
    while batch := list(islice(lines, _LINES_PER_CHUNK)):
        yield len(batch), b"".join(batch)


@contextmanager
def create_file(path: str, compression: str | None = None) -> Iterator[Any]:
    """Create a binary file, and yield it. It is on disk when the block ends.

    ``compression`` is ".gz", ".zst" or "". If it is None, the name of the file selects it.
    """
    kind = os.path.splitext(path)[1] if compression is None else compression
    compressor: Any = None
    with open(path, "xb") as file:
        if kind == ".gz":
            # Store no name and no time, so that equal data give equal bytes.
            compressor = gzip.GzipFile("", "wb", _LEVEL, file, 0)
        elif kind == ".zst":
            compressor = _zstandard().ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False)
        if compressor is None:
            yield file
        else:
            with compressor:
                yield compressor
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def open_lines(path: str, compression: str | None = None) -> Iterator[Iterator[bytes]]:
    """Open a file, and yield an iterator over its decompressed lines, including line ends.

    ``compression`` is ".gz", ".zst" or "". If it is None, the name of the file selects it.
    The iterator raises DamagedInputError if the file cannot be decompressed, or if a line is longer than LONGEST_LINE.
    """
    kind = os.path.splitext(path)[1] if compression is None else compression
    with open(path, "rb") as file:
        if kind == ".gz":
            yield _decompressed(_gzip_lines(file), (zlib.error, gzip.BadGzipFile))
        elif kind == ".zst":
            zstandard = _zstandard()
            yield _decompressed(_lines(io.BufferedReader(_ChunkStream(_zstandard_chunks(file, zstandard)))),
            (zstandard.ZstdError,))
        else:
            yield _lines(file)


def _lines(file: Any) -> Iterator[bytes]:
    for line in iter(partial(file.readline, LONGEST_LINE), b""):
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            raise DamagedInputError(f"this line is longer than {LONGEST_LINE:,} bytes, the most that a store can hold")
        yield line


def line_too_large(where: str) -> StorageError:
    """Return the error for a line that does not fit into the memory of this process."""
    return StorageError(errno.ENOMEM, f"{where}: there is not enough memory for this line, which was not imported; "
                                      f"free some memory, or split the value")


def _decompressed(lines: Iterable[bytes], errors: tuple[type[Exception], ...]) -> Iterator[bytes]:
    try:
        yield from lines
    except EOFError:
        raise DamagedInputError("the file ends here in the middle of compressed data, because it was cut short; "
                                "restore it") from None
    except errors as error:
        raise DamagedInputError(f"the rest of the file cannot be decompressed ({error}), because it was changed or cut "
                                f"short; restore it") from error


def _gzip_lines(file: BinaryIO) -> Iterator[bytes]:
    yield from _lines(gzip.GzipFile("", "rb", fileobj=file))
    if not file.tell():  # gzip accepts an empty file, but no program writes one
        raise EOFError


def _zstandard_chunks(file: BinaryIO, zstandard: Any) -> Iterator[bytes]:
    """Yield the decompressed data of a Zstandard file.

    The library's own reader is not used, because it accepts a truncated file, and stops after the first of several
    frames.
    """
    frame = None
    while chunk := file.read(_COMPRESSED_CHUNK):
        while chunk:
            if frame is None:
                frame = zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(chunk)
            chunk = b""
            if frame.eof:
                chunk, frame = frame.unused_data, None
    if frame is not None or not file.tell():
        raise EOFError


class _ChunkStream(io.RawIOBase):
    """A readable stream over chunks of bytes."""

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
