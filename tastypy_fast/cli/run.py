"""Implement the command ``run``: run a command, or a function of Python, on the tasks of a tracker.

What only this command needs is imported when it runs, because the other commands have to start fast.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import shlex
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from tastypy_fast._inspect.task_counts import count_tasks
from tastypy_fast.cli.exit_codes import INCOMPLETE, OK, OTHER_ERROR, USAGE, CommandError, print_error
from tastypy_fast.cli.formatting import as_json, error_text, print_line, printable, quantity
from tastypy_fast.cli.key_filters import (
    KeyFilter,
    Match,
    iter_matching,
    json_keys_option,
    match_options,
    store_argument,
)
from tastypy_fast.cli.open_store import open_reader, open_tracker, require_tracker
from tastypy_fast.cli.option_types import Duration, ExecutorName, FailureLimit
from tastypy_fast.pipeline.report import RunReport

__all__ = ["run"]

# How many commands --dry-run prints.
MAX_SHOWN = 10
# Coroutines may be many. The operating system runs far fewer processes and threads.
MAX_WORKERS = 1_000_000
# The parameters that are for commands only, and for functions only.
COMMAND_ONLY = ("stdin", "result", "add_lines", "output", "abort_codes", "shell")
FUNCTION_ONLY = ("executor", "initializer", "with_data")
# Why a run ended, unless it is finished.
REASONS = {"stopped": "it was stopped", "deadline": "the deadline has passed", "max_failures": "too many tasks failed"}


class RunCommand(click.Command):
    """A command whose arguments after ``--`` are another command, with options of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments before ``--``, and keep the others as they are."""
        command: list[str] | None = None
        if "--" in args:
            place = args.index("--")
            args, command = args[:place], args[place + 1:]
        ctx.meta[__name__] = command
        count = len(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if command is not None or count < 2:
                raise
            raise click.UsageError(f"{error.format_message().rstrip('.')}; write -- before a command that is to be run",
                                   ctx) from None

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the arguments for the line "Usage"."""
        return ["[OPTIONS] STORE {MODULE:FUNCTION | -- COMMAND [ARG]...}"]


@click.command(cls=RunCommand)
@store_argument
@click.argument("function", required=False)
@click.option("-j", "--workers", type=click.IntRange(1, MAX_WORKERS), metavar="N",
              help="How many tasks run at once.  [default: the number of processors; 100 for async]")
@click.option("--timeout", type=Duration(), metavar="TIME",
              help="Kill a task that takes longer, with all that it has started: 30s, 5m, 2h.")
@click.option("--max-tries", type=click.IntRange(min=0), default=0, metavar="N",
              help="Try each task at most N times, in all runs together.")
@click.option("--retries", type=click.IntRange(min=0), metavar="N",
              help="Try a failed task at most N times more in this run.  [default: as --max-tries allows, else 0]")
@click.option("--backoff", type=Duration(zero=True), default="1s", show_default=True, metavar="TIME",
              help="The longest delay before the first retry. It doubles with each retry.")
@click.option("--deadline", type=Duration(), metavar="TIME", help="Start no more tasks after this time.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Run at most N tasks.")
@click.option("--max-failures", type=FailureLimit(), metavar="N|N%", help="Stop when more tasks than this have failed.")
@match_options
@click.option("--aborted", is_flag=True, help="Also run aborted tasks.")
@json_keys_option
@click.option("--stdin", type=click.Choice(["none", "key", "json"]), default="none", show_default=True,
              help="What the command reads: nothing, the key as a line, or key and value as a line of JSON.")
@click.option("--result", type=click.Choice(["none", "text", "json"]), default="none", show_default=True,
              help="Keep what the command prints: as text in the field \"result\" of the task, or as JSON. The fields "
                   "of a JSON object become fields of the task.")
@click.option("--add-lines", is_flag=True, help="Add a task for each line that the command prints.")
@click.option("--output", metavar="group|none|FILE", default="group", show_default=True,
              help="Print the output of each command in one piece after it has ended, discard it, or append it to a "
                   "file.")
@click.option("--abort-code", "abort_codes", type=click.IntRange(1, 255), multiple=True, metavar="N",
              help="Abort the task if the command exits with N. Can be given several times.")
@click.option("--shell", is_flag=True, help="Run the command by /bin/sh. Write placeholders without quotes.")
@click.option("--executor", type=ExecutorName(), metavar="processes|threads|async|dask:ADDRESS",
              help="Where the function runs. ADDRESS is that of a Dask scheduler, or the file that it writes.  "
                   "[default: processes; async for a coroutine function]")
@click.option("--initializer", metavar="MODULE:FUNCTION", help="A function that each worker process calls first.")
@click.option("--with-data", is_flag=True, help="Call the function with the key and the data of the task.")
@click.option("--start-method", type=click.Choice(["fork", "spawn", "forkserver"]),
              help="How worker processes start.  [default: that of Python]")
@click.option("--private", is_flag=True, help="Let no other process change the store meanwhile.")
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be run, and change nothing.")
@click.option("--json", "as_object", is_flag=True,
              help="Print a report as one JSON object. The output of commands goes to stderr.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar. There is none without a terminal.")
@click.pass_context
def run(ctx: click.Context, /, store: str, function: str | None, dry_run: bool, as_object: bool, **given: Any) -> int:
    """Run a command, or a function of Python, for each task that is to be done.

    In the arguments of the command, {key} stands for the key, {json} for the key as JSON, {data.FIELD} for a field of
    the task, {try} for the number of the try, and {slot} for the number of the worker, from 0. Without any of them, the
    key becomes the last argument. In an argument with a placeholder, write {{ and }} for braces. No shell is involved,
    so any key is safe.

    A task is done if its command exits with 0. Otherwise the end of its stderr is kept as the error of the task, and
    the task is tried again as --max-tries allows. Ctrl-C waits for running tasks, and a second Ctrl-C kills them. The
    same command continues the run. Meanwhile add, abort, watch and a second run work on the same store.

    A function is called with the key. What it may return and raise is described at tracker.run().

    \b
    tastypy-fast run papers -j 8 --timeout 5m --max-tries 3 -- pdftotext {key} {key}.txt
    tastypy-fast run papers --shell --result text -- 'pdftotext {key} - | wc -w'
    tastypy-fast run crawl -j 40 crawler:fetch_page
    tastypy-fast run crawl --where _error.type=TimeoutError crawler:fetch_page
    """
    from tastypy_fast.cli.run_target import load_function

    command: list[str] | None = ctx.meta[__name__]
    if command is None and function is None:
        raise CommandError("run needs a function (module:function), or -- and a command", USAGE)
    # A "while read" loop around this command reads from the same stdin.
    with open(os.devnull, "rb") as null:
        os.dup2(null.fileno(), 0)
    if command is not None:
        if function is not None:
            raise CommandError(f"what is {function!r}? Options go before --, and the command after it", USAGE)
        _refuse_options(ctx, FUNCTION_ONLY, "functions")
        return _run_command(store, command, given, dry_run, as_object)
    assert function is not None
    _refuse_options(ctx, COMMAND_ONLY, "commands")
    work = load_function(function)
    if dry_run:
        return _print_plan(store, given, as_object, lambda match: f"{function}({match.key!r})")
    initializer = given["initializer"]
    return _run(store, given, as_object, work, executor=_executor(given["executor"]), with_data=given["with_data"],
                initializer=load_function(initializer) if initializer else None)


def _executor(name: str | None) -> Any:
    """Return the argument ``executor`` of run() for the option."""
    if name is None or not name.startswith("dask:"):
        return name
    from tastypy_fast.pipeline.futures_executor import dask_client

    # The run closes a client that it has made.
    return lambda: dask_client(name.removeprefix("dask:"))


def _refuse_options(ctx: click.Context, names: tuple[str, ...], what: str) -> None:
    """Raise CommandError if an option was given that is for something else."""
    for parameter in ctx.command.params:
        if parameter.name in names and (
                ctx.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE):
            raise CommandError(f"{parameter.opts[0]} is for {what}", USAGE)


def _run_command(store: str, command: list[str], given: dict[str, Any], dry_run: bool, as_object: bool) -> int:
    from tastypy_fast.cli.run_target import make_command

    if given["add_lines"] and given["result"] != "none":
        raise CommandError("what the command prints can become tasks (--add-lines) or data (--result), not both", USAGE)
    options = {"stdin": given["stdin"], "result": given["result"], "add_lines": given["add_lines"],
               "json_keys": given["json_keys"], "abort_codes": frozenset(given["abort_codes"])}
    if dry_run:
        task = make_command(command, given["shell"], **options)
        return _print_plan(store, given, as_object, lambda match: _command_text(task, match))
    with contextlib.ExitStack() as stack:
        output, progress = _open_output(stack, given, as_object)
        task = make_command(command, given["shell"], **options, output=output)
        return _run(store, given, as_object, task, executor="processes", with_data=task.needs_data, progress=progress)


def _open_output(stack: contextlib.ExitStack, given: dict[str, Any], as_object: bool) -> tuple[Any, Any]:
    """Return the Output of commands, and the argument ``progress`` of the run."""
    from tastypy_fast.cli.command_output import BarStream, Output

    has_bar = _has_bar(given)
    if given["output"] == "none":
        return None, has_bar
    if given["output"] == "group":
        lock = stack.enter_context(_lock_file())
        output = Output(lock=lock, stderr_only=as_object, has_bar=has_bar)
        stream = stack.enter_context(contextlib.closing(BarStream(sys.stderr, lock)))
        return output, has_bar and {"file": stream, "dynamic_ncols": True}
    output = Output(os.path.abspath(given["output"]))
    output.open()  # the error is reported before anything is run
    output.close()
    return output, has_bar


@contextlib.contextmanager
def _lock_file() -> Iterator[str]:
    """Give the path of a file that other processes can lock."""
    import tempfile

    with tempfile.TemporaryFile() as file:
        path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        if os.path.exists(path):  # on Linux: however this process ends, nothing is left
            yield path
            return
    with tempfile.NamedTemporaryFile(prefix="tastypy_fast-") as file:
        yield file.name


def _has_bar(given: dict[str, Any]) -> bool:
    return sys.stderr.isatty() and not given["no_progress"]


# Which tasks


def _select(store: Any, given: dict[str, Any], values: bool) -> Iterator[Match]:
    """Yield the tasks that the options select, in order."""
    statuses = frozenset({"todo", "aborted"} if given["aborted"] else {"todo"})
    key_filter = KeyFilter(statuses, given["first"], given["last"], given["match"], 0, given["limit"],
                           given["max_tries"], given["tail"], given["where"])
    return iter_matching(store, key_filter, given["json_keys"], values)


def _is_selection(given: dict[str, Any]) -> bool:
    return any(given[name] not in (None, ()) for name in ("first", "last", "match", "where", "limit", "tail"))


def _selected_keys(stack: contextlib.ExitStack, tracker: Any, given: dict[str, Any]) -> Iterator[Any]:
    # A private tracker is open in this process only, and cannot be opened again to be read.
    store = tracker if given["private"] else stack.enter_context(open_reader(tracker.path, given["max_tries"]))
    return (match.key for match in _select(store, given, False) if match.key in tracker)


# Running


class OutputWatch(logging.Handler):
    """Stops a run when nobody reads stdout any more, as after ``| head``, or when output cannot be written.

    It handles the log records of CommandTask. ``failure`` is the text of the last one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False
        self.failure: str | None = None
        self.stop = threading.Event()
        self._poll: Any = None
        mode = os.fstat(1).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            self._poll = select.poll()
            self._poll.register(1, 0)

    def check(self, *_: Any) -> None:
        """Set ``stop`` if stdout is closed. It is called after each task."""
        if self._poll is not None and self._poll.poll(0):
            self.is_closed = True
            self.stop.set()

    def emit(self, record: logging.LogRecord) -> None:
        """Set ``stop``, because output cannot be written."""
        self.failure = record.getMessage()
        self.stop.set()

    @contextlib.contextmanager
    def added(self) -> Iterator[None]:
        """Handle log records meanwhile."""
        from tastypy_fast.cli.command_task import OUTPUT_LOGGER

        OUTPUT_LOGGER.addHandler(self)
        try:
            yield
        finally:
            OUTPUT_LOGGER.removeHandler(self)


def _run(store: str, given: dict[str, Any], as_object: bool, work: Callable[..., Any], **options: Any) -> int:
    """Run the tasks, print what became of them, and return the exit code."""
    from tastypy_fast.pipeline.runner import RunOptions, run_tasks

    if fcntl.fcntl(sys.stdout.fileno(), fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR) == os.O_RDONLY:
        # This command has replaced a closed stdout. What commands and functions print would be lost.
        raise CommandError("stdout cannot be written: it is closed; use > /dev/null to discard it", OTHER_ERROR)
    output = OutputWatch()
    options |= {name: given[name] for name in ("workers", "timeout", "retries", "backoff", "deadline", "start_method",
                                               "max_failures")}
    options = {"progress": _has_bar(given), **options, "allow_aborted": given["aborted"], "stop": output.stop,
               "on_result": output.check, "on_failure": output.check}
    try:
        RunOptions(**options).check(work)
    except (TypeError, ValueError) as error:
        raise CommandError(str(error), USAGE) from None
    began = time.monotonic()
    with open_tracker(store, given["max_tries"], given["private"]) as tracker, contextlib.ExitStack() as stack:
        if _is_selection(given):
            options["tasks"] = _selected_keys(stack, tracker, given)
        report = RunReport()
        try:
            with output.added():
                run_tasks(tracker, work, RunOptions(**options), report)
        except KeyError as error:
            raise CommandError(f"the task {as_json(error.args[0])} was removed while it was chosen; the run has ended, "
                               f"and the same command continues it", INCOMPLETE) from None
        except KeyboardInterrupt:
            report.reason = "stopped"
            _finish(store, tracker, given, report, began, as_object)
            raise
        if output.failure:
            output.check()  # its reader may be what ended it, and then the error needs no message
        if output.is_closed:
            raise BrokenPipeError
        code = _finish(store, tracker, given, report, began, as_object)
        if output.failure:
            raise CommandError(output.failure, OTHER_ERROR)
        return code


def _finish(store: str, tracker: Any, given: dict[str, Any], report: RunReport, began: float, as_object: bool) -> int:
    """Print the numbers of a run, and return the exit code."""
    seconds = round(time.monotonic() - began, 3)
    counts = count_tasks(tracker, given["max_tries"]).counts
    if as_object:
        errors = [{"key": key, "error": error_text({"_error": error})} for key, error in report.errors]
        print_line(as_json({"done": report.done, "failed": report.failed, "aborted": report.aborted,
                            "retried": report.retried, "timed_out": report.timed_out,
                            "workers_lost": report.workers_lost, "errors": errors, "left": counts.left,
                            "seconds": seconds, "reason": report.reason}))
        sys.stdout.flush()
    text = (f"{report.done:,} done, {report.failed:,} failed, {report.aborted:,} aborted, {counts.left:,} left in "
            f"{seconds:,.1f} s")
    if report.reason in REASONS:
        text += f", because {REASONS[report.reason]}"
    # With a limit of tries, the tasks that have none left do not count as left.
    earlier = max(counts.failed - report.failed, 0) if given["max_tries"] else 0
    if earlier:
        text += f"; {quantity(earlier, 'task')} failed in earlier runs"
    if report.failed or report.aborted or earlier:
        text += f"; tastypy-fast errors {shlex.quote(store)} shows why"
    print_error(text)
    is_all = _is_selection(given) or not (counts.left or counts.failed)
    return OK if is_all and not report.failed and report.reason not in REASONS else INCOMPLETE


# Without running


def _command_text(task: Any, match: Match) -> str:
    """Return the command of a CommandTask as a line for a shell."""
    from tastypy_fast.cli.command_template import TaskValues, ValueMissing

    try:
        arguments = task.template.expand(TaskValues(match.key, match.value, match.value["_tries"] + 1))
    except ValueMissing as error:
        return f"# {as_json(match.key)}: {error}"
    return shlex.join(argument.decode("utf-8", "surrogateescape") for argument in arguments)


def _print_plan(store: str, given: dict[str, Any], as_object: bool, describe: Callable[[Match], str]) -> int:
    """Print what would be run for the first tasks, and how many tasks there are."""
    shown: list[tuple[Any, str]] = []
    count = 0
    with open_reader(store, given["max_tries"]) as reader:
        for match in _select(require_tracker(reader), given, True):
            if not match.value["_done"]:
                count += 1
                if count <= MAX_SHOWN:
                    shown.append((match.key, describe(match)))
    if as_object:
        print_line(as_json({"tasks": count, "first": [{"key": key, "run": text} for key, text in shown]}))
        return OK
    for _, text in shown:
        print_line(printable(text) if sys.stdout.isatty() else text)
    if count > len(shown):
        print_line(f"# and {count - len(shown):,} more")
    if not count:
        print_line("# no task is to be done")
    return OK
