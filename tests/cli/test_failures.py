"""tastypy-fast errors, and the errors in ls and watch."""

from __future__ import annotations

import json

import pytest

from tastypy_fast import POD, Tracker
from tastypy_fast._formats.json_text import spaced_json
from tastypy_fast.cli import app, failures
from tastypy_fast.cli.failures import MAX_MESSAGE, FailureCounter
from tastypy_fast.cli.formatting import key_as_json
from tastypy_fast.cli.key_in_message import replace_key
from tests.support.command import lines, run


def error(kind, message, **more):
    return {"type": kind, "message": message, "traceback": f"Traceback of {message}\n{kind}", **more}


@pytest.fixture
def failed(path):
    """A tracker with failed tasks of several kinds."""
    with Tracker(path, init=[(key, {}) for key in ("fine", "new")]) as tracker:
        tracker.mark_done("fine", {"error": "of the user, and the task is done"})
        for number in range(3):
            tracker[f"page-{number}"] = {"_tries": number + 1, "_error": error("OSError", f"page-{number} is gone\nx")}
        tracker["a.pdf"] = {"_tries": 3, "_error": error("CommandFailed", "bad file", exit_code=3)}
        tracker["b.pdf"] = {"_tries": 3, "_error": error("CommandFailed", "bad file", exit_code=4)}
        tracker["c.pdf"] = {"_tries": 1, "_error": error("WorkerDied", "the worker died", signal="SIGSEGV")}
        tracker["d.pdf"] = {"_tries": 1, "_aborted": True, "_error": {"type": "Abort", "message": "encrypted"}}
        tracker["own"] = {"_tries": 1, "error": "no answer"}
        tracker[7] = {"_tries": 1, "error": ["a", 1]}
    return path


def test_errors_groups_failures_by_type_and_message(failed):
    assert lines("errors", failed, "--max-tries", "3") == [
        "3  OSError: {key} is gone", "   for example page-0; 1 of them is final",
        "1  CommandFailed (exit code 3): bad file", "   for example a.pdf; all are final",
        "1  CommandFailed (exit code 4): bad file", "   for example b.pdf; all are final",
        "1  WorkerDied (signal SIGSEGV): the worker died", "   for example c.pdf",
        "1  Abort: encrypted", "   for example d.pdf; all are final",
        "1  no answer", "   for example own",
        '1  ["a",1]', "   for example 7",
    ]
    assert lines("errors", failed)[1] == "   for example page-0"


def test_error_without_a_message_is_named(path, capsys):
    Tracker(path, init={"a": {"_tries": 1, "_error": ""}, "b": {"_tries": 1, "_error": {"type": "E"}}}).close()
    assert app.run(["errors", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["1  (no message)", "   for example a", "1  E", "   for example b"]


def test_errors_prints_the_traceback_of_each_example(failed):
    text = run("errors", failed, "--traceback")
    assert "for example page-0\n     Traceback of page-0 is gone\n     x\n     OSError\n1  " in text


def test_errors_as_json(failed):
    found = json.loads(run("errors", failed, "--json"))
    assert (found["tasks"], found["others"]) == (9, 0)
    assert found["groups"][0] == {"type": "OSError", "message": "{key} is gone", "tasks": 3, "final": 0,
                                  "key": "page-0"}
    assert found["groups"][5]["type"] is None
    found = json.loads(run("errors", failed, "--json", "--traceback"))
    assert found["groups"][1]["traceback"] == "Traceback of bad file\nCommandFailed"


def test_errors_of_a_store_without_failures(path, tmp_path):
    Tracker(path, init={"a": {"_tries": 1}}).close()
    assert run("errors", path) == "no task has an error\n"
    assert json.loads(run("errors", path, "--json")) == {"tasks": 0, "groups": [], "others": 0}
    POD(tmp_path / "dict", init={"a": 1}).close()
    assert "plain dict" in run("errors", tmp_path / "dict", code=3)[1]


def test_errors_prints_any_key_and_message_in_one_line(path):
    hostile = "\udcff\n\x1b[31m"
    Tracker(path, init=[(hostile, {"_tries": 1, "_error": error("E", f"bad\x1b[2J {hostile}")}),
                        ((), {"_tries": 1, "_error": "text"}), ("", {"_tries": 1, "_error": {"at": "2026"}})]).close()
    assert lines("errors", path) == ["1  E: bad\\x1b[2J {key}", '   for example "\\udcff\\n\\u001b[31m"',
                                     "1  text", "   for example []", "1  (no message)",
                                     '   for example ""']


def test_errors_keeps_the_largest_groups_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(failures, "MAX_GROUPS", 10)
    counter = FailureCounter()
    for number in range(1000):
        for message in ("common", f"rare {number}"):
            counter.add("key", {"_aborted": False, "_tries": 1, "_error": error("E", message + "!" * 2 * MAX_MESSAGE)})
    groups = counter.groups()
    assert len(groups) <= 20
    assert (groups[0].message[:6], groups[0].tasks) == ("common", 1000)
    assert all(len(group.message) == MAX_MESSAGE for group in groups)
    assert counter.tasks == 2000 == counter.others + sum(group.tasks for group in groups)


@pytest.mark.parametrize(("key", "message", "shown"), [
    ("res", "the result of res", "the result of {key}"), (123, "1234 of 123, 0123", "1234 of {key}, 0123"),
    ("/page/1", "no http://host/page/1 but /page/10", "no http://host{key} but /page/10"),
    ("a.*b", "axxb, a.*b", "axxb, {key}"), ("\\1", "(\\1)", "(\\1)"),
    ("key\n", "bad key\n", "bad {key}"), ("key\n", "bad key, bad 'key\\n'", "bad {key}, bad '{key}'"),
])
def test_keys_in_messages_are_not_parts_of_words(key, message, shown):
    counter = FailureCounter()
    counter.add(key, {"_aborted": False, "_tries": 1, "_error": error("E", message)})
    assert counter.groups()[0].message == shown


ODD = ["a\udcffb", "\udcff\udcfea", "aa\udcff", "é\udce2\udc82b", "tab\t\x01", "a\nb", "it's", "it's\udcff",
       "C:\\é", 'q"é']


@pytest.mark.parametrize("spell", [str, repr, ascii, json.dumps, key_as_json])
def test_keys_with_any_character_are_one_group(path, spell, capsys):
    with Tracker(path) as tracker:
        for key in [*ODD, "plain", "x\ud800y"] if spell is str else [*ODD, "x\ud800y"]:
            tracker.add(key)
            tracker.record_error(key, ValueError(f"bad {spell(key)}!"))
    shown = "{key}" if spell is str else "'{key}'"
    assert app.run(["errors", str(path)]) == 0
    found = [line for line in capsys.readouterr().out.splitlines() if "for example" not in line]
    assert found == [f"{len(ODD) + 1 + (spell is str)}  ValueError: bad {shown}!"]


@pytest.mark.parametrize("key", [10**5000, ("a\udcff", "é", 1), ("a", 10**5000)], ids=["int", "tuple", "both"])
def test_keys_that_are_not_strings_are_found(key):
    assert replace_key(f"bad {key_as_json(key)}!", key) == "bad {key}!"
    assert replace_key(f"bad {spaced_json(key).decode()}!", key) == "bad {key}!"
    assert key == 10**5000 or 10**5000 in key or replace_key(f"bad {key!r}!", key) == "bad {key}!"


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_file_names_in_the_messages_of_commands_are_one_group(path, locale, capsys):
    # "./" lets GNU programs write the name between quotes.
    names = [f"./{key} {number}" for key in ODD for number in range(2)]
    Tracker(path, init=[(name, {}) for name in names]).close()
    run("run", path, "--no-progress", "-j", "2", "--output", "none", "--", "cat", code=1, LC_ALL=locale)
    assert app.run(["errors", str(path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"{len(names)}  CommandFailed (exit code 1): cat: ")
    assert len(shown) == 2


def test_errors_are_found_in_all_blocks_of_a_large_store(path):
    # The statuses of 500 tasks are one block. Only those with tried tasks are read.
    with Tracker(path, init=[(number, {}) for number in range(3000)]) as tracker:
        for number in (0, 498, 502, 2998):
            tracker[number] = {"_tries": 1, "error": "own"}
            tracker[number + 1] = {"_tries": 1, "_error": error("E", "kept")}
        tracker[2000] = {"_tries": 1, "_aborted": True, "error": "own"}
        tracker.mark_done_many([498, 502])
    assert lines("errors", path) == ["4  E: kept", "   for example 1", "3  own", "   for example 0; 1 of them is final"]


def test_status_counts_errors(failed, path, tmp_path):
    assert ["errors", "7 tasks (tastypy-fast errors shows them)"] in [
        line.split(maxsplit=1) for line in lines("status", failed)]
    assert json.loads(run("status", failed, "--json"))["errors"] == 7
    assert json.loads(run("status", failed, "--json"))["last_run"] is None
    Tracker(tmp_path / "other", init={"a": {"_done": True}}).close()
    assert "errors" not in run("status", tmp_path / "other")


def test_ls_shows_errors_in_one_line(failed):
    long = lines("ls", failed, "-l")
    assert 'to retry\t1\tpage-0\t{"_error":"OSError: page-0 is gone x"}' in long
    assert 'to retry\t1\town\t{"error":"no answer"}' in long
    assert json.loads(run("get", failed, "a.pdf"))["_error"]["traceback"]
