"""The files of a store: links and pipes, closed descriptors, removed lock files, rights, limits, replaced files."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import stat
import subprocess
import sys

import lmdb
import pytest

from tastypy_fast import (
    POD,
    NewerFormatError,
    NotAStoreError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    SharedPOD,
    SharedTracker,
    StorageError,
    StoreAccessError,
    StoreInUseError,
    StoreNotFoundError,
    Tracker,
    UnsafeFileError,
    maintenance,
)
from tastypy_fast._lmdb import engine
from tests.children import Child, outcome_of, run

pytestmark = [pytest.mark.all_classes, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]

KEPT = b"a file of the user's\n" * 400


def reader_class(cls):
    """The class that reads with mode="r" what ``cls`` writes."""
    return Tracker if issubclass(cls, (Tracker, SharedTracker)) else POD


def made(cls, path, count=3):
    with cls(path, init={key: {"n": number} for number, key in enumerate("abcdefgh"[:count])}) as store:
        if isinstance(store, SharedTracker):
            assert next(store.try_keys()) == "a"  # so that there is a worker's file


def contents(path, cls):
    with reader_class(cls)(path, mode="r") as store:
        return {key: value["n"] for key, value in store.items()}


# Links, pipes and other odd files

# How each file of a store is replaced by something that leads elsewhere or makes one wait.
FILES = ["data.mdb", "lock.mdb", "owner.lock", "turn.lock", "workers", "workers/0", "data.compacted"]


ODD = {
    "link": lambda name: name.symlink_to(kept_beside(name)),
    "dangling link": lambda name: name.symlink_to("nowhere"),
    "pipe": os.mkfifo,
    "device": lambda name: os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(1, 5)),
    "socket": lambda name: bind(name),
}


def kept_beside(name):
    return next(folder for folder in name.parents if folder.name == "store").parent / "kept"


def bind(name):
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(name.parent)  # a socket's path may not be long
        try:
            one.bind(name.name)
        finally:
            os.chdir(here)


USES = {
    "open": lambda cls, path, target: use(cls, path),
    "read": lambda cls, path, target: contents(path, cls),
    "verify": lambda cls, path, target: maintenance.verify(path),
    "copy": lambda cls, path, target: maintenance.copy(path, target),
    "compact": lambda cls, path, target: maintenance.compact(path),
    "repair": lambda cls, path, target: maintenance.repair(path, target),
    "status": lambda cls, path, target: command("status", path),
}


def use(cls, path):
    with cls(path) as store:
        store["x"] = {"n": 1}
        if isinstance(store, SharedTracker):
            list(store.try_keys())


def use_elsewhere(cls, path):
    """The same in a process of its own, which does not know what this one has open."""
    program = """
        import sys, tastypy_fast
        with getattr(tastypy_fast, sys.argv[2])(sys.argv[1]) as store:
            store["x"] = {"n": 1}
    """
    status, _, errors = run(program, path, cls.__name__)
    assert (status, errors) == (0, "")
    return True


def command(*words):
    """The command in a process of its own, which may not wait."""
    result = subprocess.run(
        [sys.executable, "-m", "tastypy_fast", *map(str, words)], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


# The class that has all of these files, and what leads elsewhere or makes one wait; the rest with ``-m storm``.
ODD_CASES = [
    pytest.param(cls, name, odd, marks=() if cls is SharedTracker and odd in ("link", "pipe") else pytest.mark.storm)
    for cls in (POD, SharedTracker) for name in FILES for odd in ODD
]


@pytest.mark.parametrize(("cls", "name", "odd"), ODD_CASES)
def test_a_file_that_is_none_is_neither_followed_nor_waited_for(tmp_path, cls, name, odd):
    path, kept = tmp_path / "store", tmp_path / "kept"
    for what, work in USES.items():
        shutil.rmtree(path, ignore_errors=True)
        made(cls, path)
        kept.write_bytes(KEPT)
        file = path / name
        if file.is_dir():
            shutil.rmtree(file)
        elif file.exists():
            file.unlink()
        if not file.parent.exists():
            file.parent.mkdir()
        if odd == "device" and os.geteuid() != 0:
            pytest.skip("only root makes devices")
        ODD[odd](file)
        try:
            found = work(cls, path, tmp_path / f"target-{what}")
            said = "\n".join(found) if what == "verify" else found.stderr if what == "status" else ""
        except (UnsafeFileError, NotAStoreError) as error:
            assert what != "verify"  # which reports
            said = str(error)
        except StorageError as error:
            said = f"{error} {error.__cause__}"
        assert kept.read_bytes() == KEPT, what
        assert not (tmp_path / "nowhere").exists(), what
        assert not (path / "nowhere").exists(), what
        # What a use does not need is not looked at, or is made anew.
        if what == "verify":
            assert name in said or name == "data.compacted", said
        if name in ({"data.mdb", "owner.lock"} if what == "repair" else {"data.mdb", "lock.mdb", "owner.lock"}):
            assert name in said, (what, said)


def test_the_error_of_a_link_says_what_it_is_and_keeps_the_store(any_class, path):
    made(any_class, path)
    (path / "owner.lock").rename(path.parent / "elsewhere")
    (path / "owner.lock").symlink_to(path.parent / "elsewhere")
    with pytest.raises(UnsafeFileError, match="symbolic link") as raised:
        any_class(path)
    assert raised.value.filename == str(path / "owner.lock")
    (path / "owner.lock").unlink()
    (path.parent / "elsewhere").rename(path / "owner.lock")
    with any_class(path) as store:
        assert store.keys() == ["a", "b", "c"]


def test_compacting_writes_through_no_link(path):
    made(POD, path)
    kept = path.parent / "kept"
    kept.write_bytes(KEPT)
    (path / "data.compacted").symlink_to(kept)
    maintenance.compact(path)
    assert kept.read_bytes() == KEPT
    assert not (path / "data.compacted").is_symlink()
    assert contents(path, POD) == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize("name", ["lock.mdb", "owner.lock", "workers/0"])
def test_a_hard_link_to_a_file_of_the_users_is_not_written(any_class, path, name):
    made(any_class, path)
    kept = path.parent / "kept"
    kept.write_bytes(KEPT)
    (path / name).unlink(missing_ok=True)
    (path / name).parent.mkdir(exist_ok=True)
    os.link(kept, path / name)
    if name == "lock.mdb":
        with pytest.raises(UnsafeFileError, match="hard link") as raised:
            use(any_class, path)
        assert raised.value.filename == str(path / name)
    else:
        use(any_class, path)
    assert kept.read_bytes() == KEPT


# Standard descriptors that are closed

DETACHED = """
    import os, subprocess, sys
    import tastypy_fast
    from tastypy_fast import maintenance

    for number in range(3):
        os.close(number)
    cls = getattr(tastypy_fast, sys.argv[2])
    store = cls(sys.argv[1], init={"a": {"n": 1}})
    if hasattr(store, "claims"):
        next(store.try_keys())
    store["b"] = {"n": 2}
    store.sync()
    low = []
    for number in range(3):
        try:
            low.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            pass
    # A child that speaks of errors, into whatever its descriptors are.
    child = os.fork()
    if child == 0:
        os.execv("/bin/sh", ["sh", "-c", "echo 0123456789 >&0; echo 0123456789; echo 0123456789 >&2; true"])
    os.waitpid(child, 0)
    findings = maintenance.verify(sys.argv[1])
    store.close()
    with open(sys.argv[3], "w") as file:
        print(low, findings, file=file)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc here")
def test_no_file_of_a_store_is_a_standard_stream(any_class, path):
    report = path.parent / "report"
    status, _, errors = run(DETACHED, path, any_class.__name__, report)
    assert (status, errors) == (0, "")
    assert report.read_text() == "[] []\n"
    assert contents(path, any_class) == {"a": 1, "b": 2}


@pytest.mark.parametrize("closed", ["0", "1", "2", "1 2", "0 1 2"])
def test_the_command_works_without_standard_streams(path, closed):
    made(POD, path)
    program = """
        import os, sys
        for number in map(int, sys.argv[2].split()):
            os.close(number)
        os.execv(sys.executable, [sys.executable, "-m", "tastypy_fast", *sys.argv[3:], sys.argv[1]])
    """
    for words, expected in ((["status"], 0), (["verify"], 0)):
        status, _, errors = run(program, path, closed, *words)
        assert (status, errors) == (expected, ""), words
    assert maintenance.verify(path) == []


INHERITED = """
    import os, sys
    import tastypy_fast
    store = getattr(tastypy_fast, sys.argv[2])(sys.argv[1], init={"a": {"n": 1}})
    if hasattr(store, "claims"):
        next(store.try_keys())
    store["b"] = {"n": 2}
    store.sync()
    reader = tastypy_fast.POD(sys.argv[3], mode="r")
    os.execv("/bin/ls", ["ls", "-l", "/proc/self/fd"])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc here")
def test_every_file_of_a_store_is_closed_at_exec(any_class, path):
    made(POD, path.parent / "read")
    status, output, errors = run(INHERITED, path, any_class.__name__, path.parent / "read")
    assert (status, errors) == (0, "")
    assert str(path.parent) not in output


# Lock files that are removed


@pytest.mark.parametrize("name", ["owner.lock", "lock.mdb"])
@pytest.mark.parametrize("second", ["same class", "private", "shared", "read"])
def test_a_removed_lock_file_lets_nobody_in_beside_those_who_write(any_class, path, name, second):
    made(any_class, path)

    def work(pipe):
        with any_class(path) as store:
            store["first"] = {"n": 10}
            store.sync()
            pipe.send("open")
            pipe.recv()
            # It goes on, for nobody else can have come in.
            store["more"] = {"n": 11}
            store.sync()
            pipe.send("synced")

    shared = SharedTracker if issubclass(any_class, (Tracker, SharedTracker)) else SharedPOD
    opened = {"same class": any_class, "private": reader_class(any_class), "shared": shared}
    with Child(work) as child:
        child.pipe.recv()
        os.unlink(path / name)
        if second == "read" and name == "owner.lock":
            # Who reads does not need it, and makes none.
            assert contents(path, any_class)["first"] == 10
        else:
            with pytest.raises(StoreInUseError, match=f"{name} was removed.*never stale"):
                contents(path, any_class) if second == "read" else opened[second](path)
        assert not (path / name).exists()
        child.pipe.send("go on")
        assert child.pipe.recv() == "synced"
        assert child.wait() == 0
    with any_class(path) as store:
        assert store["more"]["n"] == 11
        store._check()
    assert (path / name).exists()


@pytest.mark.parametrize("name", ["owner.lock", "lock.mdb"])
def test_a_lock_file_that_was_replaced_ends_the_writing(any_class, path, name):
    store = any_class(path, init={"a": {"n": 1}})
    store.sync()
    os.unlink(path / name)
    shutil.copyfile("/dev/null", path / name)
    if not isinstance(store, SharedPOD):
        store["b"] = {"n": 2}
    with pytest.raises(StorageError, match=f"{name}.*replaced"):
        store.sync()
    with pytest.raises(StorageError, match="replaced"):
        store.sync()
    if not isinstance(store, SharedPOD):
        store.revert()
        store.close()
    else:
        with pytest.raises(StorageError, match="replaced"):
            store.close()


def test_a_removed_lock_file_keeps_a_writer_out_while_somebody_reads(any_class, path):
    made(any_class, path)

    def work(pipe):
        with reader_class(any_class)(path, mode="r") as reader:
            assert len(reader) == 3
            pipe.send("open")
            pipe.recv()

    with Child(work) as child:
        child.pipe.recv()
        os.unlink(path / "lock.mdb")
        with pytest.raises(StoreInUseError, match=r"lock\.mdb was removed"):
            any_class(path)
        child.pipe.send("close")
        assert child.wait() == 0
    use(any_class, path)


def test_lock_files_that_are_missing_are_made_when_nobody_has_the_store_open(any_class, path):
    made(any_class, path)
    for name in ("owner.lock", "lock.mdb", "turn.lock"):
        (path / name).unlink(missing_ok=True)
    shutil.rmtree(path / "workers", ignore_errors=True)
    assert contents(path, any_class) == {"a": 0, "b": 1, "c": 2}
    use(any_class, path)
    with any_class(path) as store:
        store._check()


# Another engine


def test_the_engine_does_not_depend_on_the_environment(any_class, path):
    program = """
        import sys, tastypy_fast
        with getattr(tastypy_fast, sys.argv[2])(sys.argv[1], init={"a": {"n": 1}}) as store:
            pass
    """
    environment = os.environ.get("LMDB_DEFAULT_LIB_VERSION")
    os.environ["LMDB_DEFAULT_LIB_VERSION"] = "1"
    try:
        assert run(program, path, any_class.__name__)[0] == 0
    finally:
        del os.environ["LMDB_DEFAULT_LIB_VERSION"]
        if environment is not None:
            os.environ["LMDB_DEFAULT_LIB_VERSION"] = environment
    assert contents(path, any_class) == {"a": 1}


@pytest.mark.parametrize("mode", ["w", "r"])
def test_a_store_of_the_other_engine_is_not_called_damaged(private_class, path, mode):
    path.mkdir()
    try:
        db = lmdb.open(str(path), max_dbs=8, lib_version=1)
    except lmdb.Error:
        pytest.skip("this py-lmdb has one engine only")
    with db.begin(write=True) as txn:
        for name in (b"meta", b"values", b"order"):
            db.open_db(name, txn=txn)
    db.close()
    before = (path / "data.mdb").read_bytes()
    with pytest.raises(NewerFormatError, match=r"version of LMDB.*not damaged"):
        private_class(path, mode=mode)
    assert (path / "data.mdb").read_bytes() == before


# Rights


@pytest.mark.parametrize("mask", [0o002, 0o027, 0o077])
def test_the_umask_decides_who_may_use_a_store(any_class, path, mask):
    def work(pipe):
        os.umask(mask)
        with any_class(path, init={"a": {"n": 1}}) as store:
            if isinstance(store, SharedTracker):
                next(store.try_keys())
        maintenance.compact(path)
        maintenance.copy(path, path.parent / "copy")
        maintenance.repair(path, path.parent / "repaired")

    outcome_of(work)
    entries = [path, *path.rglob("*"), *(path.parent / "copy").rglob("*"), *(path.parent / "repaired").rglob("*")]
    modes = {str(entry.relative_to(path.parent)): stat.S_IMODE(entry.stat().st_mode) for entry in entries}
    wrong = {name: oct(mode) for name, mode in modes.items()
             if mode != (0o777 if (path.parent / name).is_dir() else 0o666) & ~mask}
    assert wrong == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users")
def test_members_of_a_group_share_a_store(path):
    folder = path.parent
    os.chown(folder, 0, 7777)
    folder.chmod(0o2775)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)

    def as_user(number, work):
        def child(pipe):
            os.setgroups([7777])
            os.setgid(number)
            os.setuid(number)
            # The one has set it for the group, the other has not.
            os.umask(0o002 if number == 2001 else 0o022)
            work()

        outcome_of(child)

    def first():
        with SharedTracker(path, init={"a": {}, "b": {}}):
            pass

    def other():
        with SharedTracker(path) as tracker:
            for key in tracker.try_keys():
                tracker.mark_done(key)

    as_user(2001, first)
    for number in (2002, 2003, 2001):
        as_user(number, other)
    assert {file.stat().st_gid for file in path.rglob("*")} == {7777}
    with Tracker(path, mode="r") as tracker:
        assert [tracker.done(key) for key in tracker] == [True, True]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads what is not its own")
def test_what_root_reads_stays_usable_for_its_owner(any_class, path):
    folder = path.parent
    os.chown(folder, 2001, 2001)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)

    def as_owner(work):
        def child(pipe):
            os.setgid(2001)
            os.setuid(2001)
            work()

        outcome_of(child)

    as_owner(lambda: made(any_class, path))
    for name in ("lock.mdb", "owner.lock"):
        (path / name).unlink()
    assert contents(path, any_class) == {"a": 0, "b": 1, "c": 2}
    maintenance.verify(path)
    as_owner(lambda: use(any_class, path))


def forbid(number):
    def child(pipe, work):
        if os.geteuid() == 0:
            os.setgid(number)
            os.setuid(number)
        work()

    return lambda work: outcome_of(child, work)


@pytest.mark.parametrize("mode", ["w", "r"])
def test_errors_at_opening_are_of_our_tree_and_say_what_to_do(private_class, tmp_path, mode):
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    path = tmp_path / "store"
    made(private_class, path)
    path.chmod(0o700)

    def denied():
        with pytest.raises(StoreAccessError) as raised:
            private_class(path, mode=mode)
        assert isinstance(raised.value, PermissionError)
        assert ('mode="r"' in str(raised.value)) == (mode == "w")

    forbid(65534)(denied)
    long_name = tmp_path / ("x" * 300)
    with pytest.raises((StorageError, StoreNotFoundError), match="shorter"):
        private_class(long_name, mode=mode)
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(PersistentOrderedDictException, match="circle"):
        private_class(tmp_path / "circle", mode=mode)

    def without_descriptors(pipe):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/dev/fd")))
        for limit in range(highest, highest + 40):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                private_class(path, mode=mode).close()
                return
            except StorageError as error:
                said = str(error)
            assert "ulimit -n" in said
        raise AssertionError("never enough")

    outcome_of(without_descriptors)
    assert contents(path, private_class) == {"a": 0, "b": 1, "c": 2}


# A store that was there


@pytest.mark.parametrize("witness", ["owner.lock", "turn.lock", "workers"])
def test_an_empty_data_file_is_damage_where_a_store_was(any_class, path, witness):
    made(any_class, path)
    for name in ("owner.lock", "turn.lock", "workers"):
        if name != witness:
            entry = path / name
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
    if not (path / witness).exists():
        (path / witness).mkdir() if witness == "workers" else (path / witness).touch()
    os.truncate(path / "data.mdb", 0)
    for work in (lambda: any_class(path), lambda: contents(path, any_class)):
        with pytest.raises(PersistentOrderedDictIntegrityError):
            work()
    assert (path / "data.mdb").stat().st_size == 0


def test_an_empty_data_file_is_begun_again_where_there_was_none(any_class, path):
    path.mkdir()
    (path / "data.mdb").touch()
    (path / "owner.lock").touch()
    with pytest.raises(StoreNotFoundError):
        contents(path, any_class)
    made(any_class, path)
    assert contents(path, any_class) == {"a": 0, "b": 1, "c": 2}


# Files that are replaced under those who read


def look_again(store):
    """What a reader sees in another second."""
    store._store.files_checked = 0


def test_a_reader_goes_on_with_the_files_that_replaced_its_own(any_class, tmp_path):
    path = tmp_path / "store"
    made(any_class, path)
    made(any_class, tmp_path / "other", 5)
    with reader_class(any_class)(path, mode="r") as reader:
        iterator = iter(reader)
        assert next(iterator) == "a"
        shutil.rmtree(path)
        (tmp_path / "other").rename(path)
        look_again(reader)
        assert reader.keys() == list("abcde")
        assert len(reader) == 5
        assert reader["e"]["n"] == 4
        assert list(iterator) == list("bcde")
        # It is beside whoever writes there.
        assert use_elsewhere(any_class, path)
        assert "x" in reader


def test_a_reader_whose_files_are_gone_says_so(any_class, path):
    made(any_class, path)
    reader = reader_class(any_class)(path, mode="r")
    assert len(reader) == 3
    shutil.rmtree(path)
    look_again(reader)
    for _ in range(2):
        with pytest.raises(StorageError, match="removed"):
            reader.keys()
    reader.close()
    made(any_class, path)
    assert contents(path, any_class) == {"a": 0, "b": 1, "c": 2}


def test_who_shares_a_store_that_was_replaced_reads_no_old_state_for_ever(path):
    made(SharedPOD, path.parent / "other")
    store = SharedPOD(path, init={"a": {"n": 1}})
    shutil.rmtree(path)
    (path.parent / "other").rename(path)
    look_again(store)
    with pytest.raises(StorageError, match="replaced"):
        store.keys()
    with pytest.raises(StorageError, match="replaced"):
        store.close()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root mounts file systems")
def test_a_reader_follows_a_data_file_that_the_system_copies_up(any_class, tmp_path):
    """overlayfs: a writer's opening gives the path another file, which the map of a reader does not show."""
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for folder in (lower, upper, work, merged):
        folder.mkdir()
    made(any_class, lower / "store")
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("there is no overlayfs here")
    path = merged / "store"
    try:
        reading = reader_class(any_class)(path, mode="r")
        assert len(reading) == 3

        assert use_elsewhere(any_class, path)
        look_again(reading)
        assert "x" in reading
        reading.close()
    finally:
        subprocess.run(["umount", "-l", str(merged)], check=True)


@pytest.mark.parametrize("end", ["sync", "close"])
def test_a_shared_store_whose_folder_is_gone_says_so_at_each_sync_and_close(tmp_path, end):
    for cls in (SharedPOD, SharedTracker):
        path = tmp_path / cls.__name__
        store = cls(path, init={"a": {"n": 1}})
        store.sync()
        shutil.rmtree(path)
        for _ in range(3):
            with pytest.raises(StorageError, match="removed"):
                getattr(store, end)()
            if store.closed:
                break
        if not store.closed:
            with pytest.raises(StorageError, match="removed"):
                store.close()
        assert store.closed
        store.close()
        with cls(path) as again:
            assert again.keys() == []


# Limits


MEMORY = """
    import resource, sys
    import tastypy_fast
    limit = int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    store = getattr(tastypy_fast, sys.argv[2])(sys.argv[1])
    store["small"] = {"n": 1}
    store.sync()
    size = 8_000_000
    while size < limit:
        try:
            store["a"] = {"n": "y" * size}
            store.sync()
            assert len(store["a"]["n"]) == size
        except (MemoryError, OSError) as error:
            print(type(error).__name__)
            break
        size *= 2
    print(size)
    store.revert()
    assert store["small"]["n"] == 1
"""


@pytest.mark.parametrize("limit", [300_000 * 1024, pytest.param(1 << 30, marks=pytest.mark.storm)])
def test_a_small_address_space_ends_in_an_error_and_in_no_crash(any_class, path, limit):
    status, output, errors = run(MEMORY, path, any_class.__name__, limit)
    assert status == 0, (status, errors[-2000:])
    assert int(output.split()[-1]) > 8_000_000


@pytest.mark.parametrize("opening", ["write", "read", "copy", "verify"])
def test_killed_readers_leave_room_for_others(any_class, path, opening):
    """Their slots in the engine's table are found to be free, also while others have the store open."""
    made(any_class, path)

    def read(pipe):
        db = lmdb.open(str(path), readonly=True, max_readers=engine.MAX_READERS, max_dbs=8)
        transactions = [db.begin() for _ in range(engine.MAX_READERS)]
        pipe.send(len(transactions))
        pipe.recv()

    def stay(pipe):
        with reader_class(any_class)(path, mode="r"):
            pipe.send("open")
            pipe.recv()

    with Child(stay) as stays:
        stays.pipe.recv()
        with Child(read) as child:
            assert child.pipe.recv() == engine.MAX_READERS
        if opening == "write":
            use(any_class, path)
        elif opening == "read":
            assert contents(path, any_class) == {"a": 0, "b": 1, "c": 2}
        elif opening == "copy":
            maintenance.copy(path, path.parent / "copy")
        else:
            assert maintenance.verify(path) == []
