"""Open, lock and validate LMDB and the files of a store. This package knows pages, but no records."""


from pkgutil import extend_path as _extend_path

# In a checkout, this adds the path of the installed package, which has the compiled modules.
__path__ = _extend_path(__path__, __name__)
