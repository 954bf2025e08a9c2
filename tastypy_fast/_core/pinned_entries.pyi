from typing import final

__all__ = ["PinnedEntries"]

@final
class PinnedEntries: ...
