"""Convert a tracker into a table for analysis: Arrow, pandas, polars.

pyarrow converts the values, batch by batch. This module adds what a table needs besides: one type for each column over
all batches, the column of the keys, and an error that names the field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from tastypy_fast._core.key_codec import describe
from tastypy_fast._formats.json_text import spaced_json
from tastypy_fast._optional import optional_import
from tastypy_fast.exceptions import UnstorableValueError

__all__ = ["DataFrameMixin"]

# The number of tasks that are in memory at once, in addition to the table.
BATCH = 10_000
STATUS = {"_done": "done", "_aborted": "aborted", "_tries": "tries"}
COLUMNS = ("key", *STATUS.values())


class DataFrameMixin:
    """The part of a tracker that returns all of it as a table."""

    def to_arrow(self, *, as_json: Collection[str] = ()) -> Any:
        """Return all tasks as a ``pyarrow.Table``, in order.

        The columns are ``key``, ``done``, ``aborted``, ``tries``, and one for each field of the tasks' data, null where
        a task does not have it. ``key`` is a string if all keys are, int64 if all are ints of 64 bits, and otherwise
        JSON text of each key (``"a"`` with its quotes; tuples as arrays). A field that has the name of one of the four
        columns, or of another field's column, gets the prefix ``data.``: ``data.key``. pyarrow converts the values:
        dicts become structs, lists lists, and ints become floats in a column with floats. The loop over the tasks is
        live, as ``iteritems()`` is.

        Args:
            as_json: Names of fields whose values become JSON text: values that one column cannot hold, and dicts with
                ever new keys, which would make wide structs.

        Returns:
            The table.

        Raises:
            UnstorableValueError: One column cannot hold the values of a field, which the message names: text and
                numbers, ints beyond 64 bits, lone surrogates.
            ImportError: pyarrow is not installed; it comes with the extra ``frames``.

        Cost:
            O(n) time; memory for the table and 10,000 tasks.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {"_done": True, "size": 1}, "b": {}})
            >>> tracker.to_arrow().to_pylist()[1]
            {'key': 'b', 'done': False, 'aborted': False, 'tries': 0, 'size': None}
        """
        tracker: Any = self
        return table_of(optional_import("pyarrow", "frames", "to_arrow()"), tracker.iteritems(), as_json)

    def to_pandas(self, *, as_json: Collection[str] = (), **options: Any) -> Any:
        """Return all tasks as a ``pandas.DataFrame``, with the columns of ``to_arrow()``.

        Ints and bools have pandas's types for values that may be missing (``Int64``, ``boolean``), so that they stay
        exact. Dicts and lists are Python's own, with the same ints and None inside. A dict has every name that the
        column's dicts have, None where its task has none.

        Args:
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
        """
        pandas = optional_import("pandas", "frames", "to_pandas()")
        arrow = optional_import("pyarrow", "frames", "to_pandas()")
        types = {arrow.int64(): pandas.Int64Dtype(), arrow.bool_(): pandas.BooleanDtype()}
        return frame_of(arrow, pandas, self.to_arrow(as_json=as_json), {"types_mapper": types.get, **options})

    def to_polars(self, *, as_json: Collection[str] = ()) -> Any:
        """Return all tasks as a ``polars.DataFrame``, with the columns of ``to_arrow()``.

        Args:
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
        return polars.from_arrow(self.to_arrow(as_json=as_json))


def table_of(arrow: Any, pairs: Iterable[tuple[Any, dict[str, Any]]], as_json: Collection[str]) -> Any:
    """The table of pairs of keys and tasks."""
    if isinstance(as_json, str):
        raise TypeError(f"as_json is a collection of names of fields, not the text {as_json!r}")
    fields = Fields(arrow)
    keys: list[Any] = []
    tables = []
    for names, tasks in batches(pairs):
        if as_json:
            tasks = [in_json(task, as_json) for task in tasks]
        keys.append(column_of_keys(arrow, names))
        tables.extend(fields.convert(names, tasks))
    if not tables:
        empty = {"key": arrow.string(), "done": arrow.bool_(), "aborted": arrow.bool_(), "tries": arrow.int64()}
        return arrow.schema(empty).empty_table()
    table = joined(arrow, tables)
    table = table.rename_columns(names_of_columns(table.column_names))
    return table.add_column(0, "key", in_one_type(arrow, keys))


def frame_of(arrow: Any, pandas: Any, table: Any, options: dict[str, Any]) -> Any:
    """The pandas.DataFrame of a table."""
    mapper: Callable[[Any], Any] = options["types_mapper"] or (lambda kind: None)
    nested = [field.name for field in table.schema
              if arrow.types.is_nested(field.type) and mapper(field.type) is None]
    if not nested:
        return table.to_pandas(**options)
    # pyarrow would make numpy arrays of what is nested, in which ints become floats where a None is among them.
    frame = table.drop_columns(nested).to_pandas(**options)
    objects = {name: pandas.Series(table[name].to_pylist(), index=frame.index, dtype=object) for name in nested}
    return pandas.concat([frame, pandas.DataFrame(objects)], axis="columns")[table.column_names]


def batches(pairs: Iterable[tuple[Any, dict[str, Any]]]) -> Iterator[tuple[list[Any], list[dict[str, Any]]]]:
    """Keys and tasks, in batches."""
    iterator = iter(pairs)
    while chunk := list(islice(iterator, BATCH)):
        yield [key for key, _ in chunk], [task for _, task in chunk]


def joined(arrow: Any, tables: list[Any]) -> Any:
    """One table. Raises UnstorableValueError where ints of one batch are too large for the floats of another one."""
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
    """The error that names a field."""
    reason = " ".join(str(cause).split())
    return UnstorableValueError(
        f"one column cannot hold the values of the field {name!r} ({where}{reason}); with as_json=[{name!r}] they "
        f"become JSON text"
    )


def span(keys: list[Any]) -> str:
    """Which tasks a batch has."""
    first, last = describe(keys[0]), describe(keys[-1])
    return f"the tasks from {first} to {last}" if len(keys) > 1 else f"the task {first}"


def text_of(value: Any) -> str:
    """The JSON of a value or a key, in ASCII."""
    try:
        return json.dumps(value)
    except ValueError:  # an int of more digits than Python writes
        return spaced_json(value).decode("utf-8", "backslashreplace")


def in_json(task: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: text_of(value) if name in names and name not in STATUS else value for name, value in task.items()}


def names_of_columns(names: list[str]) -> list[str]:
    """What the columns of these fields are called: no two the same."""
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
    """The fields of the batches so far, each with the one type that holds all its values."""

    def __init__(self, arrow: Any) -> None:
        self._arrow = arrow
        self._schema = arrow.schema([])

    def convert(self, keys: list[Any], tasks: list[dict[str, Any]]) -> list[Any]:
        """A batch as tables. Raises UnstorableValueError where it is none, or does not go with those before it."""
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
        """The error that names the field."""
        for name in dict.fromkeys(chain.from_iterable(tasks)):
            try:
                attempt(name, tasks)
            except REFUSALS as cause:
                return unfit(name, f"in {span(keys)}: ", cause)
        return UnstorableValueError(f"there is no table of {span(keys)}: {error}")


# What pyarrow raises for values that it cannot convert; its own errors are below these.
REFUSALS = (TypeError, ValueError, OverflowError, NotImplementedError)


# The keys


def column_of_keys(arrow: Any, keys: list[Any]) -> Any:
    """The keys of a batch: as strings, as int64, or, where they are neither, as they are."""
    for kind in (arrow.string(), arrow.int64()):
        try:
            return arrow.array(keys, kind)
        except REFUSALS:
            pass
    return keys


def in_one_type(arrow: Any, columns: list[Any]) -> Any:
    """One column out of those of the batches."""
    kinds = {column.type if isinstance(column, arrow.Array) else None for column in columns}
    if len(kinds) > 1 or None in kinds:
        columns = [arrow.array(list(map(text_of, column.to_pylist() if isinstance(column, arrow.Array) else column)))
                   for column in columns]
    return arrow.chunked_array(columns)
