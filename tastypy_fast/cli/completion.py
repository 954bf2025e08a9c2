"""Complete stores and keys with the Tab key, in bash, zsh and fish."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    add_completion_class,
    split_arg_string,
)

from tastypy_fast._inspect.key_prefix import find_keys
from tastypy_fast.cli.open_store import open_reader

__all__ = ["complete_keys", "complete_store"]

# How many keys are offered.
MAX_KEYS = 50
Items = list["CompletionItem[str]"]


def complete_store(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Let the shell complete the path of a folder."""
    return [CompletionItem(incomplete, "dir")]


def complete_keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Return keys of the store on the command line that begin with a text.

    Offers only strings that a line of the terminal can show, and none with --json-keys. Errors offer nothing, because
    a message would disturb the line that is typed.
    """
    # If an option waits for its value, click leaves the arguments before it unparsed.
    store = ctx.params.get("store") or next(iter(ctx.args), None)
    found: list[str] = []
    if isinstance(store, str) and not ctx.params.get("json_keys"):
        with suppress(Exception), open_reader(store) as reader:
            found = find_keys(reader._store, incomplete, MAX_KEYS)
    # The function for zsh skips empty lines, so an empty key would disturb the others.
    return [CompletionItem(key) for key in found if key and key.isprintable()]


# The shells


def _begin_of_last_word(line: str) -> tuple[int, str]:
    """Return where the last word of a command line begins, and the quotation mark that is open in it, if any.

    >>> _begin_of_last_word("ls crawl 'a b"), _begin_of_last_word("ls a\\\\ b"), _begin_of_last_word("ls ")
    ((9, "'"), (3, ''), (3, ''))
    """
    begin, quote, at = 0, "", 0
    while at < len(line):
        char = line[at]
        if char == "\\" and quote != "'":
            at += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace():
            begin = at + 1
        at += 1
    return begin, quote


class Bash(BashComplete):
    """Completion for bash, of words with any character.

    That of click splits a word at the colons of a URL, as bash does, and drops backslashes.
    """

    source_template = """\
%(complete_func)s() {
    local completion type value
    while IFS= read -r completion; do
        type=${completion%%%%,*} value=${completion#*,}
        if [[ $type == dir ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == file ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == plain ]]; then
            COMPREPLY+=("$value")
        fi
    done < <(env COMP_LINE="${COMP_LINE:0:$COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
             %(complete_var)s=bash_complete "$1")
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
    # What bash takes the word for: its text on the command line, and the quotation mark that is open in it.
    _raw = _quote = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the last one, and the last one, which is to be completed."""
        line = os.environ.get("COMP_LINE")
        if line is None:
            return super().get_completion_args()
        begin, self._quote = _begin_of_last_word(line)
        self._raw = line[begin:]
        return split_arg_string(line[:begin])[1:], "".join(split_arg_string(self._raw)[:1])

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return a line for the function in the shell, with the part of the value that bash replaces."""
        value = str(item.value)
        if item.type == "plain" and not self._quote:
            breaks = set(os.environ.get("COMP_WORDBREAKS", "")) & {":", "=", "@"}
            cut = max((self._raw.rfind(char) for char in breaks), default=-1) + 1
            before = "".join(split_arg_string(self._raw[:cut])[:1])
            value = re.sub(r"([^\w%+,./:=@^-])", r"\\\1", value.removeprefix(before))
        return f"{item.type},{value}"


class Fish(FishComplete):
    """Completion for fish, of words with commas."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split -m 1 ","')


for shell in (Bash, Fish):
    add_completion_class(shell)
