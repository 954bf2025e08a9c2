"""Open disks and check them, in a process that may crash. ``Checker`` is the side that gives it the disks.

The process is recorded, too, so that the power can fail again while it opens a disk.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import shutil
import sys
import traceback
from pathlib import Path
from random import Random
from typing import Any

from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker
from tastypy_fast._lmdb.page_check import find_page_faults
from tastypy_fast.maintenance._verify import verify_store
from tests.power_cuts.disk_model import write_image
from tests.power_cuts.history import digest, item_digest
from tests.power_cuts.recorder import Event, mark, read_events
from tests.power_cuts.server import Server, serve

__all__ = ["Checker"]

# The function that returns the identity of the machine's present boot. It is replaced here, because a power cut is
# followed by another boot.
BOOT = ("tastypy_fast._lmdb.boot_id", "boot_id")


class Checker:
    """A process that checks disks, one after another. It is started again when it has crashed."""

    def __init__(self, shim: Path, folder: Path) -> None:
        self.folder = folder / "disk"
        self._log = folder / "log"
        self._server = Server("tests.power_cuts.checker", shim, self.folder, self._log)
        self._boots = itertools.count()

    def write(self, image: dict[str, bytes | None]) -> None:
        """Make the files of a disk. ``folder`` is its root."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        write_image(image, self.folder)

    def check(self, kind: str, level: str, *, is_shared: bool = False, same_boot: bool = False,
              reader_first: bool = False) -> dict[str, Any]:
        """Check the disk, and return what was found."""
        self._log.touch()
        os.truncate(self._log, 0)
        return self._server.ask({
            "path": str(self.folder / "store"), "kind": kind, "level": level, "is_shared": is_shared,
            "reader_first": reader_first,
            "boot": None if same_boot else next(self._boots),
        })

    def opening(self) -> list[Event]:
        """Return what the last check has done to the disk until the store was open."""
        events = read_events(self._log)
        return events[: next((at for at, event in enumerate(events) if event.words == ["opened"]), len(events))]

    def close(self) -> None:
        """End the process."""
        self._server.close()


# The process


def check(job: dict[str, Any]) -> dict[str, Any]:
    """Open a store, compare it with itself, write to it, and verify it."""
    path, kind, level = job["path"], job["kind"], job["level"]
    private = POD if kind == "pod" else Tracker
    cls = {POD: SharedPOD, Tracker: SharedTracker}[private] if job["is_shared"] else private
    set_boot(job["boot"])
    found: dict[str, Any] = {"stage": "open"}
    try:
        if job["reader_first"]:
            found.update(read_only(path, kind, private))
        with contextlib.closing(cls(path, durability=level)) as store:
            mark("opened")
            found["stage"] = "read"
            # (Another descriptor of the data file may be closed here, because no other process has the store open.)
            faults = find_page_faults(os.path.join(path, "data.mdb"))[1]
            assert not faults, faults[:3]
            store._check()
            found["contents"] = contents(store, kind)
            found["stage"] = "go on"
            go_on(store, kind)
            store._check()
        found["stage"] = "verify"
        faults = list(itertools.islice(verify_store(path), 3))
        assert not faults, faults
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"[:500]
        print(traceback.format_exc(), file=sys.stderr)
    return found


def read_only(path: str, kind: str, cls: Any) -> dict[str, Any]:
    """Read the store with mode="r". Return its content, or why it cannot be read."""
    try:
        with contextlib.closing(cls(path, mode="r")) as store:
            return {"reader_contents": contents(store, kind)}
    except Exception as error:
        return {"reader_error": f"{type(error).__name__}: {error}"[:500]}


def contents(store: Any, kind: str) -> dict[str, Any]:
    """Return what ``History`` compares."""
    if kind == "pod":
        return {"0": digest(item_digest(key, value) for key, value in store.items())}
    items = [(key, dict(value)) for key, value in store.items()]
    if kind == "tracker":
        return {"0": digest(item_digest(*item) for item in items)}
    pool = [item for item in items if isinstance(item[0], int)]
    own = [item for item in items if not isinstance(item[0], int)]
    done = [key for key, value in pool if value["_done"]]
    return {
        **{worker: digest(item_digest(*item) for item in own if item[0].startswith(worker)) for worker in "01"},
        "pool": {
            "count": len(pool),
            "done": done,
            "odd": [key for key, value in pool if value["_done"] and value.get("r") != key * 2],
        },
    }


def go_on(store: Any, kind: str) -> None:
    """Use pages that are free, and free some more."""
    new = [f"new{number}" for number in range(60)]
    if kind == "pod":
        store.update(dict.fromkeys(new, "n" * 300))
    else:
        store.add_many(new)
    store.sync()
    for key in dict.fromkeys([*itertools.islice(store.iterkeys(), 20), *new[:20]]):
        del store[key]
    store.sync()
    if kind == "pod":
        store.update(dict.fromkeys(new[:10], "m" * 5000))
    else:
        store.add_many(f"newer{number}" for number in range(30))
    store.sync()
    assert new[-1] in store


def set_boot(number: int | None) -> None:
    """Let the machine have another boot, as far as this process sees."""
    try:
        module = importlib.import_module(BOOT[0])
    except ModuleNotFoundError:
        return  # nothing asks for it
    if not hasattr(module, "_real_boot_id"):
        module._real_boot_id = getattr(module, BOOT[1])
    real = module._real_boot_id()
    setattr(module, BOOT[1], module._real_boot_id if number is None else lambda: _another(real, number))


def _another(real: Any, number: int) -> Any:
    """Return another value of the same type and size."""
    rng = Random(number)
    if isinstance(real, bytes):
        return rng.randbytes(len(real))
    if isinstance(real, str):
        digits = "0123456789abcdef"
        return "".join(rng.choice(digits) if digit in digits else digit for digit in real)
    return real  # None: the system does not tell


if __name__ == "__main__":
    serve(check)
