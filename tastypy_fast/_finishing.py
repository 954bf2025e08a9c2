"""Name what ``_finish_many()`` of a tracker does with a task. ``_core.task_cache`` has the same numbers.

DONE          mix data into the task, remove ``_error``, mark the task done, end the claim
FAILED        keep an error, end the claim
ABORTED       keep an error, mark the task aborted, end the claim
RETRY         keep an error; the claim stays, because the same queue tries the task again later
POSTPONED     keep an error; this was no try, and the claim stays
GIVEN_BACK    keep an error; this was no try, and the claim ends
RELEASED      end the claim of a task that waited for its next try

A private tracker counts a try with the first four. A shared one has counted it with the claim, and subtracts it with
POSTPONED and GIVEN_BACK.
"""

__all__ = ["ABORTED", "DONE", "FAILED", "GIVEN_BACK", "POSTPONED", "RELEASED", "RETRY"]

DONE, FAILED, ABORTED, RETRY, POSTPONED, GIVEN_BACK, RELEASED = range(7)
