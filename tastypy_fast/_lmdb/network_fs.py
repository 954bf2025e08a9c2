"""Warn about a store on a network file system.

LMDB needs locks and memory maps that are the same for all processes on a store. A local file system provides them. A
network file system provides them at best within one machine, because each machine caches pages and may keep locks to
itself.

Only Linux is checked. The number of the file system's type shows the usual local ones. For any other type the kernel's
table of mounts is read, because the number of FUSE does not tell which program serves the files.
"""

from __future__ import annotations

import os
import re
import sys
import warnings

from tastypy_fast._lmdb.file_system import file_system_type
from tastypy_fast.exceptions import NetworkFileSystemWarning

__all__ = ["callers_level", "find_mount", "is_network", "warn_once"]

# The usual local file systems, by their numbers in statfs(2): ext2 to ext4, XFS, Btrfs, tmpfs, overlayfs, F2FS, ZFS,
# bcachefs and ramfs.
LOCAL_TYPES = frozenset({
    0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630, 0xF2F52010, 0x2FC12FC1, 0xCA451A4E, 0x858458F6,
})
# Types of file systems whose files another machine may change. Folders that a virtual machine shares with its host
# are among them, because host and guest are two kernels with two page caches: WSL mounts C: as 9p, Docker Desktop
# mounts the host's folders as virtiofs.
NETWORK_TYPES = frozenset({
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "drvfs", "gfs", "gfs2", "glusterfs", "gpfs", "lustre",
    "mmfs", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb2", "smb3", "smbfs", "snfs",
    "vboxsf", "virtiofs", "vmhgfs", "wekafs",
})
# FUSE serves local file systems, too (ntfs-3g, fuse-overlayfs, gocryptfs, mergerfs). These programs serve remote ones.
# Their names are a FUSE type's second half, or the source of a mount without one.
NETWORK_PROGRAMS = frozenset({
    "afp", "beegfs", "blobfuse", "blobfuse2", "ceph", "ceph-fuse", "curlftpfs", "cvmfs2", "davfs", "davfs2", "fuse_dfs",
    "gcsfuse", "geesefs", "glusterfs", "goofys", "google-drive-ocamlfuse", "grpcfuse", "gvfsd-fuse", "hdfs", "juicefs",
    "kio-fuse", "lizardfs", "mfs", "moosefs", "mount-s3", "mountpoint-s3", "onedriver", "osxfs", "prl_fsd", "rclone",
    "s3fs", "s3ql", "seaweedfs", "smbnetfs", "sshfs", "vmhgfs-fuse", "weed", "xtreemfs",
})
# A mount's source that names a host or a service: "host:/folder", "host:", "user@host:folder", "https://host/". The
# source of a mergerfs mount must not match: it is a list of folders, such as "disk1:disk2".
_REMOTE_SOURCE = rb"[^/:]+(:/|:$|@[^/:]+:)"

_MOUNTS = "/proc/self/mountinfo"

# Device number -> the type of the network file system on it, or None for a local one. The kernel may reuse a number
# after an unmount. A process that is running then may warn too often or not at all.
_devices: dict[int, str | None] = {}
_warned: set[str] = set()


def warn_once(path: str) -> None:
    """Issue a NetworkFileSystemWarning if the folder ``path`` is on a network file system.

    ``path`` is absolute and has no symbolic links. Each path is reported once in a process. Nothing is raised unless
    the program turns warnings into errors. Cost: one system call on a usual local file system. On another one, the
    table of mounts is read once for each device.
    """
    if file_system_type(path) in LOCAL_TYPES:
        return
    try:
        device = os.stat(path).st_dev
        if device not in _devices:
            _devices[device] = _network_type(path, device)
    except OSError:
        # There is no /proc, or the folder was removed, which opening the store reports.
        return
    kind = _devices[device]
    if kind is None or path in _warned:
        return
    warnings.warn(
        f"the store at {path} is on a network file system or a shared folder ({kind}), where locks and memory maps are "
        f"not reliable: two processes may write at once, readers may see old pages, and the store may be damaged. Keep "
        f"it on a local disk; tastypy-fast copy makes a copy",
        NetworkFileSystemWarning,
        stacklevel=callers_level(),
    )
    # Add the path after the warning, because each attempt to open the store must fail where warnings are errors.
    _warned.add(path)


def _network_type(path: str, device: int) -> str | None:
    mount = _read_mount(path, device)
    return mount[0].decode("ascii", "replace") if mount is not None and is_network(*mount) else None


def _read_mount(path: str, device: int) -> tuple[bytes, bytes] | None:
    if sys.platform != "linux":
        return None
    with open(_MOUNTS, "rb") as file:
        return find_mount(file.read(), os.fsencode(path), device)


def find_mount(mountinfo: bytes, path: bytes, device: int) -> tuple[bytes, bytes] | None:
    r"""Return the type and the source of the file system that has ``path``, or None if no mount point is above it.

    ``mountinfo`` is the content of /proc/self/mountinfo. ``device`` is the device number of ``path``.

    >>> table = rb'''22 1 8:1 / / rw - ext4 /dev/sda1 rw
    ... 30 22 0:44 / /mnt/my\040files rw,relatime shared:7 master:2 - nfs4 server:/export rw'''
    >>> find_mount(table, b"/mnt/my files/store", os.makedev(0, 44))
    (b'nfs4', b'server:/export')
    """
    found = None
    best = (False, 0)
    # Not splitlines(), because a name may have a carriage return.
    for line in mountinfo.split(b"\n"):
        # Optional fields, any number of them, end with a lone hyphen.
        mount, hyphen, system = line.partition(b" - ")
        fields, described = mount.split(b" "), system.split(b" ")
        if not hyphen or len(fields) < 6 or len(described) < 2:
            continue
        point = _unescaped(fields[4]).rstrip(b"/")
        if path != point and not path.startswith(point + b"/"):
            continue
        # Prefer a matching device to a longer path, because a mount over a parent folder hides earlier mounts below it.
        # The device may not match at all, because the table lacks the numbers of btrfs's subvolumes. Of two mounts on
        # one point, prefer the later one, because it hides the other.
        rank = (fields[2] == b"%d:%d" % (os.major(device), os.minor(device)), len(point))
        if found is None or rank >= best:
            found, best = (described[0], _unescaped(described[1])), rank
    return found


def _unescaped(text: bytes) -> bytes:
    """Decode the octal escapes that the kernel writes for spaces, tabs, newlines and backslashes."""
    if b"\\" not in text:
        return text  # this is nearly always so, and compiling the pattern would take most of the time
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8) & 0xFF]), text)


def is_network(kind: bytes, source: bytes) -> bool:
    """Return whether other machines may change the files of a mount with this type and source.

    >>> is_network(b"nfs4", b"server:/export"), is_network(b"ext4", b"/dev/sda1")
    (True, False)
    >>> is_network(b"fuse.sshfs", b"me@server:"), is_network(b"fuse.gocryptfs", b"/home/me/secret")
    (True, False)
    """
    name, _, program = kind.decode("ascii", "replace").partition(".")
    if name != "fuse":
        return name in NETWORK_TYPES
    if not program:
        program = source.decode("ascii", "replace")
    return program in NETWORK_PROGRAMS or re.match(_REMOTE_SOURCE, source) is not None


def callers_level() -> int:
    """Return the ``stacklevel`` at which a warning names the line of the program that opens the store."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "tastypy_fast":
        frame = frame.f_back
        level += 1
    return level
