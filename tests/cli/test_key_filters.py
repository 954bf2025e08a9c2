"""tastypy-fast ls: filters and options; keys as text and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastypy_fast import POD
from tastypy_fast.cli import app
from tastypy_fast.cli.formatting import key_as_json, key_text, parse_key
from tests.support.command import HOSTILE, lines, refused, run


@pytest.mark.parametrize(("options", "keys"), [
    ("", "abcdefg"), ("--done", "ab"), ("--todo", "cefg"), ("--aborted", "d"), ("--failed", ""), ("--running", ""),
    ("--new", "efg"), ("--to-retry", "c"), ("--to-retry --max-tries 3", ""),
    ("--failed --max-tries 3", "c"), ("--failed --max-tries 4", ""), ("--todo --max-tries 3", "efg"),
    ("--done --aborted", "abd"), ("--to-retry --done", "abc"), ("--match [a-c]", "abc"), ("--todo --match [a-c]", "c"),
    ("--from c", "cdefg"), ("--to c", "abc"), ("--from b --to d", "bcd"), ("--from c --todo", "cefg"),
    ("--to e --todo", "ce"), ("--offset 2 --limit 3", "cde"), ("--limit 0", ""), ("--todo --offset 1 --limit 2", "ef"),
    ("--from d --to b", ""),
])
def test_ls_filters(tasks, options, keys, capsys):
    assert app.run(["ls", str(tasks), *options.split()]) == 0
    assert capsys.readouterr().out.split() == [*keys]


def test_ls_long_and_json_print_values(tasks):
    assert lines("ls", tasks, "-l", "--limit", "5")[2:] == [
        'to retry\t3\tc\t{"error":"OSError: gone"}', "aborted\t0\td", 'new\t0\te\t{"size":7}']
    assert json.loads(lines("ls", tasks, "--json", "--failed", "--max-tries", "3")[0]) == {
        "key": "c", "value": {"_done": False, "_aborted": False, "_tries": 3, "error": "OSError: gone"},
        "status": "failed"}
    assert "no key" in refused("ls", tasks, "--from", "nobody", code=1)


def test_unusual_keys_round_trip_through_ls_and_get(path):
    POD(path, init=[(key, [number]) for number, key in enumerate(HOSTILE)]).close()
    found = lines("ls", path, "--json-keys")
    assert [parse_key(line, True) for line in found] == HOSTILE
    values = lines("get", path, "--json-keys", "--file", "-", stdin="\n".join(found))
    assert [json.loads(line.split("\t")[-1]) for line in values] == [[number] for number in range(len(HOSTILE))]
    assert json.loads(run("get", path, "--", "--help")) == [HOSTILE.index("--help")]
    assert json.loads(run("get", path, "\udcff")) == [HOSTILE.index("\udcff")]
    assert json.loads(run("get", path, "5")) == [HOSTILE.index("5")]
    assert json.loads(run("get", path, "5", "--json-keys")) == [HOSTILE.index(5)]
    assert run("rm", path, "--json-keys", "-", stdin="\n".join(found)) == f"{len(HOSTILE)} keys removed\n"
    assert lines("ls", path) == []


@given(st.recursive(st.text() | st.integers(), lambda parts: st.lists(parts, max_size=3).map(tuple)))
def test_keys_round_trip_as_text(key):
    assert parse_key(key_as_json(key), True) == key
    assert "\n" not in key_text(key)
