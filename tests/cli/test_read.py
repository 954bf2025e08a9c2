"""tastypy-fast get."""

from __future__ import annotations

import json
import subprocess

from tastypy_fast import POD, Tracker
from tastypy_fast.cli import app
from tests.support.command import COMMAND, ENVIRONMENT, lines, refused, run


def test_get_prints_values(tasks):
    assert json.loads(run("get", tasks, "e"))["size"] == 7
    assert lines("get", tasks, "a", "e")[1] == 'e\t{"_done":false,"_aborted":false,"_tries":0,"size":7}'
    assert json.loads(run("get", tasks, "e", "--json"))["key"] == "e"
    out, error = run("get", tasks, "nobody", "e", code=1)
    assert out.startswith("e\t")
    assert error == 'tastypy-fast: no such key: "nobody"\n'


def test_get_prints_keys_with_tabs_as_json(path, capsys):
    POD(path, init={"a\tb": 1, "a\nb": 2, "c": 3, ("t\t",): 4}).close()
    assert app.run(["get", str(path), "a\tb", "a\nb", "c"]) == 0
    assert app.run(["get", str(path), "--json-keys", '["t\\t"]', '"a\\tb"']) == 0
    assert capsys.readouterr().out.splitlines() == ['"a\\tb"\t1', '"a\\nb"\t2', "c\t3", '["t\\t"]\t4', '"a\\tb"\t1']


def test_missing_key_hints_at_a_key_of_the_other_type(path):
    POD(path, init={5: 0, "7": 0}).close()
    assert "--json-keys" in refused("get", path, "5", code=1)
    assert 'the string "7"' in refused("get", path, "7", "--json-keys", code=1)


def test_broken_pipe_exits_without_an_error_message(path):
    Tracker(path, init=[(f"{number:050}", {}) for number in range(20_000)]).close()
    with subprocess.Popen([*COMMAND, "ls", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=ENVIRONMENT) as process:
        assert process.stdout.readline() == b"0" * 50 + b"\n"
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""
