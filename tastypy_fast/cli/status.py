"""Implement the command ``status``."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import click

from tastypy_fast import ProgressTracker
from tastypy_fast._core.iterators import KEYS
from tastypy_fast._inspect.lock_holders import LockHolders, find_lock_holders
from tastypy_fast._inspect.store_info import read_run, read_store_info
from tastypy_fast._inspect.task_counts import ActiveClaim, StatusCounts, TaskCounter, active_claims
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
from tastypy_fast.cli.key_filters import max_tries_option, store_argument
from tastypy_fast.cli.open_store import Reader, is_tracker, open_reader
from tastypy_fast.pipeline.worker import parse_time

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
def status(store: str, max_tries: int, as_object: bool) -> None:
    """Show the state of a store.

    The command prints its kind, its size, and its numbers of tasks. It also prints the processes that have it open to
    write, and the tasks that workers have claimed. The numbers are those of the last sync.

    A task counts as failed if it was tried N times (with --max-tries N), is neither done nor aborted, and no worker is
    running it. Without --max-tries one try is enough, and failed tasks also count as left. Tasks that are not done and
    have a kept error are counted as errors. The last run is that of tracker.run() or tastypy-fast run.

    The command reads 16 bytes for every 500 tasks, and 2 kB for every 500 of which some were tried and are not done.
    """
    holders = find_lock_holders(resolved(store))  # before this process opens the store
    with open_reader(store) as reader:
        info = read_store_info(reader._store)
        counts = TaskCounter(reader, max_tries).count() if is_tracker(reader) else None
        claims = [(key_at(reader._open_cache, claim.seq), claim)  # type: ignore[arg-type]
                  for claim in active_claims(reader._store)] if counts else []
        errors = sum(1 for _ in reader._tasks_with_error(KEYS)) if isinstance(reader, ProgressTracker) else 0
        last_run = read_run(reader._store) if counts else None
        if as_object:
            print_line(as_json({**_as_dict(reader, info._asdict(), counts, holders, claims, max_tries),
                                **({"errors": errors, "last_run": last_run} if counts else {})}))
            return
        rows = [("store", printable(reader.path)),
                ("kind", f"a {'tracker' if counts else 'dict'}, format {info.format}")]
        rows += _count_lines(counts) if counts else [("keys", f"{len(reader):,}")]
        if errors:
            rows.append(("errors", f"{quantity(errors, 'task')} (tastypy-fast errors shows them)"))
        if last_run:
            rows.append(("last run", printable(_describe_run(last_run))))
        rows += [
            ("disk", f"{size_text(info.bytes)}, {size_text(info.free)} of it free"),
            ("open", printable(_describe_holders(holders))),
        ]
        if holders.durability:
            when = ", when it was last opened to write" if holders.how == "nobody" else ""
            lost = LOST_IN_A_POWER_CUT.get(holders.durability, "unknown data")
            rows.append(("durability", f"{holders.durability} (a power cut can lose {lost}){when}"))
        if claims:
            rows += _claim_lines(claims)
        _print_rows(rows)


def _as_dict(reader: Reader, info: dict[str, int], counts: StatusCounts | None, holders: LockHolders,
             claims: list[tuple[Any, ActiveClaim]], max_tries: int) -> dict[str, Any]:
    return {
        "path": reader.path,
        "kind": "tracker" if counts else "dict",
        "keys": counts.tasks if counts else len(reader),
        **({**{name: value for name, value in counts._asdict().items() if name != "tasks"},
            "max_tries": max_tries or None} if counts else {}),
        "format": info["format"],
        "file_size": info["file_size"],
        "disk": {"bytes": info["bytes"], "free": info["free"]},
        "open": {"how": holders.how, "processes": holders.processes, "owner": holders.text or None},
        "durability": holders.durability or None,
        **({"claims": [{"key": key, **claim.as_dict()} for key, claim in claims]} if counts else {}),
    }


def _count_lines(counts: StatusCounts) -> list[tuple[str, str]]:
    """Return the rows with the numbers of tasks."""
    share = max(counts.tasks, 1)
    return [("tasks", f"{counts.tasks:,}")] + [
        (name, f"{number:,}  {percent(number / share, 2)}")
        for name, number in (("done", counts.done), ("failed", counts.failed), ("aborted", counts.aborted),
                             ("left", counts.left))
    ]


def _describe_run(info: dict[str, Any]) -> str:
    """Return what was run last, when, and why it ended."""
    text = str(info.get("function", "unknown"))
    with suppress(TypeError, ValueError):
        begun: Any = parse_time(info.get("begun"))
        text += f", begun {duration(max(time.time() - begun, 0))} ago"
        if "ended" not in info:
            return f"{text}, not ended (it runs, or was killed)"
        ended: Any = parse_time(info["ended"])
        return f"{text}, ended after {duration(ended - begun)}: {info['reason']}"
    return text


def _describe_holders(holders: LockHolders) -> str:
    if holders.how == "nobody":
        return "no process has it open to write"
    numbers = ", ".join(map(str, holders.processes))
    if holders.how == "private":
        return f"{holders.text or f'process {numbers}' if numbers else 'a process'} has it open privately"
    named = "process" if len(holders.processes) == 1 else "processes"
    return f"shared by {named} {numbers} (and possibly their child processes)" if numbers else "shared"


def _claim_lines(claims: list[tuple[Any, ActiveClaim]]) -> list[tuple[str, str]]:
    running = [(key, claim) for key, claim in claims if not claim.failed]
    failed = len(claims) - len(running)
    workers = {(claim.process, claim.host) for _, claim in running}
    lines = [("claimed", f"{quantity(len(running), 'task')} of {quantity(len(workers), 'worker')}")]
    now = datetime.now(timezone.utc)
    for key, claim in running[:MAX_CLAIMS]:
        age = duration(max((now - claim.since).total_seconds(), 0))
        lines.append(("", f"{printable(key_text(key))}  process {claim.process} on {printable(claim.host)}, for {age}"))
    if len(running) > MAX_CLAIMS:
        lines.append(("", f"and {len(running) - MAX_CLAIMS:,} more (use ls --claimed)"))
    if failed:
        lines.append(("", f"({failed:,} more, which failed and stay claimed for another try)"))
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
