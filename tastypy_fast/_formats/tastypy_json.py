"""The files of the original tastypy: ``0.json``, ``1.json`` and so on, with ``file_size`` lines each.

A line is the JSON of the key, with every backslash doubled and every tab as ``\\t``, then a tab, then the JSON of the
value, then a newline. Tuple keys are arrays. All files but the last one are full. Gzipped, the names end with
``.json.gz``. JSON is ASCII here, as ``json.dumps`` writes it.
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
    """Write the pairs into a new folder. The number of lines."""
    os.mkdir(folder)
    suffix = ".json.gz" if gzipped else ".json"
    lines = (_line(key, value) for key, value in pairs)
    total = number = 0
    # (an empty store has one empty file, by which the folder can be told from any other)
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
    """The key and value of a line. Raises ValueError."""
    if not line.endswith(b"\n"):
        raise ValueError("the file was cut short: its last line has no end. Bring the rest back, or, if the line is "
                         "whole, add a newline")
    key, tab, value = line.partition(b"\t")
    if not tab:
        raise ValueError("there is no tab between a key and a value")
    if b"\\" in key:
        key = _ESCAPED.sub(lambda found: _MEANT[found[1]], key)
    return key_from_json(_parsed(key, "key")), _parsed(value, "value")


def _parsed(data: bytes, what: str) -> Any:
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"the {what} is no JSON: {error}") from None


class TastypyJsonReader:
    """A folder of such files, to read. ``file_size`` is None where it is not known.

    Iterating yields (number of the line, counted through all files, key, value). Raises DamagedInputError, which names
    file and line, StoreNotFoundError and StorePathError.
    """

    def __init__(self, folder: Path, file_size: int | None) -> None:
        self.folder = checked(folder, "folder")
        self._file_size = file_size
        self._names = self._find()
        self._before: list[int] = []

    def _find(self) -> list[str]:
        """The names of the files in order, all of them there and nothing else."""
        try:
            # (what systems leave in folders, such as .DS_Store)
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
                                f"wrote to")
        if strays:
            raise self._damaged(f"{strays[0]} is none of the original's files; if it does not belong there, move it "
                                f"away")
        if len({match[2] for match in found.values() if match}) > 1:
            raise self._damaged("some of its files end with .json and others with .json.gz; move away those that do "
                                "not belong there")
        for number in range(len(numbered)):
            if number not in numbered:
                missing = f"{number}{'.json.gz' if numbered[max(numbered)].endswith('.gz') else '.json'}"
                raise self._damaged(f"{missing} is missing; bring it back")
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
            except DamagedInputError as error:  # it does not unpack, or has no end
                raise self._damaged(f"{self._at(total + 1)}: {error}") from error
            except ValueError as error:
                raise self._damaged(f"{self._at(total)}: {error}") from None
            self._check_size(name, total - self._before[-1])

    def _check_size(self, name: str, count: int) -> None:
        if not count and len(self._names) > 1:
            raise self._damaged(f"{name} is empty: its lines were lost; bring them back, or delete it if it is last")
        size = self._file_size
        if size is None:
            # The first file tells. (One that is alone may be of any size.)
            self._file_size = size = count
        if count > size or (count < size and name != self._names[-1]):
            whose = "given" if name == self._names[0] else "of the files before it"
            raise self._damaged(f"{name} has {count} lines and not {size}, the file_size {whose}; lines were lost or "
                                f"added")

    def where(self, number: int) -> str:
        """The place of a line that was yielded, counted through all files."""
        return f"the files in {self.folder} cannot be imported: {self._at(number)}"

    def _at(self, number: int) -> str:
        file = max(index for index, before in enumerate(self._before) if before < number)
        return f"{self._names[file]}, line {number - self._before[file]}"

    def _damaged(self, reason: str) -> DamagedInputError:
        return DamagedInputError(f"the files in {self.folder} cannot be imported: {reason}")
