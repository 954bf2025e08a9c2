"""tastypy-fast set, add, done, reset, abort and rm."""

from __future__ import annotations

import json

import pytest

from tastypy_fast import POD, Tracker
from tests.support.command import lines, refused, run


def test_set_assigns_values(path):
    assert run("set", path, "a", '{"x": [1, null]}', "--create") == 'added "a"\n'
    assert run("set", path, "a", "1e400") == 'changed "a"\n'
    assert run("set", path, "b", "--text", "plain", "--json") == '{"key":"b","added":true}\n'
    run("set", path, '["t", 1]', "-", "--json-keys", stdin=str(10**40))
    with POD(path) as pod:
        assert pod.items() == [("a", float("inf")), ("b", "plain"), (("t", 1), 10**40)]


def test_set_of_a_task_adds_its_missing_status_keys(tasks):
    run("set", tasks, "a", '{"_tries": 2, "n": 1}')
    assert json.loads(run("get", tasks, "a")) == {"_done": False, "_aborted": False, "_tries": 2, "n": 1}


def test_value_of_a_task_that_is_no_object_is_invalid_where_it_stands(tasks):
    assert "must be a JSON object" in refused("set", tasks, "a", "5", code=2)
    assert "must be a JSON object" in refused("set", tasks, "a", "-", stdin="[5]", code=4)


def test_add_adds_missing_tasks(path, tmp_path):
    assert run("add", path, "a", "b", "a", "--create") == "added 2 tasks, 1 existed already\n"
    keys = tmp_path / "keys"
    keys.write_bytes(b"\xef\xbb\xbfc\r\n\n d\xff \nb")
    assert json.loads(run("add", path, "--file", keys, "--json")) == {"added": 2, "there": 1}
    assert json.loads(run("add", path, "-", "--json", "--json-keys", stdin='1\n["x",2]\n')) == {"added": 2, "there": 0}
    with Tracker(path) as tracker:
        assert tracker.keys() == ["a", "b", "c", " d\udcff ", 1, ("x", 2)]
    out, error = run("add", path, "--json-keys", "-", stdin='"new"\nnonsense\n', code=4)
    assert "stdin, line 2" in error
    assert out == ""
    assert "No such file" in run("add", path, "--file", tmp_path / "nothing", code=4)[1]


HOSTILE_NAMES = [b"a\nb", b"\n", b"c\r", b"it's", b'"', b"$(rm -r .)", b"-rf", b"\xff\xfe", b"\xef\xbb\xbfd", b"* ?",
                 b"\\"]


def test_add_reads_keys_that_null_characters_end(path, tmp_path):
    # The last name has no null character after it. An empty name is a key, because a null character ends it.
    text = b"\0".join([*HOSTILE_NAMES, b"", b"last"])
    keys = tmp_path / "keys"
    keys.write_bytes(text)
    assert run("add", path, "--create", "-0", "-", stdin=text.decode("utf-8", "surrogateescape")) == (
        "added 13 tasks, 0 existed already\n")
    assert run("add", path, "--null", "--file", keys) == "added 0 tasks, 13 existed already\n"
    with Tracker(path) as tracker:
        assert [key.encode("utf-8", "surrogateescape") for key in tracker] == [*HOSTILE_NAMES, b"", b"last"]
    assert run("done", path, "-0", "-", stdin="a\nb\0") == "1 task marked done\n"
    assert json.loads(run("get", path, "--null", "--json", "-", stdin="a\nb"))["value"]["_done"]


def test_add_refuses_null_characters_in_lines(path, tmp_path):
    keys = tmp_path / "keys"
    keys.write_bytes(b"a\nb\nc\0d\n")  # as find -print0 writes names with line breaks
    Tracker(path).close()
    for arguments in (("-",), ("--file", keys), ("--json-keys", "-")):
        text = "[1]\n2\n\0" if "--json-keys" in arguments else keys.read_text()
        out, error = run("add", path, *arguments, stdin=text, code=4)
        assert out == ""
        assert "line 3 has a null character; use -0" in error
    with Tracker(path) as tracker:
        assert tracker.keys() == []
        tracker.add("x\0y")
    # Other commands find nothing, and name the option.
    assert "use -0" in run("done", path, "-", stdin="a\0b\0", code=1)[1]


@pytest.mark.parametrize("case", [
    ("a --file MISSING", "", 4), ("a --file FOLDER", "", 4), ("a -", "b\nc\0d\n", 4),
    ("--json-keys -", "1\nx\n", 4), ("--json-keys -- 1 x", "", 2), ("--json-keys -", "[null]", 4),
], ids=lambda case: case[0])
def test_add_that_fails_before_it_adds_anything_makes_no_store(tmp_path, case):
    arguments, text, code = case
    words = [word.replace("MISSING", str(tmp_path / "missing")).replace("FOLDER", str(tmp_path))
             for word in arguments.split()]
    refused("add", tmp_path / "new/store", "--create", *words, stdin=text, code=code)
    assert list(tmp_path.iterdir()) == []


def test_add_keeps_and_counts_what_it_added_before_an_error(path):
    text = "".join(f"{number}\n" for number in range(10_001)) + "x\n"
    for added in (10_000, 0):
        out, error = run("add", path, "--create", "--json-keys", "--json", "-", stdin=text, code=4)
        assert json.loads(out) == {"added": added, "there": 10_000 - added}
        assert "line 10002: 'x' is not valid JSON" in error
    with Tracker(path) as tracker:
        assert tracker.keys() == list(range(10_000))


def test_add_makes_a_store_also_from_empty_input(path):
    assert run("add", path, "--create", "-") == "added 0 tasks, 0 existed already\n"
    assert run("ls", path) == ""


def test_add_reads_json_keys_that_null_characters_end(path):
    assert run("add", path, "--create", "-0", "--json-keys", "-", stdin='1\0["x",\n2]\0"a"\0') == (
        "added 3 tasks, 0 existed already\n")
    with Tracker(path) as tracker:
        assert tracker.keys() == [1, ("x", 2), "a"]
    _, error = run("add", path, "-0", "--json-keys", "-", stdin='"new"\0nonsense\0', code=4)
    assert "stdin, key 2" in error


def test_add_reads_keys_across_the_blocks_of_its_input(path):
    # 8 MB are read in many blocks, whose ends split keys.
    long = "x" * 400
    text = "".join(f"{number}{long}\0" for number in range(20_000))
    assert run("add", path, "--create", "-0", "-", stdin=text) == "added 20,000 tasks, 0 existed already\n"
    with Tracker(path) as tracker:
        assert len(tracker) == 20_000
        assert all(key.endswith(long) for key in tracker)


def test_done_reset_abort_and_rm_on_keys(tasks):
    assert run("done", tasks, "e", "e") == "1 task marked done\n"
    out, error = run("done", tasks, "f", "nobody", code=1)
    assert (out, error) == ("1 task marked done\n", 'tastypy-fast: no such key: "nobody"\n')
    assert json.loads(run("abort", tasks, "g", "--json")) == {"changed": 1, "missing": 0, "what": "aborted"}
    assert run("reset", tasks, "-", stdin="a\nc\nd\n") == "3 tasks reset\n"
    assert run("rm", tasks, "b", "c") == "2 tasks removed\n"
    with Tracker(tasks) as tracker:
        assert {key: (task["_done"], task["_aborted"], task["_tries"]) for key, task in tracker.iteritems()} == {
            "a": (False, False, 0), "d": (False, False, 0), "e": (True, False, 0), "f": (True, False, 0),
            "g": (False, True, 0)}
        tracker._check()


def test_done_reset_abort_and_rm_on_keys_that_match_a_filter(tasks):
    before = run("ls", tasks, "--json")
    assert run("reset", tasks, "--to-retry", "-n") == "1 task would be reset\n"
    assert run("ls", tasks, "--json") == before
    assert run("reset", tasks, "--failed", "--max-tries", "3") == "1 task reset\n"
    assert json.loads(run("get", tasks, "c")) == {"_done": False, "_aborted": False, "_tries": 0,
                                                  "error": "OSError: gone"}
    assert run("abort", tasks, "--todo", "--match", "[ef]") == "2 tasks aborted\n"
    assert run("done", tasks, "--from", "c", "--to", "d") == "2 tasks marked done\n"
    assert run("rm", tasks, "--aborted", "--limit", "1") == "1 task removed\n"
    # A task that is done and aborted is done.
    assert lines("ls", tasks) == [*"abcdfg"]


def test_fields_and_the_end_select_what_is_changed(path):
    Tracker(path, init=[(number, {"size": number % 3, "of": {"site": "a" if number < 5 else 1}}) for number in range(9)]
            ).close()
    assert run("done", path, "--where", "of.site=a", "--where", "size=0") == "2 tasks marked done\n"
    assert run("abort", path, "--tail", "2", "--where", "of.site=1") == "2 tasks aborted\n"
    assert run("rm", path, "--where", "_done=true", "-n") == "2 tasks would be removed\n"
    assert run("reset", path, "--where", "nothing=null") == "0 tasks reset\n"
    assert lines("ls", path, "--done") == ["0", "3"]
    assert lines("ls", path, "--aborted") == ["7", "8"]


def test_statuses_that_a_task_cannot_have_are_invalid_arguments(tasks):
    value = '{"_done": 5}'
    assert "_done" in run("set", tasks, "a", value, code=2)[1]
    assert "_done" in run("set", tasks, "a", "-", stdin=value, code=4)[1]
    assert "not valid JSON" in run("set", tasks, "a", "{", code=2)[1]
    assert "not valid JSON" in run("set", tasks, "a", "-", stdin="{", code=4)[1]


def test_bulk_changes_apply_to_all_matching_keys(path):
    Tracker(path, init=[(number, {}) for number in range(3500)]).close()
    assert run("done", path, "--match", "*7") == "350 tasks marked done\n"
    assert run("reset", path, "--done") == "350 tasks reset\n"
    assert run("rm", path, "--todo") == "3,500 tasks removed\n"
