"""Read and write the files of the original tastypy: ``0.json``, ``1.json`` and so on, of ``file_size`` lines each.

A line has the JSON of the key, a tab, the JSON of the value and a newline. In the key, every backslash is doubled and
every tab is written as ``\\t``. Tuple keys are arrays. All files except the last one are full. The names of gzipped
files end with ``.json.gz``. The JSON is ASCII, as ``json.dumps`` writes it.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Generator, Iterator
from itertools import chain, islice
from typing import Any

from tastypy_fast._formats.compression import create_file, join_lines, line_too_large, open_lines
from tastypy_fast._formats.json_text import key_from_json, parse_json, spaced_json
from tastypy_fast._paths import Path, checked
from tastypy_fast.exceptions import DamagedInputError, StoreNotFoundError, StorePathError

__all__ = ["TastypyJsonReader", "write_tastypy_json"]

_NAME = re.compile(r"(0|[1-9][0-9]*)\.json(\.gz)?")
_ESCAPED = re.compile(rb"\\([\\t])")
_MEANT = {b"\\": b"\\", b"t": b"\t"}


def write_tastypy_json(folder: str, pairs: Iterator[tuple[Any, Any]], file_size: int, gzipped: bool) -> int:
    """Write the pairs into a new folder. Returns the number of lines."""
    os.mkdir(folder)
    suffix = ".json.gz" if gzipped else ".json"
    lines = (_line(key, value) for key, value in pairs)
    total = number = 0
    # Write one empty file for an empty store, which distinguishes its folder from other folders.
    first = list(islice(lines, 1))
    while first or not number:
        with create_file(os.path.join(folder, f"{number}{suffix}")) as file:
            for count, chunk in join_lines(chain(first, islice(lines, file_size - 1))):
                file.write(chunk)
                total += count
        number += 1
        first = list(islice(lines, 1))
    return total


def _line(key: Any, value: Any) -> bytes:
    return b"%s\t%s\n" % (spaced_json(key).replace(b"\\", b"\\\\"), spaced_json(value))


def _pair(line: bytes) -> tuple[Any, Any]:
    """Parse a line, and return its key and value. Raises ValueError if it is not in the format."""
    if not line.endswith(b"\n"):
        raise ValueError("the file was cut short, because its last line does not end with a newline; restore the rest, "
                         "or add the newline if the line is complete")
    key, tab, value = line.partition(b"\t")
    if not tab:
        raise ValueError("there is no tab between the key and the value; restore the line")
    if b"\\" in key:
        key = _ESCAPED.sub(lambda found: _MEANT[found[1]], key)
    return key_from_json(_parsed(key, "key")), _parsed(value, "value")


def _parsed(data: bytes, what: str) -> Any:
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"the {what} is not valid JSON: {error}") from None


class TastypyJsonReader:
    """Reader of a folder of these files. ``file_size`` is the number of lines per file, or None if it is not known.

    It yields (line number over all files, key, value), and raises DamagedInputError with the file and the line. The
    constructor raises StoreNotFoundError or StorePathError if there is no folder at the path.
    """

    def __init__(self, folder: Path, file_size: int | None) -> None:
        self.folder = checked(folder, "folder")
        self._file_size = file_size
        self._names = self._find()
        self._before: list[int] = []

    def _find(self) -> list[str]:
        """Return the names of the files in order. Raises DamagedInputError if a file is missing or foreign."""
        try:
            # Ignore the hidden files that systems leave in folders, such as .DS_Store.
            names = [name for name in os.listdir(self.folder) if not name.startswith(".")]
        except FileNotFoundError:
            raise StoreNotFoundError(errno.ENOENT, "there is no folder at this path to import", self.folder) from None
        except NotADirectoryError:
            raise StorePathError(errno.ENOTDIR, "this is a file; import the folder that holds 0.json", self.folder
                                 ) from None
        found = {name: _NAME.fullmatch(name) for name in names}
        numbered = {int(match[1]): name for name, match in found.items() if match}
        strays = sorted(name for name, match in found.items() if not match)
        if not numbered:
            some = f" (it holds {', '.join(strays[:3])})" if strays else ""
            raise self._damaged(f"there is no 0.json or 0.json.gz in it{some}; give the folder that the original "
                                f"tastypy wrote")
        if strays:
            raise self._damaged(f"{strays[0]} is not a file of the original tastypy; move it to another folder")
        if len({match[2] for match in found.values() if match}) > 1:
            raise self._damaged("some of its files end with .json and others with .json.gz; move those that do not "
                                "belong there to another folder")
        for number in range(len(numbered)):
            if number not in numbered:
                missing = f"{number}{'.json.gz' if numbered[max(numbered)].endswith('.gz') else '.json'}"
                raise self._damaged(f"{missing} is missing; restore it")
        return [numbered[number] for number in range(len(numbered))]

    def __iter__(self) -> Generator[tuple[int, Any, Any], None, None]:
        self._before = []
        total = 0
        for name in self._names:
            self._before.append(total)
            try:
                with open_lines(os.path.join(self.folder, name)) as lines:
                    for line in lines:
                        total += 1
                        try:
                            key, value = _pair(line)
                        except MemoryError as error:
                            raise line_too_large(self.where(total)) from error
                        yield total, key, value
            except MemoryError as error:
                raise line_too_large(self.where(total + 1)) from error
            except DamagedInputError as error:  # the file cannot be decompressed, or a line is too long
                raise self._damaged(f"{self._at(total + 1)}: {error}") from error
            except ValueError as error:
                raise self._damaged(f"{self._at(total)}: {error}") from None
            self._check_size(name, total - self._before[-1])

    def _check_size(self, name: str, count: int) -> None:
        if not count and len(self._names) > 1:
            raise self._damaged(f"{name} is empty, so its lines were lost; restore them, or delete the file if it is "
                                f"the last")
        size = self._file_size
        if size is None:
            # The size of the first file is the size of all files. A single file may have any size.
            self._file_size = size = count
        if count > size or (count < size and name != self._names[-1]):
            origin = "that was given" if name == self._names[0] else "of the files before it"
            raise self._damaged(f"{name} has {count} lines and not {size}, the file_size {origin}; lines were lost or "
                                f"added")

    def where(self, number: int) -> str:
        """Return the position of a line that was yielded, for errors. ``number`` counts over all files."""
        return f"the files in {self.folder} cannot be imported: {self._at(number)}"

    def _at(self, number: int) -> str:
        file = max(index for index, before in enumerate(self._before) if before < number)
        return f"{self._names[file]}, line {number - self._before[file]}"

    def _damaged(self, reason: str) -> DamagedInputError:
        return DamagedInputError(f"the files in {self.folder} cannot be imported: {reason}")
