"""Define the JSON that ``status``, ``watch`` and ``ls`` print with ``--json``: one schema for the three commands.

The table in ``docs/reference/command.md`` has the same rows as ``FIELDS``, and a test compares both with the output. A
field has one meaning and one type, whichever command prints it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tastypy_fast._inspect.claims import ActiveClaim
from tastypy_fast._inspect.statuses import TaskState
from tastypy_fast.cli.formatting import as_json, pair_as_json
from tastypy_fast.pipeline.worker import now_text
from tastypy_fast.types import StatusCounts

__all__ = ["FIELDS", "JSON_TYPES", "Field", "claim_object", "store_object", "task_line", "task_object"]

JSON_TYPES = {"integer": int, "number": (int, float), "string": str, "array": list, "object": dict, "null": type(None),
              "any": object}


class Field(NamedTuple):
    """A field: its name, with that of the object that has it, the commands that print it, and its type.

    ``types`` are names of ``JSON_TYPES``. A field that is ``optional`` may be missing. Those of trackers are missing
    for a dict.
    """

    name: str
    commands: tuple[str, ...]
    types: tuple[str, ...]
    meaning: str
    of_trackers: bool = True
    optional: bool = False


_BOTH = ("status", "watch")
_STATUS, _WATCH, _LS = ("status",), ("watch",), ("ls",)

FIELDS = (
    Field("path", _BOTH, ("string",), "the folder of the store, resolved", False),
    Field("kind", _BOTH, ("string",), '"tracker" or "dict"', False),
    Field("keys", _BOTH, ("integer",), "the number of keys. In a tracker it is the sum of the next six fields", False),
    Field("new", _BOTH, ("integer",), "tasks that were never tried"),
    Field("running", _BOTH, ("integer",), "tasks that a living process has claimed or is trying"),
    Field("to_retry", _BOTH, ("integer",), "tasks of which a try has failed, and that have tries left"),
    Field("failed", _BOTH, ("integer",), "tasks that have no tries left"),
    Field("aborted", _BOTH, ("integer",), "tasks that are aborted"),
    Field("done", _BOTH, ("integer",), "tasks that are done"),
    Field("max_tries", _BOTH, ("integer", "null"), "the limit of tries by which tasks count as failed. null: no limit"),
    Field("open.how", _BOTH, ("string",), 'how processes have the store open to write: "nobody", "private" or "shared"',
          False),
    Field("open.processes", _STATUS, ("array",), "the ids of these processes, as far as the system tells", False),
    Field("open.owner", _STATUS, ("string", "null"), "the process that has it open privately, with host and program",
          False),
    Field("durability", _STATUS, ("string", "null"), "the durability with which it was last opened to write", False),
    Field("format", _STATUS, ("integer",), "the format of the store on disk", False),
    Field("file_size", _STATUS, ("integer",), "the lines in each file of an export to a folder", False),
    Field("disk.bytes", _STATUS, ("integer",), "the size of all files, in bytes", False),
    Field("disk.free", _STATUS, ("integer",), "the unused part of the data file, in bytes", False),
    Field("errors", _STATUS, ("integer",), "tasks that are not done and have a kept error"),
    Field("last_run", _STATUS, ("object", "null"), "the last run: function, workers, begun, ended and reason. "
                                                      "The last two are null while it runs, and if it was killed"),
    Field("claims", _STATUS, ("array",), "the claimed tasks, as objects with the fields claims.*"),
    Field("per_second", _WATCH, ("number", "null"), "finished tasks a second in the last minute; in a dict, new keys",
          False),
    Field("seconds_left", _WATCH, ("number", "null"), "the time for the new, running and to retry tasks at this rate"),
    Field("failures", _WATCH, ("array",), "the latest failed tries, as objects with the fields failures.*"),
    Field("claims.key", _STATUS, ("any",), "the key; an array stands for a tuple"),
    Field("claims.status", _STATUS, ("string",), "the status of the task: one of the six words"),
    Field("claims.claim", _STATUS, ("object",), "the claim, as in ls"),
    Field("failures.key", _WATCH, ("any",), "the key; an array stands for a tuple"),
    Field("failures.status", _WATCH, ("string",), "the status of the task: one of the six words"),
    Field("failures.tries", _WATCH, ("integer",), "the number of tries"),
    Field("failures.error", _WATCH, ("string",), "the error of the last try in one line, empty if none is known"),
    Field("key", _LS, ("any",), "the key; an array stands for a tuple", False),
    Field("value", _LS, ("any",), "the value; for a task an object with _done, _aborted, _tries and its data", False),
    Field("status", _LS, ("string",), 'the status of the task: "new", "running", "to retry", "failed", "aborted" or '
                                      '"done"'),
    Field("claim", _LS, ("object",), "the claim of a living worker, if there is one", optional=True),
    Field("claim.process", _LS, ("integer",), "the id of the worker's process"),
    Field("claim.host", _LS, ("string",), "the name of its host"),
    Field("claim.since", _LS, ("string",), "when the task was claimed, in UTC, as in 2026-01-31T12:00:00.000Z"),
    Field("claim.state", _LS, ("string",), '"running", "waiting" or "unfinished"'),
)


def store_object(command: str, counts: StatusCounts | None, **facts: Any) -> dict[str, Any]:
    """Return the object that ``status`` or ``watch`` prints: the fields that ``FIELDS`` has for it, in that order.

    ``counts`` is None for a dict. ``facts`` has the other fields of the command.
    """
    given = facts if counts is None else {**facts, **counts._asdict(), "keys": counts.tasks}
    names = dict.fromkeys(field.name.partition(".")[0] for field in FIELDS
                          if command in field.commands and (counts is not None or not field.of_trackers))
    return {name: given[name] for name in names}


def task_object(key: Any, state: TaskState, **facts: Any) -> dict[str, Any]:
    """Return the object for a task in ``claims`` and ``failures``."""
    claim = {"claim": claim_object(state.claim)} if state.claim else {}
    return {"key": key, "status": state.status, **claim, **facts}


def task_line(key: Any, value: Any, state: TaskState | None) -> str:
    """Return the line that ``ls`` prints for a key, which ``import`` reads. ``state`` is None for a dict."""
    line = pair_as_json(key, value)
    if state is None:
        return line
    claim = f',"claim":{as_json(claim_object(state.claim))}' if state.claim else ""
    return f'{line[:-1]},"status":"{state.status}"{claim}}}'


def claim_object(claim: ActiveClaim) -> dict[str, Any]:
    """Return the object for a claim."""
    since = now_text(claim.since.timestamp())  # in the form of all other times
    return {"process": claim.process, "host": claim.host, "since": since, "state": claim.state}
