"""Send the log records of worker processes to the driver, whose handlers have the files and the terminal."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ForwardingHandler", "handle_record", "levels_in_use", "redirect_logging"]

# What every record has. Other attributes come from ``extra=`` and from filters.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "task_key"}
_PLAIN = (str, int, float, bool, type(None))


class ForwardingHandler(logging.Handler):
    """Sends records with ``send()``, each with the key of the task in progress as its attribute ``task_key``.

    A forked child of a task calls ``stop()``. Its records then go to the handler of last resort, because the socket
    belongs to the worker.
    """

    def __init__(self, send: Callable[[bytes], object], task_key: Callable[[], Any]) -> None:
        super().__init__()
        self._send: Callable[[bytes], object] | None = send
        self._task_key = task_key
        self._exceptions = logging.Formatter()

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit a record without the handler's lock, because ``send()`` has its own.

        So a thread that logs while it sends another record does not wait for itself.
        """
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record. Arguments and exceptions become text, so that nothing of them has to be unpickled."""
        send = self._send
        try:
            if send is not None:
                send(self._encode(record))
            elif logging.lastResort is not None and record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)
        except Exception:
            self.handleError(record)

    def _encode(self, record: logging.LogRecord) -> bytes:
        fields = dict(vars(record))
        fields["msg"], fields["args"] = record.getMessage(), None
        if record.exc_info:
            fields["exc_text"] = record.exc_text or self._exceptions.formatException(record.exc_info)
            fields["exc_info"] = None
        fields["task_key"] = self._task_key()
        more = {name: _sendable(fields.pop(name)) for name in fields.keys() - _STANDARD}
        return pickle.dumps((fields, pickle.dumps(more, 5) if more else None), 5)

    def stop(self) -> None:
        """Send nothing any more."""
        self._send = None


def _sendable(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    try:
        pickle.dumps(value, 5)
    except Exception:
        return repr(value)
    return value


def handle_record(payload: memoryview) -> None:
    """Handle a record of a worker with the logger of its name in this process, at this process's level."""
    fields, more = pickle.loads(payload)
    if more is not None:
        try:
            fields.update(pickle.loads(more))
        except Exception as error:
            fields["unreadable"] = repr(error)
    record = logging.makeLogRecord(fields)
    logger = logging.getLogger(record.name)
    try:
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    except Exception:
        # A filter of the program. An error in it does not end the run.
        if logging.raiseExceptions:
            traceback.print_exc()


def levels_in_use() -> dict[str | None, int]:
    """Return the levels of this process's loggers: by name, and of ``logging.disable()`` for None."""
    levels: dict[str | None, int] = {None: logging.root.manager.disable, "root": logging.root.level}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            levels[name] = logger.level
    return levels


def redirect_logging(handler: logging.Handler, levels: Mapping[str | None, int] | None) -> None:
    """Make ``handler`` the only one of this process, for the records of all loggers.

    Inherited handlers are neither closed nor flushed, because their files belong to the driver. ``levels`` are those
    of the driver; None leaves the levels as they are.
    """
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True
    logging.root.handlers[:] = [handler]
    for name, level in (levels or {}).items():
        if name is None:
            logging.disable(level)
        else:
            logging.getLogger(name).setLevel(level)
