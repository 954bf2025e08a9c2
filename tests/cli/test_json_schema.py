"""status --json, watch --json and ls --json follow one schema, which docs/reference/command.md lists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tastypy_fast import POD, SharedTracker, Tracker
from tastypy_fast.cli import app
from tastypy_fast.cli.json_schema import FIELDS, JSON_TYPES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command.md"
COMMANDS = ("status", "watch", "ls")


@pytest.fixture
def answers(path, capsys):
    """What the three commands print: a function from the name of a command to its objects."""

    def ask(command, *options):
        assert app.run([command, str(path), "--json", *options]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return ask


def fields_of(command, is_tracker=True):
    """The fields that a command prints: name to field."""
    return {field.name: field for field in FIELDS
            if command in field.commands and (is_tracker or not field.of_trackers)}


def check(found, fields, prefix=""):
    """Check the fields of an object, and of the objects in it."""
    expected = {name.removeprefix(prefix).partition(".")[0] for name in fields if name.startswith(prefix)}
    optional = {name.removeprefix(prefix) for name, field in fields.items() if field.optional}
    assert expected - optional <= found.keys() <= expected
    for name, value in found.items():
        field = fields.get(prefix + name)
        if field is not None:
            assert isinstance(value, tuple(JSON_TYPES[one] for one in field.types)), name
            assert not isinstance(value, bool)
        below = f"{prefix}{name}."
        if any(other.startswith(below) for other in fields):
            for one in value if isinstance(value, list) else [value]:
                check(one, fields, below)


def test_documentation_lists_the_fields_of_the_schema():
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == [
        [f"`{field.name}`", " or ".join(field.types), *("x" if name in field.commands else "" for name in COMMANDS),
         field.meaning]
        for field in FIELDS
    ]


def test_commands_follow_the_schema_for_a_tracker(path, answers):
    with SharedTracker(path, max_tries=2, init={"a": {"_done": True}, ("t", 1): {"_tries": 1}, "c": {}}) as tracker:
        tracker.record_error(("t", 1), "gone")
        tasks = tracker.try_items()
        assert next(tasks)[0] == ("t", 1)
        (status,) = answers("status")
        check(status, fields_of("status"))
        assert [(task["key"], task["status"]) for task in status["claims"]] == [(["t", 1], "running")]
        assert (status["running"], status["done"], status["new"], status["keys"]) == (1, 1, 1, 3)
        lines = answers("ls")
        for line in lines:
            check(line, fields_of("ls"))
        assert [(line["key"], line["status"], "claim" in line) for line in lines] == [
            ("a", "done", False), (["t", 1], "running", True), ("c", "new", False)]
        assert lines[1]["claim"] == status["claims"][0]["claim"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[1]["claim"]["since"])
        tracker.abort("c")
    (watched,) = answers("watch", "--until-done")
    check(watched, fields_of("watch"))
    assert [(task["key"], task["status"], task["error"]) for task in watched["failures"]] == [
        (["t", 1], "failed", "Error: gone")]
    status = answers("status")[0]
    check(status, fields_of("status"))
    shared = fields_of("status").keys() & fields_of("watch").keys() - {"open.how"}
    assert {name: watched[name] for name in shared} == {name: status[name] for name in shared}
    assert watched["open"]["how"] == status["open"]["how"] == "nobody"


def test_commands_follow_the_schema_for_a_dict(path, answers, monkeypatch):
    POD(path, init={"a": 1, ("t", 1): None}).close()
    check(answers("status")[0], fields_of("status", False))
    for line in answers("ls"):
        check(line, fields_of("ls", False))

    def stop(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", stop)
    assert app.run(["watch", str(path), "--json"]) == 130


def test_lines_of_ls_can_be_imported(path, answers, tmp_path, capsys):
    items = {"a": {"x": 1}, ("t", 1): {"_done": True}}
    Tracker(path, init=items).close()
    app.run(["ls", str(path), "--json"])
    (tmp_path / "lines.jsonl").write_text(capsys.readouterr().out, encoding="utf-8")
    with Tracker(path) as before, Tracker(tmp_path / "again") as after:
        after.import_jsonl(tmp_path / "lines.jsonl")
        assert after == before
