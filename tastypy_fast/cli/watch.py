"""Implement the command ``watch``: follow a running pipeline from another terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import click

from tastypy_fast.cli.formatting import as_json, can_redraw, console, print_line, printable
from tastypy_fast.cli.key_filters import max_tries_option, store_argument
from tastypy_fast.cli.open_store import open_reader, require_tracker
from tastypy_fast.cli.option_types import Duration
from tastypy_fast.cli.watch_screen import render
from tastypy_fast.cli.watch_state import WatchState

__all__ = ["watch"]


@click.command()
@store_argument
@max_tries_option
@click.option("--interval", type=Duration(least=0.1, most=86400.0), default="1s", show_default=True, metavar="TIME",
              help="Time between two counts: 0.1s to 1d.")
@click.option("--until-done", is_flag=True,
              help="Exit when nothing is left that anybody will try: no task is new or running, and none is to retry "
                   "while a process has the store open to write.")
@click.option("--json", "as_lines", is_flag=True, help="Print one JSON object per count, each on its own line.")
def watch(store: str, max_tries: int | None, interval: float, until_done: bool, as_lines: bool) -> None:
    """Show the progress of a running pipeline, until Ctrl-C.

    The view has the number of tasks by status, the rate, the time left and the recent failures. Or it says that no
    process has the store open to write. The command only reads, and opens the store for each count, so it neither slows
    the pipeline down nor keeps a command such as compact out. Rate and time left are measured over the last minute of
    this command, so they are also right after a pipeline was resumed. A failed try is shown with the error that
    tracker.run() keeps, or with the "error" in the task's data. Changes of a private pipeline appear when it syncs. If
    the output is not a terminal, the command prints one line per count.
    """
    if until_done:
        with open_reader(store) as reader:
            require_tracker(reader)  # a dict is never done
    state = WatchState(store, max_tries)
    if as_lines or not can_redraw(sys.stdout):
        for _ in _updates(state, interval, until_done):
            print_line(as_json(state.as_dict()) if as_lines else printable(state.line()))
            sys.stdout.flush()
    else:
        _show_live(state, interval, until_done)


def _updates(state: WatchState, interval: float, until_done: bool) -> Iterator[None]:
    """Update ``state`` every ``interval`` seconds, and yield after each update."""
    while True:
        began = time.monotonic()
        state.update(began)
        yield
        if until_done and state.is_finished():
            return
        time.sleep(max(interval - (time.monotonic() - began), 0.05))


def _show_live(state: WatchState, interval: float, until_done: bool) -> None:
    from rich.live import Live

    terminal = console()
    with Live(console=terminal, screen=True, auto_refresh=False) as live:
        for _ in _updates(state, interval, until_done):
            live.update(render(state, terminal.size.width, terminal.size.height, terminal.no_color, terminal.encoding),
                        refresh=True)
    print_line(printable(f"{state.path}: {state.line()}"))
