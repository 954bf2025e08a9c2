"""Register the stores that this process has open: share them between instances, save them at exit, prepare forks."""

from __future__ import annotations

import errno
import functools
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tastypy_fast._core import signal_wake
from tastypy_fast._core.interrupts import call_to_the_end
from tastypy_fast._core.locks import Lock
from tastypy_fast._core.write_cache import WriteCache
from tastypy_fast._paths import resolved
from tastypy_fast._store import shutdown
from tastypy_fast._store.background import BackgroundThread, run_due
from tastypy_fast._store.options import Options
from tastypy_fast._store.store import Store
from tastypy_fast.exceptions import NotLockedError, StorageError

__all__ = ["acquire", "finish", "release"]

T = TypeVar("T")

_registry: dict[str, Store] = {}
_registry_lock = threading.RLock()
_exiting = False


def _open_stores() -> list[Store]:
    return list(_registry.values())


_background = BackgroundThread(_open_stores)
# During a fork: the locks of threads that have ended inside a block.
_abandoned: list[Lock] = []

# How long a fork waits for one store while it holds the locks of others, in microseconds.
FORK_LOCK_TIMEOUT_US = 50_000
# How long the end of the program waits for the locked() block of another thread, in microseconds.
EXIT_LOCK_TIMEOUT_US = 30_000_000
# The same after a Ctrl-C at that time.
INTERRUPTED_LOCK_TIMEOUT_US = 5_000_000


def acquire(path: str | os.PathLike[str], options: Options, store_type: type[Store],
            make_cache: Callable[[Any], WriteCache], clone: bool) -> tuple[Any, WriteCache]:
    """Open a store as ``store_type``, or join the open instances on its path. Each call needs one ``release()``."""
    real = resolved(path)
    with _registry_lock:
        while True:
            store = _registry.get(real)
            if store is not None:
                for lost in [cache for cache in store.caches if cache.closed]:
                    # An interrupt came while this cache was closed.
                    _forget(store, lost)
                if not store.caches:
                    _let_go(store)
                    store = None
            if store is None:
                store = _registry[real] = store_type(real, options)
                shutdown.save_at_exit(_save_at_exit)
                store.save_at_exit = functools.partial(shutdown.save_at_exit, _save_at_exit)
                store.wake_background = _background.wake
                if options.mode == "w" and not _exiting:
                    shutdown.watch_signals(_end_by_signal, _background.wake)
            else:
                store.check_options(options)
            cache = store.shared_cache if clone else None
            if cache is None:
                cache = make_cache(store)
                cache.writes_through = _exiting
                store.caches[cache] = 0
                if clone:
                    store.shared_cache = cache
            # The garbage collector may have run at any line above. If it released the last instance, which was lost in
            # a reference cycle, the store is closed now. It does not run between this test and the count.
            if _registry.get(real) is store and cache in store.caches:
                store.caches[cache] += 1
                return store, cache


def release(store: Store, cache: WriteCache) -> None:
    """Release an instance. The last one syncs and closes the files. If that fails, it raises and stays open."""
    # The lock of blocks comes first, because a thread inside a block may open or close a store.
    with store.block_lock, _registry_lock:
        if store.caches.get(cache, 0) > 1:
            store.caches[cache] -= 1
            cache.update_schedule()
        else:
            # An interrupt may have ended an earlier call at any line, so that this is the second call.
            if not cache.closed:
                cache.finish()
            _forget(store, cache)
        if not store.caches:
            _let_go(store)


def _abandon(store: Store, cache: WriteCache) -> None:
    """Release an instance whose changes could not be saved.

    The cache stays registered, even without an instance. So another instance on the path finds the changes, saves or
    reverts them, and closes the files. Otherwise the exit of the process tries to save them.
    """
    with store.block_lock, _registry_lock:
        if store.caches.get(cache, 0) > 0:
            store.caches[cache] -= 1


def _forget(store: Store, cache: WriteCache) -> None:
    store.caches.pop(cache, None)
    if store.shared_cache is cache:
        store.shared_cache = None


def _let_go(store: Store) -> None:
    """Close a store that has no instance left."""
    store.close()
    if _registry.get(store.path) is store:
        del _registry[store.path]
    if not _registry:
        # In this order, because the thread still handles a signal that came before.
        shutdown.restore_signals()
        _background.end()


def finish(store: Store, cache: WriteCache) -> None:
    """Save and release an instance that was garbage collected without being closed."""

    locks = [lock for one in _registry.values() for lock in one.locks]

    def work() -> None:
        try:
            is_saved = _save(store, lambda: cache.sync(True))
        except KeyboardInterrupt as error:
            shutdown.report(store.path, error)
            is_saved = False
        if is_saved:
            release(store, cache)
        else:
            _abandon(store, cache)

    if not _postpone(work, locks):
        work()


def _postpone(work: Callable[[], object], locks: Iterable[Lock]) -> bool:
    """Postpone ``work`` to the release of a lock, if this thread holds one of ``locks``. Return whether it does.

    A thread that holds one is inside an operation. A signal handler or a finalizer that interrupts an operation can
    neither write nor wait.
    """
    for lock in locks:
        if lock.is_mine():
            lock.on_release = [*(lock.on_release or ()), work]
            return True
    return False


def _save(store: Store, work: Callable[[], object]) -> bool:
    """Call ``work`` to save a part of a store, and report an error instead of raising it. Return whether it was saved.

    An error of one store must not prevent the saving of the others.
    """
    try:
        work()
    except Exception as error:
        shutdown.report(store.path, error)
        return False
    return True


def _save_all(interrupted: bool, dying: bool = False) -> None:
    """Save all stores. If it was ``interrupted`` by Ctrl-C before, wait for no block of another thread or process."""
    with _registry_lock:
        stores = list(_registry.values())
    for store in stores:
        # Limit the wait, because a thread may stay in a locked() block of a private store for ever. A shared store has
        # another lock for blocks.
        is_private = store.block_lock is store.lock
        if is_private and not _save(store, functools.partial(_wait_for_block, store, interrupted)):
            continue
        try:
            for cache in list(store.caches):
                _save(store, functools.partial(cache.sync, True))
            _save(store, functools.partial(store.save, dying, not (dying or interrupted)))
        finally:
            if is_private:
                store.lock.release()


def _wait_for_block(store: Store, interrupted: bool) -> None:
    timeout = EXIT_LOCK_TIMEOUT_US
    if interrupted:
        timeout = min(timeout, INTERRUPTED_LOCK_TIMEOUT_US)
    if not store.lock.acquire_within(timeout):
        reason = "another thread is still in a block; changes since the last sync are not saved"
        raise StorageError(errno.EBUSY, reason, store.path)


def _save_at_exit(interrupted: bool) -> None:
    """Save all stores at exit, and write every later change at once.

    The files stay open, because functions of atexit that run later may still use a store. The system closes them.
    """
    global _exiting
    _exiting = True
    shutdown.take_over()
    _background.pause(EXIT_LOCK_TIMEOUT_US / 1e6)
    shutdown.raise_arrived()
    _save_all(interrupted)
    for store in list(_registry.values()):
        for cache in store.caches:
            cache.writes_through = True


def _end_by_signal(number: int) -> None:
    """Save all stores and end the process by a signal, after the operation that the signal has interrupted.

    The background thread calls this, too. It waits for the operation or block of another thread on a private store.
    This does not wait for a block of a shared store, which may take long. The block is not committed.
    """
    if not _postpone(functools.partial(_end_by_signal, number), [store.lock for store in _open_stores()]):
        try:
            call_to_the_end(functools.partial(_save_all, dying=True))
        finally:
            signal_wake.end_process(number)


def _before_fork() -> None:
    """Acquire all locks, so that no other thread is in a transaction, or opens or closes a store, during the fork.

    Signal handlers run while this waits. Their exceptions cannot prevent the fork. The first exception is raised when
    all locks are acquired, and Python reports it.
    """
    taken: list[Lock] = []
    raised: list[BaseException] = []
    _abandoned.clear()
    # A change that was made before the fork is synced now, because the thread starts again only with the next change.
    _uninterrupted(_background.pause, raised)
    _uninterrupted(functools.partial(run_due, _open_stores(), at_once=True), raised)
    while True:
        _uninterrupted(_registry_lock.acquire, raised)
        wanted = [store.block_lock for store in _registry.values()]
        missing = next((lock for lock in wanted if lock not in taken and lock not in _abandoned), None)
        if missing is None:
            break
        _registry_lock.release()
        if taken and not _uninterrupted(functools.partial(missing.acquire_within, FORK_LOCK_TIMEOUT_US), raised):
            # Release the other locks. The thread that holds the missing one may wait for one of them, which would be a
            # deadlock.
            for one in taken:
                one.release()
            taken = []
        if not taken:
            try:
                _uninterrupted(missing.acquire, raised)
            except NotLockedError:
                # The thread of this lock has ended inside a block, so no thread is in an operation of the store.
                _abandoned.append(missing)
                continue
        taken.append(missing)
    for lock in taken:
        if lock not in wanted:  # its store was closed meanwhile
            lock.release()
    for store in _registry.values():
        _uninterrupted(store.end_reading if store.lock in _abandoned else store.before_fork, raised)
    if raised:
        raise raised[0]


def _uninterrupted(wait: Callable[[], T], raised: list[BaseException]) -> T:
    """Return what ``wait`` returns. If a signal handler raises, append the exception to ``raised`` and wait again."""
    while True:
        try:
            return wait()
        except NotLockedError:
            raise
        except BaseException as error:
            raised.append(error)


def _after_fork_in_parent() -> None:
    for store in _registry.values():
        if store.lock not in _abandoned:
            store.after_fork_in_parent()
        if store.block_lock not in _abandoned:
            store.block_lock.release()
    _registry_lock.release()
    _background.resume()
    # Python warns of a fork beside a thread.
    shutdown.take_over()
    is_needed = shutdown.needs_thread()
    is_due = any(store.background_due() is not None for store in _registry.values())
    if is_needed or (is_due and threading.active_count() > 1):
        # A signal wakes the thread, or another thread has made a change since the syncs before the fork.
        _background.wake()
    elif is_due:
        # The program references values, which it may change without a call. Python counts the threads after this.
        signal_wake.call_soon(_background.wake)
    if not is_needed:
        shutdown.raise_arrived()


def _after_fork_in_child() -> None:
    global _registry_lock
    _registry_lock = threading.RLock()
    _background.reset_in_child()
    shutdown.watch_signals_in_child()
    abandoned = [store for store in _registry.values() if store.block_lock in _abandoned]
    for store in abandoned:
        store.leave_to_parent()
    for inherited in _registry.values():
        inherited.after_fork_in_child()
    for store in abandoned:
        store.close_for_good()
    shutdown.raise_arrived()


_background.on_signal = _end_by_signal
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
