"""Which keys a command is about: given one by one, or by what they are."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import click

from tastypy_fast import ProgressTracker, StorePathError
from tastypy_fast._core.iterators import ITEMS, KEYS, StoreIterator
from tastypy_fast._inspect.store_info import find_row_id
from tastypy_fast._inspect.task_counts import ActiveClaim, active_claims, read_claims
from tastypy_fast._paths import checked
from tastypy_fast._shared.claims import key_at
from tastypy_fast.cli.exit_codes import CANNOT_OPEN, NO, USAGE, Failure
from tastypy_fast.cli.formatting import as_json, key_from, lines_of
from tastypy_fast.cli.open_store import Reader, is_tracker

__all__ = [
    "Choice",
    "Chosen",
    "PathType",
    "choose",
    "claimed_keys",
    "filter_options",
    "in_chunks",
    "json_keys_option",
    "json_option",
    "key_options",
    "keys_given",
    "max_tries_option",
    "store_argument",
]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
STATUSES = ("todo", "done", "aborted", "failed", "claimed")
# So many tasks are looked at with one look at the claims.
LOOKED_AT = 100


class Choice(NamedTuple):
    """The options of a filter, as they were given."""

    statuses: frozenset[str]
    first: str | None
    last: str | None
    match: str | None
    offset: int
    limit: int | None
    max_tries: int

    def says_something(self) -> bool:
        """Whether anything was asked for."""
        return self != Choice(frozenset(), None, None, None, 0, None, self.max_tries)

    def has_status(self, task: dict[str, Any], in_hand: bool, claimed: bool) -> bool:
        """Whether a task has one of the statuses that were asked for. ``in_hand``: a worker is at it now; ``claimed``:
        it is a worker's, who may have failed at it."""
        is_open = not (task["_done"] or task["_aborted"])
        tries = task["_tries"]
        return not self.statuses or (
            ("todo" in self.statuses and is_open and not (self.max_tries and tries >= self.max_tries))
            or ("done" in self.statuses and task["_done"])
            or ("aborted" in self.statuses and task["_aborted"])
            or ("failed" in self.statuses and is_open and not in_hand and tries >= max(self.max_tries, 1))
            or ("claimed" in self.statuses and claimed)
        )


class Chosen(NamedTuple):
    """A key, its value (None where nobody asked for it), and who has the task in hand, if asked for."""

    key: Any
    value: Any
    hand: ActiveClaim | None = None


# Options


class PathType(click.Path):
    """The type of every argument that is a path: ``~`` is expanded, and what is no path is a usage error."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path as a command gets it."""
        if not (self.allow_dash and value == "-"):
            try:
                value = checked(value)
            except StorePathError as error:
                self.fail(str(error.strerror), param, ctx)
        return super().convert(value, param, ctx)


store_argument = click.argument("store", type=PathType())
json_keys_option = click.option(
    "--json-keys", is_flag=True,
    help='Keys are JSON: "a" is a string, 1 an integer, ["a", 1] a tuple. (Else a key is the string that is there.)',
)
json_option = click.option("--json", "as_object", is_flag=True, help="Say what was done as one JSON object.")
max_tries_option = click.option(
    "--max-tries", type=click.IntRange(min=0), default=0, metavar="N",
    help="How often the pipeline tries a task at most; the store does not know.",
)

FILTERS = (
    click.option("--todo", is_flag=True, help="Neither done nor aborted (and with tries left, with --max-tries)."),
    click.option("--done", is_flag=True, help="Done."),
    click.option("--aborted", is_flag=True, help="Aborted."),
    click.option("--failed", is_flag=True,
                 help="Neither done nor aborted nor in a worker's hands, and tried: N times or more with "
                      "--max-tries N, at least once without."),
    click.option("--claimed", is_flag=True, help="Claimed by a worker that lives; what it failed at stays its own."),
    max_tries_option,
    click.option("--match", metavar="GLOB", help="Keys like this: * is anything, ? one character, [ab] one of these."),
    click.option("--from", "first", metavar="KEY", help="This key and those that were added after it."),
    click.option("--to", "last", metavar="KEY", help="This key and those that were added before it."),
    click.option("--offset", type=click.IntRange(min=0), default=0, metavar="N", help="Leave the first N out."),
    click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N."),
)


def filter_options(command: F) -> F:
    """The options of a filter, which the command gets as ``choice``."""

    def with_choice(*args: Any, **given: Any) -> Any:
        statuses = frozenset(name for name in STATUSES if given.pop(name))
        rest = {name: given.pop(name) for name in Choice._fields if name != "statuses"}
        return command(*args, choice=Choice(statuses, **rest), **given)

    with_choice.__name__, with_choice.__doc__ = command.__name__, command.__doc__
    with_choice.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(FILTERS):
        option(with_choice)
    return with_choice  # type: ignore[return-value]


def key_options(command: F) -> F:
    """Keys one by one: arguments, a file, stdin."""
    command = json_keys_option(command)
    command = click.option(
        "--file", "file", metavar="FILE", type=PathType(dir_okay=False, allow_dash=True),
        help="Keys from a file, one in a line; - is stdin, which a lone - among the keys means too.",
    )(command)
    return click.argument("keys", nargs=-1)(command)


# Keys one by one


def keys_given(keys: Iterable[str], file: str | None, json_keys: bool) -> Iterator[tuple[Any, str]]:
    """The keys that arguments, a file and stdin hold, each with its text; read as they are asked for."""
    for text in keys:
        if text == "-":
            yield from _keys_in("-", json_keys)
        else:
            yield _parsed(text, json_keys, ""), text
    if file is not None:
        yield from _keys_in(file, json_keys)


def _keys_in(name: str, json_keys: bool) -> Iterator[tuple[Any, str]]:
    for number, text in lines_of(name):
        yield _parsed(text, json_keys, f"{'stdin' if name == '-' else name}, line {number}: "), text


def _parsed(text: str, json_keys: bool, where: str) -> Any:
    try:
        return key_from(text, json_keys)
    except ValueError as error:
        raise Failure(f"{where}{error}", USAGE) from None


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of so many."""
    rest = iter(items)
    return iter(lambda: list(islice(rest, size)), [])


# Keys by what they are


def choose(store: Reader, choice: Choice, json_keys: bool, values: bool) -> Iterator[Chosen]:
    """What a filter lets through, in the order of adding; live, in constant memory."""
    if choice.statuses and not is_tracker(store):
        raise Failure(f"the store at {store.path} is a plain dict, whose keys are neither done nor to do", CANNOT_OPEN)
    start = _place(store, choice.first, json_keys)
    end = _place(store, choice.last, json_keys)
    walk = _claimed(store) if choice.statuses == {"claimed"} else _walk(store, choice, values, start)
    fits = _fits(choice.match)
    found = (chosen for chosen in _between(walk, start, end) if fits(chosen.key))
    return islice(found, choice.offset, None if choice.limit is None else choice.offset + choice.limit)


def _between(walk: Iterator[tuple[int, Chosen]], start: int | None, end: int | None) -> Iterator[Chosen]:
    for order, chosen in walk:
        if end is not None and order > end:
            return
        if start is None or order >= start:
            yield chosen


def _place(store: Reader, text: str | None, json_keys: bool) -> int | None:
    if text is None:
        return None
    order = find_row_id(store._store, _parsed(text, json_keys, ""))
    if order is None:
        raise Failure(f"there is no key {text!r} to begin or end with", NO)
    return order


def _fits(match: str | None) -> Callable[[Any], bool]:
    if match is None:
        return lambda key: True
    pattern = re.compile(fnmatch.translate(match)).match
    return lambda key: bool(pattern(key if isinstance(key, str) else as_json(key)))


def _walk(store: Reader, choice: Choice, values: bool, start: int | None) -> Iterator[tuple[int, Chosen]]:
    """Order number and what is there; statuses alone are read where that is enough."""
    statuses = choice.statuses
    kind = ITEMS if values or (not statuses <= {"todo"} and statuses != {"aborted"}) else KEYS
    source: Any
    if not isinstance(store, ProgressTracker) or not statuses:
        source = StoreIterator(store, kind)
    elif statuses == {"aborted"}:
        source = store._aborted_tasks(kind)
    elif statuses <= {"todo", "failed"}:
        # (those that have no tries left are among the failed)
        source = store._tasks(kind, False, attempt=False)
    else:
        source = StoreIterator(store, kind)
    if start is not None:
        source.seek(start - 1)
    if kind == KEYS:
        for key in source:
            yield source.position, Chosen(key, None)
        return
    found = ((source.position, key, value) for key, value in source)
    if statuses & {"failed", "claimed"}:
        yield from _with_claims(store, choice, found)
    else:
        for order, key, value in found:
            if not statuses or choice.has_status(value, False, False):
                yield order, Chosen(key, value)


def _with_claims(store: Reader, choice: Choice, found: Iterator[tuple[int, Any, Any]]) -> Iterator[tuple[int, Chosen]]:
    """Those that have the status, with who has them. What is claimed is asked after a task was read, and the task once
    more after that: one that was begun or done between the two looks is not taken for one that failed."""
    for chunk in in_chunks(found, LOOKED_AT):
        held, never_begun = read_claims(store._store)
        claims = {hand.row_id: hand for hand in held}
        for order, key, value in chunk:
            hand = claims.get(order)
            in_hand = order in never_begun if hand is None else not hand.failed
            task = store.get(key) if value["_tries"] and not value["_done"] else value
            if task is not None and choice.has_status(task, in_hand, hand is not None):
                yield order, Chosen(key, task, hand)


def _claimed(store: Reader) -> Iterator[tuple[int, Chosen]]:
    for hand in active_claims(store._store):
        key = key_at(store._open_cache, hand.row_id)  # type: ignore[arg-type]
        if key is not None:
            yield hand.row_id, Chosen(key, store.get(key), hand)


def claimed_keys(store: Reader) -> dict[Any, bool]:
    """The keys that workers have claimed, and whether they are at them now. Also those that one has died before."""
    held, never_begun = read_claims(store._store)
    orders = {**dict.fromkeys(never_begun, True), **{hand.row_id: not hand.failed for hand in held}}
    keys = ((key_at(store._open_cache, order), in_hand) for order, in_hand in orders.items())  # type: ignore[arg-type]
    return {key: in_hand for key, in_hand in keys if key is not None}
