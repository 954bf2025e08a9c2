"""Every program and every command in README.md and in the pages of docs/ runs, and prints what the page says.

Examples with ``>>>`` are collected by pytest itself. Here are the other blocks. Those of one page run in their order,
in one empty folder:

- ``python``: a program. It is run, unless it begins with ``# NAME.py``. Then it is saved under that name, and commands
  after it run it.
- ``console``: each line ``$ COMMAND`` is run by the shell, and must exit with 0.
- ``text`` after one of these, with at most "It prints:" between them: what it prints. The lines of a ``console`` block
  that follow a command are what that command prints. ``...`` stands for any text.
- ``sh`` or ``bash``: commands that install or measure something. They are not run, so nothing else may stand there.
"""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
import textwrap
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import pytest

import tastypy_fast

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w{}-]*) *\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S)
PRINTS = re.compile(r"\s*(((It|This|The program) )?prints:\s*)?", re.IGNORECASE)
# The commands that such a block may contain. CI runs the two commands of the README.
NOT_RUN = re.compile(
    r"pip install |python3 -m venv |eval |(\.venv/bin/)?python -m (benchmarks|tastypy_fast\.demo)[ .]")
KNOWN = {"python", "console", "text", "sh", "bash", ""}


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    # Whether a "text" block is the output of the block before it.
    is_output: bool = False

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page, without Sphinx directives."""
    text = page.read_text(encoding="utf-8") if text is None else text
    blocks: list[Block] = []
    end = 0
    for match in FENCE.finditer(text):
        between = text[end:match.start()]
        end = match.end()
        if match["language"].startswith("{"):
            continue
        language = match["language"]
        follows = bool(blocks) and blocks[-1].language in ("python", "console") and bool(PRINTS.fullmatch(between))
        line = text.count("\n", 0, match.start()) + 1
        blocks.append(Block(page, line, language, textwrap.dedent(match["text"]), language == "text" and follows))
    return blocks


class Run:
    """The blocks of one page, run in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "page"
        self.folder.mkdir()
        tools = folder / "tools"
        tools.mkdir()
        for name, command in (("python", ""), ("tastypy-fast", "-m tastypy_fast")):
            script = tools / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
            script.chmod(0o755)
        search = [str(Path(tastypy_fast.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {
            **os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(search),
            "NO_COLOR": "1", "COLUMNS": "120", "LC_ALL": "C.UTF-8",
        }
        self.saved: set[str] = set()

    def all(self, blocks: list[Block]) -> int:
        """Run the blocks, and return the number of programs and commands."""
        count = 0
        for block, after in zip_longest(blocks, blocks[1:]):
            wanted = after.text if after is not None and after.is_output else None
            if block.language == "python" and not block.text.lstrip().startswith(">>>"):
                count += self.program(block, wanted)
            elif block.language == "console":
                count += self.commands(block, wanted)
            elif block.language in ("sh", "bash"):
                for line in block.text.splitlines():
                    assert NOT_RUN.match(line), f"{block}: this would not be run by any test: {line}"
            assert block.language in KNOWN, f"{block}: what is {block.language!r}?"
        assert not self.saved, f"{blocks[0].page.name}: no command runs {', '.join(self.saved)}"
        return count

    def program(self, block: Block, wanted: str | None) -> int:
        named = re.match(r"# ([\w-]+\.py)\n", block.text)
        if named:
            assert wanted is None, f"{block}: it is not run here"
            (self.folder / named[1]).write_text(block.text, encoding="utf-8")
            self.saved.add(named[1])
            return 0
        # (a file, because a process that multiprocessing starts imports it)
        program = self.folder / f"program_{block.line}.py"
        program.write_text(block.text, encoding="utf-8")
        self.run(block, [sys.executable, str(program)], wanted)
        program.unlink()
        return 1

    def commands(self, block: Block, wanted: str | None) -> int:
        first, *parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
        assert not first.strip(), f"{block}: a command begins with $"
        assert wanted is None or len(parts) == 1, f"{block}: which of them prints that?"
        for part in parts:
            command, _, output = part.partition("\n")
            while command.endswith("\\"):
                more, _, output = output.partition("\n")
                command = command[:-1] + more.removeprefix("> ")
            self.saved -= set(command.replace(";", " ").split())
            self.run(block, ["/bin/bash", "-c", command], wanted if wanted is not None else output)
        return len(parts)

    def run(self, block: Block, command: list[str], wanted: str | None) -> None:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, encoding="utf-8", timeout=120)
        shown = command[-1] if block.language == "console" else ""
        assert done.returncode == 0, f"{block} {shown}: exit code {done.returncode}:\n{done.stdout}"
        if wanted is not None and wanted.strip():
            found = doctest.OutputChecker().check_output(
                with_end(wanted), with_end(done.stdout), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            assert found, f"{block} {shown} printed\n{done.stdout}\nand not\n{wanted}"


def with_end(text: str) -> str:
    return text.rstrip() + "\n"


def has_programs(page: Path) -> bool:
    return any(block.language in ("python", "console") and not block.text.lstrip().startswith(">>>")
               for block in blocks_of(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_programs_and_commands_of_a_page_print_the_documented_output(page, tmp_path):
    if "timeout " in page.read_text() and shutil.which("timeout") is None:
        pytest.skip("no command timeout (coreutils)")
    assert bool(Run(tmp_path).all(blocks_of(page))) == has_programs(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_is_in_a_fenced_block_that_ends_after_an_empty_line(page):
    # Otherwise pytest takes the fence as output of the last example, or does not run the example.
    text = page.read_text()
    fenced = [block for block in blocks_of(page) if ">>>" in block.text]
    assert all(block.language == "python" for block in fenced)
    assert all(block.text.endswith("\n\n") for block in fenced)
    assert text.count(">>> ") == sum(block.text.count(">>> ") for block in fenced)


def test_pages_have_examples():
    assert sum(page.read_text().count(">>> ") for page in PAGES) > 50
    assert sum(map(has_programs, PAGES)) >= 4


# Checks that these tests can fail


@pytest.mark.parametrize("text", [
    "```python\nraise SystemExit(1)\n```\n",
    "```python\nprint(1)\n```\n\nIt prints:\n\n```text\n2\n```\n",
    "```python\nprint(1)\n```\n\n```text\n2\n```\n",
    "```python\n# never_run.py\nprint(1)\n```\n",
    "```console\n$ false\n```\n",
    "```console\n$ echo 1\n2\n```\n",
    "```console\necho 1\n```\n",
    "```console\n$ true\n$ tastypy-fast status no-such-store\n```\n",
    "```sh\nrm file\n```\n",
    "```pyton\nprint(1)\n```\n",
])
def test_wrong_example_is_found(text, tmp_path):
    with pytest.raises(AssertionError):
        Run(tmp_path).all(blocks_of(tmp_path / "page.md", text))


def test_right_examples_pass(tmp_path):
    text = (
        "```python\n# saved.py\nprint('a b c')\n```\n\nRun it:\n\n```console\n$ python saved.py\na ... c\n"
        "$ tastypy-fast --version\ntastypy-fast, version ...\n$ python -c 'print(1)' \\\n>   && echo 2\n1\n2\n```\n"
        "```python\nprint(1)\n```\n\nThis prints:\n\n```text\n1\n```\n"
    )
    assert Run(tmp_path).all(blocks_of(tmp_path / "page.md", text)) == 4


# Links


LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?!https?:|#)([^)#\s]+)[^)]*\)|!\[[^\]]*\]\((?!https?:)([^)\s]+)\)")


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"],
                         ids=lambda page: page.name)
def test_links_of_the_pages_outside_docs_have_targets(page):
    links = [first or second for first, second in LINK.findall(page.read_text())]
    assert [link for link in links if not (page.parent / link).exists()] == []
