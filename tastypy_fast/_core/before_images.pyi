from typing import final

__all__ = ["BeforeImages"]

@final
class BeforeImages:
    def __new__(cls, path: str, create: bool) -> BeforeImages: ...
    def close(self) -> None: ...
