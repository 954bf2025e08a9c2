"""Examples of tastypy's documentation: SharedPOD."""

from __future__ import annotations

import threading

import pytest

from tastypy_fast import POD, SharedPOD
from tests.support.seeds import output_of, start_methods

# Writing to shared SharedPODs


@pytest.mark.parametrize("cls", [SharedPOD, POD])
def test_set_accepts_all_mutable_operations(cls):
    """.set exists on the private classes too."""
    shared_pod = cls("my.pod")
    shared_pod.set["foo"] = {"bar": 4, "baz": []}
    shared_pod.set["foo"]["bar"] += 1
    shared_pod.set["foo"]["baz"].append("fizz")
    assert shared_pod["foo"]["baz"][0] == "fizz"
    assert "DeepProxy" in repr(shared_pod.set["foo"]["baz"][0])
    shared_pod.set["a"] = [1, 2]
    shared_pod.set["a"][:] = [4]
    shared_pod.set["a"] += [1]
    shared_pod.set["some-dict"] = {"some-key": 1}
    del shared_pod.set["some-dict"]["some-key"]
    shared_pod.set["some-key"] = 1
    shared_pod.set["some-key"] += 42
    shared_pod.set["some"] = {"key": 0, "list": []}
    shared_pod.set["some"]["key"] += 42
    shared_pod.set["some"]["list"].append("forty-two")
    shared_pod.close()
    assert dict(cls("my.pod")) == {
        "foo": {"bar": 5, "baz": ["fizz"]}, "a": [4, 1], "some-dict": {}, "some-key": 43,
        "some": {"key": 42, "list": ["forty-two"]},
    }


def test_changes_without_set_are_not_in_the_shared_pod():
    shared_pod = SharedPOD("my.pod")
    shared_pod["foo"] = {"bar": 0, "baz": []}
    shared_pod["foo"]["bar"] += 1
    shared_pod["foo"]["baz"].append("fizz")
    assert shared_pod["foo"] == {"bar": 0, "baz": []}


# Avoiding raciness


RACERS = """
from multiprocessing import get_context
from tastypy_fast import SharedPOD

def work(shared_pod):
    for _ in range(100):
        with shared_pod.locked():
            shared_pod.set['some-key'] += 1
        shared_pod.lock()
        shared_pod.set['some-key'] = shared_pod['some-key'] + 1
        shared_pod.unlock()
        # Any of the methods defined on values is atomic, and so is += on a list.
        shared_pod.set['some-list'].append('item')
        shared_pod.set['I-store-a-list'] += [1]
        del shared_pod.set['some-dict'][shared_pod.set['some-keys'].pop()]

if __name__ == '__main__':
    keys = [str(number) for number in range(400)]
    pod = SharedPOD('my.pod', init={
        'some-key': 0, 'some-list': [], 'I-store-a-list': [], 'some-dict': dict.fromkeys(keys), 'some-keys': keys,
    })
    procs = [get_context(METHOD).Process(target=work, args=(pod,)) for _ in range(4)]
    for proc in procs:
        proc.start()
    for proc in procs:
        proc.join()
        assert proc.exitcode == 0
    print(pod['some-key'], len(pod['some-list']), len(pod['I-store-a-list']), pod['some-dict'], pod['some-keys'])
"""

EXAMPLE = """
from multiprocessing import get_context
import tastypy_fast

def work(pod, proc_num, num_procs):
    for i in pod:
        if i%num_procs == proc_num:
            pod.set[i] = i**2

def run_multiproc():
    num_procs = 5
    init = [(i, None) for i in range(25)]
    pod = tastypy_fast.SharedPOD('my.pod', init=init)
    procs = []
    for i in range(num_procs):
        proc = get_context(METHOD).Process(target=work, args=(pod, i, num_procs))
        proc.start()
        procs.append(proc)

    for proc in procs:
        proc.join()

    for key, val in pod.iteritems():
        print(key, val)

if __name__ == '__main__':
    run_multiproc()
"""


@start_methods
def test_locked_operations_of_many_processes_lose_nothing(tmp_path, method):
    assert output_of(tmp_path, RACERS, method) == "800 400 400 {} []\n"


# SharedPOD multiprocessing example


@start_methods
def test_each_worker_works_on_its_own_subset(tmp_path, method):
    assert output_of(tmp_path, EXAMPLE, method) == "".join(f"{number} {number**2}\n" for number in range(25))


# SharedPersistentOrderedDict reference


@pytest.mark.parametrize("name", [
    "close", "locked", "lock", "unlock", "update", "mark_dirty", "sync", "sync_key", "hold", "unhold", "revert",
    "iteritems", "iterkeys", "itervalues", "items", "keys", "values", "dirty",
])
def test_shared_pod_has(name):
    assert callable(getattr(SharedPOD, name))


def test_locked_is_released_when_an_exception_is_thrown_or_a_return_statement_reached():
    pod = SharedPOD("my.pod", init={"some-key": 0})

    def work():
        with pod.locked():
            pod.set["some-key"] += 1
            return

    def fail():
        with pod.locked():
            pod.set["some-key"] += 1
            raise ZeroDivisionError

    work()
    with pytest.raises(ZeroDivisionError):
        fail()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert pod["some-key"] == 3
