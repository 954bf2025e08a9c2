"""Encode keys and records, and hold one store's changes in memory until they are written."""

from pkgutil import extend_path as _extend_path

# In a checkout, this adds the path of the installed package, which has the compiled modules.
__path__ = _extend_path(__path__, __name__)
