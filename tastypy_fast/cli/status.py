"""``status``: what a store is, how far it is, and who has it."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import Any

import click

from tastypy_fast._inspect.lock_holders import LockHolders, find_lock_holders
from tastypy_fast._inspect.store_info import read_store_info
from tastypy_fast._inspect.task_counts import ActiveClaim, StatusCounts, TaskCounter, active_claims
from tastypy_fast._mixins.counting import percent
from tastypy_fast._paths import resolved
from tastypy_fast._shared.claims import key_at
from tastypy_fast.cli.formatting import as_json, console, duration, key_text, out, printable, quantity, size_text
from tastypy_fast.cli.key_filters import max_tries_option, store_argument
from tastypy_fast.cli.open_store import Reader, is_tracker, open_reader

__all__ = ["status"]

# Of the claims, so many are shown to people.
SHOWN = 10
WHAT_A_POWER_CUT_TAKES = {
    "full": "nothing that was committed",
    "normal": "the last commit, perhaps",
    "process": "what came after the last flush",
}


@click.command()
@store_argument
@max_tries_option
@click.option("--json", "as_object", is_flag=True, help="One JSON object.")
def status(store: str, max_tries: int, as_object: bool) -> None:
    """What a store is, how far it is, how large, who has it open, and which tasks workers have in hand.

    Failed are the tasks that are neither done nor aborted, in nobody's hands, and were tried: N times or more with
    --max-tries N, else at least once, and then they count as left, too. It is what was last synced. Cost: 16 bytes for
    every 500 tasks, and 2 kB for those 500 of which some have failed.
    """
    holders = find_lock_holders(resolved(store))  # (before this process has a part in it)
    with open_reader(store) as reader:
        facts = read_store_info(reader._store)
        counts = TaskCounter(reader, max_tries).count() if is_tracker(reader) else None
        claims = [(key_at(reader._open_cache, hand.row_id), hand)  # type: ignore[arg-type]
                  for hand in active_claims(reader._store)] if counts else []
        if as_object:
            out(as_json(_as_dict(reader, facts._asdict(), counts, holders, claims, max_tries)))
            return
        rows = [("store", printable(reader.path)),
                ("what", f"a {'tracker' if counts else 'dict'}, format {facts.format}")]
        rows += _count_lines(counts) if counts else [("keys", f"{len(reader):,}")]
        rows += [
            ("disk", f"{size_text(facts.bytes)}, {size_text(facts.free)} of it free inside"),
            ("open", printable(_who(holders))),
        ]
        if holders.durability:
            when = ", when it was last opened to write" if holders.how == "nobody" else ""
            taken = WHAT_A_POWER_CUT_TAKES.get(holders.durability, "nobody knows what")
            rows.append(("durability", f"{holders.durability} (a power cut takes {taken}){when}"))
        if claims:
            rows += _claim_lines(claims)
        _print_rows(rows)


def _as_dict(reader: Reader, facts: dict[str, int], counts: StatusCounts | None, holders: LockHolders,
             claims: list[tuple[Any, ActiveClaim]], max_tries: int) -> dict[str, Any]:
    return {
        "path": reader.path,
        "kind": "tracker" if counts else "dict",
        "keys": counts.tasks if counts else len(reader),
        **({**{name: value for name, value in counts._asdict().items() if name != "tasks"},
            "max_tries": max_tries or None} if counts else {}),
        "format": facts["format"],
        "file_size": facts["file_size"],
        "disk": {"bytes": facts["bytes"], "free": facts["free"]},
        "open": {"how": holders.how, "processes": holders.processes, "owner": holders.text or None},
        "durability": holders.durability or None,
        **({"claims": [{"key": key, **hand.as_dict()} for key, hand in claims]} if counts else {}),
    }


def _count_lines(counts: StatusCounts) -> list[tuple[str, str]]:
    """How far a tracker is, for people."""
    share = max(counts.tasks, 1)
    return [("tasks", f"{counts.tasks:,}")] + [
        (name, f"{number:,}  {percent(number / share, 2)}")
        for name, number in (("done", counts.done), ("failed", counts.failed), ("aborted", counts.aborted),
                             ("left", counts.left))
    ]


def _who(holders: LockHolders) -> str:
    if holders.how == "nobody":
        return "nobody has it open to write"
    numbers = ", ".join(map(str, holders.processes))
    if holders.how == "private":
        return f"{holders.text or f'process {numbers}' if numbers else 'a process'} has it to itself"
    named = "process" if len(holders.processes) == 1 else "processes"
    return f"shared by {named} {numbers} (and perhaps children of theirs)" if numbers else "shared"


def _claim_lines(claims: list[tuple[Any, ActiveClaim]]) -> list[tuple[str, str]]:
    claims, passed = [claim for claim in claims if not claim[1].failed], sum(hand.failed for _, hand in claims)
    workers = Counter((hand.process, hand.host) for _, hand in claims)
    lines = [("in hand", f"{quantity(len(claims), 'task')} of {quantity(len(workers), 'worker')}")]
    now = datetime.now(timezone.utc)
    for key, hand in claims[:SHOWN]:
        age = duration(max((now - hand.since).total_seconds(), 0))
        lines.append(("", f"{printable(key_text(key))}  process {hand.process} on {printable(hand.host)}, for {age}"))
    if len(claims) > SHOWN:
        lines.append(("", f"and {len(claims) - SHOWN:,} more (ls --claimed)"))
    if passed:
        lines.append(("", f"({passed:,} more, at which a worker failed, claimed for another try)"))
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
    out("\n".join(line.rstrip() for line in capture.get().splitlines()))
