"""Read and write JSON Lines: one line ``{"key": ..., "value": ...}`` per key."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tastypy_fast._formats.atomic_output import atomic_output, resolve_new_path, translate_os_errors
from tastypy_fast._formats.compression import create_file, join_lines, line_too_large, open_lines
from tastypy_fast._formats.json_text import compact_json, key_from_json, parse_json
from tastypy_fast._paths import checked, refuse_inside, resolved
from tastypy_fast.exceptions import DamagedInputError, NotAStoreError, UnstorableValueError

__all__ = ["JsonlReader", "write_jsonl"]

# Some editors write it before UTF-8 text.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# The fields of a line. tastypy-fast ls --json also prints the last two, which follow from the value.
_NEEDED = {"key", "value"}
_KNOWN = {*_NEEDED, "status", "claim"}


def write_jsonl(target: Any, pairs: Iterator[tuple[Any, Any]], source: str, compression: str | None = None,
                replace: bool = False) -> int:
    """Write the pairs of the store at ``source`` to a path or an open file. Returns the number of lines.

    ``compression`` is ".gz", ".zst" or "". If it is None, the name of the file selects it. With ``replace``, a file at
    the path is replaced when the new one is on disk.
    """
    lines = (b'{"key":%s,"value":%s}\n' % (compact_json(key), compact_json(value)) for key, value in pairs)
    if not isinstance(target, (str, bytes, os.PathLike)):
        if not hasattr(target, "write"):
            raise TypeError(f"the target must be a path or an open file, not {type(target).__name__}")
        return _write(target, lines)
    path = checked(target, "target")
    if _is_special(path):
        try:
            with open(path, "wb") as file:
                return _write(file, lines)
        except OSError as error:
            if error.filename is None:
                error.filename = path
            raise
    role = "the store that is exported"
    if os.path.isdir(path) or path.endswith(os.sep):
        refuse_inside(resolved(path, "target"), source, role)
        raise NotAStoreError(errno.EEXIST, "this is the path of a folder, but JSON Lines are a file; use another path",
                             path)
    path = resolve_new_path(path, "write to", source, role, replace)
    with translate_os_errors(path), atomic_output(path, replace) as made, create_file(made, compression) as file:
        return _write(file, lines)


def _write(file: Any, lines: Iterator[bytes]) -> int:
    # Test for the attribute only, because it is None for StringIO, which is a text file, too.
    is_text = hasattr(file, "encoding")
    total = 0
    for count, chunk in join_lines(lines):
        try:
            file.write(chunk.decode("utf-8", "surrogatepass") if is_text else chunk)
        except UnicodeEncodeError as error:
            raise UnstorableValueError(
                f"some of lines {total + 1} to {total + count} cannot be written in the encoding of the file "
                f"({file.encoding}); open it with encoding='utf-8' or as a binary file: {error}"
            ) from error
        total += count
    return total


def _is_special(path: str) -> bool:
    """Return whether a path is a pipe or a device, which is written directly and not replaced."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


class JsonlReader:
    """Reader of JSON Lines from a path, an open file or an iterable of lines.

    It yields (line number, key, value), and raises DamagedInputError with the number of the line. ``compression`` is
    that of a path: ".gz", ".zst" or "". If it is None, the name of the file selects it.
    """

    def __init__(self, source: Any, compression: str | None = None) -> None:
        # The context in which the lines can be read.
        self._lines: AbstractContextManager[Iterable[str | bytes]]
        if isinstance(source, (str, bytes, os.PathLike)):
            self._name = checked(source, "source")
            self._lines = open_lines(self._name, compression)
        elif not isinstance(source, Iterable):
            raise TypeError(f"the source must be a path, an open file or an iterable of lines, not "
                            f"{type(source).__name__}")
        else:
            name = getattr(source, "name", None)
            self._name = name if isinstance(name, str) else "the input"
            self._lines = nullcontext(source)

    def __iter__(self) -> Generator[tuple[int, Any, Any], None, None]:
        number = 0
        try:
            with self._lines as lines:
                for number, line in enumerate(lines, 1):
                    data = line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line
                    if number == 1:
                        data = data.removeprefix(_BYTE_ORDER_MARK)
                    if not data.isspace() and data:
                        try:
                            key, value = _pair(data)
                        except MemoryError as error:
                            raise line_too_large(self.where(number)) from error
                        yield number, key, value
        except MemoryError as error:
            raise line_too_large(self.where(number + 1)) from error
        except DamagedInputError as error:  # the file cannot be decompressed, or a line is too long
            raise DamagedInputError(f"{self.where(number + 1)}: {error}") from error
        except UnicodeDecodeError as error:  # a text file is decoded in chunks of several lines
            raise DamagedInputError(f"{self.where(number + 1)}, or soon after it: {error}") from error
        except ValueError as error:
            raise DamagedInputError(f"{self.where(number)}: {error}") from None

    def where(self, number: int) -> str:
        """Return the position of a line, for errors."""
        return f"line {number} of {self._name}"


def _pair(line: bytes) -> tuple[Any, Any]:
    """Parse a line, and return its key and value. Raises ValueError if it is not in the format."""
    try:
        found = parse_json(line)
    except ValueError as error:
        raise ValueError(f"this is not valid JSON: {error}") from None
    if not isinstance(found, dict) or not _NEEDED <= found.keys() <= _KNOWN:
        text = line.strip()[:80].decode("utf-8", "backslashreplace")
        raise ValueError(f'each line must be {{"key": ..., "value": ...}}, but this one is {text}')
    return key_from_json(found["key"]), found["value"]
