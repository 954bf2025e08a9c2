"""Encode what the driver and its worker processes send each other over a socket.

A frame is the length of its payload, in 8 bytes, and the payload. The driver sends chunks. A chunk is a pickled list of
tasks, each a tuple (key, number of the try), or with data the pickle of (key, number of the try, data). An empty frame
ends the worker. The first byte of a worker's payload says what it is: READY, NOT_STARTED, RESULTS or LOG. The rest is a
pickle.

Results are (seconds of the chunk, seconds of its last task, outcomes, whether the chunk has ended). While a long task
runs, the outcomes of the tasks before it are sent. At the end, tasks of the chunk without an outcome have not begun. An
outcome is None for a task that is done and returned nothing, bytes for one that is done with data, else a tuple. The
data stays a pickle of its own, so data that does not unpickle fails one task only.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any

from tastypy_fast.pipeline.worker import DONE, FAILED, Outcome, describe_error, encode_item

__all__ = [
    "HEADER",
    "LOG",
    "NOT_STARTED",
    "READY",
    "RESULTS",
    "FrameReader",
    "decode_outcome",
    "encode_results",
]

HEADER = struct.Struct("=Q")
READY, NOT_STARTED, RESULTS, LOG = b"+", b"!", b"=", b"l"

_DONE = Outcome(DONE)


class FrameReader:
    """Cuts a stream of bytes into the payloads of its frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that are complete with ``data``."""
        buffer = self._buffer
        if not buffer and len(data) >= 8 and len(data) == 8 + HEADER.unpack_from(data)[0]:
            return [data[8:]]
        buffer += data
        payloads = []
        start = 0
        with memoryview(buffer) as view:
            while len(buffer) - start >= 8:
                end = start + 8 + HEADER.unpack_from(buffer, start)[0]
                if len(buffer) < end:
                    break
                payloads.append(bytes(view[start + 8:end]))
                start = end
        del buffer[:start]
        return payloads


def encode_results(outcomes: Sequence[Outcome], seconds: float, last: float, is_end: bool = True) -> bytes:
    """Return the payload with outcomes of a chunk. An outcome that cannot be sent becomes a failure."""
    items = [encode_item(outcome) for outcome in outcomes]
    try:
        return RESULTS + pickle.dumps((seconds, last, items, is_end), 5)
    except Exception:
        return RESULTS + pickle.dumps((seconds, last, [_sendable(item) for item in items], is_end), 5)


def _sendable(item: Any) -> Any:
    try:
        pickle.dumps(item, 5)
    except Exception as error:
        return tuple(Outcome(FAILED, None, describe_error(error)))
    return item


def decode_outcome(item: Any) -> Outcome:
    """Return the outcome that an item of the results stands for."""
    if item is None:
        return _DONE
    if type(item) is bytes:
        return Outcome(DONE, item)
    return Outcome(*item)
