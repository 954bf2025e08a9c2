"""Let many processes use one store: the writer lock, write transactions, the undo log and claims."""

from pkgutil import extend_path as _extend_path

# From a checkout, the compiled modules are found where the package is installed.
__path__ = _extend_path(__path__, __name__)
