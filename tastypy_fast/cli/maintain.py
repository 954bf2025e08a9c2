"""``copy``, ``compact``, ``verify``, ``repair``: taking care of a store's files."""

from __future__ import annotations

from typing import Any

import click

from tastypy_fast.cli.exit_codes import DONE, NO
from tastypy_fast.cli.formatting import as_json, out, printable, quantity, size_text
from tastypy_fast.cli.key_filters import PathType, json_option, store_argument

__all__ = ["compact", "copy", "repair", "verify"]

target_argument = click.argument("target", type=PathType())


@click.command()
@store_argument
@target_argument
@json_option
def copy(store: str, target: str, as_object: bool) -> None:
    """Copy a store as it is at one moment, while others write it. TARGET must be new, or an empty folder."""
    from tastypy_fast import maintenance

    maintenance.copy(store, target)
    out(as_json({"from": store, "to": target}) if as_object else f"copied {printable(store)} to {printable(target)}")


@click.command()
@store_argument
@json_option
def compact(store: str, as_object: bool) -> None:
    """Give the room that is free inside of a store back to the disk. Nobody may have it open.

    It writes a copy beside the store, which then takes its place; killed in the middle, it leaves one or the other.
    """
    from tastypy_fast import maintenance

    before, after = maintenance.compact(store)
    out(as_json({"before": before, "after": after, "given_back": before - after}) if as_object else
        f"gave back {size_text(max(before - after, 0))}: {size_text(before)} before, {size_text(after)} now")


@click.command()
@store_argument
@json_option
def verify(store: str, as_object: bool) -> int:
    """Look for damage: the structure of the file, then the store's own invariants. It only reads.

    Safe on a file from a stranger. Exit code 1, and a list, when there is damage. Cost: a walk over everything.
    """
    from tastypy_fast import maintenance

    faults = maintenance.verify(store)
    if as_object:
        out(as_json({"sound": not faults, "faults": faults}))
    else:
        for fault in faults:
            out(printable(fault))
        out(f"{quantity(len(faults), 'fault')} in {printable(store)}; repair makes a new store of what can be read"
            if faults else f"{printable(store)} is sound")
    return NO if faults else DONE


@click.command()
@store_argument
@target_argument
@json_option
def repair(store: str, target: str, as_object: bool) -> int:
    """Make a new store at TARGET of what can be read of a damaged one, which is left as it is.

    TARGET must be new, or an empty folder.

    The index, the counts and the statuses are made anew from the records. Exit code 1, and a list, when something was
    lost.
    """
    from tastypy_fast import maintenance

    result: Any = maintenance.repair(store, target)
    if as_object:
        out(as_json(result._asdict()))
    else:
        for text in result.lost:
            out(f"lost: {printable(text)}")
        undone = f", {quantity(result.undone, 'task')} to be done again" if result.undone else ""
        rest = "what was lost stands above" if result.lost else "nothing was lost"
        out(f"{quantity(result.kept, 'key')} kept in {printable(target)}{undone}; {rest}")
    return NO if result.lost else DONE
