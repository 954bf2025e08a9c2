from typing import final

from tastypy_fast._taskcache import TaskCache

__all__ = ["TrackerCache"]

@final
class TrackerCache(TaskCache): ...
