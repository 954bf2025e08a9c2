"""LMDB and the files of a store: opening, locking, validating. This package knows pages, but no records."""


from pkgutil import extend_path as _extend_path

# From a checkout, the compiled modules are found where the package is installed.
__path__ = _extend_path(__path__, __name__)
