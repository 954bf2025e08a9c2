"""Implement the command ``man``: print the manual page, made from the help of all commands."""

from __future__ import annotations

import codecs
import inspect
import shutil
import subprocess
import sys
from collections.abc import Iterator

import click

from tastypy_fast import __version__
from tastypy_fast.cli.formatting import print_line

__all__ = ["man", "manual_page"]


@click.command()
@click.pass_context
def man(ctx: click.Context) -> None:
    """Show the manual page, which has the help of all commands.

    On a terminal, the page is shown by the program man. Otherwise it is printed in the format of manual pages (roff).

    \b
    tastypy-fast man > ~/.local/share/man/man1/tastypy-fast.1
    """
    assert ctx.parent is not None
    page = manual_page(ctx.parent)
    program = shutil.which("man") if sys.stdout.isatty() else None
    if program is None or subprocess.run([program, *_encoding(), "-l", "-"], input=page.encode()).returncode:
        print_line(page.rstrip("\n"))


def _encoding() -> list[str]:
    """Return the option that makes the program man print ASCII, unless stdout can express what it prints by default."""
    return [] if codecs.lookup(sys.stdout.encoding).name == "utf-8" else ["-E", "ascii"]


def manual_page(ctx: click.Context) -> str:
    """Return the manual page of the program whose context is given."""
    group = ctx.command
    assert isinstance(group, click.Group)
    name = ctx.info_name or ""
    lines = [f'.TH "{_escaped(name.upper())}" "1" "" "{_escaped(name)} {_escaped(__version__)}" "User Commands"',
             ".nh", ".ad l",  # no hyphens at the ends of lines, because names and commands are copied from the page
             ".SH NAME", f"{_escaped(name)} \\- {_escaped(_paragraphs(group.help)[0].rstrip('.'))}",
             ".SH SYNOPSIS", f".B {_escaped(name)}", "COMMAND [OPTIONS] [ARGS]...",
             ".SH DESCRIPTION", *_text(_paragraphs(group.help)[1:]), *_options(group, ctx), ".SH COMMANDS"]
    for command in group.commands.values():
        with click.Context(command, ctx, command.name) as inner:
            usage = " ".join((ctx.info_name or "", command.name or "", *command.collect_usage_pieces(inner)))
            lines += [f'.SS "{_escaped(usage)}"', *_text(_paragraphs(command.help)), *_options(command, inner)]
    lines += [".SH NOTES", *_text(_paragraphs(group.epilog))]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str | None) -> list[str]:
    return inspect.cleandoc(text or "").split("\n\n")


def _text(paragraphs: list[str]) -> Iterator[str]:
    """Yield the lines of paragraphs. One that begins with a line ``\\b`` keeps its line breaks."""
    for text in paragraphs:
        yield ".PP"
        if text.startswith("\b\n"):
            yield from (".nf", *map(_escaped, text.splitlines()[1:]), ".fi")
        else:
            yield _escaped(" ".join(text.split()))


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and record[1]:
            yield from (".TP", f".B {_escaped(record[0])}", _escaped(" ".join(record[1].split())))


# What roff interprets, or prints as another character than that of ASCII.
_ESCAPES = {"\\": "\\e", "-": "\\-", '"': "\\(dq", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}


def _escaped(text: str) -> str:
    """Escape what roff would interpret, or replace by typographic characters.

    >>> _escaped(".a-'b'\\\\c")
    '\\\\&.a\\\\-\\\\(aqb\\\\(aq\\\\ec'
    """
    text = "".join(_ESCAPES.get(char, char) for char in text)
    return f"\\&{text}" if text.startswith(".") else text
