"""Switch the default of ``sync_every`` off, so that a test decides when its store is synced.

The root conftest.py imports this, and so do the programs that tests start. Tests of sync_every pass it themselves.
"""

from tastypy_fast import PersistentOrderedDict, ProgressTracker

# The first line of a program that a test starts.
PRELUDE = f"import {__name__}\n"

for private in (PersistentOrderedDict, ProgressTracker):
    private.__init__.__kwdefaults__["sync_every"] = None
