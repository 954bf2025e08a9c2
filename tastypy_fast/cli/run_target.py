"""Find what ``tastypy-fast run`` runs: a function in a module, or a command."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from tastypy_fast.cli.command_task import CommandTask
from tastypy_fast.cli.command_template import CommandTemplate
from tastypy_fast.cli.exit_codes import OTHER_ERROR, USAGE, CommandError

__all__ = ["find_program", "load_function", "make_command"]


def load_function(name: str) -> Callable[..., Any]:
    """Import a function by "module:function", also from the current folder. Raises CommandError."""
    module, _, path = name.partition(":")
    if not module or not path:
        raise CommandError(f"{name!r} is not of the form module:function; write -- before a command that is to be run",
                           USAGE)
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _import_error(module, error) from error
        raise CommandError(f"there is no module {module!r} in {folder} or among the installed packages", USAGE
                           ) from None
    except (Exception, SystemExit) as error:
        raise _import_error(module, error) from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise CommandError(f"the module {module!r} has no {path!r}", USAGE) from None
    if not callable(found):
        raise CommandError(f"{name} is not a function, but an object of the type {type(found).__name__}", USAGE)
    return found  # type: ignore[no-any-return]


def _import_error(module: str, error: BaseException) -> CommandError:
    """Return the error for a module that raised when it was imported, with the place in its code."""
    frames = traceback.extract_tb(error.__traceback__)
    # The text of a SyntaxError has the place.
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if not isinstance(error, SyntaxError) else ""
    return CommandError(f"the module {module!r} cannot be imported: {type(error).__name__}: {error}{where}",
                        OTHER_ERROR)


def find_program(name: str) -> str:
    """Return the path of a program. Raises CommandError if there is none, or it may not be executed."""
    found = shutil.which(name)
    if found is not None:
        return os.path.abspath(found)
    if not os.path.dirname(name):
        problem = "was not found in PATH"
    elif os.path.isdir(name):
        problem = "is a folder"
    else:
        problem = "may not be executed (chmod +x)" if os.path.exists(name) else "does not exist"
    raise CommandError(f"the command {name!r} {problem}", USAGE)


def make_command(command: Sequence[str], shell: bool, **options: Any) -> CommandTask:
    """Return the task that runs a command. Raises CommandError if that is impossible."""
    if not command:
        raise CommandError("there is no command after --", USAGE)
    try:
        template = CommandTemplate(command, shell)
    except ValueError as error:
        raise CommandError(str(error), USAGE) from None
    program = template.program
    return CommandTask(template, find_program(program) if program is not None else None, **options)
