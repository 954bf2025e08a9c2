"""``hold()`` of the shared classes suspends the automatic sync for all, as long as the process lives that called it."""

from __future__ import annotations

import os
import signal

import pytest

from tastypy_fast import SharedPOD, SharedTracker, maintenance
from tastypy_fast._shared import hold
from tests.support.children import Child
from tests.support.workers import next_line, send_line, started

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(params=[SharedPOD, SharedTracker], ids=["shared_pod", "shared_tracker"])
def cls(request):
    return request.param


@pytest.fixture
def store(cls, path):
    """An open store that syncs after every third change."""
    with cls(path, sync_at=3) as store:
        yield store
        if not store.closed:
            store._check()


@pytest.fixture
def without_holder_cache(monkeypatch):
    """Disable the cache of the fact that a holder is alive."""
    monkeypatch.setattr(hold, "RECHECK_AFTER", 0.0)


def syncs(store):
    """Whether three changes cause an automatic sync."""
    store.sync()
    store.update({number: {} for number in range(3)})
    store.update({number: {"n": 1} for number in range(3)})
    return not store.dirty()


class Holder(Child):
    """A child that runs the requested methods, and the actions of ENDS."""

    def __init__(self, cls, path):
        super().__init__(_serve, cls, path)

    def ask(self, name):
        self.pipe.send(name)
        return self.pipe.recv()


def _serve(pipe, cls, path):
    store = cls(path)
    while True:
        name = pipe.recv()
        if name == "exit":
            return
        if name == "fork":
            store.hold()
            if os.fork():
                os.kill(os.getpid(), signal.SIGKILL)
            # The child continues with everything that it inherited.
            store.sync()
        elif name == "SIGKILL in a block":
            store.lock()
            store.hold()
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            getattr(store, name)()
        pipe.send(os.getpid())


def holders(store):
    with store.locked():
        return store._store._hold.holders()


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, "exit"])
def test_hold_ends_with_its_process(cls, path, store, ending, without_holder_cache):
    with Holder(cls, path) as holder:
        holder.ask("hold")
        assert not syncs(store)
        assert not syncs(store)
        if ending == "exit":
            holder.pipe.send("exit")
            holder.wait()
        else:
            holder.kill(ending)
            holder.wait()
        assert syncs(store)
        assert holders(store) == set()


def test_held_change_is_synced_with_the_next_change_after_the_holder_ended(cls, path, store, without_holder_cache):
    with Holder(cls, path) as holder:
        holder.ask("hold")
        store.update({number: {} for number in range(5)})
        assert store.dirty() == set(range(5))
        holder.kill()
        holder.wait()
        store[5] = {}
        assert store.dirty() == set()
        store.revert()
        assert store.keys() == list(range(6))


def test_holder_found_alive_is_checked_again_soon(cls, path, store):
    with Holder(cls, path) as holder:
        holder.ask("hold")
        assert not syncs(store)
        holder.kill()
        holder.wait()
    while not syncs(store):
        pass


def test_changes_during_a_hold_do_not_check_the_holder_each_time(cls, path, store, monkeypatch):
    looks = []

    def count(*arguments):
        looks.append(arguments)
        return found(*arguments)

    found = hold.read_worker_files
    monkeypatch.setattr(hold, "read_worker_files", count)
    monkeypatch.setattr(hold, "RECHECK_AFTER", 1000.0)
    with Holder(cls, path) as holder:
        holder.ask("hold")
        for number in range(50):
            store[number] = {}
        assert len(looks) == 1
        # A new state is checked at once.
        with Holder(cls, path) as other:
            other.ask("hold")
            store[50] = {}
            assert len(looks) == 2
    # A hold of this process needs no check. unhold() syncs all changes.
    store.unhold()
    store.hold()
    for number in range(50):
        store[number] = {"n": 1}
    assert len(looks) == 2
    assert len(store.dirty()) == 50


def test_hold_lasts_until_both_holders_have_ended(cls, path, store, without_holder_cache):
    with Holder(cls, path) as first, Holder(cls, path) as second:
        first.ask("hold")
        second.ask("hold")
        second.ask("hold")
        assert len(holders(store)) == 2
        first.kill()
        first.wait()
        assert not syncs(store)
        # The dead holder was removed.
        assert len(holders(store)) == 1
        second.kill()
        second.wait()
        assert syncs(store)


def test_unhold_by_any_process_ends_all_holds(cls, path, store):
    with Holder(cls, path) as first, Holder(cls, path) as second:
        first.ask("hold")
        second.ask("hold")
        store.hold()
        second.ask("unhold")
        assert holders(store) == set()
        assert syncs(store)
        first.ask("hold")
        assert not syncs(store)
        store.unhold()
        assert syncs(store)


def test_hold_of_a_stopped_process_continues(cls, path, store, without_holder_cache):
    with Holder(cls, path) as holder:
        holder.ask("hold")
        holder.kill(signal.SIGSTOP)
        os.waitpid(holder.pid, os.WUNTRACED)
        assert not syncs(store)
        holder.kill()
        holder.wait()
        assert syncs(store)


def test_hold_in_an_aborted_or_killed_block_has_no_effect(cls, path, store):
    with pytest.raises(ZeroDivisionError), store.transaction():  # noqa: PT012
        store.hold()
        raise ZeroDivisionError
    assert syncs(store)
    with Holder(cls, path) as holder:
        holder.pipe.send("SIGKILL in a block")
        assert holder.wait() == -signal.SIGKILL
    assert syncs(store)


def test_forked_child_has_its_own_hold(cls, path, store, without_holder_cache):
    store.hold()
    with Child(lambda pipe: pipe.send(syncs(store))) as child:
        # The parent has the hold.
        assert child.pipe.recv() is False
        assert child.wait() == 0
    assert not syncs(store)
    store.unhold()

    def hold(pipe):
        store.hold()
        pipe.send("holds")
        pipe.recv()

    with Child(hold) as child:
        assert child.pipe.recv() == "holds"
        assert not syncs(store)
        child.kill()
        child.wait()
        assert syncs(store)


def test_child_does_not_inherit_the_hold_of_its_dead_parent(cls, path, store, without_holder_cache):
    with Holder(cls, path) as holder:
        child = holder.ask("fork")
        try:
            assert holder.wait() == -signal.SIGKILL
            assert syncs(store)
        finally:
            os.kill(child, signal.SIGKILL)


PROGRAM = """
import os, sys
import tastypy_fast
store = getattr(tastypy_fast, sys.argv[2])(sys.argv[1])
store.hold()
print("holds", flush=True)
input()
{}
"""

ENDS = {
    "end of the program": "pass",
    "exception": "1 / 0",
    "os._exit": "os._exit(0)",
    "os.execv": "os.execv(sys.executable, [sys.executable, '-c', 'print(\"ended\", flush=True); input()'])",
    "garbage": "del store; print('ended', flush=True); input()",
    "close of the last instance": (
        "other = type(store)(sys.argv[1]); store.close(); print('one', flush=True); input(); other.close(); "
        "print('ended', flush=True); input()"
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_hold_ends_when_its_program_ends(cls, path, store, end, without_holder_cache):
    with started(PROGRAM.format(ENDS[end]), path, cls.__name__) as process:
        assert next_line(process) == "holds"
        assert not syncs(store)
        send_line(process)
        if "one" in ENDS[end]:
            assert next_line(process) == "one"
            assert not syncs(store)
            send_line(process)
        if "ended" in ENDS[end]:
            assert next_line(process) == "ended"
        else:
            process.wait()
        assert syncs(store)


def test_hold_recorded_by_an_earlier_version_is_ignored(cls, path):
    for is_open in (True, False):
        with cls(path, sync_at=3) as store:
            with store.locked():
                transaction = store._store.transaction
                transaction.snapshot.put(b"held", b"1", db=transaction.meta)
                transaction.wrote = True
            if is_open:
                assert syncs(store)
                assert holders(store) == set()
    with cls(path, sync_at=3) as store:
        assert syncs(store)


def test_store_with_a_dead_holder_passes_verify(cls, path):
    with Holder(cls, path) as holder:
        holder.ask("hold")
        holder.kill()
        holder.wait()
    assert maintenance.verify(path) == []
    with cls(path, sync_at=3) as store:
        assert syncs(store)
