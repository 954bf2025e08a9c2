"""Run a function on every task of a tracker: ``tracker.run()``.

This package works on the methods that all trackers have. ``runner`` has the loop. ``task_source`` takes tasks from the
tracker, and ``result_recorder`` commits what became of them. ``worker_pool``, ``in_process`` and ``futures_executor``
run them, by ``worker``.
"""

from tastypy_fast.pipeline.report import RunReport
from tastypy_fast.pipeline.worker import Abort, CurrentTask, Retry, TaskResult, current_task

__all__ = ["Abort", "CurrentTask", "Retry", "RunReport", "TaskResult", "current_task"]
