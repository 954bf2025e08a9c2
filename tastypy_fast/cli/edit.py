"""Implement the commands that change keys and tasks: ``set``, ``rm``, ``add``, ``done``, ``reset``, ``abort``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import click

from tastypy_fast import (
    SharedPersistentOrderedDict,
    SharedProgressTracker,
    StoreNotFoundError,
    UnstorableValueError,
)
from tastypy_fast._core.key_codec import encode_key
from tastypy_fast._core.record_codec import encode_value
from tastypy_fast._formats.json_text import parse_json
from tastypy_fast._inspect.statuses import StatusReader
from tastypy_fast.cli.completion import complete_keys
from tastypy_fast.cli.exit_codes import INCOMPLETE, OK, OTHER_ERROR, USAGE, CommandError
from tastypy_fast.cli.formatting import as_json, key_as_json, open_stdin, parse_key, print_line, quantity
from tastypy_fast.cli.key_filters import (
    KeyFilter,
    chunks,
    filter_options,
    iter_given_keys,
    iter_matching,
    json_keys_option,
    json_option,
    key_options,
    store_argument,
)
from tastypy_fast.cli.open_store import Reader, Writer, is_tracker, open_reader, open_writer, require_tracker
from tastypy_fast.cli.option_types import TriesLimit
from tastypy_fast.cli.read import print_missing_key

__all__ = ["abort", "add", "done", "reset", "rm", "set_max_tries", "set_value"]

# The number of keys in one transaction. Other writers wait while it runs, and its keys change together or not at all.
CHUNK = 1000
# How many missing keys are printed. The others are only counted.
MAX_NAMED = 10

create_option = click.option("--create", is_flag=True, help="Create the store if it does not exist.")


def print_report(as_object: bool, sentence: str, **numbers: Any) -> None:
    """Print the result: ``numbers`` as a JSON object, or a sentence."""
    print_line(as_json(numbers) if as_object else sentence)


@click.command(name="set")
@store_argument
@click.argument("key", shell_complete=complete_keys)
@click.argument("value")
@json_keys_option
@click.option("--text", is_flag=True, help="Store VALUE as a string instead of parsing it as JSON.")
@create_option
@json_option
def set_value(store: str, key: str, value: str, json_keys: bool, text: bool, create: bool, as_object: bool) -> None:
    """Assign VALUE, which is JSON, to KEY. If VALUE is -, it is read from stdin.

    The value of a task must be a JSON object. If it lacks _done, _aborted or _tries, these are set as in a new task.

    \b
    tastypy-fast set squares 12 144
    tastypy-fast set crawl https://example.org/ '{"_done": true, "size": 1256}'
    tastypy-fast set names first --text Ada
    """
    try:
        parsed_key = parse_key(key, json_keys)
    except ValueError as error:
        raise CommandError(str(error), USAGE) from None
    is_input = value == "-"
    if is_input:
        value = open_stdin().read().decode("utf-8", "surrogateescape")
    try:
        parsed: Any = value if text else parse_json(value.encode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise CommandError(f"the value is not valid JSON ({error}); put a string in double quotes, or use --text",
                           OTHER_ERROR if is_input else USAGE) from None
    # Check both before a store is created, so that an error leaves none behind.
    encode_key(parsed_key)
    encode_value(parsed)
    with open_writer(store, SharedPersistentOrderedDict if create else None) as writer, writer.transaction():
        if is_tracker(writer) and not isinstance(parsed, dict):
            raise CommandError("the value of a task must be a JSON object", OTHER_ERROR if is_input else USAGE)
        was_there = parsed_key in writer
        try:
            writer[parsed_key] = parsed
        except UnstorableValueError as error:  # a status such as "_done": 5
            raise CommandError(str(error), OTHER_ERROR if is_input else USAGE) from None
    verb = "changed" if was_there else "added"
    print_report(as_object, f"{verb} {key_as_json(parsed_key)}", key=parsed_key, added=not was_there)


@click.command()
@store_argument
@key_options
@create_option
@json_option
def add(store: str, keys: tuple[str, ...], file: str | None, json_keys: bool, null: bool, create: bool,
        as_object: bool) -> None:
    """Add tasks to a tracker. Tasks that exist already are not changed.

    Keys can be given as arguments, in a file, or on stdin, one per line. Lines end with LF or CRLF, and empty lines are
    skipped. With -0, a null character ends each key, so that any file name can be a key, and the empty string, too.
    Without it, a line with a null character is an error. Memory use is constant. Every 10,000 keys are one transaction,
    and are added together or not at all. After an error, the tasks of earlier transactions stay, and are counted. If
    there are none, --create has made no store. Without an error it makes one, also if the input is empty.

    \b
    tastypy-fast add crawl https://example.org/ https://example.net/
    find . -name '*.pdf' -print0 | tastypy-fast add papers --create -0 -
    """
    if not keys and file is None:
        raise CommandError("add needs a key or --file", USAGE)
    rest = chunks((key for key, _ in iter_given_keys(keys, file, json_keys, null, False)), 10_000)
    begun: list[list[Any]] = []
    try:
        writer = open_writer(store)
    except StoreNotFoundError:
        if not create:
            raise
        # Read and check the first keys before the store is created, so that an error leaves none behind.
        begun = list(islice(rest, 1))
        for key in chain(*begun):
            encode_key(key)
        writer = open_writer(store, SharedProgressTracker)
    added = given = 0

    def report() -> None:
        print_report(as_object, f"added {quantity(added, 'task')}, {given - added:,} existed already",
                     added=added, there=given - added)

    with writer:
        tracker = require_tracker(writer)
        try:
            for chunk in chain(begun, rest):
                with tracker.transaction():
                    before = len(tracker)
                    tracker.add_many_if_absent(chunk)
                    more = len(tracker) - before
                added += more
                given += len(chunk)
        except BaseException:
            if given:
                report()
            raise
        report()


# Commands on given keys, or on the keys that match a filter

Action = Callable[[Any, list[Any]], object]


def run_change(
    store: str, keys: tuple[str, ...], file: str | None, json_keys: bool, null: bool, key_filter: KeyFilter,
    dry_run: bool, as_object: bool, verb: str, action: Action, tasks_only: bool = True,
) -> int:
    """Apply an action to the given keys, or to those that match a filter, and return the exit code.

    ``verb`` is the past participle for the result, as in "2 tasks aborted".
    """
    given = bool(keys) or file is not None
    if given == key_filter.is_set():
        raise CommandError("give either keys or a filter (for example --failed), not both" if given else
                           "the command needs keys, --file, or a filter (for example --failed)", USAGE)
    opened: Reader | Writer = open_reader(store) if dry_run else open_writer(store)
    with opened:
        change = BulkChange(opened, json_keys, key_filter, None if dry_run else action)
        return change.run(iter_given_keys(keys, file, json_keys, null) if given else None,
                          f"would be {verb}" if dry_run else verb, as_object, tasks_only)


class BulkChange:
    """Apply one command's action in transactions of CHUNK keys, and count the keys. Without an action, only count."""

    def __init__(self, store: Any, json_keys: bool, key_filter: KeyFilter, action: Action | None) -> None:
        self._store = store
        self._json_keys = json_keys
        self._key_filter = key_filter
        self._action = action
        self._changed = self._missing = 0

    def run(self, given: Iterator[tuple[Any, str]] | None, verb: str, as_object: bool, tasks_only: bool) -> int:
        """Change the given keys, or the matching ones if None is given. Print the counts, and return the exit code."""
        if tasks_only:
            require_tracker(self._store)
        noun = "task" if is_tracker(self._store) else "key"
        try:
            if given is None:
                self._change_matching()
            else:
                self._change_given(given)
        finally:
            print_report(as_object, f"{quantity(self._changed, noun)} {verb}", changed=self._changed,
                         missing=self._missing, what=verb)
        return INCOMPLETE if self._missing else OK

    def _change_given(self, given: Iterator[tuple[Any, str]]) -> None:
        for chunk in chunks(given, CHUNK):
            missing: list[str] = []

            def find_existing(chunk: list[tuple[Any, str]] = chunk, missing: list[str] = missing) -> list[Any]:
                missing[:] = [text for key, text in chunk if key not in self._store]
                return list(dict.fromkeys(key for key, _ in chunk if key in self._store))

            self._apply(find_existing)
            for text in missing:
                self._missing += 1
                if self._missing <= MAX_NAMED:
                    print_missing_key(self._store, text, self._json_keys)

    def _change_matching(self) -> None:
        with open_reader(self._store.path) as reader:
            found = (match.key for match in iter_matching(reader, self._key_filter, self._json_keys, False))
            for chunk in chunks(found, CHUNK):
                self._apply(lambda chunk=chunk: self._with_fields(self._still_matching(chunk)))  # type: ignore[misc]

    def _with_fields(self, keys: list[Any]) -> list[Any]:
        """Return the keys whose values meet the conditions of the filter now."""
        if not self._key_filter.where:
            return keys
        return [key for key in keys if self._key_filter.has_fields(self._store.get(key))]

    def _apply(self, find_keys: Callable[[], list[Any]]) -> None:
        """Find the keys and change them in one transaction, so that no other process writes in between."""
        if self._action is None:
            self._changed += len(find_keys())
            return
        with self._store.transaction():
            keys = find_keys()
            if keys:
                self._action(self._store, keys)
        self._changed += len(keys)

    def _still_matching(self, keys: list[Any]) -> list[Any]:
        """Return the keys that match the filter now.

        Tasks that are running are left out, unless the filter selects running tasks.
        """
        if not is_tracker(self._store):
            return [key for key in keys if key in self._store]
        limit = self._key_filter.limit_of(self._store)
        states = StatusReader(self._store, limit).read(keys)
        wants_running = "running" in self._key_filter.statuses
        return [key for key, state in zip(keys, states, strict=True)
                if state is not None and (wants_running or state.status != "running")
                and self._key_filter.has_status(state, limit)]


CHANGE_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    store_argument, key_options, filter_options,
    click.option("-n", "--dry-run", is_flag=True, help="Print how many would change, and change nothing."), json_option,
)


def change_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the arguments and options that the commands below share."""
    for option in reversed(CHANGE_OPTIONS):
        command = option(command)
    return command


@click.command()
@change_options
def rm(**given: Any) -> int:
    """Remove keys and their values. Give the keys, or a filter that they match.

    \b
    tastypy-fast rm crawl https://example.org/
    tastypy-fast rm crawl --done --match '*.pdf' --dry-run
    """

    def remove_all(store: Any, keys: list[Any]) -> None:
        for key in keys:
            del store[key]

    return run_change(**given, verb="removed", action=remove_all, tasks_only=False)


@click.command()
@change_options
def done(**given: Any) -> int:
    """Mark tasks done. Give their keys, or a filter that they match.

    \b
    tastypy-fast done crawl https://example.org/
    tastypy-fast done crawl --todo --match '*.gif'
    """
    return run_change(**given, verb="marked done", action=lambda store, keys: store.mark_done_many(keys))


@click.command()
@change_options
def reset(**given: Any) -> int:
    """Reset tasks, so that they are done again.

    The tasks become not done and not aborted, and have no tries and no error. Their other data stays. Give the keys of
    the tasks, or a filter that they match.

    \b
    tastypy-fast reset crawl --failed --max-tries 3
    tastypy-fast reset crawl --from https://example.org/ --limit 100
    """

    def reset_all(store: Any, keys: list[Any]) -> None:
        for key in keys:
            store.mark_not_done(key)
            store.unabort(key)
            store.reset_tries(key)

    return run_change(**given, verb="reset", action=reset_all)


@click.command()
@change_options
def abort(**given: Any) -> int:
    """Mark tasks aborted, so that the pipeline skips them. Give their keys, or a filter that they match.

    \b
    tastypy-fast abort crawl --todo --match 'http://*'
    """

    def abort_all(store: Any, keys: list[Any]) -> None:
        for key in keys:
            store.abort(key)

    return run_change(**given, verb="aborted", action=abort_all)


@click.command(name="set-max-tries")
@store_argument
@click.argument("limit", type=TriesLimit())
@json_option
def set_max_tries(store: str, limit: int, as_object: bool) -> None:
    """Set the limit of tries that is kept with a tracker, or clear it with none.

    Each process that opens the tracker to write with max_tries sets it, too. It is for display: status, watch, ls and
    errors show tasks that were tried as often as failed. A pipeline uses the limit that it gives itself.

    \b
    tastypy-fast set-max-tries crawl 3
    tastypy-fast set-max-tries crawl none
    """
    with open_writer(store) as writer:
        require_tracker(writer)._put_limit(limit, waits=True)
    print_report(as_object, f"the limit is {limit:,} {'try' if limit == 1 else 'tries'}" if limit else
                 "there is no limit of tries", max_tries=limit or None)
