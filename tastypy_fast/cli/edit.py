"""The commands that change what is in a store: ``set``, ``rm``, ``add``, ``done``, ``reset``, ``abort``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from tastypy_fast import SharedPersistentOrderedDict, SharedProgressTracker
from tastypy_fast._core.key_codec import encode_key
from tastypy_fast._core.record_codec import encode_value
from tastypy_fast._formats.json_text import parse_json
from tastypy_fast.cli.exit_codes import DONE, NO, USAGE, Failure
from tastypy_fast.cli.formatting import as_json, key_as_json, key_from, out, quantity
from tastypy_fast.cli.key_filters import (
    Choice,
    choose,
    claimed_keys,
    filter_options,
    in_chunks,
    json_keys_option,
    json_option,
    key_options,
    keys_given,
    store_argument,
)
from tastypy_fast.cli.open_store import Reader, is_tracker, open_reader, open_writer, require_tracker
from tastypy_fast.cli.read import no_such_key

__all__ = ["abort", "add", "done", "reset", "rm", "set_value"]

# Keys in one transaction: others wait for so long, and so many are done or not as one.
CHUNK = 1000
# Of keys that are not there, so many are named.
NAMED = 10

create_option = click.option("--create", is_flag=True, help="Make the store if there is none.")


def report(as_object: bool, sentence: str, **numbers: Any) -> None:
    """Say what was changed."""
    out(as_json(numbers) if as_object else sentence)


@click.command(name="set")
@store_argument
@click.argument("key")
@click.argument("value")
@json_keys_option
@click.option("--text", is_flag=True, help="VALUE is a string as it is, not JSON.")
@create_option
@json_option
def set_value(store: str, key: str, value: str, json_keys: bool, text: bool, create: bool, as_object: bool) -> None:
    """Assign VALUE, which is JSON, to KEY.

    The value of a task is an object; what it does not say of _done, _aborted and _tries is as in a new task. A VALUE of
    - is read from stdin.

    \b
    tastypy-fast set squares 12 144
    tastypy-fast set crawl https://example.org/ '{"_done": true, "size": 1256}'
    tastypy-fast set names first --text Ada
    """
    try:
        parsed_key = key_from(key, json_keys)
    except ValueError as error:
        raise Failure(str(error), USAGE) from None
    if value == "-":
        value = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    try:
        parsed: Any = value if text else parse_json(value.encode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise Failure(f"the value is not JSON ({error}); a string takes double quotes, or --text", USAGE) from None
    # (what cannot be stored makes no store)
    encode_key(parsed_key)
    encode_value(parsed)
    with open_writer(store, SharedPersistentOrderedDict if create else None) as writer, writer.transaction():
        if is_tracker(writer) and not isinstance(parsed, dict):
            raise Failure("the value of a task is a JSON object", USAGE)
        was_there = parsed_key in writer
        writer[parsed_key] = parsed
    verb = "changed" if was_there else "added"
    report(as_object, f"{verb} {key_as_json(parsed_key)}", key=parsed_key, added=not was_there)


@click.command()
@store_argument
@key_options
@create_option
@json_option
def add(store: str, keys: tuple[str, ...], file: str | None, json_keys: bool, create: bool, as_object: bool) -> None:
    """Add tasks to a tracker; those that are there already stay as they are.

    A file or stdin has one key in a line; lines end with LF or CRLF, and empty ones are passed over. Any number of them
    takes the same memory; each 10,000 are there at once.

    \b
    tastypy-fast add crawl https://example.org/ https://example.net/
    find . -name '*.py' | tastypy-fast add files --create -
    """
    if not keys and file is None:
        raise Failure("add needs a key, or --file", USAGE)
    added = given = 0
    with open_writer(store, SharedProgressTracker if create else None) as writer:
        tracker = require_tracker(writer)
        try:
            for chunk in in_chunks((key for key, _ in keys_given(keys, file, json_keys)), 10_000):
                with tracker.transaction():
                    before = len(tracker)
                    tracker.add_many_if_absent(chunk)
                    more = len(tracker) - before
                added += more
                given += len(chunk)
        finally:
            report(as_object, f"added {quantity(added, 'task')}, {given - added:,} there already",
                   added=added, there=given - added)


# Changing what is there: keys, or a filter

Action = Callable[[Any, list[Any]], object]


def change(store: str, keys: tuple[str, ...], file: str | None, json_keys: bool, choice: Choice, dry_run: bool,
           as_object: bool, done_to: str, action: Action, tasks_only: bool = True) -> int:
    """Do something to keys, or to what a filter lets through, so many in a transaction."""
    given = bool(keys) or file is not None
    if given == choice.says_something():
        raise Failure("give either keys or a filter (such as --failed), and not both" if given else
                      "this needs keys, --file, or a filter (such as --failed)", USAGE)
    if dry_run:
        with open_reader(store) as reader:
            return Changes(reader, json_keys, choice, lambda *_: None).perform(
                keys_given(keys, file, json_keys) if given else None, f"would be {done_to}", as_object, tasks_only)
    with open_writer(store) as writer:
        return Changes(writer, json_keys, choice, action).perform(
            keys_given(keys, file, json_keys) if given else None, done_to, as_object, tasks_only)


class Changes:
    """One command's changes: which keys, and how many there were."""

    def __init__(self, store: Any, json_keys: bool, choice: Choice, action: Action) -> None:
        self._store = store
        self._json_keys = json_keys
        self._choice = choice
        self._action = action
        self._changed = self._missing = 0

    def perform(self, given: Iterator[tuple[Any, str]] | None, done_to: str, as_object: bool, tasks_only: bool) -> int:
        """Change them, and say how many were. The exit code."""
        if tasks_only:
            require_tracker(self._store)
        noun = "task" if is_tracker(self._store) else "key"
        try:
            if given is None:
                self._change_chosen()
            else:
                self._change_given(given)
        finally:
            report(as_object, f"{quantity(self._changed, noun)} {done_to}", changed=self._changed,
                   missing=self._missing, what=done_to)
        return NO if self._missing else DONE

    def _change_given(self, given: Iterator[tuple[Any, str]]) -> None:
        for chunk in in_chunks(given, CHUNK):
            missing: list[str] = []

            def look(chunk: list[tuple[Any, str]] = chunk, missing: list[str] = missing) -> list[Any]:
                missing[:] = [text for key, text in chunk if key not in self._store]
                return list(dict.fromkeys(key for key, _ in chunk if key in self._store))

            self._act(look)
            for text in missing:
                self._missing += 1
                if self._missing <= NAMED:
                    no_such_key(self._store, text, self._json_keys)

    def _change_chosen(self) -> None:
        # (the reader shares what the writer has open)
        with open_reader(self._store.path) as reader:
            found = (chosen.key for chosen in choose(reader, self._choice, self._json_keys, False))
            for chunk in in_chunks(found, CHUNK):
                self._act(lambda chunk=chunk: self._still_wanted(reader, chunk))  # type: ignore[misc]

    def _act(self, look: Callable[[], list[Any]]) -> None:
        """Look again and change, while nobody else writes."""
        if not hasattr(self._store, "transaction"):  # a dry run
            self._changed += len(look())
            return
        with self._store.transaction():
            keys = look()
            if keys:
                self._action(self._store, keys)
        self._changed += len(keys)

    def _still_wanted(self, reader: Reader, keys: list[Any]) -> list[Any]:
        """The keys that are what the filter asks for now. What a worker has in hand is left to it, unless that was
        asked for."""
        if not is_tracker(self._store):
            return [key for key in keys if key in self._store]
        claims = claimed_keys(reader)
        wants_claimed = "claimed" in self._choice.statuses
        wanted = []
        for key in keys:
            task = self._store.get(key)
            in_hand = claims.get(key, False)
            if task is not None and (wants_claimed or not in_hand) and self._choice.has_status(
                    task, in_hand, key in claims):
                wanted.append(key)
        return wanted


CHANGING: tuple[Callable[[Any], Any], ...] = (
    store_argument, key_options, filter_options,
    click.option("-n", "--dry-run", is_flag=True, help="Say how many it would be, and change nothing."), json_option,
)


def changing(command: Callable[..., int]) -> Callable[..., int]:
    """The arguments of the commands below."""
    for option in reversed(CHANGING):
        command = option(command)
    return command


@click.command()
@changing
def rm(**given: Any) -> int:
    """Remove keys with their values, or what a filter lets through.

    \b
    tastypy-fast rm crawl https://example.org/
    tastypy-fast rm crawl --done --match '*.pdf' --dry-run
    """

    def remove(store: Any, keys: list[Any]) -> None:
        for key in keys:
            del store[key]

    return change(**given, done_to="removed", action=remove, tasks_only=False)


@click.command()
@changing
def done(**given: Any) -> int:
    """Mark tasks done: keys, or what a filter lets through.

    \b
    tastypy-fast done crawl https://example.org/
    tastypy-fast done crawl --todo --match '*.gif'
    """
    return change(**given, done_to="marked done", action=lambda store, keys: store.mark_done_many(keys))


@click.command()
@changing
def reset(**given: Any) -> int:
    """Have tasks done again, as if they were new: not done, not aborted, no tries. Their data stays.

    \b
    tastypy-fast reset crawl --failed --max-tries 3
    tastypy-fast reset crawl --from https://example.org/ --limit 100
    """

    def renew(store: Any, keys: list[Any]) -> None:
        for key in keys:
            store.mark_not_done(key)
            store.unabort(key)
            store.reset_tries(key)

    return change(**given, done_to="reset", action=renew)


@click.command()
@changing
def abort(**given: Any) -> int:
    """Mark tasks aborted, which loops and gates then leave alone: keys, or what a filter lets through.

    \b
    tastypy-fast abort crawl --todo --match 'http://*'
    """

    def give_up(store: Any, keys: list[Any]) -> None:
        for key in keys:
            store.abort(key)

    return change(**given, done_to="aborted", action=give_up)
