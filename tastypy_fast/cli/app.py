"""The command as a whole: its commands, its help, and how it ends."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from typing import TextIO

import click

from tastypy_fast import PersistentOrderedDictException, __version__
from tastypy_fast.cli.edit import abort, add, done, reset, rm, set_value
from tastypy_fast.cli.exit_codes import (
    DONE,
    INTERRUPTED,
    NOBODY_READS,
    REFUSED,
    USAGE,
    Failure,
    code_of,
    message_of,
    warn,
)
from tastypy_fast.cli.formatting import make_tolerant
from tastypy_fast.cli.import_export import export, import_
from tastypy_fast.cli.maintain import compact, copy, repair, verify
from tastypy_fast.cli.read import get, ls
from tastypy_fast.cli.status import status
from tastypy_fast.cli.watch import watch

__all__ = ["run", "tastypy_fast"]


class SubprocessDied(Exception):
    """A command was stopped, or nobody reads what it prints. (Of both, click itself would make something else.)"""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Commands(click.Group):
    """The commands, each of which ends as a command should."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that the arguments name."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            raise SubprocessDied(NOBODY_READS) from None
        except KeyboardInterrupt:
            raise SubprocessDied(INTERRUPTED) from None
        return result


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit codes:
  0    done
  1    no such key (the others are done); verify found damage; repair
       could not keep all; the extra is missing that the message names
  2    the arguments make no sense
  3    the store cannot be opened: not there, not a store, damaged,
       of a newer format, in the hands of a private process
  4    anything else: the disk is full, input cannot be read, ...
  130  stopped by Ctrl-C
  141  who read the output went away (as with | head)

\b
Completion of commands, options and paths:
  bash   eval "$(_TASTYPY_FAST_COMPLETE=bash_source tastypy-fast)"    in ~/.bashrc
  zsh    eval "$(_TASTYPY_FAST_COMPLETE=zsh_source tastypy-fast)"     in ~/.zshrc
  fish   _TASTYPY_FAST_COMPLETE=fish_source tastypy-fast | source     in ~/.config/fish/config.fish

NO_COLOR=1 in the environment prints without colours. Every command explains itself with --help.""",
)
@click.version_option(__version__, prog_name="tastypy-fast")
def tastypy_fast() -> None:
    """Look at a store of tastypy_fast, change it, and take care of it.

    STORE is the folder of a PersistentOrderedDict or a ProgressTracker, private or shared. Reading works while others
    write, and sees what they last synced. Commands that write go together with processes that share the store; while
    one process has it for itself they change nothing and say so. Output is for people, and for programs with --json.
    """


for command in (status, watch, ls, get, set_value, rm, add, done, reset, abort, export, import_, copy, compact, verify,
                repair):
    tastypy_fast.add_command(command)


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                  file: TextIO | None = None, line: str | None = None) -> None:
    warn(f"warning: {message}")


def run(arguments: list[str]) -> int:
    """Run it, and return the exit code. Errors and warnings are one line each on stderr."""
    make_tolerant(sys.stdout)
    try:
        with warnings.catch_warnings():
            # Without the line of the program, because a user of the command has none.
            warnings.showwarning = _show_warning
            result = tastypy_fast.main(arguments, prog_name="tastypy-fast", standalone_mode=False)
        sys.stdout.flush()
    except SubprocessDied as end:
        # (the interpreter would flush what is left once more)
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return end.code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return USAGE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "tastypy-fast"
        warn(f"{error.format_message()} ({where} --help)")
        return USAGE
    except click.ClickException as error:
        warn(error.format_message())
        return REFUSED
    except (Failure, PersistentOrderedDictException, OSError) as error:
        warn(message_of(error))
        return code_of(error)
    return result if isinstance(result, int) else DONE
