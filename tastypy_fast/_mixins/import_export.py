"""A store written out for other programs, and read back: the original's files, and JSON Lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from typing import Any, Protocol, TypeVar

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
    """What a store has for this: the public interface."""

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
    """The part of a store that writes itself out and is read back."""

    def export_json(self: Store, folder: Path) -> int:
        """Write the store in the original tastypy's file format, which the original opens; the number of lines.

        ``0.json``, ``1.json`` and so on, with ``file_size`` lines each, or ``0.json.gz`` when the store is ``gzipped``.
        A line is the JSON of the key with every backslash doubled and every tab as ``\\t``, a tab, and the JSON of the
        value; tuple keys are arrays. ``folder`` must be new or empty. It appears when all of it is written and on
        the disk. What is changed while it is written may be in it or not, and a key that is deleted and added again may
        be there twice, which import_json() refuses; with ``locked()`` a shared store is written as it is at one moment.

        Cost: a walk over the store; memory for some hundred lines. Raises NotAStoreError when there is something in
        the folder, StorePathError, DiskFullError and StorageError; then there is no folder.

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
        """Make a store at ``path`` of the files in ``folder`` that the original tastypy has written, and open it.

        ``arguments`` are those of the class. With ``file_size``, the first file is checked to have so many lines, too,
        and not only all others to have as many. Whether the files are gzipped, their names tell. ``path`` must be new
        or an empty folder, and has a store when all of it is read, checked and on the disk. The files are only read.

        Cost: of reading the files and of filling a store; memory for a thousand lines. Raises DamagedInputError, which
        names file and line, for a file that is missing, not full, cut short or not in the format, and for a key that
        comes twice; InvalidKeyError and UnstorableValueError for what the class cannot hold, such as a value of a
        tracker that is no dict; NotAStoreError when there is something at ``path``; DiskFullError and StorageError.
        Then there is no store at ``path``, nor when the process is killed; what is left beside it then, the next import
        to ``path`` removes.

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

    def export_jsonl(self: Store, target: Any) -> int:
        """Write the store as JSON Lines, ``{"key": ..., "value": ...}`` for each key; the number of lines.

        ``target`` is a path, which must be new (or a pipe or a device), or an open text or binary file. A path is
        compressed by its name: ``.gz``, or ``.zst`` (with the package zstandard). It appears when all of it is written
        and on the disk. Tuple keys are arrays. NaN and infinity, which JSON does not have, are written ``NaN`` and
        ``Infinity``, as Python's ``json`` does; ints are as long as they are. What is changed while it is written may
        be in it or not; with ``locked()`` a shared store is written as it is at one moment.

        Cost: a walk over the store; memory for some hundred lines. Raises NotAStoreError when there is something at the
        path, StorePathError, DiskFullError and StorageError, and ImportError without zstandard.

        >>> PersistentOrderedDict(path, init={"a": [1], ("b", 2): None}).export_jsonl("pod.jsonl.gz")
        2
        >>> import sys
        >>> PersistentOrderedDict(path).export_jsonl(sys.stdout)
        {"key":"a","value":[1]}
        {"key":["b",2],"value":null}
        2
        """
        return write_jsonl(target, self.iteritems(), self.path)

    def import_jsonl(self: Store, source: Any) -> int:
        """Assign the keys and values of JSON Lines, as ``update()`` does; the number of lines.

        ``source`` is a path (``.gz`` and ``.zst`` are unpacked), or an open text or binary file. Lines are
        ``{"key": ..., "value": ...}``, and an array as a key is a tuple. Keys that are there get the new value, and
        tasks are mixed in. Empty lines are passed over.

        Cost: of so many assignments; memory for a thousand lines. A shared store takes a thousand lines as one
        transaction. Raises DamagedInputError for a line that is not in the format or has a number of more than
        100,000 digits, InvalidKeyError and UnstorableValueError for what the store cannot hold: the message names the
        line and tells how many before it are in the store, which stay there.

        >>> import io
        >>> pod = PersistentOrderedDict(path)
        >>> pod.import_jsonl(io.StringIO('{"key": "a", "value": 1}\\n{"key": ["b", 2], "value": []}\\n'))
        2
        >>> pod.items()
        [('a', 1), (('b', 2), [])]
        """
        lines = JsonlReader(source)
        # (an error leaves no file open)
        with closing(iter(lines)) as entries:
            return _fill(self, entries, lines.where)


def make_store(open_store: Any, path: Path, source: TastypyJsonReader | JsonlReader, entries: Entries,
               **arguments: Any) -> tuple[Any, int]:
    """Make a store at ``path`` of the entries of ``source``, and open it; also how many entries there were.

    The store appears whole and on the disk, or not at all. ``open_store`` is its class, and ``arguments`` are those of
    the class.
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
            # (what was not saved is not wanted any more)
            with suppress(PersistentOrderedDictException):
                store.revert()
                store.close()
            raise
        if later:  # (what is wrong with these leaves nothing either)
            open_store(made, **arguments, **later).close()
    later.pop("init", None)
    return open_store(target, **arguments, **later), total


# Called after each batch, with how many keys there should be, and the keys of the batch.
Check = Callable[[Store, int, list[Any]], None]


def _fill(store: Store, entries: Entries, where: Callable[[int], str], check: Check | None = None,
          whole: bool = False) -> int:
    """Put entries, which are (place, key, value), into a store. How many there were.

    ``whole``: an error leaves nothing of the store, and says so.
    """
    total = 0
    while True:
        batch: list[tuple[int, Any, Any]] = []
        damage: Exception | None = None
        try:
            # (one by one, so that what came before an error is there)
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
        # One by one, to find out which one it was. (A second time does no harm.)
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
    """A check that raises when a key came a second time."""

    def check(store: Store, total: int, keys: list[Any]) -> None:
        if len(store) == total:
            return
        # The new ones are among these, the old ones may be anywhere before.
        wanted = set(keys)
        seen: dict[Any, int] = {}
        with closing(iter(source)) as entries:
            for place, key, _ in entries:
                if key in wanted:
                    if key in seen:
                        raise DamagedInputError(
                            f"{source.where(place)}: the key {describe(key)} is there already, in line {seen[key]} of "
                            f"all; delete one of them"
                        )
                    seen[key] = place

    return check
