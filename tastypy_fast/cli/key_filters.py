"""Define the arguments and options that select keys, and find the selected keys."""

from __future__ import annotations

import fnmatch
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from typing import Any, NamedTuple, TypeVar

import click

from tastypy_fast import ProgressTracker, StorePathError
from tastypy_fast._core.iterators import ITEMS, KEYS, StoreIterator
from tastypy_fast._inspect.statuses import STATUSES, StatusReader, TaskState
from tastypy_fast._inspect.store_info import find_seq, read_limit
from tastypy_fast._paths import checked
from tastypy_fast.cli.completion import complete_keys, complete_store
from tastypy_fast.cli.exit_codes import CANNOT_OPEN, INCOMPLETE, OTHER_ERROR, USAGE, CommandError
from tastypy_fast.cli.fields import FieldCondition, FieldConditionType
from tastypy_fast.cli.formatting import as_json, parse_key, read_lines
from tastypy_fast.cli.open_store import Reader, is_tracker

__all__ = [
    "KeyFilter",
    "Match",
    "PathType",
    "chunks",
    "filter_options",
    "iter_given_keys",
    "iter_matching",
    "json_keys_option",
    "json_option",
    "key_options",
    "match_options",
    "max_tries_option",
    "store_argument",
]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
# How many tasks are matched in one snapshot, which includes the claims.
BATCH = 100


class KeyFilter(NamedTuple):
    """The options of a filter, as the user gave them.

    ``statuses`` are words of ``TaskStatus``, and "todo". ``max_tries`` is None if it is not given.
    """

    statuses: frozenset[str]
    first: str | None
    last: str | None
    match: str | None
    offset: int
    limit: int | None
    max_tries: int | None
    tail: int | None = None
    where: tuple[FieldCondition, ...] = ()

    def is_set(self) -> bool:
        """Return whether any filter option was given."""
        return self != KeyFilter(frozenset(), None, None, None, 0, None, self.max_tries)

    def has_fields(self, value: Any) -> bool:
        """Return whether a value meets all conditions on its fields."""
        return all(condition.is_met(value) for condition in self.where)

    def limit_of(self, store: Any) -> int:
        """Return the limit of tries: the one that was given, or the one that is kept with the tracker."""
        return read_limit(store._store) if self.max_tries is None else self.max_tries

    def has_status(self, state: TaskState, max_tries: int) -> bool:
        """Return whether a task has one of the selected statuses."""
        is_todo = not (state.done or state.aborted or 0 < max_tries <= state.tries)
        return not self.statuses or state.status in self.statuses or ("todo" in self.statuses and is_todo)


class Match(NamedTuple):
    """A key that matches a filter, with its value and the state of the task. Both are None unless they were read."""

    key: Any
    value: Any
    state: TaskState | None = None


# Options


class PathType(click.Path):
    """The type of path arguments. Expands ``~``, and reports a path that no file can have as a usage error.

    It does not look at the file. Opening the file reports what is wrong with it, with the exit code for that.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Validate a path, and return it for the command."""
        if self.allow_dash and value == "-":
            return value
        try:
            return checked(value)
        except StorePathError as error:
            self.fail(str(error.strerror), param, ctx)


store_argument = click.argument("store", type=PathType(), shell_complete=complete_store)
json_keys_option = click.option(
    "--json-keys", is_flag=True,
    help='Read and print keys as JSON: "a" is a string, 1 an integer, ["a", 1] a tuple. Without it, keys are strings.',
)
json_option = click.option("--json", "as_object", is_flag=True, help="Print the result as one JSON object.")
max_tries_option = click.option(
    "--max-tries", type=click.IntRange(min=0), metavar="N",
    help="The limit of tries by which tasks count as failed. 0 is no limit.  [default: the last one with which the "
         "tracker was opened to write]",
)
STATUS_HELP = {
    "new": "Tasks that were never tried.",
    "running": "Tasks that a living process has claimed or is trying.",
    "to retry": "Tasks of which a try has failed, and that have tries left.",
    "failed": "Tasks that have no tries left.",
    "aborted": "Tasks that are aborted.",
    "done": "Tasks that are done.",
}

MATCH_OPTIONS = (
    click.option("--match", metavar="GLOB",
                 help="Keys that match: * is any text, ? one character, [ab] one of these characters."),
    click.option("--where", type=FieldConditionType(), multiple=True, metavar="FIELD=VALUE",
                 help="Keys whose value has this field with this value. FIELD is a name, or a.b for the field b in the "
                      "field a. VALUE is JSON, or else a string. Can be given several times; then all must match."),
    click.option("--from", "first", metavar="KEY", shell_complete=complete_keys,
                 help="Start at this key, in the order in which keys were added."),
    click.option("--to", "last", metavar="KEY", shell_complete=complete_keys,
                 help="Stop after this key, in the order in which keys were added."),
)
TAIL_OPTION = click.option(
    "--tail", type=click.IntRange(min=0), metavar="N",
    help="Select the last N matching keys. They are found from the end, without reading the others.",
)
FILTERS = (
    *(click.option(f"--{status.replace(' ', '-')}", is_flag=True, help=STATUS_HELP[status]) for status in STATUSES),
    click.option("--todo", is_flag=True, help="Tasks that are neither done nor aborted, and have tries left."),
    max_tries_option,
    *MATCH_OPTIONS,
    click.option("--offset", type=click.IntRange(min=0), default=0, metavar="N",
                 help="Skip the first N matching keys."),
    click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Select at most N keys."),
    TAIL_OPTION,
)


def filter_options(command: F) -> F:
    """Add the filter options to a command, which gets them as ``key_filter``."""

    def with_filter(*args: Any, **given: Any) -> Any:
        statuses = frozenset(name for name in (*STATUSES, "todo") if given.pop(name.replace(" ", "_")))
        rest = {name: given.pop(name) for name in KeyFilter._fields if name != "statuses"}
        return command(*args, key_filter=KeyFilter(statuses, **rest), **given)

    with_filter.__name__, with_filter.__doc__ = command.__name__, command.__doc__
    with_filter.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(FILTERS):
        option(with_filter)
    return with_filter  # type: ignore[return-value]


def match_options(command: F) -> F:
    """Add the filter options that select keys without regard to their status, except ``--limit`` and ``--offset``."""
    for option in reversed((*MATCH_OPTIONS, TAIL_OPTION)):
        command = option(command)
    return command


def key_options(command: F) -> F:
    """Add the arguments and options that give keys: as arguments, in a file, on stdin."""
    command = json_keys_option(command)
    command = click.option(
        "-0", "--null", is_flag=True,
        help="A null character ends each key in a file or on stdin, as find -print0 writes them, instead of a line. "
             "An empty key counts, but an empty line does not.",
    )(command)
    command = click.option(
        "--file", "file", metavar="FILE", type=PathType(allow_dash=True),
        help="Read keys from a file, one per line; - is stdin. A key that is - also reads stdin.",
    )(command)
    return click.argument("keys", nargs=-1, shell_complete=complete_keys)(command)


# Given keys


def iter_given_keys(
    keys: Iterable[str], file: str | None, json_keys: bool, null: bool = False, nulls_allowed: bool = True
) -> Iterator[tuple[Any, str]]:
    """Yield each key of the arguments, the file and stdin, with its text. The input is read as needed.

    With ``null``, a null character ends each key in the file and on stdin. Unless ``nulls_allowed``, such a character
    in a line raises CommandError.
    """
    for text in keys:
        if text == "-":
            yield from _keys_in("-", json_keys, null, nulls_allowed)
        else:
            yield _parsed(text, json_keys), text
    if file is not None:
        yield from _keys_in(file, json_keys, null, nulls_allowed)


def _keys_in(name: str, json_keys: bool, null: bool, nulls_allowed: bool) -> Iterator[tuple[Any, str]]:
    what = f"{'stdin' if name == '-' else name}, {'key' if null else 'line'}"
    for number, text in read_lines(name, null):
        if "\0" in text and not nulls_allowed:
            raise CommandError(f"{what} {number} has a null character; use -0 if null characters separate the keys, as "
                               f"find -print0 writes them", OTHER_ERROR)
        yield _parsed(text, json_keys, f"{what} {number}: "), text


def _parsed(text: str, json_keys: bool, where: str = "") -> Any:
    """Parse a key in an argument, or in the input if ``where`` is given."""
    try:
        return parse_key(text, json_keys)
    except ValueError as error:
        raise CommandError(f"{where}{error}", OTHER_ERROR if where else USAGE) from None


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split items into lists of ``size``; the last one may be shorter."""
    rest = iter(items)
    return iter(lambda: list(islice(rest, size)), [])


# Keys that match a filter


def iter_matching(store: Reader, key_filter: KeyFilter, json_keys: bool, values: bool) -> Iterator[Match]:
    """Yield the keys that match a filter, in the order in which they were added. Memory use is constant."""
    if key_filter.statuses and not is_tracker(store):
        raise CommandError(f"the store at {store.path} is a plain dict, whose keys have no status; leave the status "
                           f"options out", CANNOT_OPEN)
    if key_filter.tail is not None and (key_filter.offset or key_filter.limit is not None):
        raise CommandError("--tail selects keys from the end, so it cannot be combined with --offset or --limit", USAGE)
    start = _find_bound(store, key_filter.first, json_keys)
    end = _find_bound(store, key_filter.last, json_keys)
    if key_filter.tail is not None:
        start = _find_tail(store, key_filter, start, end)
        if start is None:
            return iter(())
        key_filter = key_filter._replace(limit=key_filter.tail)
    values = values or bool(key_filter.where)
    walk = _walk(store, key_filter, values, start)
    fits = _fits(key_filter.match)
    found = (match for match in _between(walk, start, end) if fits(match.key))
    if key_filter.where:
        found = (match for match in found if key_filter.has_fields(match.value))
    stop = None if key_filter.limit is None else min(key_filter.offset + key_filter.limit, sys.maxsize)
    return islice(found, min(key_filter.offset, sys.maxsize), stop)


def _between(walk: Iterator[tuple[int, Match]], start: int | None, end: int | None) -> Iterator[Match]:
    for seq, match in walk:
        if end is not None and seq > end:
            return
        if start is None or seq >= start:
            yield match


def _find_tail(store: Reader, key_filter: KeyFilter, start: int | None, end: int | None) -> int | None:
    """Return the sequence number with which the last ``tail`` matching keys begin, or None if nothing matches.

    Reads backwards from the end, until it has found them.
    """
    values = bool(key_filter.where)
    source = StoreIterator(store, ITEMS if values else KEYS, True)
    if end is not None:
        source.seek(end + 1)
    walk: Iterator[tuple[int, Match]] = takewhile(lambda entry: start is None or entry[0] >= start,
                                                  _positions(source, values))
    if key_filter.statuses:
        limit = key_filter.limit_of(store)
        walk = _with_status(store, key_filter, StatusReader(store, limit), limit, walk, values)
    fits = _fits(key_filter.match)
    seqs = (seq for seq, match in walk if fits(match.key) and key_filter.has_fields(match.value))
    return next(iter(deque(islice(seqs, min(key_filter.tail or 0, sys.maxsize)), 1)), None)


def _find_bound(store: Reader, text: str | None, json_keys: bool) -> int | None:
    if text is None:
        return None
    seq = find_seq(store._store, _parsed(text, json_keys))
    if seq is None:
        raise CommandError(f"there is no key {text!r} to start or stop at", INCOMPLETE)
    return seq


def _fits(match: str | None) -> Callable[[Any], bool]:
    if match is None:
        return lambda key: True
    pattern = re.compile(fnmatch.translate(match)).match
    return lambda key: bool(pattern(key if isinstance(key, str) else as_json(key)))


def _walk(store: Reader, key_filter: KeyFilter, values: bool, start: int | None) -> Iterator[tuple[int, Match]]:
    """Yield sequence numbers and keys, with values if ``values``, and with the states of tasks if something needs them.

    A task that is todo by the limit of the store itself needs none.
    """
    if not isinstance(store, ProgressTracker):
        yield from _positions(_seek(StoreIterator(store, ITEMS if values else KEYS), start), values)
        return
    statuses, limit = key_filter.statuses, key_filter.limit_of(store)
    reader = StatusReader(store, limit)
    if statuses == {"running"}:
        keys = reader.running_keys()
        found: Iterator[tuple[int, Match]] = ((find_seq(store._store, key) or 0, Match(key, None)) for key in keys)
    else:
        found = _positions(_seek(_source(store, statuses, ITEMS if values else KEYS), start), values)
    if not values and (not statuses or (statuses == {"todo"} and limit in (0, store.max_tries))):
        yield from found
        return
    yield from _with_status(store, key_filter, reader, limit, found, values)


def _with_status(store: Reader, key_filter: KeyFilter, reader: StatusReader, limit: int,
                 found: Iterator[tuple[int, Match]], values: bool) -> Iterator[tuple[int, Match]]:
    """Yield the tasks that have a selected status, with their states."""
    for chunk in chunks(found, BATCH):
        states = reader.read([match.key for _, match in chunk], seqs=[seq for seq, _ in chunk])
        for (seq, match), state in zip(chunk, states, strict=True):
            if state is not None and key_filter.has_status(state, limit):
                yield seq, Match(match.key, _value_of(store, match, state) if values else None, state)


def _source(store: ProgressTracker, statuses: frozenset[str], kind: int) -> Any:
    """Return the iterator that skips most of the tasks that do not have these statuses."""
    if statuses == {"aborted"}:
        return store._aborted_tasks(kind)
    if statuses and statuses <= {"new", "to retry", "failed", "todo"}:
        # If the store has no limit of tries, this iterator also yields the failed tasks.
        return store._tasks(kind, False, attempt=False)
    return StoreIterator(store, kind)


def _seek(source: Any, start: int | None) -> Any:
    if start is not None:
        source.seek(start - 1)
    return source


def _positions(source: Any, values: bool) -> Iterator[tuple[int, Match]]:
    for found in source:
        yield source.position, Match(*found) if values else Match(found, None)


def _value_of(store: Reader, match: Match, state: TaskState) -> Any:
    """Return the value of a task. It is read again if the task has changed before its state was read."""
    value = match.value
    if value is not None and (value["_done"], value["_aborted"]) == (state.done, state.aborted):
        return value
    return store.get(match.key)
