"""Implement the command ``status``."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import click

from tastypy_fast._core.iterators import KEYS
from tastypy_fast._inspect.claims import ClaimReader, one_snapshot
from tastypy_fast._inspect.lock_holders import LockHolders, find_lock_holders
from tastypy_fast._inspect.statuses import StatusReader, TaskState
from tastypy_fast._inspect.store_info import StoreInfo, read_run, read_store_info
from tastypy_fast._inspect.task_counts import count_tasks
from tastypy_fast._mixins.counting import percent
from tastypy_fast._paths import resolved
from tastypy_fast._shared.claims import key_at
from tastypy_fast.cli.formatting import (
    as_json,
    console,
    duration,
    key_text,
    print_line,
    printable,
    quantity,
    size_text,
    write_line,
)
from tastypy_fast.cli.json_schema import store_object, task_object
from tastypy_fast.cli.key_filters import max_tries_option, store_argument
from tastypy_fast.cli.open_store import Reader, is_tracker, open_reader
from tastypy_fast.pipeline.worker import parse_time
from tastypy_fast.types import StatusCounts

__all__ = ["status"]

# Claims that are shown without --json.
MAX_CLAIMS = 10
# What a power cut can lose, by durability.
LOST_IN_A_POWER_CUT = {
    "full": "nothing that was committed",
    "normal": "the last commit",
    "process": "what came after the last flush",
    "unsafe": "everything, because it may damage the store",
}


@click.command()
@store_argument
@max_tries_option
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object.")
def status(store: str, max_tries: int | None, as_object: bool) -> None:
    """Show the state of a store.

    The command prints its kind, its size, and how many tasks are new, running, to retry, failed, aborted and done. It
    also prints the processes that have it open to write, and the tasks that workers have claimed. The numbers are those
    of the last sync, and add up.

    A task is running if a living process has claimed it or is trying it. It has failed if it has no tries left; without
    a limit of tries, it is to retry. Tasks that are not done and have a kept error are counted as errors. The last run
    is that of tracker.run() or tastypy-fast run.

    The command reads 16 bytes for every 500 tasks, and 2 kB for every 500 of which some were tried and are not done.
    """
    holders = find_lock_holders(resolved(store))  # before this process opens the store
    with open_reader(store) as reader:
        tasks = TaskFacts(reader, max_tries) if is_tracker(reader) else None
        info = read_store_info(reader._store)
        if as_object:
            print_line(as_json(_as_dict(reader, tasks, info, holders)))
            return
        rows = [("store", printable(reader.path)),
                ("kind", f"a {'tracker' if tasks else 'dict'}, format {info.format}")]
        rows += _count_lines(tasks.counts, tasks.max_tries) if tasks else [("keys", f"{len(reader):,}")]
        if tasks and tasks.errors:
            rows.append(("errors", f"{quantity(tasks.errors, 'task')} (tastypy-fast errors shows them)"))
        if tasks and tasks.last_run:
            rows.append(("last run", printable(_describe_run(tasks.last_run, holders.how))))
        rows += [
            ("disk", f"{size_text(info.bytes)}, {size_text(info.free)} of it free"),
            ("open", printable(_describe_holders(holders))),
        ]
        if holders.durability:
            when = ", when it was last opened to write" if holders.how == "nobody" else ""
            lost = LOST_IN_A_POWER_CUT.get(holders.durability, "unknown data")
            rows.append(("durability", f"{holders.durability} (a power cut can lose {lost}){when}"))
        if tasks and tasks.claims:
            rows += _claim_lines(tasks.claims)
        _print_rows(rows)


class TaskFacts:
    """The facts about the tasks of a tracker, all from one snapshot, and the last run."""

    def __init__(self, reader: Any, max_tries: int | None) -> None:
        claims = ClaimReader(reader._store)
        with one_snapshot(reader):
            found = count_tasks(reader, max_tries, claims)
            self.counts, self.max_tries = found.counts, found.max_tries
            self.errors = sum(1 for _ in reader._tasks_with_error(KEYS))
            keys = [key_at(reader._open_cache, claim.seq) for claim in found.claims.active]
            states = StatusReader(reader, found.max_tries).read(keys, claims)
            self.claims = [(key, state) for key, state in zip(keys, states, strict=True) if state]
        self.last_run = read_run(reader._store)


def _as_dict(reader: Reader, tasks: TaskFacts | None, info: StoreInfo, holders: LockHolders) -> dict[str, Any]:
    of_tasks = {} if tasks is None else {
        "max_tries": tasks.max_tries or None,
        "errors": tasks.errors,
        "last_run": tasks.last_run and {**tasks.last_run, **{name: tasks.last_run.get(name)
                                                             for name in ("ended", "reason")}},
        "claims": [task_object(key, state) for key, state in tasks.claims],
    }
    return store_object(
        "status", tasks.counts if tasks else None, **of_tasks,
        path=reader.path,
        kind="tracker" if tasks else "dict",
        keys=len(reader),
        open={"how": holders.how, "processes": holders.processes, "owner": holders.text or None},
        durability=holders.durability or None,
        format=info.format,
        file_size=info.file_size,
        disk={"bytes": info.bytes, "free": info.free},
    )


def _count_lines(counts: StatusCounts, max_tries: int) -> list[tuple[str, str]]:
    """Return the rows with the numbers of tasks."""
    share = max(counts.tasks, 1)
    rows = [(word, f"{number:,}  {percent(number / share, 2)}") for word, number in counts.by_word().items()]
    return [("tasks", f"{counts.tasks:,}"), *rows, ("max tries", f"{max_tries:,}" if max_tries else "no limit")]


def _describe_run(info: dict[str, Any], how: str) -> str:
    """Return what was run last, when, and why it ended. ``how`` says how processes have the store open."""
    text = str(info.get("function", "unknown"))
    with suppress(TypeError, ValueError):
        begun: Any = parse_time(info.get("begun"))
        text += f", begun {duration(max(time.time() - begun, 0))} ago"
        if "ended" not in info:
            return f"{text}, {'killed before its end' if how == 'nobody' else 'not ended (it runs, or was killed)'}"
        ended: Any = parse_time(info["ended"])
        return f"{text}, ended after {duration(ended - begun)}: {info['reason']}"
    return text


def _describe_holders(holders: LockHolders) -> str:
    if holders.how == "nobody":
        return "no process has it open to write"
    numbers = ", ".join(map(str, holders.processes))
    named = f"process{'' if len(holders.processes) == 1 else 'es'} {numbers}"
    if holders.how == "shared":
        return f"shared by {named}" if numbers else "shared (this system does not tell by which processes)"
    if not holders.text:
        has = "have" if len(holders.processes) > 1 else "has"
        return f"{named if numbers else 'a process'} {has} it open privately"
    others = [number for number in holders.processes if f"process {number} " not in f"{holders.text} "]
    more = f", and so has {'process' if len(others) == 1 else 'processes'} {', '.join(map(str, others))}"
    return f"{holders.text} has it open privately{more if others else ''}"


def _claim_lines(claims: list[tuple[Any, TaskState]]) -> list[tuple[str, str]]:
    """Return the rows with the claims of living workers."""
    running = [(key, state.claim) for key, state in claims if state.claim is not None and state.claim.is_running]
    left = len(claims) - len(running)
    workers = {(claim.process, claim.host) for _, claim in running}
    lines = [("claims", f"{quantity(len(running), 'running task')} of {quantity(len(workers), 'worker')}")]
    now = datetime.now(timezone.utc)
    for key, claim in running[:MAX_CLAIMS]:
        age = duration(max((now - claim.since).total_seconds(), 0))
        lines.append(("", f"{printable(key_text(key))}  process {claim.process} on {printable(claim.host)}, for {age}"))
    if len(running) > MAX_CLAIMS:
        lines.append(("", f"and {len(running) - MAX_CLAIMS:,} more (use ls --running)"))
    if left:
        lines.append(("", f"({left:,} more, whose try has failed, and which stay claimed for another one)"))
    return lines


def _print_rows(rows: list[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, Text(text))
    to = console()
    with to.capture() as capture:
        to.print(table)
    write_line("\n".join(line.rstrip() for line in capture.get().splitlines()))
