"""What all stores that several processes use at once have in common.

Every operation is visible to the other processes when it returns, and atomic. A dict has ``set_each``, ``get_each``,
``increment``, and for several changes at once ``set_many``, ``increment_locked``; a list of tasks has
``mark_done_each``, ``claim_done``, and ``mark_done_many``, ``claim_done_many``. A store that has no such thing lacks
the method, and is left out there. To make ready and to check there are ``fill`` or ``add``, which take batches,
``items``, ``get``, ``counter``, ``tally``, ``left``. An instance that is passed to another process is the same store
there.
"""

from __future__ import annotations

from collections.abc import Iterable

COUNTER = "n"
Blocks = Iterable[range]


class Shared:
    """What holds for all but the Manager."""

    def used_elsewhere(self) -> tuple[float, int]:
        """Seconds of processor time and bytes of anonymous memory that a server of this store has used."""
        return 0.0, 0
