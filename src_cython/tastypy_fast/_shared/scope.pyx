"""``with store.locked():`` and ``with store.transaction():``, the blocks of operations on a shared store."""

cimport cython

from tastypy_fast._shared.write_transaction cimport WriteTransaction

from tastypy_fast.exceptions import NotLockedError

__all__ = ["TransactionContext"]


@cython.final
cdef class TransactionContext:
    """``with Scope(...):`` a block of operations on a store, ``kind`` as Transaction has them."""

    cdef WriteTransaction transaction
    cdef object store
    cdef int kind
    # As often as it was entered: in which incarnation, and as the how-manieth scope.
    cdef list entered

    def __init__(self, WriteTransaction transaction not None, int kind, store):
        self.transaction = transaction
        self.kind = kind
        self.store = store
        self.entered = []

    def __enter__(self):
        self.transaction.begin_block(self.kind)
        self.entered.append((self.transaction.epoch, len(self.transaction.scopes)))
        return self.store

    def __exit__(self, kind, error, traceback):
        cdef WriteTransaction transaction = self.transaction
        cdef bint is_inner
        if not self.entered:
            raise NotLockedError("the end of a block that was not begun")
        epoch, depth = self.entered[len(self.entered) - 1]
        if epoch == transaction.epoch and not transaction.lock.is_mine():
            # (the thread that has the lock can still end it)
            raise NotLockedError("a block belongs to the thread that began it, which has to end it; this is another "
                                 "one (of a generator that was closed or collected here, perhaps)")
        self.entered.pop()
        # A child that was forked inside of the block has no part in it, and close() has ended it.
        if epoch == transaction.epoch:
            is_inner = depth == len(transaction.scopes)
            if not is_inner:
                transaction.poison()
                failure = transaction.failure
            transaction.end_user_block(error is not None)
            if not is_inner and error is None:
                raise transaction.store.aborted_earlier(failure)
