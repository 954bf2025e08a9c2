from tastypy_fast._core.store_base cimport StoreBase

cdef class UndoLog:
    cdef StoreBase store

    cdef dict images(self)
