"""Run a function on every task of a tracker: ``tracker.run()``.

This package works on the methods that all trackers have. ``runner`` has the loop. ``task_source`` takes tasks from the
tracker, and ``result_recorder`` commits what became of them. ``worker_pool``, ``in_process`` and ``futures_executor``
run them, by ``worker``.
"""

from typing import TYPE_CHECKING, Any

from tastypy_fast.pipeline.report import RunReport

if TYPE_CHECKING:
    from tastypy_fast.pipeline.worker import Abort, CurrentTask, Retry, TaskResult, current_task

__all__ = ["Abort", "CurrentTask", "Retry", "RunReport", "TaskResult", "current_task"]


def __getattr__(name: str) -> Any:
    # Imported at the first use, because most programs that import the package never call run().
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tastypy_fast.pipeline import worker

    return getattr(worker, name)
