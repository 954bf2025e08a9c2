"""``ls`` and ``get``: keys and values."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import click

from tastypy_fast.cli.exit_codes import DONE, NO, USAGE, Failure, warn
from tastypy_fast.cli.formatting import as_json, key_text, out, pair_as_json, printable
from tastypy_fast.cli.key_filters import (
    Choice,
    Chosen,
    choose,
    filter_options,
    json_keys_option,
    key_options,
    keys_given,
    store_argument,
)
from tastypy_fast.cli.open_store import SPECIAL, Reader, is_tracker, open_reader

__all__ = ["get", "ls", "no_such_key"]

@click.command()
@store_argument
@filter_options
@json_keys_option
@click.option("-l", "--long", is_flag=True, help="Status, tries, key and data (of a dict: key and value), with tabs.")
@click.option("--json", "as_lines", is_flag=True,
              help='A line {"key": ..., "value": ...} for each, as export writes and import reads.')
def ls(store: str, choice: Choice, json_keys: bool, long: bool, as_lines: bool) -> None:
    """List keys in the order in which they were added.

    One in a line, as they are found, in constant memory. Of several statuses a task has one at least. What comes out
    is what the other commands take with --file: strings as they are, other keys as JSON; with --json-keys every key
    is JSON on both sides, so that no two can be taken for one another.

    \b
    tastypy-fast ls crawl --failed --max-tries 3 -l
    tastypy-fast ls crawl --match 'https://*.org/*' --limit 20
    tastypy-fast ls crawl --todo --json-keys | tastypy-fast abort crawl --json-keys -
    """
    # (failed ones have no tries left, and must be come to)
    with open_reader(store, 0 if "failed" in choice.statuses else choice.max_tries) as reader:
        with_values = long or as_lines
        width = shutil.get_terminal_size().columns if long and sys.stdout.isatty() else None
        for chosen in choose(reader, choice, json_keys, with_values):
            if as_lines:
                out(_json_line(chosen, "claimed" in choice.statuses))
            elif long:
                line = _long_line(chosen, is_tracker(reader), json_keys)
                out(line.expandtabs()[:width] if width else line)
            else:
                out(key_text(chosen.key, json_keys))


def _json_line(chosen: Chosen, with_claim: bool) -> str:
    line = pair_as_json(chosen.key, chosen.value)
    if with_claim and chosen.hand:
        line = f'{line[:-1]},"claim":{as_json(chosen.hand.as_dict())}}}'
    return line


def _long_line(chosen: Chosen, tracker: bool, json_keys: bool) -> str:
    key = key_text(chosen.key, json_keys)
    if not tracker:
        return f"{key}\t{printable(as_json(chosen.value))}"
    task = chosen.value
    data = {name: value for name, value in task.items() if name not in SPECIAL}
    status = "done" if task["_done"] else "aborted" if task["_aborted"] else _open_one(chosen)
    return f"{status}\t{task['_tries']}\t{key}\t{printable(as_json(data)) if data else ''}".rstrip("\t")


def _open_one(chosen: Chosen) -> str:
    return "open" if chosen.hand is None else "failed" if chosen.hand.failed else "in hand"


@click.command()
@store_argument
@key_options
@click.option("--json", "as_lines", is_flag=True, help='A line {"key": ..., "value": ...} for each.')
def get(store: str, keys: tuple[str, ...], file: str | None, json_keys: bool, as_lines: bool) -> int:
    """Print the values of keys, as JSON.

    Of one key that is given alone over several lines, of several one in a line, after the key and a tab. Exit code 1
    when a key is not there.

    \b
    tastypy-fast get crawl https://example.org/
    tastypy-fast get squares 12 --json-keys
    """
    if not keys and file is None:
        raise Failure("get needs a key, or --file", USAGE)
    alone = len(keys) == 1 and keys[0] != "-" and file is None
    code = DONE
    with open_reader(store) as reader:
        for key, text in keys_given(keys, file, json_keys):
            try:
                value = reader[key]
            except KeyError:
                no_such_key(reader, text, json_keys)
                code = NO
                continue
            if as_lines:
                out(pair_as_json(key, value))
            else:
                out(as_json(value, indent=2) if alone else f"{key_text(key, json_keys)}\t{as_json(value)}")
    return code


def no_such_key(store: Reader | Any, text: str, json_keys: bool) -> None:
    """Say so; and whether another reading of it would have been there."""
    hint = ""
    if not json_keys and text.removeprefix("-").isdecimal() and len(text) < 4000 and int(text) in store:
        hint = f"; the integer {text} is there, which --json-keys means"
    elif json_keys and text in store:
        hint = f"; the string {as_json(text)} is there"
    warn(f"no such key: {as_json(text) if not json_keys else text}{hint}")
