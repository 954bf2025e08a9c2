"""Convert a tracker into a table for analysis: Arrow, pandas, polars.

pyarrow converts the values, batch by batch. This module adds one type for each column over all batches, the column of
the keys, the choice of rows and columns, and errors that name the field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from tastypy_fast._core.iterators import COPIES, STATUSES
from tastypy_fast._core.key_codec import describe
from tastypy_fast._formats.json_text import spaced_json
from tastypy_fast._inspect import statuses as task_statuses
from tastypy_fast._optional import optional_import
from tastypy_fast.exceptions import UnstorableValueError
from tastypy_fast.types import TaskStatus

__all__ = ["DataFrameMixin"]

# The number of tasks that are in memory at once, in addition to the table.
BATCH = 10_000
# The number of columns that an error names, and of tasks in which it looks for them.
MAX_NAMED, MAX_SEARCHED = 20, 1000
STATUS = {"_done": "done", "_aborted": "aborted", "_tries": "tries"}
COLUMNS = ("key", *STATUS.values())


class DataFrameMixin:
    """The part of a tracker that returns all tasks as a table."""

    def to_arrow(
        self,
        *,
        columns: Iterable[str] | None = None,
        status: TaskStatus | Iterable[TaskStatus] | None = None,
        as_json: Iterable[str] = (),
    ) -> Any:
        """Return the tasks as a ``pyarrow.Table``, in order.

        The columns are ``key``, ``done``, ``aborted``, ``tries``, and one for each field of the tasks' data. A field is
        null in the row of a task that does not have it. ``key`` is a string if all keys are strings, and int64 if all
        keys are ints of 64 bits. Otherwise it is the JSON text of each key: ``"a"`` with its quotes, tuples as arrays.

        A field gets the prefix ``data.``, as in ``data.key``, if one of the four columns or another column has its
        name. pyarrow converts the values: dicts become structs, lists stay lists, and ints become floats in a column
        with floats. The iteration over the tasks is live, as with ``iteritems()``. A task whose status changes
        meanwhile has the old status or the new one.

        Args:
            columns: The names of the columns to return, in this order. No others are made, and with ``key``, ``done``,
                ``aborted`` and ``tries`` alone no data are decoded. A name that no row has a value for raises
                ValueError, but a table without rows has all of them. None returns all columns.
            status: One or more of the statuses ``new``, ``running``, ``to retry``, ``failed``, ``aborted`` and
                ``done`` (``types.TaskStatus``). Only tasks with one of them are returned, and the data of few others
                are read. Without ``max_tries``, no task is ``failed``. None returns all tasks.
            as_json: Names of fields whose values become JSON text. Use it for values that one column cannot hold, and
                for dicts with many different keys, which would make wide structs.

        Returns:
            The table.

        Raises:
            UnstorableValueError: One column cannot hold the values of a field, for example text and numbers, ints
                beyond 64 bits or lone surrogates. The message names the field.
            ImportError: pyarrow is not installed; it comes with the extra ``frames``.
            ValueError: ``status`` or ``columns`` has a name that does not exist. The message names the columns.

        Cost:
            O(n) time for n tasks; memory for the table and 10,000 tasks. With ``done`` or ``aborted`` alone, or without
            both, the other tasks cost 4 bytes each.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {"_done": True, "size": 1}, "b": {}})
            >>> tracker.to_arrow().to_pylist()[1]
            {'key': 'b', 'done': False, 'aborted': False, 'tries': 0, 'size': None}
            >>> tracker.to_arrow(columns=["key", "size"], status="done").to_pylist()
            [{'key': 'a', 'size': 1}]
        """
        arrow = optional_import("pyarrow", "frames", "to_arrow()")
        names = None if columns is None else names_in("columns", columns)
        wanted = None if names is None else names_of_fields(names)
        words = None if status is None else task_statuses.status_words(status)
        try:
            return table_of(arrow, pairs_of(self, wanted, words), names_in("as_json", as_json), names)
        except MissingColumnError as error:
            raise error.as_value_error(pairs_of(self, None, words)) from None

    def to_pandas(
        self,
        *,
        columns: Iterable[str] | None = None,
        status: TaskStatus | Iterable[TaskStatus] | None = None,
        as_json: Iterable[str] = (),
        **options: Any,
    ) -> Any:
        """Return the tasks as a ``pandas.DataFrame``, with the columns of ``to_arrow()``.

        Ints and bools have the nullable types of pandas (``Int64``, ``boolean``), so that they stay exact. Dicts and
        lists are Python objects, with the same ints and None inside. Each dict has the keys of all dicts of its column,
        with None for a missing key.

        Args:
            columns: As for ``to_arrow()``.
            status: As for ``to_arrow()``.
            as_json: As for ``to_arrow()``.
            **options: Options of ``pyarrow.Table.to_pandas``.

        Returns:
            The data frame.

        Raises:
            UnstorableValueError: As for ``to_arrow()``.
            ImportError: pyarrow or pandas is not installed; they come with the extra ``frames``.

        Cost:
            That of ``to_arrow()``, and a second copy of the data.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {"_done": True, "size": 1}, "b": {}})
            >>> int(tracker.to_pandas().query("done")["size"].sum())
            1
            >>> tracker.to_pandas(columns=["size"], status="done")["size"].tolist()
            [1]
        """
        pandas = optional_import("pandas", "frames", "to_pandas()")
        arrow = optional_import("pyarrow", "frames", "to_pandas()")
        table = self.to_arrow(columns=columns, status=status, as_json=as_json)
        types = {arrow.int64(): pandas.Int64Dtype(), arrow.bool_(): pandas.BooleanDtype()}
        return frame_of(arrow, pandas, table, {"types_mapper": types.get, **options})

    def to_polars(
        self,
        *,
        columns: Iterable[str] | None = None,
        status: TaskStatus | Iterable[TaskStatus] | None = None,
        as_json: Iterable[str] = (),
    ) -> Any:
        """Return the tasks as a ``polars.DataFrame``, with the columns of ``to_arrow()``.

        Args:
            columns: As for ``to_arrow()``.
            status: As for ``to_arrow()``.
            as_json: As for ``to_arrow()``.

        Returns:
            The data frame.

        Raises:
            UnstorableValueError: As for ``to_arrow()``.
            ImportError: pyarrow or polars is not installed; they come with the extra ``frames``.

        Cost:
            That of ``to_arrow()``.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {"_done": True, "size": 1}, "b": {}})
            >>> tracker.to_polars().filter(done=True)["size"].to_list()
            [1]
        """
        polars = optional_import("polars", "frames", "to_polars()")
        return polars.from_arrow(self.to_arrow(columns=columns, status=status, as_json=as_json))


# Rows and columns


def names_in(argument: str, given: Iterable[str]) -> list[str]:
    """Return the names in an argument, which may be an iterator. Raises TypeError for anything else."""
    if isinstance(given, str):
        raise TypeError(f"{argument} must be a collection of names, not the text {given!r}; use [{given!r}]")
    if not isinstance(given, Iterable):
        raise TypeError(f"{argument} must be a collection of names, not {given!r:.80}")
    return list(given)


def names_of_fields(columns: Collection[str]) -> list[str]:
    """Return the names of the fields in tasks' dicts from which these columns are made."""
    fields: dict[str, None] = {}
    for column in columns:
        if not isinstance(column, str):
            raise TypeError(f"columns must be a collection of names, and {describe(column)} is none")
        if column in STATUS:
            raise ValueError(f"there is no column {column!r}; use {STATUS[column]!r}")
        if column in COLUMNS:
            fields.update((name, None) for name, status in STATUS.items() if status == column)
            continue
        fields[column] = None
        # "data.key" may be the field of this name, or the field "key". See names_of_columns().
        name = column
        while name.startswith("data."):
            name = name.removeprefix("data.")
        if name in COLUMNS:
            while column != name:
                column = column.removeprefix("data.")
                fields[column] = None
    return list(fields)


def pairs_of(
    tracker: Any, fields: list[str] | None, statuses: Collection[str] | None
) -> Iterable[tuple[Any, dict[str, Any]]]:
    """Iterate over pairs of a key and a dict with these fields, for the tasks with these statuses."""
    has_data = fields is None or not STATUS.keys() >= set(fields)
    pairs: Iterable[tuple[Any, dict[str, Any]]]
    if has_data and statuses is None:
        pairs = tracker.iteritems()
    else:
        flags = task_statuses.flags_of(task_statuses.STATUSES if statuses is None else statuses)
        pairs = tracker._tasks_with(COPIES if has_data else STATUSES, *flags)
    if statuses is not None:
        status_of = task_statuses.StatusReader(tracker).classifier()
        pairs = ((key, task) for key, task in pairs if status_of(key, task) in statuses)
    if fields is not None:
        pairs = ((key, {name: task[name] for name in fields if name in task}) for key, task in pairs)
    return pairs


def table_of(arrow: Any, pairs: Iterable[tuple[Any, dict[str, Any]]], as_json: Collection[str],
             columns: Collection[str] | None = None) -> Any:
    """Convert pairs of keys and tasks to a table of all columns, or of these.

    Raises MissingColumnError if no task has the field of a column. Without tasks, such a column is of nulls.
    """
    fields = Fields(arrow)
    keys: list[Any] = []
    tables = []
    rows = 0
    for names, tasks in batches(pairs):
        if as_json:
            tasks = [in_json(task, as_json) for task in tasks]
        rows += len(names)
        if columns is None or "key" in columns:
            keys.append(column_of_keys(arrow, names))
        tables.extend(fields.convert(names, tasks))
    if tables:
        table = joined(arrow, tables)
        found = {"key": in_one_type(arrow, keys)} if keys else {}
        found.update(zip(names_of_columns(table.column_names), table.columns, strict=True))
    else:
        kinds = {"key": arrow.string(), "done": arrow.bool_(), "aborted": arrow.bool_(), "tries": arrow.int64()}
        found = {name: arrow.array([], kind) for name, kind in kinds.items()}
    if columns is not None:
        missing = [name for name in columns if name not in found]
        if rows and missing:
            raise MissingColumnError(missing[0])
        found = {name: found[name] if name in found else arrow.nulls(0) for name in columns}
    return arrow.table(found)


class MissingColumnError(Exception):
    """Raised if no task has the field of a column."""

    def as_value_error(self, pairs: Iterable[tuple[Any, dict[str, Any]]]) -> ValueError:
        """Return the error for the caller, which names the columns of the first of these tasks."""
        fields = dict.fromkeys(chain.from_iterable(task for _, task in islice(pairs, MAX_SEARCHED)))
        known = ["key", *names_of_columns([*STATUS, *(name for name in fields if name not in STATUS)])]
        more = f" and {len(known) - MAX_NAMED:,} more" if len(known) > MAX_NAMED else ""
        return ValueError(f"there is no column {self.args[0]!r}, because no task of the table has such a field; the "
                          f"columns are {', '.join(map(repr, known[:MAX_NAMED]))}{more}")


def frame_of(arrow: Any, pandas: Any, table: Any, options: dict[str, Any]) -> Any:
    """Convert a table to a pandas.DataFrame."""
    mapper: Callable[[Any], Any] = options["types_mapper"] or (lambda kind: None)
    nested = [field.name for field in table.schema
              if arrow.types.is_nested(field.type) and mapper(field.type) is None]
    if not nested:
        return table.to_pandas(**options)
    # Convert nested values here. pyarrow would make numpy arrays of them, in which ints become floats next to a None.
    frame = table.drop_columns(nested).to_pandas(**options)
    objects = {name: pandas.Series(table[name].to_pylist(), index=frame.index, dtype=object) for name in nested}
    return pandas.concat([frame, pandas.DataFrame(objects)], axis="columns")[table.column_names]


def batches(pairs: Iterable[tuple[Any, dict[str, Any]]]) -> Iterator[tuple[list[Any], list[dict[str, Any]]]]:
    """Yield lists of keys and tasks, in batches."""
    iterator = iter(pairs)
    while chunk := list(islice(iterator, BATCH)):
        yield [key for key, _ in chunk], [task for _, task in chunk]


def joined(arrow: Any, tables: list[Any]) -> Any:
    """Join tables. Raises UnstorableValueError if ints of one batch are too large for the floats of another batch."""
    try:
        return arrow.concat_tables(tables, promote_options="permissive")
    except REFUSALS as error:
        for name in dict.fromkeys(chain.from_iterable(table.column_names for table in tables)):
            parts = [table.select([name]) for table in tables if name in table.column_names]
            try:
                arrow.concat_tables(parts, promote_options="permissive")
            except REFUSALS as cause:
                raise unfit(name, "", cause) from error
        raise


def unfit(name: str, where: str, cause: Exception) -> UnstorableValueError:
    """Return the error for a field."""
    reason = " ".join(str(cause).split())
    return UnstorableValueError(
        f"one column cannot hold the values of the field {name!r} ({where}{reason}); with as_json=[{name!r}] they "
        f"become JSON text"
    )


def span(keys: list[Any]) -> str:
    """Describe the tasks of a batch, for errors."""
    first, last = describe(keys[0]), describe(keys[-1])
    return f"the tasks from {first} to {last}" if len(keys) > 1 else f"the task {first}"


def text_of(value: Any) -> str:
    """Return the JSON of a value or a key, in ASCII."""
    try:
        return json.dumps(value)
    except ValueError:  # an int of more digits than Python writes
        return spaced_json(value).decode("utf-8", "backslashreplace")


def in_json(task: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: text_of(value) if name in names and name not in STATUS else value for name, value in task.items()}


def names_of_columns(names: list[str]) -> list[str]:
    """Return a unique name for the column of each field."""
    taken = {*names, *COLUMNS}
    columns = []
    for name in names:
        column = STATUS.get(name, name)
        if name in COLUMNS:
            while column in taken:
                column = f"data.{column}"
            taken.add(column)
        columns.append(column)
    return columns


# The fields


class Fields:
    """The fields of the batches so far, each with a type that holds all its values."""

    def __init__(self, arrow: Any) -> None:
        self._arrow = arrow
        self._schema = arrow.schema([])

    def convert(self, keys: list[Any], tasks: list[dict[str, Any]]) -> list[Any]:
        """Convert a batch to tables. Raises UnstorableValueError if it is no table or contradicts earlier batches."""
        arrow = self._arrow
        try:
            array = arrow.array(tasks)
        except arrow.ArrowCapacityError:
            array = None
        except REFUSALS as error:
            raise self._refused(error, keys, tasks, self._convert_one) from error
        if not isinstance(array, arrow.Array):  # 2 GB of text are too much for one batch
            middle = len(tasks) // 2
            if not middle:
                raise UnstorableValueError(f"the data of task {describe(keys[0])} is too large for a table")
            halves = (slice(middle), slice(middle, None))
            return [table for half in halves for table in self.convert(keys[half], tasks[half])]
        batch = arrow.RecordBatch.from_struct_array(array)
        try:
            self._schema = arrow.unify_schemas([self._schema, batch.schema], promote_options="permissive")
        except REFUSALS as error:
            raise self._refused(error, keys, tasks, self._unify_one) from error
        return [arrow.Table.from_batches([batch])]

    def _convert_one(self, name: str, tasks: list[dict[str, Any]]) -> None:
        self._arrow.array([{name: task[name]} for task in tasks if name in task])

    def _unify_one(self, name: str, tasks: list[dict[str, Any]]) -> None:
        arrow = self._arrow
        field = arrow.field(name, arrow.array([task.get(name) for task in tasks]).type)
        if name in self._schema.names:
            field_before = arrow.schema([self._schema.field(name)])
            arrow.unify_schemas([field_before, arrow.schema([field])], promote_options="permissive")

    def _refused(
        self, error: Exception, keys: list[Any], tasks: list[dict[str, Any]],
        attempt: Callable[[str, list[dict[str, Any]]], None],
    ) -> UnstorableValueError:
        """Return the error for the field that was refused."""
        for name in dict.fromkeys(chain.from_iterable(tasks)):
            try:
                attempt(name, tasks)
            except REFUSALS as cause:
                return unfit(name, f"in {span(keys)}: ", cause)
        return UnstorableValueError(f"{span(keys)} cannot be converted to a table: {error}")


# The errors of pyarrow for values that it cannot convert. Its own error classes are subclasses of these.
REFUSALS = (TypeError, ValueError, OverflowError, NotImplementedError)


# The keys


def column_of_keys(arrow: Any, keys: list[Any]) -> Any:
    """Return the keys of a batch as an array of strings or int64, or as a list if they are neither."""
    for kind in (arrow.string(), arrow.int64()):
        try:
            return arrow.array(keys, kind)
        except REFUSALS:
            pass
    return keys


def in_one_type(arrow: Any, columns: list[Any]) -> Any:
    """Join the key columns of the batches into one column of one type."""
    kinds = {column.type if isinstance(column, arrow.Array) else None for column in columns}
    if len(kinds) > 1 or None in kinds:
        columns = [arrow.array(list(map(text_of, column.to_pylist() if isinstance(column, arrow.Array) else column)))
                   for column in columns]
    return arrow.chunked_array(columns)
