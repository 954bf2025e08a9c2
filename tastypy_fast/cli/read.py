"""Implement the commands that print keys and values: ``ls`` and ``get``."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from tastypy_fast.cli.exit_codes import INCOMPLETE, OK, USAGE, CommandError, print_error
from tastypy_fast.cli.formatting import (
    as_json,
    error_text,
    key_field,
    key_text,
    pair_as_json,
    parse_key,
    print_line,
    print_null_ended,
    printable,
)
from tastypy_fast.cli.json_schema import task_line
from tastypy_fast.cli.key_filters import (
    KeyFilter,
    Match,
    filter_options,
    iter_given_keys,
    iter_matching,
    json_keys_option,
    key_options,
    store_argument,
)
from tastypy_fast.cli.long_listing import print_rows
from tastypy_fast.cli.open_store import TASK_FIELDS, Reader, is_tracker, open_reader

__all__ = ["get", "ls", "print_missing_key"]


@click.command()
@store_argument
@filter_options
@json_keys_option
@click.option("-l", "--long", is_flag=True,
              help="Print status, tries, key and data (for a dict: key and value), as a table or between tabs.")
@click.option("-0", "--null", is_flag=True,
              help="End each key with a null character instead of a line break. Other commands read this with -0.")
@click.option("--json", "as_lines", is_flag=True,
              help='Print a line {"key": ..., "value": ...} per key, as export writes and import reads it.')
def ls(store: str, key_filter: KeyFilter, json_keys: bool, long: bool, null: bool, as_lines: bool) -> None:
    """List keys, one per line, in the order in which they were added.

    With several status options, a task needs to match only one of them. The other commands accept the output with
    --file: strings are printed unchanged, other keys as JSON. With --json-keys on both sides every key is JSON, so the
    string "1" and the integer 1 cannot be confused. A string with a line break is printed as JSON, too. So use
    --json-keys or -0 on both sides if keys may have line breaks. Memory use is constant.

    On a terminal, --long prints a table with a header, and cuts what does not fit, with a mark. In a pipe or a file, it
    prints a line for each key, with tabs between the fields, without a header, and uncut. A key with a tab is JSON.

    \b
    tastypy-fast ls crawl --failed --max-tries 3 -l
    tastypy-fast ls crawl --match 'https://*.org/*' --limit 20
    tastypy-fast ls crawl --where size=1256 --where _error.type=OSError --tail 10
    tastypy-fast ls crawl --todo --json-keys | tastypy-fast abort crawl --json-keys -
    """
    if null and (long or as_lines):
        raise CommandError("-0 is for keys alone, so it cannot be combined with --long or --json", USAGE)
    if long and as_lines:
        raise CommandError("--long and --json are two forms of the same lines, so they cannot be combined", USAGE)
    # To list other tasks, open without a limit, because a tracker skips tasks that have no tries left.
    limit = key_filter.max_tries if key_filter.statuses == {"todo"} else None
    with open_reader(store, limit or 0) as reader:
        found = iter_matching(reader, key_filter, json_keys, long or as_lines)
        if long:
            names = ("STATUS", "TRIES", "KEY", "DATA") if is_tracker(reader) else ("KEY", "VALUE")
            print_rows(names, (_long_row(match, is_tracker(reader), json_keys) for match in found))
            return
        for match in found:
            if as_lines:
                print_line(task_line(match.key, match.value, match.state))
            elif null:
                print_null_ended(match.key, json_keys)
            else:
                print_line(key_text(match.key, json_keys))


def _long_row(match: Match, tracker: bool, json_keys: bool) -> tuple[str, ...]:
    key = key_field(match.key, json_keys)
    if not tracker:
        return key, printable(as_json(match.value))
    task = match.value
    data = {name: value for name, value in task.items() if name not in TASK_FIELDS}
    if "_error" in data:
        data["_error"] = error_text(task)
    status = match.state.status if match.state else "new"
    return status, str(task["_tries"]), key, printable(as_json(data)) if data else ""


@click.command()
@store_argument
@key_options
@click.option("--json", "as_lines", is_flag=True, help='Print a line {"key": ..., "value": ...} per key.')
def get(store: str, keys: tuple[str, ...], file: str | None, json_keys: bool, null: bool, as_lines: bool) -> int:
    """Print the values of keys as JSON.

    For a single key, the value is printed over several lines. For several keys, each line has the key, a tab and the
    value. A key that contains a tab or a line break is printed as JSON. If a key does not exist, the exit code is 1.

    \b
    tastypy-fast get crawl https://example.org/
    tastypy-fast get squares 12 --json-keys
    """
    if not keys and file is None:
        raise CommandError("get needs a key or --file", USAGE)
    alone = len(keys) == 1 and keys[0] != "-" and file is None
    code = OK
    with open_reader(store) as reader:
        for key, text in iter_given_keys(keys, file, json_keys, null):
            try:
                value = reader[key]
            except KeyError:
                print_missing_key(reader, text, json_keys)
                code = INCOMPLETE
                continue
            if as_lines:
                print_line(pair_as_json(key, value))
            else:
                print_line(as_json(value, indent=2) if alone else f"{key_field(key, json_keys)}\t{as_json(value)}")
    return code


def print_missing_key(store: Reader | Any, text: str, json_keys: bool) -> None:
    """Print that a key does not exist, and whether the same text as JSON (or as a string) would be a key."""
    hint = ""
    if not json_keys and text.removeprefix("-").isdecimal() and len(text) < 4000 and int(text) in store:
        hint = f"; the integer {text} exists, use --json-keys to select it"
    elif not json_keys and (key := _key_in_json(text)) is not None and key in store:
        hint = ("; ls prints a key with a line break or a null character as JSON, so use --json-keys"
                f"{'' if chr(0) in key else ' or -0'} with both commands")
    elif "\0" in text:
        hint = "; use -0 if null characters separate the keys"
    elif json_keys and text in store:
        hint = f"; the string {as_json(text)} exists, put it in double quotes"
    print_error(f"no such key: {as_json(text) if not json_keys else text}{hint}")


def _key_in_json(text: str) -> str | None:
    """Return the string of which a text is the JSON, or None."""
    if text.startswith('"'):
        with suppress(ValueError):
            return str(parse_key(text, True))
    return None
