from typing import final

from tastypy_fast._core.task_cache import TaskCache

__all__ = ["TrackerCache"]

@final
class TrackerCache(TaskCache): ...
