"""Waiting tasks of a batch: what other processes do with them, and which tries are counted."""

from __future__ import annotations

import itertools
import random
import signal
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tastypy_fast import (
    SharedTracker,
)
from tests.support.children import Child
from tests.support.claims import Worker, call, close_loop, take, tries

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

# Operations of another process on a waiting task of a batch, which was tried three times before. The numbers are the
# tries after the operation, after the end of the loop, and after the task was yielded. None means that it is not
# yielded.
ON_WAITING = {
    "mark_done": (lambda tracker: tracker.mark_done("w"), 3, 3, None),
    "mark_done_many": (lambda tracker: tracker.mark_done_many(["w"]), 3, 3, None),
    "mark_done, mark_not_done": (lambda tracker: (tracker.mark_done("w"), tracker.mark_not_done("w")), 3, 3, None),
    "mark_not_done": (lambda tracker: tracker.mark_not_done("w"), 3, 3, None),
    "abort": (lambda tracker: tracker.abort("w"), 3, 3, None),
    "abort, unabort": (lambda tracker: (tracker.abort("w"), tracker.unabort("w")), 3, 3, None),
    "release": (lambda tracker: tracker.release("w"), 3, 3, None),
    "release twice": (lambda tracker: (tracker.release("w"), tracker.release("w")), 3, 3, None),
    "set done": (lambda tracker: tracker.set["w"].__setitem__("_done", True), 3, 3, None),
    "set aborted": (lambda tracker: tracker.set["w"].update(_aborted=True, x=1), 3, 3, None),
    "update aborted": (lambda tracker: tracker.update(w={"_aborted": True}), 3, 3, None),
    "assign what was read": (lambda tracker: tracker.update(w={**tracker["w"], "_done": True}), 3, 3, None),
    "assign done with tries": (lambda tracker: tracker.update(w={"_done": True, "_tries": 7}), 7, 7, None),
    "increment, abort": (lambda tracker: (tracker.increment_tries("w"), tracker.abort("w")), 4, 4, None),
    "decrement, release": (lambda tracker: (tracker.decrement_tries("w"), tracker.release("w")), 2, 2, None),
    "reset, mark_not_done": (lambda tracker: (tracker.reset_tries("w"), tracker.mark_not_done("w")), 0, 0, None),
    "set tries, abort": (lambda tracker: (tracker.set["w"].update(_tries=5), tracker.abort("w")), 5, 5, None),
    # These operations keep the claim.
    "nothing": (lambda tracker: None, 4, 3, 4),
    "unabort": (lambda tracker: tracker.unabort("w"), 4, 3, 4),
    "set data": (lambda tracker: tracker.set["w"].update(x=1), 4, 3, 4),
    "increment_tries": (lambda tracker: tracker.increment_tries("w"), 5, 4, 5),
    "decrement_tries": (lambda tracker: tracker.decrement_tries("w"), 3, 2, 3),
    "reset_tries": (lambda tracker: tracker.reset_tries("w"), 0, 0, 0),
    "reset, increment": (lambda tracker: (tracker.reset_tries("w"), tracker.increment_tries("w")), 1, 1, 1),
    "set tries": (lambda tracker: tracker.set["w"].update(_tries=5), 5, 5, 5),
    "assign tries": (lambda tracker: tracker.update(w={"_tries": 2}), 2, 2, 2),
    # A revert undoes the count of the try. The claim stays.
    "revert": (SharedTracker.revert, 3, 3, 3),
    # Another task, which the loop yields later.
    "delete and add": (lambda tracker: (tracker.__delitem__("w"), tracker.add("w")), 0, 0, 1),
}


def shown(tracker):
    """The tries of the task, by each way to read them."""
    found = {tracker.tries("w"), tracker["w"]["_tries"], dict(tracker.items())["w"]["_tries"]}
    assert len(found) == 1
    return found.pop()


# The end of the loop finds the same store after a block as after a single change. So one end is enough for blocks.
@pytest.mark.parametrize(("end", "in_block"), [
    pytest.param(end, in_block, marks=pytest.mark.storm if in_block and end != "hand out" else ())
    for end in ("hand out", "close_loop", "close", "SIGKILL", "SIGKILL, looked for", "os._exit")
    for in_block in (False, True)
])
@pytest.mark.parametrize("way", ON_WAITING)
def test_try_of_a_waiting_task_counts_only_if_the_task_is_yielded(path, tracker, way, in_block, end):
    change, now, after, yielded = ON_WAITING[way]
    tracker.update([("first", {}), ("w", {"_tries": 3}), ("last", {})])
    tracker.sync()
    with Worker(path) as worker:
        assert worker.ask(take, 1, 3) == ["first"]
        assert shown(tracker) == 4
        if in_block:
            with tracker.locked():
                change(tracker)
                assert shown(tracker) == now
        else:
            change(tracker)
        assert shown(tracker) == now
        assert worker.ask(call, "tries", "w") == now
        if end == "hand out":
            assert ("w" in worker.ask(take, 9)) == (yielded is not None)
            assert shown(tracker) == (after if yielded is None else yielded)
            worker.end("close")
            assert shown(tracker) == (after if yielded is None else yielded)
        else:
            if end == "close_loop":
                worker.ask(close_loop)
                assert shown(tracker) == after
            worker.end("close" if end == "close_loop" else end.partition(",")[0])
            if "looked for" in end:
                tracker.release("first")
            elif end in ("SIGKILL", "os._exit"):
                # The process that is alone, or that looks for dead workers, takes the tries back.
                tracker.close()
                with SharedTracker(path) as again:
                    assert shown(again) == after
                return
            assert shown(tracker) == after
        tracker._check()


@pytest.mark.parametrize("way", ["release", "mark_not_done", "abort", "mark_done"])
def test_ending_a_claim_and_the_loop_agree_whether_the_task_was_yielded(path, tracker, way):
    """The two race at any moment. A try is counted if and only if its task was yielded."""
    tracker.add_many(range(400))

    def work(pipe):
        with SharedTracker(path) as mine:
            log = []
            for number in range(40):
                loop = mine.try_keys(batch=1 + number % 7)
                log += itertools.islice(loop, 1 + number % 30)
                loop.close()
            pipe.send(log)

    rng = random.Random(way)
    with Child(work) as child:
        while not child.pipe.poll():
            claims = tracker.claims()
            for key in rng.sample(list(claims), min(4, len(claims))):
                getattr(tracker, way)(key)
                if way == "abort":
                    tracker.unabort(key)
        counts = Counter(child.pipe.recv())
        assert child.wait() == 0
    assert tries(tracker) == [counts[key] for key in range(400)]


def test_threads_that_share_a_loop_agree_with_the_thread_that_ends_claims(path, tracker):
    tracker.add_many(range(600))

    def work(pipe):
        with SharedTracker(path) as mine:
            sys.setswitchinterval(1e-5)
            log = []
            for batch in range(2, 12):
                loop = mine.try_keys(batch=batch)
                with ThreadPoolExecutor(3) as pool:
                    found = pool.map(lambda _: list(itertools.islice(loop, 20)), range(3))  # noqa: B023
                    log += itertools.chain(*found)
                loop.close()
            pipe.send(log)

    with Child(work) as child:
        while not child.pipe.poll():
            for key in itertools.islice(tracker.claims(), 5, 12, 3):
                tracker.release(key)
        counts = Counter(child.pipe.recv())
        assert child.wait() == 0
    assert tries(tracker) == [counts[key] for key in range(600)]


def test_interrupt_while_a_batch_is_claimed_loses_no_try_and_no_task(tracker):
    """The keys of a batch are read after it was claimed, and that may wait for another thread."""
    tracker.add_many(range(6))
    loop = tracker.try_keys(batch=4)
    lock = tracker._store.lock
    held, end = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            end.wait()

    def interrupt(*_):
        end.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    thread = threading.Thread(target=hold)
    try:
        thread.start()
        held.wait()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            next(loop)
    finally:
        signal.signal(signal.SIGALRM, before)
        thread.join()
    assert list(loop) == list(range(6))
    assert tries(tracker) == [1] * 6
