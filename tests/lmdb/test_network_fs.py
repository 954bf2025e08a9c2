"""The warning about stores on network file systems."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import tastypy_fast
from tastypy_fast import POD, NetworkFileSystemWarning, SharedPOD
from tastypy_fast._lmdb import network_fs
from tastypy_fast._lmdb.file_system import file_system_type

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/self/mountinfo")

# The numbers of file systems in statfs(2).
NFS, UNKNOWN = 0x6969, 0

# A mount table as the kernel writes it. Mount points need escapes, and there are optional fields and stacked mounts.
MOUNTINFO = rb"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
30 22 0:40 / /home rw shared:7 - nfs4 server:/home rw,vers=4.2
31 30 8:2 / /home/local rw shared:8 master:3 propagate_from:2 - xfs /dev/sdb1 rw
32 22 0:41 / /mnt/two\040words rw - cifs //server/two\040words rw
33 22 0:42 / /mnt/c rw - 9p C:\134 rw,aname=drvfs;path=C:\134
34 22 0:43 /export /bound rw - nfs server:/export rw
35 22 0:44 / /over rw - tmpfs tmpfs rw
36 35 0:45 / /over rw - fuse.sshfs me@server: rw
37 22 8:3 / /hidden/deep rw - ext4 /dev/sdc1 rw
38 22 0:46 / /hidden rw - nfs server:/hidden rw
39 22 0:47 /sub /btrfs rw - btrfs /dev/sdd1 rw
40 22 0:48 / /auto rw - autofs systemd-1 rw
41 40 0:49 / /auto rw - nfs4 server:/auto rw
a line that does not parse
"""


@pytest.mark.parametrize(("path", "device", "kind"), [
    ("/var/store", (8, 1), b"ext4"),
    ("/", (8, 1), b"ext4"),
    ("/home/me/store", (0, 40), b"nfs4"),
    ("/home", (0, 40), b"nfs4"),
    ("/homes/me", (8, 1), b"ext4"),
    ("/home/local/store", (8, 2), b"xfs"),
    ("/mnt/two words/store", (0, 41), b"cifs"),
    ("/mnt/c/Users/me/store", (0, 42), b"9p"),
    ("/bound/store", (0, 43), b"nfs"),
    ("/over/store", (0, 45), b"fuse.sshfs"),
    ("/hidden/deep/store", (0, 46), b"nfs"),
    # A btrfs subvolume has a device number that the table does not contain.
    ("/btrfs/store", (0, 99), b"btrfs"),
    ("/auto/store", (0, 49), b"nfs4"),
])
def test_mount_of_a_path_is_the_one_that_the_kernel_uses(path, device, kind):
    found = network_fs.find_mount(MOUNTINFO, path.encode(), os.makedev(*device))
    assert found is not None
    assert found[0] == kind


def test_mount_point_may_have_a_carriage_return():
    # The kernel escapes spaces, tabs, newlines and backslashes only.
    table = MOUNTINFO + b"42 22 0:50 / /cr\r/lf rw - nfs server:/x rw\n"
    assert network_fs.find_mount(table, b"/cr\r/lf/store", os.makedev(0, 50)) == (b"nfs", b"server:/x")


def test_mount_of_a_path_is_none_if_the_table_has_no_root():
    assert network_fs.find_mount(b"", b"/store", 1) is None


@pytest.mark.parametrize(("kind", "source"), [
    ("nfs", "server:/x"), ("nfs4", "server:/x"), ("cifs", "//server/x"), ("smb3", "//server/x"), ("9p", "C:\\"),
    ("ceph", "1.2.3.4:/"), ("lustre", "10.0.0.1@tcp:/fs"), ("virtiofs", "share"), ("fuse.sshfs", "me@server:"),
    ("fuse.glusterfs", "server:/volume"), ("fuse.s3fs", "s3fs"), ("fuse", "mountpoint-s3"), ("fuse.rclone", "drive:x"),
    ("fuse", "https://server/dav"), ("fuse.unheard-of", "server:/x"), ("fuse.unheard-of", "me@server:x"),
])
def test_file_system_type_is_a_network_type(kind, source):
    assert network_fs.is_network(kind.encode(), source.encode())


@pytest.mark.parametrize(("kind", "source"), [
    ("ext4", "/dev/sda1"), ("xfs", "/dev/sda1"), ("btrfs", "/dev/sda1"), ("zfs", "pool/home"), ("tmpfs", "tmpfs"),
    ("overlay", "overlay"), ("fuseblk", "/dev/sdb1"), ("fuse.fuse-overlayfs", "fuse-overlayfs"),
    ("fuse.gocryptfs", "/home/me/secret"), ("fuse.mergerfs", "disk1:disk2"), ("f2fs", "/dev/sda1"), ("fuse", "/data"),
])
def test_file_system_type_is_local(kind, source):
    assert not network_fs.is_network(kind.encode(), source.encode())


@pytest.fixture
def on_network(tmp_path, monkeypatch):
    """A folder that the system calls NFS, in a process that has cached no device yet."""
    monkeypatch.setattr(network_fs, "file_system_type", lambda path: NFS)
    monkeypatch.setattr(network_fs, "_devices", {})
    monkeypatch.setattr(network_fs, "_warned", set())
    table = tmp_path / "mountinfo"
    folder = tmp_path / "folder"
    folder.mkdir()
    device = os.stat(folder).st_dev
    table.write_text(f"22 1 {os.major(device)}:{os.minor(device)} / {folder} rw - nfs4 server:/x rw\n")
    monkeypatch.setattr(network_fs, "_MOUNTS", str(table))
    return folder


def test_opening_warns_once_for_each_path(on_network):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("one", "two", "one"):
            POD(on_network / name).close()
            POD(on_network / name, mode="r").close()
        SharedPOD(on_network / "two").close()
    paths = [str(warning.message).partition(" is on ")[0] for warning in caught]
    assert paths == [f"the store at {on_network / name}" for name in ("one", "two")]
    assert all("(nfs4)" in str(warning.message) for warning in caught)
    assert {warning.category for warning in caught} == {NetworkFileSystemWarning}
    # The warning names the line of the program, and not one of the package.
    assert {warning.filename for warning in caught} == {__file__}


def test_command_prints_the_warning_as_one_line(on_network, capfd):
    command = pytest.importorskip("tastypy_fast.cli.app", reason="needs the extra cli")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert command.run(["add", str(on_network / "one"), "--create", "a"]) == 0
    printed = capfd.readouterr().err.splitlines()
    assert len([line for line in printed if line.startswith("tastypy-fast: warning: the store at ")]) == 1
    assert not [line for line in printed if ".py" in line]


def test_warning_as_an_error_leaves_the_store_closed(on_network, no_leaks):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for cls in (POD, SharedPOD):
            for _ in range(2):
                with pytest.raises(NetworkFileSystemWarning):
                    cls(on_network / "one")
        warnings.simplefilter("ignore")
        with POD(on_network / "one") as pod:
            pod[1] = 2


@pytest.mark.parametrize("kind", [NFS, UNKNOWN])
def test_local_stores_do_not_warn_and_a_missing_table_does_not_matter(tmp_path, monkeypatch, kind):
    """A file system whose number is not known is looked up in the table."""
    monkeypatch.setattr(network_fs, "file_system_type", lambda path: kind)
    monkeypatch.setattr(network_fs, "_devices", {})
    with monkeypatch.context() as patch:
        patch.setattr(network_fs, "_MOUNTS", str(tmp_path / "none"))
        POD(tmp_path / "one").close()
    POD(tmp_path / "one").close()


def test_table_is_not_read_for_a_usual_local_file_system(tmp_path, monkeypatch):
    kinds = {b"ext4": 0xEF53, b"xfs": 0x58465342, b"btrfs": 0x9123683E, b"tmpfs": 0x01021994, b"overlay": 0x794C7630}
    with open("/proc/self/mountinfo", "rb") as file:
        mount = network_fs.find_mount(file.read(), os.fsencode(tmp_path), os.stat(tmp_path).st_dev)
    if mount is None or mount[0] not in kinds:
        pytest.skip("another file system")
    assert file_system_type(str(tmp_path)) == kinds[mount[0]]
    assert set(kinds.values()) <= network_fs.LOCAL_TYPES
    monkeypatch.setattr(network_fs, "_MOUNTS", None)
    POD(tmp_path / "one").close()


def test_type_of_a_missing_path_is_not_known(tmp_path):
    assert file_system_type(str(tmp_path / "missing")) == 0
    assert file_system_type("/proc") == 0x9FA0


SFTP = next((path for path in map(Path, ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server"))
             if path.exists()), None)


@pytest.mark.skipif(SFTP is None or not shutil.which("sshfs") or not os.access("/dev/fuse", os.W_OK),
                    reason="needs sshfs, sftp-server and FUSE")
def test_mounted_sshfs_warns(tmp_path, run_python):
    """A real mount, whose server is a local process instead of ssh."""
    (tmp_path / "remote").mkdir()
    (tmp_path / "mounted").mkdir()
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\nexec {SFTP}\n")
    ssh.chmod(0o755)
    subprocess.run(["sshfs", "-o", f"ssh_command={ssh}", f"host:{tmp_path / 'remote'}", tmp_path / "mounted"],
                   check=True, timeout=30)
    try:
        printed = run_python("""
import sys, warnings
from tastypy_fast import POD
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    POD(sys.argv[1]).close()
print([(warning.category.__name__, "fuse.sshfs" in str(warning.message)) for warning in caught])
""", tmp_path / "mounted" / "store")
    finally:
        subprocess.run(["fusermount3" if shutil.which("fusermount3") else "fusermount", "-u", tmp_path / "mounted"],
                       check=True, timeout=30)
    assert printed.strip() == "[('NetworkFileSystemWarning', True)]"


def test_warning_is_a_user_warning_that_the_package_exports():
    assert issubclass(NetworkFileSystemWarning, UserWarning)
    assert tastypy_fast.NetworkFileSystemWarning is NetworkFileSystemWarning
