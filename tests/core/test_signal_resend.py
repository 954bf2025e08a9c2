"""A signal that comes just before a system call waits is sent again until Python handles it."""

from __future__ import annotations

import signal
import sys

import pytest

from tastypy_fast import POD, Tracker
from tests.support.children import run
from tests.support.endings import kinds

pytestmark = [
    pytest.mark.all_classes,
    pytest.mark.with_log,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no timers that send a signal of one's own choice")
@kinds
@pytest.mark.parametrize("fork", ["", "if os.fork(): sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_that_does_not_end_a_wait_is_repeated(tmp_path, begin, fork, number):
    """A signal just before a call that waits is only noted. Where another thread gets it, that is certain to happen."""
    status, _, errors = run(
        f"""{begin}
{fork}
signal_this_thread = lambda: signal.pthread_kill(threading.get_ident(), {int(number)})
threading.Thread(target=signal_this_thread).start()
threading.Event().wait()
""",
        tmp_path,
    )
    assert (status, errors) == (-number if not fork else 256 - number, "")
    with POD(tmp_path / "pod") as pod, Tracker(tmp_path / "tracker") as tracker:
        assert pod["list"] == [1]
        assert tracker.done("task")
