"""Number what ``_finish_many()`` of a tracker does with a task. ``_core.task_cache`` has the same numbers.

DONE          mix data into the task, remove ``_error``, mark the task done, end the claim
FAILED        keep an error, end the claim; the try stays counted
ABORTED       keep an error, mark the task aborted, end the claim
RETRY         keep an error; the claim stays, because the same queue tries the task again later
POSTPONED     keep an error, subtract the try; the claim stays
GIVEN_BACK    keep an error, subtract the try, end the claim
"""

__all__ = ["ABORTED", "DONE", "FAILED", "GIVEN_BACK", "POSTPONED", "RETRY"]

DONE, FAILED, ABORTED, RETRY, POSTPONED, GIVEN_BACK = range(6)
