"""Implement the commands that maintain a store's files: ``copy``, ``compact``, ``verify``, ``repair``."""

from __future__ import annotations

from typing import Any

import click

from tastypy_fast import (
    NotAStoreError,
    PersistentOrderedDictException,
    StoreNotFoundError,
    StorePathError,
)
from tastypy_fast._lmdb.store_dir import require_store, was_complete
from tastypy_fast._paths import resolved
from tastypy_fast.cli.exit_codes import INCOMPLETE, OK
from tastypy_fast.cli.formatting import as_json, print_line, printable, quantity, size_text
from tastypy_fast.cli.key_filters import PathType, json_option, store_argument

__all__ = ["compact", "copy", "repair", "verify"]

target_argument = click.argument("target", type=PathType())


@click.command()
@store_argument
@target_argument
@json_option
def copy(store: str, target: str, as_object: bool) -> None:
    """Copy a store, also while other processes write it.

    The copy is a consistent snapshot. TARGET must be new or an empty folder.
    """
    from tastypy_fast import maintenance

    maintenance.copy(store, target)
    print_line(as_json({"from": store, "to": target}) if as_object else
               f"copied {printable(store)} to {printable(target)}")


@click.command()
@store_argument
@json_option
def compact(store: str, as_object: bool) -> None:
    """Return the free space inside a store to the file system. No process may have the store open.

    The command writes a compact copy of the data file and then replaces the file. If it is killed, the store is the old
    one or the new one, and complete.
    """
    from tastypy_fast import maintenance

    before, after = maintenance.compact(store)
    print_line(as_json({"before": before, "after": after, "given_back": before - after}) if as_object else
               f"freed {size_text(max(before - after, 0))}: {size_text(before)} before, {size_text(after)} now")


@click.command()
@store_argument
@json_option
def verify(store: str, as_object: bool) -> int:
    """Check a store for damage, without changing it.

    The command checks the structure of the file, then the records, index and statuses. The check is safe for files of
    unknown origin. If there is damage, it is listed and the exit code is 1. The command reads the whole store.
    """
    from tastypy_fast import maintenance

    _refuse_what_is_no_store(resolved(store))
    faults = maintenance.verify(store)
    if as_object:
        print_line(as_json({"sound": not faults, "faults": faults}))
    else:
        for fault in faults:
            print_line(printable(fault))
        print_line(f"{quantity(len(faults), 'fault')} in {printable(store)}; use repair to save what can be read"
                   if faults else f"{printable(store)} is sound")
    return INCOMPLETE if faults else OK


def _refuse_what_is_no_store(path: str) -> None:
    """Raise the error of opening a path that is no store. A store that was complete once is a damaged one."""
    try:
        require_store(path)
    except NotAStoreError:
        if not was_complete(path):
            raise
    except (StoreNotFoundError, StorePathError):
        raise
    except (OSError, PersistentOrderedDictException):
        pass  # a fault, or an error of reading


@click.command()
@store_argument
@target_argument
@json_option
def repair(store: str, target: str, as_object: bool) -> int:
    """Save the readable records of a damaged store.

    The command makes a new store at TARGET, and does not change the damaged one. TARGET must be new or an empty folder.
    Index, counts and statuses are rebuilt from the records. If something was lost, it is listed and the exit code is 1.
    """
    from tastypy_fast import maintenance

    result: Any = maintenance.repair(store, target)
    if as_object:
        print_line(as_json(result._asdict()))
    else:
        for text in result.lost:
            print_line(f"lost: {printable(text)}")
        undone = f", {quantity(result.undone, 'task')} reset to not done" if result.undone else ""
        rest = "what was lost is listed above" if result.lost else "nothing was lost"
        print_line(f"{quantity(result.kept, 'key')} kept in {printable(target)}{undone}; {rest}")
    return INCOMPLETE if result.lost else OK
