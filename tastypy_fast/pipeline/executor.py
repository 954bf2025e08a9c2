"""Define what the runner needs of an executor: the thing that runs tasks, in processes, threads or elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from tastypy_fast.pipeline.worker import Outcome

__all__ = ["NOT_BEGUN", "Event", "Task", "TaskExecutor"]


class Task:
    """A task on its way: its key, the number of this try, its data (``with_data``), and the retries of this run."""

    __slots__ = ("data", "key", "retries", "tries")

    def __init__(self, key: Any, tries: int, data: dict[str, Any] | None = None, retries: int = 0) -> None:
        self.key = key
        self.tries = tries
        self.data = data
        self.retries = retries

    def __repr__(self) -> str:
        return f"<Task {self.key!r}, try {self.tries}>"


class Event(NamedTuple):
    """What an executor reports of one task. ``outcome`` is NOT_BEGUN (None) if the task is given back."""

    task: Task
    outcome: Outcome | None


# The executor gives a task back that has not begun, or whose result was lost with its worker through no fault of its
# own. It has to be put again, and its try is not counted twice.
NOT_BEGUN = None


class TaskExecutor(ABC):
    """Runs tasks. All methods are called by one thread, the one of ``tracker.run()``.

    ``workers`` is the number of workers, and ``workers_lost`` how many died before they were asked to.
    """

    workers: int
    workers_lost = 0
    # Whether tasks run in this process, so that a task that kills its process kills the program.
    in_process = False
    # Whether tasks may wait at a worker. Otherwise each begins at once, because its try counted when it was taken.
    prefetch = True
    # Whether a task runs in the thread of ``step()`` now, so that Ctrl-C must end it.
    in_task = False

    @abstractmethod
    def start(self) -> None:
        """Start the workers. Raises WorkerStartError if that is impossible."""

    @abstractmethod
    def room(self) -> int:
        """Return how many tasks the next ``put()`` should have; 0 while every worker has enough, or none is ready."""

    @abstractmethod
    def put(self, tasks: list[Task]) -> None:
        """Give tasks, at most ``room()`` of them, to a worker."""

    @abstractmethod
    def step(self, seconds: float) -> list[Event]:
        """Wait at most this long for news, and return them.

        It returns early, perhaps with nothing, when something has happened: also when a signal has arrived, or
        ``wakeup`` can be read. Raises WorkerStartError if the workers cannot start.
        """

    @abstractmethod
    def is_busy(self) -> bool:
        """Return whether any task was put whose event has not been returned."""

    @abstractmethod
    def kill(self) -> list[Task]:
        """End all workers and what they have started, at once. Returns the tasks without an event."""

    @abstractmethod
    def close(self) -> None:
        """End the workers, none of which has a task."""

    def begin_no_more(self) -> None:  # noqa: B027 - only saves time
        """Give back the tasks that have not begun, as far as that is possible, because the run is about to end.

        Their events come from ``step()``. No more tasks are put after it.
        """

    def suspend(self) -> None:  # noqa: B027 - only processes of their own have to be stopped
        """Stop the workers, because the program is about to be stopped (Ctrl-Z)."""

    def resume(self, seconds: float) -> None:  # noqa: B027
        """Let the workers go on. ``seconds`` were spent in between, which is not time of the tasks."""
