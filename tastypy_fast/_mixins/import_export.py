"""Export a store for other programs, and import it, as files of the original tastypy or as JSON Lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from typing import IO, Any, Protocol, TypeVar

from tastypy_fast._core.key_codec import describe
from tastypy_fast._formats.atomic_output import atomic_output, resolve_new_path, translate_os_errors
from tastypy_fast._formats.jsonl import JsonlReader, write_jsonl
from tastypy_fast._formats.tastypy_json import TastypyJsonReader, write_tastypy_json
from tastypy_fast._paths import Path, resolved
from tastypy_fast._store.options import at_least
from tastypy_fast.exceptions import (
    DamagedInputError,
    InvalidKeyError,
    PersistentOrderedDictException,
    UnstorableValueError,
)

__all__ = ["ImportExportMixin", "make_store"]

_BATCH = 1000

Entries = Iterator[tuple[int, Any, Any]]
Made = TypeVar("Made", bound="ImportExportMixin")


class Store(Protocol):
    """The part of the public interface of a store that this module uses."""

    @property
    def path(self) -> str: ...
    @property
    def gzipped(self) -> bool: ...
    @property
    def file_size(self) -> int: ...
    def __len__(self) -> int: ...
    def iteritems(self) -> Iterator[tuple[Any, Any]]: ...
    def update(self, pairs: Iterable[tuple[Any, Any]], /) -> None: ...


class ImportExportMixin:
    """The part of a store that exports and imports."""

    def export_json(self: Store, folder: Path) -> int:
        """Write the store in the file format of the original tastypy, which the original can open.

        The files are ``0.json``, ``1.json`` and so on, with ``file_size`` lines each. If the store is ``gzipped``, they
        are ``0.json.gz`` and so on. A line has the JSON of the key, a tab and the JSON of the value. In the key, every
        backslash is doubled and every tab is written as ``\\t``. Tuple keys are arrays.

        Changes that are made meanwhile may be exported or not. A key that is deleted and added again meanwhile may be
        exported twice, which ``import_json()`` refuses. Inside ``locked()`` the export has the state of one moment.

        Args:
            folder: The folder to make, which must be new or empty. It appears when all files are on disk.

        Returns:
            The number of lines.

        Raises:
            NotAStoreError: The folder is not empty.
            StorePathError: There cannot be a folder at the path.
            DiskFullError: The disk is full. Then there is no folder.
            StorageError: The system cannot write the files. Then there is no folder.

        Cost:
            O(n) time; memory for some hundred lines.

        Example:
            >>> pod = PersistentOrderedDict(path, init={"a\\tb": [1], ("c", 2): None}, file_size=1)
            >>> pod.export_json("files")
            2
            >>> from pathlib import Path
            >>> Path("files/0.json").read_text(), Path("files/1.json").read_text()
            ('"a\\\\\\\\tb"\\t[1]\\n', '["c", 2]\\tnull\\n')
        """
        target = resolve_new_path(folder, "export to", self.path, "the store that is exported")
        with translate_os_errors(target), atomic_output(target) as made:
            return write_tastypy_json(made, self.iteritems(), self.file_size, self.gzipped)

    @classmethod
    def import_json(cls: type[Made], folder: Path, path: Path, **arguments: Any) -> Made:
        """Make a store of files that the original tastypy or ``export_json()`` has written, and open it.

        The files are only read. Files whose names end with ``.gz`` are decompressed. The store appears when all data
        are read, checked and on disk. If the process is killed before that, there is no store, and the next import to
        ``path`` removes the leftovers.

        Args:
            folder: The folder of the files.
            path: The folder of the store, which must be new or empty.
            **arguments: Arguments of the class. With ``file_size``, the first file must have this number of lines.
                Without it, only the other files are compared with the first.

        Returns:
            The store.

        Raises:
            DamagedInputError: A file is missing, not full, cut short or not in the format, or a key occurs twice. The
                message names file and line. There is no store after this error and the errors below.
            InvalidKeyError: A key cannot be stored.
            UnstorableValueError: A value cannot be stored, or is no dict in a tracker.
            NotAStoreError: ``path`` exists and is not an empty folder.
            DiskFullError: The disk is full.
            StorageError: The system cannot read or write.

        Cost:
            O(n) time, to read the files and to fill a store; memory for a thousand lines.

        Example:
            >>> PersistentOrderedDict(path, init={"a": 1, ("b", 2): [None]}).export_json("files")
            2
            >>> PersistentOrderedDict.import_json("files", "copy").items()
            [('a', 1), (('b', 2), [None])]
        """
        size = arguments.get("file_size")
        source = TastypyJsonReader(folder, None if size is None else at_least("file_size", size, 1))
        with closing(iter(source)) as entries:
            opened: Made = make_store(cls, path, source, entries, **arguments)[0]
        return opened

    def export_jsonl(self: Store, target: Path | IO[str] | IO[bytes]) -> int:
        """Write the store as JSON Lines: ``{"key": ..., "value": ...}`` for each key.

        Tuple keys are arrays. NaN and infinity, which JSON does not have, are written ``NaN`` and ``Infinity``, as by
        Python's ``json``. Ints are written in full. Changes that are made meanwhile may be exported or not. Inside
        ``locked()`` the export has the state of one moment.

        Args:
            target: A new path, a pipe, a device, or an open text or binary file. A file whose path ends with ``.gz`` or
                ``.zst`` is compressed. A new file appears when all lines are on disk.

        Returns:
            The number of lines.

        Raises:
            NotAStoreError: The path exists.
            StorePathError: There cannot be a file at the path.
            DiskFullError: The disk is full.
            StorageError: The system cannot write the file.
            ImportError: The path ends with ``.zst``, and zstandard is not installed.

        Cost:
            O(n) time; memory for some hundred lines.

        Example:
            >>> PersistentOrderedDict(path, init={"a": [1], ("b", 2): None}).export_jsonl("pod.jsonl.gz")
            2
            >>> import sys
            >>> PersistentOrderedDict(path).export_jsonl(sys.stdout)
            {"key":"a","value":[1]}
            {"key":["b",2],"value":null}
            2
        """
        return write_jsonl(target, self.iteritems(), self.path)

    def import_jsonl(self: Store, source: Path | IO[str] | IO[bytes]) -> int:
        """Assign the keys and values of JSON Lines, as ``update()`` does.

        Lines are ``{"key": ..., "value": ...}``, and an array as a key becomes a tuple. Existing keys get the new
        value, and existing tasks are updated. Empty lines are skipped.

        Args:
            source: A path, or an open text or binary file. Files whose paths end with ``.gz`` or ``.zst`` are
                decompressed.

        Returns:
            The number of lines.

        Raises:
            DamagedInputError: A line is not in the format, or has a number of more than 100,000 digits. The message
                has the number of the line, and how many lines before it are in the store and stay there. The messages
                of the next two errors have them, too.
            InvalidKeyError: A key cannot be stored.
            UnstorableValueError: A value cannot be stored.
            ImportError: The path ends with ``.zst``, and zstandard is not installed.

        Cost:
            O(m) for m lines, one assignment for each; memory for a thousand lines. A shared store writes each thousand
            lines in one transaction.

        Example:
            >>> import io
            >>> pod = PersistentOrderedDict(path)
            >>> pod.import_jsonl(io.StringIO('{"key": "a", "value": 1}\\n{"key": ["b", 2], "value": []}\\n'))
            2
            >>> pod.items()
            [('a', 1), (('b', 2), [])]
        """
        lines = source if isinstance(source, JsonlReader) else JsonlReader(source)
        # Close the generator, because an error must not leave the file open.
        with closing(iter(lines)) as entries:
            return _fill(self, entries, lines.where)


def make_store(open_store: Any, path: Path, source: TastypyJsonReader | JsonlReader, entries: Entries,
               **arguments: Any) -> tuple[Any, int]:
    """Make a store at ``path`` from the entries of ``source``. Returns the open store and the number of entries.

    The store appears when it is complete and on disk, or not at all. ``open_store`` is its class, and ``arguments`` are
    the arguments of this class.
    """
    folder = resolved(source.folder) if isinstance(source, TastypyJsonReader) else None
    check = _refuse_duplicates(source) if isinstance(source, TastypyJsonReader) else None
    target = resolve_new_path(path, "import into", folder, "the folder that is imported")
    later = {name: arguments.pop(name) for name in ("init", "mode") if name in arguments}
    with atomic_output(target) as made:
        store = open_store(made, **arguments)
        try:
            total = _fill(store, entries, source.where, check, whole=True)
            store.close()
        except BaseException:
            # Drop unsaved changes, because the store is removed.
            with suppress(PersistentOrderedDictException):
                store.revert()
                store.close()
            raise
        if later:  # open it with these arguments now, because an error in them must leave no store either
            open_store(made, **arguments, **later).close()
    later.pop("init", None)
    return open_store(target, **arguments, **later), total


# Called after each batch with the expected number of keys, and the keys of the batch.
Check = Callable[[Store, int, list[Any]], None]


def _fill(store: Store, entries: Entries, where: Callable[[int], str], check: Check | None = None,
          whole: bool = False) -> int:
    """Put entries, which are (position, key, value), into a store, and return their number.

    ``whole`` says that an error leaves no store, for the error message.
    """
    total = 0
    while True:
        batch: list[tuple[int, Any, Any]] = []
        damage: Exception | None = None
        try:
            # Append one by one, because the entries before an error must be kept.
            for entry in islice(entries, _BATCH):
                batch.append(entry)
        except Exception as error:
            damage = error
        if batch and not (damage and whole):
            _put(store, batch, where, total, whole)
            total += len(batch)
            if check is not None:
                check(store, total, [key for _, key, _ in batch])
        if isinstance(damage, DamagedInputError):
            raise DamagedInputError(f"{damage}; {_so_far(total, whole)}") from damage
        if damage is not None:
            raise damage
        if len(batch) < _BATCH:
            return total


def _put(store: Store, batch: list[tuple[int, Any, Any]], where: Callable[[int], str], before: int,
         whole: bool) -> None:
    try:
        store.update((key, value) for _, key, value in batch)
    except (InvalidKeyError, UnstorableValueError):
        # Assign one by one to find the entry. Assigning an earlier entry again does not change the store.
        for number, (place, key, value) in enumerate(batch):
            try:
                store.update(((key, value),))
            except (InvalidKeyError, UnstorableValueError) as error:
                raise type(error)(f"{where(place)}: {error}; {_so_far(before + number, whole)}") from error


def _so_far(count: int, whole: bool) -> str:
    if whole:
        return "nothing was imported"
    return f"the {count} before it are in the store" if count != 1 else "the one before it is in the store"


def _refuse_duplicates(source: TastypyJsonReader) -> Check:
    """Return a check that raises DamagedInputError if a key occurs twice."""

    def check(store: Store, total: int, keys: list[Any]) -> None:
        if len(store) == total:
            return
        # A duplicate is a key of this batch. Its first occurrence may be in any earlier batch.
        wanted = set(keys)
        seen: dict[Any, int] = {}
        with closing(iter(source)) as entries:
            for place, key, _ in entries:
                if key in wanted:
                    if key in seen:
                        raise DamagedInputError(
                            f"{source.where(place)}: the key {describe(key)} is there already, in line {seen[key]} of "
                            f"all files; delete one of them"
                        )
                    seen[key] = place

    return check
