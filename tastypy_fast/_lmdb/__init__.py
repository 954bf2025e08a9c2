"""The storage engine and its files. Knows pages, locks and transactions, but nothing of records."""


from pkgutil import extend_path as _extend_path

# From a checkout, the compiled modules are found where the package is installed.
__path__ = _extend_path(__path__, __name__)
