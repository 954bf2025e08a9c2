"""tastypy-fast ls: filters and options; keys as text and back."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastypy_fast import POD, Tracker
from tastypy_fast.cli import app, key_filters
from tastypy_fast.cli.fields import FieldCondition
from tastypy_fast.cli.formatting import key_as_json, key_text, parse_key
from tastypy_fast.cli.key_filters import KeyFilter, iter_matching
from tests.support.command import HOSTILE, lines, refused, run

# More than any counter of the machine holds.
HUGE = 10**20


@pytest.mark.parametrize(("options", "keys"), [
    ("", "abcdefg"), ("--done", "ab"), ("--todo", "cefg"), ("--aborted", "d"), ("--failed", ""), ("--running", ""),
    ("--new", "efg"), ("--to-retry", "c"), ("--to-retry --max-tries 3", ""),
    ("--failed --max-tries 3", "c"), ("--failed --max-tries 4", ""), ("--todo --max-tries 3", "efg"),
    ("--done --aborted", "abd"), ("--to-retry --done", "abc"), ("--match [a-c]", "abc"), ("--todo --match [a-c]", "c"),
    ("--from c", "cdefg"), ("--to c", "abc"), ("--from b --to d", "bcd"), ("--from c --todo", "cefg"),
    ("--to e --todo", "ce"), ("--offset 2 --limit 3", "cde"), ("--limit 0", ""), ("--todo --offset 1 --limit 2", "ef"),
    ("--from d --to b", ""),
    ("--tail 2", "fg"), ("--tail 0", ""), ("--tail 99", "abcdefg"), ("--tail 2 --to d", "cd"),
    (f"--tail {HUGE}", "abcdefg"), (f"--limit {HUGE} --offset 5", "fg"), (f"--offset {HUGE}", ""),
    (f"--offset {HUGE} --limit {HUGE}", ""),
    ("--tail 9 --from e", "efg"), ("--tail 1 --done", "b"), ("--tail 2 --todo --to f", "ef"),
    ("--tail 2 --match [a-c]", "bc"), ("--tail 1 --running", ""),
    ("--where size=7", "e"), ('--where size="7"', ""), ("--where _done=true", "ab"), ("--where _tries=1.0", "ab"),
    ("--where _done=1", ""), ("--where _tries=3 --where _done=false", "c"), ("--where _tries=3 --where _done=true", ""),
    ("--where _done=false --tail 2 --todo", "fg"), ("--where _done=true --limit 1 --offset 1", "b"),
    ("--where size=7 --tail 3 --from b", "e"),
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


@pytest.mark.parametrize("options", [("-l", "--json"), ("-0", "-l"), ("-0", "--json")])
def test_forms_of_output_exclude_each_other(tasks, options, capsys):
    """--json was ignored next to --long."""
    assert app.run(["ls", str(tasks), *options]) == 2
    out, error = capsys.readouterr()
    assert (out, "cannot be combined" in error) == ("", True)


def test_fields_are_compared_as_json(path, capsys):
    POD(path, init={"a": {"x": {"y": [1, {"z": None}]}}, "b": {"x.y": "text"}, "c": 5, "d": {"x": {"y": True}},
                    "e": {"x": {"y": "1=2"}}}).close()
    for condition, keys in (('x.y=[1,{"z":null}]', "a"), ("x.y=text", "b"), ('x.y="text"', "b"), ("x.y=true", "d"),
                            ("x.y=1", ""), ("x.y=1=2", "e"), ("x.y.z=1", ""), ('x={"y":true}', "d"), ("x.y=", "")):
        assert app.run(["ls", str(path), "--where", condition]) == 0
        assert capsys.readouterr().out.split() == [*keys]
    for wrong in ("x", "=1", ""):
        assert app.run(["ls", str(path), "--where", wrong]) == 2
    assert app.run(["ls", str(path), "--tail", "2", "--limit", "3"]) == 2
    assert "--tail selects keys from the end" in capsys.readouterr().err


def test_tail_reads_from_the_end(path, monkeypatch):
    Tracker(path, init=[(number, {"n": number}) for number in range(3000)]).close()
    with Tracker(path, mode="r") as tracker:
        read = []
        monkeypatch.setattr(key_filters, "_positions", lambda source, values, before=key_filters._positions: (
            read.append(found) or found for found in before(source, values)))
        for more in ({}, {"statuses": frozenset({"new"})}, {"where": (FieldCondition("n", 2999),)}):
            chosen = KeyFilter(frozenset(), None, None, None, 0, None, None, tail=1)._replace(**more)
            assert [match.key for match in iter_matching(tracker, chosen, False, False)] == [2999]
            assert len(read) < 300
            read.clear()


def test_ls_long_on_a_terminal_is_a_table(path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    Tracker(path, init=[("a\tb", {"text": "x" * 50}), ("long" * 10, {"_tries": 12}), ("中" * 12, {}), ("z", {"n": 1})]
            ).close()
    assert app.run(["ls", str(path), "-l"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "STATUS    TRIES  KEY           DATA",
        'new       0      a\\tb          {"text":…',
        "to retry  12     longlonglon…",
        "new       0      中中中中中 …",
        'new       0      z             {"n":1}',
    ]
    POD(path.parent / "dict", init={"a": 1}).close()
    assert app.run(["ls", str(path.parent / "dict"), "-l"]) == 0
    assert capsys.readouterr().out == "KEY  VALUE\na    1\n"
    assert app.run(["ls", str(path), "-l", "--match", "nothing"]) == 0
    assert capsys.readouterr().out == ""


def test_ls_long_in_a_pipe_keeps_fields_apart(path, capsys):
    Tracker(path, init=[("a\tb", {"x": "\t"}), ("c", {})]).close()
    assert app.run(["ls", str(path), "-l"]) == 0
    assert capsys.readouterr().out == 'new\t0\t"a\\tb"\t{"x":"\\t"}\nnew\t0\tc\n'


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
