"""The interface of the stores that several processes use at once.

Every operation is atomic, and visible to the other processes when it returns. A dict has ``set_each``, ``get_each`` and
``increment``, and for several changes at once ``set_many`` and ``increment_locked``. A list of tasks has
``mark_done_each`` and ``claim_done``, and for several changes at once ``mark_done_many`` and ``claim_done_many``.

A store that cannot do something lacks the method, and the workloads that need it skip the store. To prepare and verify
there are ``fill`` or ``add`` (with batches), ``items``, ``get``, ``counter``, ``verified_counts`` and ``remaining``. An
instance that is pickled for another process opens the same store there.
"""

from __future__ import annotations

from collections.abc import Iterable

COUNTER = "n"
Blocks = Iterable[range]


class Shared:
    """A store without a server process."""

    def server_usage(self) -> tuple[float, int]:
        """Return the processor seconds and the bytes of anonymous memory that the server of the store has used."""
        return 0.0, 0

    def sync(self) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        """Have everything on the disk that was committed: by ``sync()``, or by SQLite's checkpoint."""
        self.sync()
