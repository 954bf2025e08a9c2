"""What a function returns or raises becomes an outcome; a chunk ends in time; frames and chunk sizes."""

from __future__ import annotations

import ast
import asyncio
import pickle
import sys
import threading
from pathlib import Path

import pytest

from tastypy_fast.pipeline import Abort, Retry, TaskResult, current_task, wire, worker
from tastypy_fast.pipeline.chunk_size import MAX_TASKS, ChunkSize
from tastypy_fast.pipeline.worker import (
    ABORTED,
    DONE,
    FAILED,
    MAX_MESSAGE,
    MAX_TRACEBACK,
    RETRY,
    Outcome,
    TaskFunction,
    describe_error,
    outcome_of,
    run_chunk,
)

TASK = ("key", 2, None)


def raising(error):
    def function(key):
        raise error

    return function


def both(function, **options):
    """The outcome of a function, as a plain one and as a coroutine function. They must be the same."""

    async def coroutine(*arguments):
        return function(*arguments)

    plain = TaskFunction(function, **options)(TASK, 1)
    awaited = asyncio.run(TaskFunction(coroutine, **options).run_async(TASK, 1))
    for outcome in (plain, awaited):
        if outcome.error:
            outcome.error.pop("at")
            outcome.error.pop("seconds")
            outcome.error.pop("traceback", None)
    assert plain == awaited
    return plain


def test_worker_imports_the_standard_library_only():
    tree = ast.parse(Path(worker.__file__).read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in modules} <= sys.stdlib_module_names


@pytest.mark.parametrize(("result", "data"), [
    ({"a": 1}, ({"a": 1}, None)), (3, ({"result": 3}, None)), ({}, ({}, None)), (False, ({"result": False}, None)),
    (TaskResult(), (None, None)), (TaskResult(add="ab"), (None, ["a", "b"])),
    (TaskResult({"a": 1}, add=[1]), ({"a": 1}, [1])), (TaskResult(3), ({"result": 3}, None)),
])
def test_result_becomes_data(result, data):
    outcome = both(lambda key: result)
    assert outcome.kind == DONE
    assert pickle.loads(outcome.data) == data


def test_nothing_is_returned():
    assert both(lambda key: None) == Outcome(DONE)


def test_result_that_cannot_be_sent_is_a_failure():
    assert both(lambda key: threading.Lock()).kind == FAILED


def test_result_above_the_limit_is_a_failure(monkeypatch):
    monkeypatch.setattr(worker, "MAX_RESULT", 1000)
    outcome = outcome_of("x" * 1000)
    assert outcome.kind == FAILED
    assert outcome.error["type"] == "ResultTooLarge"
    assert "the limit is 1,000" in outcome.error["message"]
    assert outcome_of("x" * 900).kind == DONE


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), GeneratorExit(), asyncio.CancelledError("x")])
def test_every_exception_is_a_failure(error):
    outcome = both(raising(error))
    assert outcome.kind == FAILED
    assert outcome.error["message"] == str(error)


def test_keyboard_interrupt_goes_through_a_plain_call():
    with pytest.raises(KeyboardInterrupt):
        TaskFunction(raising(KeyboardInterrupt()))(TASK, 0)
    assert asyncio.run(TaskFunction(raising(KeyboardInterrupt())).run_async(TASK, 0)).kind == FAILED


def test_abort_and_retry():
    assert both(raising(Abort("gone"))) == Outcome(ABORTED, None, {"type": "Abort", "message": "gone"})
    retry = both(raising(Retry(after=3)))
    assert retry == Outcome(RETRY, None, {"type": "Retry", "message": "the task asked to be tried again"}, 3.0, False)
    assert both(raising(Retry(count=True, reason="busy")))[2:] == ({"type": "Retry", "message": "busy"}, None, True)
    for bad in (-1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="seconds"):
            Retry(after=bad)


def test_classes_in_abort_on_abort():
    assert both(raising(KeyError(1)), abort_on=(LookupError,)).kind == ABORTED
    assert both(raising(ValueError(1)), abort_on=(LookupError,)).kind == FAILED


def test_traceback_begins_with_the_function():
    text = TaskFunction(raising(ValueError("x")))(TASK, 0).error["traceback"]
    assert "tastypy_fast/pipeline/worker.py" not in text
    assert 'raise error\nValueError: x\n' in text
    long = describe_error(ValueError("x" * 3 * MAX_TRACEBACK))
    assert len(long["message"]) <= MAX_MESSAGE
    assert len(long["traceback"]) <= MAX_TRACEBACK


def test_error_without_a_text_is_described():
    class Mute(Exception):
        def __str__(self):
            raise LookupError

    assert describe_error(Mute())["message"] == "<str() of the error raised LookupError>"
    assert describe_error(ValueError("\ud800"))["message"] == "\\ud800"
    assert describe_error("a text")["type"] == "Error"


def test_current_task():
    seen = []
    both(lambda key: seen.append(current_task()))
    assert seen == [("key", 2, 1, None)] * 2
    with pytest.raises(RuntimeError, match="no task is running here"):
        current_task()


def test_data_is_passed_on():
    task = ("key", 1, {"a": 1})
    assert pickle.loads(TaskFunction(lambda key, data: data, True)(task, 0).data) == ({"a": 1}, None)


# Chunks

TASKS = [(number, 1, None) for number in range(10)]


def test_chunk_has_an_outcome_for_each_task():
    begun = []
    outcomes = run_chunk(TaskFunction(lambda key: key), TASKS, 0, lambda index, now: begun.append(index))
    assert [pickle.loads(outcome.data)[0]["result"] for outcome in outcomes] == list(range(10)) == begun


def test_chunk_ends_when_its_time_is_up(monkeypatch):
    now = iter([0.0, *(number * 0.06 for number in range(1, 100))])
    monkeypatch.setattr(worker.time, "monotonic", lambda: next(now))
    assert len(run_chunk(lambda task, slot: Outcome(DONE), TASKS)) == 4


def test_chunk_ends_with_many_bytes_of_results(monkeypatch):
    monkeypatch.setattr(worker, "CHUNK_BYTES", 250)
    assert len(run_chunk(TaskFunction(lambda key: "x" * 100), TASKS)) == 2


def test_chunk_ends_before_a_task_that_must_not_begin():
    assert len(run_chunk(TaskFunction(lambda key: None), TASKS, 0, lambda index, now: index < 4)) == 4


def test_first_task_of_a_chunk_always_begins(monkeypatch):
    monkeypatch.setattr(worker, "CHUNK_SECONDS", 0)
    monkeypatch.setattr(worker, "CHUNK_BYTES", 0)
    assert len(run_chunk(TaskFunction(lambda key: None), TASKS)) == 1


# Frames


def test_frames_are_cut_from_any_pieces():
    payloads = [b"", b"one", b"x" * 1000, b"two", b""]
    stream = b"".join(wire.HEADER.pack(len(payload)) + payload for payload in payloads)
    for size in (1, 2, 7, 8, 9, 100, 5000):
        reader = wire.FrameReader()
        found = [payload for at in range(0, len(stream), size) for payload in reader.feed(stream[at:at + size])]
        assert found == payloads


def test_outcomes_survive_the_wire():
    outcomes = [Outcome(DONE), Outcome(DONE, b"data"), Outcome(FAILED, None, {"type": "x"}),
                Outcome(RETRY, None, {}, 3.0, False)]
    payload = wire.encode_results(outcomes, 1.5, 0.5)
    assert payload[:1] == wire.RESULTS
    seconds, last, items, is_end = pickle.loads(payload[1:])
    assert is_end
    assert (seconds, last) == (1.5, 0.5)
    assert [wire.decode_outcome(item) for item in items] == outcomes
    assert items[:2] == [None, b"data"]
    assert type(items[2]) is tuple


# Sizes of chunks


def test_size_of_chunks_follows_the_time_of_tasks():
    size = ChunkSize()
    assert (size.tasks, size.chunks) == (1, 1)
    size.learn(1, 1, 1e-5, 1e-5)
    assert (size.tasks, size.chunks) == (MAX_TASKS, 2)
    # A slow task at the end of a chunk makes the next chunk small at once.
    size.learn(1000, 300, 0.5, 0.5)
    assert (size.tasks, size.chunks) == (1, 1)
    for _ in range(60):
        size.learn(size.tasks, size.tasks, size.tasks * 1e-4, 1e-4)
    assert 500 < size.tasks <= 1000
    size.learn(size.tasks, 0, 0.0, 0.0)
    assert size.tasks > 500


def test_size_of_chunks_follows_the_number_that_fits():
    size = ChunkSize()
    size.learn(1, 1, 1e-4, 1e-4)
    # Large results: the chunk ended after four tasks, and not because of its time.
    size.learn(1000, 4, 4e-4, 1e-4)
    assert size.tasks == 4
    size.learn(4, 4, 4e-4, 1e-4)
    assert size.tasks == 8


def test_size_of_chunks_follows_the_size_of_data():
    size = ChunkSize()
    size.learn(1, 1, 1e-5, 1e-5)
    size.learn_bytes(300_000)
    assert size.tasks == 3
    size.learn_bytes(3_000_000)
    assert size.tasks == 1
    for _ in range(50):
        size.learn_bytes(100)
    assert size.tasks == 1000
