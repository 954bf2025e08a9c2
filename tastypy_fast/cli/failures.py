"""Implement the command ``errors``: the failures of a tracker, grouped by what went wrong."""

from __future__ import annotations

from itertools import chain
from typing import Any

import click

from tastypy_fast._inspect.failures import iter_failures, iter_own_errors
from tastypy_fast._inspect.store_info import read_limit
from tastypy_fast.cli.formatting import as_json, error_text, key_as_json, key_text, print_line, printable, quantity
from tastypy_fast.cli.key_filters import json_keys_option, max_tries_option, store_argument
from tastypy_fast.cli.key_in_message import replace_key
from tastypy_fast.cli.open_store import open_reader, require_tracker

__all__ = ["FailureCounter", "FailureGroup", "errors"]

# Groups in memory. When there are twice as many, the groups with the fewest tasks are only counted together.
MAX_GROUPS = 5000
# Groups that are printed without --json.
MAX_PRINTED = 30
# The length, in characters, of a message in a group.
MAX_MESSAGE = 300


class FailureGroup:
    """Tasks that failed alike: what they have in common, how many there are, and the first of them.

    ``final`` is the number of tasks that are not tried again, because they are aborted or have no tries left.
    """

    def __init__(self, kind: str, message: str, key: Any, traceback: str | None) -> None:
        self.kind = kind
        self.message = message
        self.key = key
        self.traceback = traceback
        self.tasks = self.final = 0

    def as_dict(self, with_traceback: bool) -> dict[str, Any]:
        """Return the fields of the JSON output."""
        more = {"traceback": self.traceback} if with_traceback else {}
        return {"type": self.kind or None, "message": self.message, "tasks": self.tasks, "final": self.final,
                "key": self.key, **more}

    def text(self) -> str:
        """Return what the tasks have in common, in one line."""
        return ": ".join(filter(None, (self.kind, self.message))) or "(no message)"


class FailureCounter:
    """Group failed tasks by the type and the first line of the message of their errors. Memory use is constant."""

    def __init__(self, max_tries: int = 0) -> None:
        self._max_tries = max_tries
        self._groups: dict[tuple[str, str], FailureGroup] = {}
        self.tasks = 0
        # Tasks of groups that were dropped.
        self.others = 0

    def add(self, key: Any, task: dict[str, Any]) -> None:
        """Count a task."""
        kind, message, traceback = _cause_of(key, task)
        group = self._groups.get((kind, message))
        if group is None:
            if len(self._groups) >= 2 * MAX_GROUPS:
                kept = self.groups()[:MAX_GROUPS]
                self.others += sum(group.tasks for group in self._groups.values()) - sum(group.tasks for group in kept)
                self._groups = {(group.kind, group.message): group for group in kept}
            group = self._groups[kind, message] = FailureGroup(kind, message, key, traceback)
        self.tasks += 1
        group.tasks += 1
        group.final += bool(task["_aborted"] or 0 < self._max_tries <= task["_tries"])

    def groups(self) -> list[FailureGroup]:
        """Return the groups, the largest first."""
        return sorted(self._groups.values(), key=lambda group: -group.tasks)


def _cause_of(key: Any, task: dict[str, Any]) -> tuple[str, str, str | None]:
    """Return the type, the first line of the message, and the traceback of a task's error."""
    kept = task.get("_error")
    if not isinstance(kept, dict):
        return "", _common_part(error_text(task), key), None
    kind = str(kept.get("type") or "")
    for name in ("exit_code", "signal"):
        if kept.get(name) is not None:
            kind += f" ({name.replace('_', ' ')} {kept[name]})"
    traceback = kept.get("traceback")
    return kind, _common_part(str(kept.get("message") or ""), key), None if traceback is None else str(traceback)


def _common_part(message: str, key: Any) -> str:
    """Return the first line of a message, in which ``{key}`` stands for the key, so that similar messages are equal."""
    return replace_key(message, key).strip().partition("\n")[0].rstrip()[:MAX_MESSAGE]


@click.command()
@store_argument
@max_tries_option
@json_keys_option
@click.option("--traceback", "with_traceback", is_flag=True, help="Print the traceback of each example.")
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object.")
def errors(store: str, max_tries: int | None, json_keys: bool, with_traceback: bool, as_object: bool) -> None:
    """Show why tasks failed, the most frequent error first.

    Tasks with the same type of error and the same first line of its message are one group, and a key in a message is
    shown as {key}. Each group has the number of its tasks and the first of them. The errors are those that
    tracker.run() and tastypy-fast run keep. A task without one is shown with the "error" in its data, if there is one.
    Aborted and failed tasks are final: those have no tries left. Memory use is constant, and only values of tasks with
    an error are read.

    \b
    tastypy-fast errors papers --max-tries 3
    tastypy-fast errors papers --traceback
    """
    with open_reader(store) as reader:
        tracker = require_tracker(reader)
        counter = FailureCounter(read_limit(tracker._store) if max_tries is None else max_tries)
        for key, task in chain(iter_failures(tracker), iter_own_errors(tracker)):
            counter.add(key, task)
    groups = counter.groups()
    if as_object:
        print_line(as_json({"tasks": counter.tasks, "groups": [group.as_dict(with_traceback) for group in groups],
                            "others": counter.others}))
        return
    if not groups:
        print_line("no task has an error")
        return
    _print_groups(groups[:MAX_PRINTED], json_keys, with_traceback)
    others = counter.others + sum(group.tasks for group in groups[MAX_PRINTED:])
    if others:
        print_line(f"and {quantity(others, 'task')} with other errors (--json prints more of them)")


def _print_groups(groups: list[FailureGroup], json_keys: bool, with_traceback: bool) -> None:
    width = len(f"{groups[0].tasks:,}")
    indent = " " * (width + 2)
    for group in groups:
        final = "" if not group.final else "; all are final" if group.final == group.tasks else \
            f"; {group.final:,} of them {'is' if group.final == 1 else 'are'} final"
        print_line(f"{group.tasks:>{width},}  {printable(group.text())}")
        key = printable(key_text(group.key, json_keys)) or key_as_json(group.key)
        print_line(f"{indent}for example {key}{final}")
        if with_traceback and group.traceback:
            for line in group.traceback.rstrip().split("\n"):
                print_line(f"{indent}  {printable(line)}")
