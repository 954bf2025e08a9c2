"""Let many processes use one store: the writer lock, write transactions, the undo log and claims."""

from pkgutil import extend_path as _extend_path

# In a checkout, this adds the path of the installed package, which has the compiled modules.
__path__ = _extend_path(__path__, __name__)
