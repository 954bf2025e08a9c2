from tastypy_fast._cache import Cache

__all__ = ["TrackerCache"]

class TrackerCache(Cache): ...
