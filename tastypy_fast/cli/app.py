"""Assemble the commands into ``tastypy-fast``, and turn errors into exit codes.

The module is not called ``main``, because a submodule of that name would hide the package's function ``cli.main()``.
"""

from __future__ import annotations

import errno
import sys
import warnings
from typing import TextIO

import click

from tastypy_fast import PersistentOrderedDictException, __version__
from tastypy_fast.cli.edit import abort, add, done, reset, rm, set_max_tries, set_value
from tastypy_fast.cli.exit_codes import (
    BROKEN_PIPE,
    INTERRUPTED,
    OK,
    OTHER_ERROR,
    USAGE,
    CommandError,
    discard,
    exit_code_of,
    format_error,
    print_error,
)
from tastypy_fast.cli.failures import errors
from tastypy_fast.cli.formatting import set_up_output
from tastypy_fast.cli.import_export import export, import_
from tastypy_fast.cli.maintain import compact, copy, repair, verify
from tastypy_fast.cli.man_page import man
from tastypy_fast.cli.read import get, ls
from tastypy_fast.cli.run import run as run_command
from tastypy_fast.cli.status import status
from tastypy_fast.cli.watch import watch

__all__ = ["run", "tastypy_fast"]


class CommandStopped(Exception):
    """Ends a command on Ctrl-C or a broken pipe with the exit code, before click handles these differently."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class CommandGroup(click.Group):
    """The group of all commands."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that the arguments name."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            raise CommandStopped(BROKEN_PIPE) from None
        except KeyboardInterrupt:
            raise CommandStopped(INTERRUPTED) from None
        return result


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit codes:
  0    success
  1    incomplete: a key does not exist (the others were processed),
       run has tasks that failed or are left, verify found damage,
       repair lost something, or a package that the message names is
       not installed
  2    invalid arguments
  3    the store cannot be opened: it does not exist, is not a store,
       is damaged, has a newer format, may not be read, or a private
       process has it open; or it is a dict, and the command or option
       is for tasks; or TARGET exists, or may not be written
  4    any other error: a file or stdin that cannot be read or is not
       valid, output that cannot be written, a full disk, ...
  130  stopped by Ctrl-C
  141  the reader of the output exited (as with | head)
  143  stopped by SIGTERM

\b
To complete commands, options, stores and keys with the Tab key:
  bash   eval "$(_TASTYPY_FAST_COMPLETE=bash_source tastypy-fast)"    in ~/.bashrc
  zsh    eval "$(_TASTYPY_FAST_COMPLETE=zsh_source tastypy-fast)"     in ~/.zshrc
  fish   _TASTYPY_FAST_COMPLETE=fish_source tastypy-fast | source     in ~/.config/fish/config.fish

Set NO_COLOR=1 in the environment to print without colours. Use --help after a command to show its options.""",
)
@click.version_option(__version__, prog_name="tastypy-fast")
def tastypy_fast() -> None:
    """Inspect, edit and maintain the stores of tastypy_fast.

    STORE is the folder of a PersistentOrderedDict or a ProgressTracker, private or shared. Commands that read also
    work while other processes write, and show what those last synced. Commands that write can run while other processes
    share the store. They refuse to run while one process has the store open privately. Use --json for output that
    programs can parse.
    """


for command in (status, watch, run_command, errors, ls, get, set_value, rm, add, done, reset, abort, set_max_tries,
                export, import_, copy, compact, verify, repair, man):
    # The help of all commands shows the whole first sentence of each. By default click cuts it.
    command.short_help = " ".join((command.help or "").split("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."
    tastypy_fast.add_command(command)


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                  file: TextIO | None = None, line: str | None = None) -> None:
    print_error(f"warning: {message}")


def run(arguments: list[str]) -> int:
    """Run the command with these arguments, and return its exit code. Each error and warning is one line on stderr."""
    set_up_output(sys.stdout)
    try:
        with warnings.catch_warnings():
            # Print warnings without a line of source code, because it is of no use to a user of the command.
            warnings.showwarning = _show_warning
            result = tastypy_fast.main(arguments, prog_name="tastypy-fast", standalone_mode=False)
        sys.stdout.flush()
    except CommandStopped as stopped:
        discard(sys.stdout)
        return stopped.code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return USAGE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "tastypy-fast"
        print_error(f"{error.format_message()} ({where} --help)")
        return USAGE
    except click.ClickException as error:
        print_error(error.format_message())
        return OTHER_ERROR
    except (CommandError, PersistentOrderedDictException, OSError) as error:
        if _is_of_stdout(error):
            discard(sys.stdout)
            error = CommandError(f"stdout cannot be written: {error.args[1]}", OTHER_ERROR)
        print_error(format_error(error))
        return exit_code_of(error)
    return result if isinstance(result, int) else OK


def _is_of_stdout(error: BaseException) -> bool:
    """Return whether an error is that of writing stdout. Files have names, and a store has errors of its own."""
    return type(error) is OSError and error.filename is None and error.errno not in (None, errno.EIO)
