"""Expand the placeholders in the arguments of a command that runs as a task: ``{key}``, ``{try}`` and so on."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from tastypy_fast.cli.fields import find_field
from tastypy_fast.cli.formatting import key_as_json

__all__ = ["CommandTemplate", "TaskValues", "ValueMissing"]

# A placeholder, also an unknown one. After $, braces belong to the shell.
_NAMED = re.compile(r"(?<!\$)\{[a-z][a-z0-9_]*(\.[^{}]*)?\}")
_BRACES = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}]*)\}|[{}]")
_KNOWN = ("key", "json", "try", "slot")
# The shell that runs a command with --shell.
SHELL = "/bin/sh"


class ValueMissing(Exception):
    """A placeholder has no value for this task, or one that no argument can have."""


class TaskValues(NamedTuple):
    """What the placeholders of one task stand for."""

    key: Any
    data: dict[str, Any] | None = None
    tries: int = 1
    slot: int = 0

    def argument(self, name: str) -> bytes:
        """Return the value of a placeholder for an argument. Raises ValueMissing."""
        value = self.encoded(name)
        if b"\0" in value:
            raise ValueMissing(f"the value of {{{name}}} has a null character, which no argument can have; use --stdin")
        return value

    def encoded(self, name: str) -> bytes:
        """Return the value of a placeholder as bytes. Raises ValueMissing."""
        try:
            return self._text(name).encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ValueMissing(f"the value of {{{name}}} has a lone surrogate, which UTF-8 cannot encode; use JSON"
                               ) from None

    def _text(self, name: str) -> str:
        if name in ("try", "slot"):
            return str(self.tries if name == "try" else self.slot)
        if name == "json":
            return key_as_json(self.key)
        value = self.key if name == "key" else self._field(name.partition(".")[2])
        return value if isinstance(value, str) else key_as_json(value)

    def _field(self, path: str) -> Any:
        try:
            return find_field(self.data or {}, path)
        except KeyError:
            raise ValueMissing(f"the task has no field {path!r}") from None


class CommandTemplate:
    """A command whose arguments have placeholders. Without any, the key becomes its last argument.

    An argument with a placeholder is a template, in which ``{{`` and ``}}`` stand for braces. Other arguments are left
    as they are, because the programs of awk and jq are full of braces.

    With ``shell``, the arguments are joined with spaces and run by /bin/sh. Each placeholder becomes a parameter of the
    shell, such as "$1". So no key is ever parsed as shell code, wherever the placeholder stands.

    Raises ValueError for a placeholder that does not exist.

    >>> CommandTemplate(["convert", "{key}", "{key}.png"]).expand(TaskValues("-a b"))
    [b'convert', b'-a b', b'-a b.png']
    >>> CommandTemplate(["wc", "-l"]).expand(TaskValues(("a", 1)))
    [b'wc', b'-l', b'["a",1]']
    """

    def __init__(self, arguments: Sequence[str], shell: bool = False) -> None:
        self.text = " ".join(arguments) if shell else shlex.join(arguments)
        if shell:
            arguments = [self.text]
        parts = [_parse(argument) for argument in arguments]
        if all(len(argument) == 1 for argument in parts):
            for argument in arguments:
                if "{}" in argument:
                    raise ValueError(f"{{}} in {argument!r} is not a placeholder; write {{key}} where the key belongs")
            parts = [[f"{parts[0][0]} ", "key", ""]] if shell else [*parts, ["", "key", ""]]
        if shell:
            parts = _as_parameters(parts[0])
        # Of each argument: text, name of a placeholder, text, name, ..., text.
        self._arguments = [[part if index % 2 else os.fsencode(part) for index, part in enumerate(argument)]
                           for argument in parts]

    @property
    def program(self) -> str | None:
        """Return the name of the program, or None if it depends on the task."""
        first = self._arguments[0]
        return os.fsdecode(first[0]) if len(first) == 1 else None

    @property
    def needs_data(self) -> bool:
        """Return whether the data of tasks is needed."""
        return any(name.startswith("data.") for argument in self._arguments for name in argument[1::2])  # type: ignore[arg-type]

    def expand(self, values: TaskValues) -> list[bytes]:
        """Return the arguments for one task. Raises ValueMissing."""
        return [b"".join([values.argument(part) if isinstance(part, str) else part for part in argument])
                for argument in self._arguments]


def _parse(argument: str) -> list[str]:
    """Split an argument into text, name of a placeholder, text, ..., text."""
    if not _NAMED.search(argument):
        return [argument]
    parts = [""]
    end = 0
    for found in _BRACES.finditer(argument):
        parts[-1] += argument[end:found.start()]
        end = found.end()
        text, name = found[0], found["name"]
        if text in ("{{", "}}"):
            parts[-1] += text[0]
        elif found.start() and argument[found.start() - 1] == "$":
            parts[-1] += text
        elif name in _KNOWN or (name is not None and name.startswith("data.") and len(name) > 5):
            parts += [name, ""]
        else:
            raise ValueError(f"{text} in {argument!r} is not a placeholder; these are {{key}} {{json}} {{data.FIELD}} "
                             f"{{try}} {{slot}}, and {{{{ and }}}} are braces")
    parts[-1] += argument[end:]
    return parts


def _as_parameters(script: list[str]) -> list[list[str]]:
    """Return the arguments that run a script with placeholders. Raises ValueError if one is inside quotes."""
    names: dict[str, int] = {}
    text = ""
    for index, part in enumerate(script):
        if index % 2:
            if _open_quote(text):
                raise ValueError(f"{{{part}}} is inside quotes; leave them out, because it is quoted already")
            text += f'"${{{names.setdefault(part, len(names) + 1)}}}"'
        else:
            text += part
    return [[SHELL], ["-c"], [text], ["sh"], *(["", name, ""] for name in names)]


def _open_quote(script: str) -> str:
    """Return the quote that is open at the end of a part of a script, or an empty string."""
    quote = ""
    characters = iter(script)
    for char in characters:
        if char == "\\" and quote != "'":
            next(characters, None)
        elif char in "'\"" and quote in ("", char):
            quote = "" if quote else char
    return quote
