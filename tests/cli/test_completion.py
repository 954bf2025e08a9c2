"""The Tab key: completion of keys and stores, in the shells."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tastypy_fast import POD
from tastypy_fast._inspect.key_prefix import find_keys
from tastypy_fast.cli import app
from tastypy_fast.cli.completion import MAX_KEYS, Fish
from tests.support.command import COMMAND, ENVIRONMENT, run

KEYS = [*(f"https://example.org/{number:03}" for number in range(300)), "a b", "a$x", "c,d", "it's", "\udcff", "x\ny",
        5, ("a",), "a" * 600, "é"]


@pytest.fixture
def store(path):
    POD(path, init=[(key, 1) for key in KEYS]).close()
    return path


def test_keys_are_found_by_their_beginning(store):
    with POD(store, mode="r") as pod:
        def find(prefix, count=1000):
            return find_keys(pod._store, prefix, count)

        assert find("") == sorted((key for key in KEYS if isinstance(key, str) and len(key) < 500),
                                  key=lambda key: key.encode("utf-8", "surrogatepass"))
        assert find("a") == ["a b", "a$x"]
        assert find("é") == ["é"]
        assert find("nothing") == []
        # The last key is there, so that the common beginning is that of all keys.
        assert find("https://example.org/1", 3) == [f"https://example.org/{end}" for end in ("100", "101", "199")]
        assert find("h", 300) == KEYS[:300]
        assert find("", 2) == ["a b", "\udcff"]


def completions(line, monkeypatch, capsysbinary):
    monkeypatch.setenv("_TASTYPY_FAST_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_WORDBREAKS", " \t\n\"'><=;|&(:")
    with pytest.raises(SystemExit):
        app.run([])
    return [line for line in capsysbinary.readouterr().out.decode().splitlines() if line]


@pytest.mark.parametrize(("line", "found"), [
    ("get STORE a", ["plain,a\\ b", "plain,a\\$x"]), ("get STORE a\\ ", ["plain,a\\ b"]),
    ("get STORE 'a", ["plain,a b", "plain,a$x"]), ("get STORE c", ["plain,c,d"]), ("get STORE x", []),
    ("get STORE https://example.org/29", [f"plain,//example.org/{number}" for number in range(290, 300)]),
    ("get STORE 'https://example.org/299", ["plain,https://example.org/299"]), ("set STORE it", ["plain,it\\'s"]),
    ("ls STORE --from c", ["plain,c,d"]), ("ls --to c", []), ("rm STORE 'a b' c", ["plain,c,d"]),
    ("get STORE --json-keys a", []), ("get nothing a", []), ("status ", ["dir,"]), ("copy STORE ", ["file,"]),
    ("get '' a", []),
])
def test_bash_gets_the_rest_of_the_word(store, line, found, monkeypatch, capsysbinary):
    line = f"tastypy-fast {line.replace('STORE', str(store))}"
    assert completions(line, monkeypatch, capsysbinary) == found


def test_number_of_completions_is_bounded(store, monkeypatch, capsysbinary):
    found = completions(f"tastypy-fast get {store} h", monkeypatch, capsysbinary)
    assert len(found) == MAX_KEYS
    assert found[-1] == "plain,https://example.org/299"


def complete_in(shell, script, tmp_path, *arguments):
    """Run a script of a shell, in which the program tastypy-fast is there, and return what it prints."""
    program = tmp_path / "tastypy-fast"
    program.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    program.chmod(0o755)
    done = subprocess.run([*shell, script, *map(str, arguments)], capture_output=True, text=True, env={
        **ENVIRONMENT, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)})
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_a_url(store, tmp_path):
    script = """
        eval "$(_TASTYPY_FAST_COMPLETE=bash_source tastypy-fast)"
        COMP_LINE="tastypy-fast get $1 https://example.org/0" COMP_POINT=1000
        _tastypy_fast_completion tastypy-fast
        echo "${#COMPREPLY[@]} ${COMPREPLY[0]}"
    """
    assert complete_in(["bash", "-c"], script, tmp_path, "bash", store) == [f"{MAX_KEYS} //example.org/000"]


# Words of a command line after "get STORE", and the keys that complete the last of them.
IN_SHELLS = {
    "https://example.org/29": KEYS[290:300], "c": ["c,d"], "a": ["a b", "a$x"], "a\\ ": ["a b"], "'a ": ["a b"],
    "it": ["it's"], "--json-keys a": [],
}
COMPLETED = [key for keys in IN_SHELLS.values() for key in keys]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_completes_keys(store, tmp_path):
    script = """
        compdef() {}
        compadd() { print -rl -- "${completions[@]}" }
        _path_files() { print "paths $*" }
        eval "$(_TASTYPY_FAST_COMPLETE=zsh_source tastypy-fast)"
        for line in "${@:2}"; do
            words=(tastypy-fast get "$1" ${(s: :)line}) CURRENT=${#words}
            [[ $line == *" " ]] && words[-1]+=" "
            _tastypy_fast_completion
        done
        words=(tastypy-fast get "") CURRENT=3
        _tastypy_fast_completion
    """
    found = complete_in(["zsh", "-f", "-c"], script, tmp_path, "zsh", store, *IN_SHELLS)
    assert found == [*COMPLETED, "paths -/"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_completes_keys(store, tmp_path):
    script = """
        _TASTYPY_FAST_COMPLETE=fish_source tastypy-fast | source
        for line in $argv[2..]
            complete -C "tastypy-fast get $argv[1] $line"
        end
    """
    assert complete_in(["fish", "--no-config", "-c"], script, tmp_path, store, *IN_SHELLS) == COMPLETED


def test_empty_key_is_not_offered(path):
    POD(path, init={"": 1, "a": 1}).close()
    words = {"COMP_WORDS": f"tastypy-fast get {path} ''", "COMP_CWORD": "3"}
    assert run(_TASTYPY_FAST_COMPLETE="zsh_complete", **words) == "plain\na\n_\n"


def test_fish_and_zsh_get_keys_unchanged(store):
    assert 'string split -m 1 ","' in Fish.source_template
    words = f"tastypy-fast get {store} c"
    assert run(_TASTYPY_FAST_COMPLETE="fish_complete", COMP_WORDS=words, COMP_CWORD="c") == "plain,c,d\n"
    assert run(_TASTYPY_FAST_COMPLETE="zsh_complete", COMP_WORDS=words, COMP_CWORD="3") == "plain\nc,d\n_\n"
