"""Filesystems that a program serves (FUSE): each as its users mount it, in the foreground.

Each shows a folder of an ext4, or an image beside its mount point. Mounting one of `SERVERS` a second
time gives a second view of the same files that knows nothing of the first: two machines that share them.
"""

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from support import kernel
from support.mounting import SECONDS, Missing, MountFailed, image_file, need, run

Command: TypeAlias = Sequence[str | Path]

_SFTP_SERVER: Final = Path("/usr/lib/openssh/sftp-server")
_IMAGE_SIZE: Final = 64 << 20
_DEVICE: Final = Path("/dev/fuse")

# cryfs first derives a key from the password. That takes 1 GB of memory and 9 s of a processor, which was more than a
# minute on a busy machine. Two such mounts fit into the time that a test has.
_MOUNT_SECONDS: Final = 140


@dataclass(frozen=True)
class Server:
    """How a filesystem is made and served.

    `prepare` makes, in a folder that belongs to this filesystem, what `command` then serves.
    """

    program: str
    command: Callable[[Path, Path], Command]
    prepare: Callable[[Path], None] = lambda _: None
    transparent: bool = False
    """Names and content are the same in the folder that is served."""
    device: bool = False
    """`command` is given a loop device of the image."""
    quiet: bool = False
    """The program must not write to a pipe that nobody reads."""
    ready: bytes = b""
    """What the program prints when it may be used; a mount that is there may not suffice."""


def _bindfs(*options: str) -> Server:
    return Server(
        "bindfs",
        lambda behind, root: ("bindfs", "-f", "--xattr-rw", *options, behind, root),
        transparent=True,
    )


def _sshfs(behind: Path, root: Path) -> Command:
    # It calls ssh(1) with options that the server does not take; no network and no daemon is needed.
    ssh = root.with_suffix(".ssh")
    ssh.write_text(f"#!/bin/sh\nexec {_SFTP_SERVER}\n")
    ssh.chmod(0o700)
    return ("sshfs", "-f", "-o", f"allow_other,ssh_command={ssh}", f"localhost:{behind}", root)


def _prepare_sshfs(_: Path) -> None:
    if not _SFTP_SERVER.exists():
        raise Missing(f"{_SFTP_SERVER} is missing")


def _prepare_mergerfs(behind: Path) -> None:
    for branch in ("one", "two"):
        (behind / branch).mkdir()


def _mergerfs(behind: Path, root: Path) -> Command:
    # Without the last it creates nothing where less than 4 GB are free.
    options = "allow_other,fsname=branches,minfreespace=0"
    return ("mergerfs", "-f", "-o", options, f"{behind / 'one'}:{behind / 'two'}", root)


_PASSWORD: Final = ("-extpass", "echo", "-extpass", "password")


def _prepare_gocryptfs(behind: Path) -> None:
    run("gocryptfs", "-q", "-init", *_PASSWORD, "-scryptn", "10", behind)


def _gocryptfs(behind: Path, root: Path) -> Command:
    return ("gocryptfs", "-fg", *_PASSWORD, "-nosyslog", "-allow_other", behind, root)


def _prepare_ntfs(behind: Path) -> None:
    need("mkfs.ntfs")
    with ExitStack() as undo:
        image = image_file(behind / "image", _IMAGE_SIZE, undo)
        run("mkfs.ntfs", "--quiet", "--fast", "--force", image)
        undo.pop_all()


def _ntfs(*options: str) -> Server:
    words = ",".join(("no_detach", "allow_other", *options))
    return Server(
        "ntfs-3g",
        lambda behind, root: ("ntfs-3g", "-o", words, behind / "image", root),
        _prepare_ntfs,
    )


def _prepare_exfat(behind: Path) -> None:
    need("mkfs.exfat")
    with ExitStack() as undo:
        image = image_file(behind / "image", _IMAGE_SIZE, undo)
        run("mkfs.exfat", image)
        undo.pop_all()


def _exfat(device: Path, root: Path) -> Command:
    # Only with -d it stays in the foreground.
    return ("mount.exfat-fuse", "-d", "-o", "allow_other", device, root)


def _prepare_overlay(behind: Path) -> None:
    for layer in ("lower", "upper", "work"):
        (behind / layer).mkdir()


def _overlay(behind: Path, root: Path) -> Command:
    layers = ",".join(
        f"{option}={behind / layer}"
        for option, layer in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
    )
    return ("fuse-overlayfs", "-f", "-o", layers, root)


def _rclone(behind: Path, root: Path) -> Command:
    cache = root.with_suffix(".cache")
    return (
        *("rclone", "mount", "--config", "/dev/null", "--cache-dir", cache, "--allow-other"),
        *("--vfs-cache-mode", "writes", "--vfs-write-back", "0s", behind, root),
    )


def _prepare_cryfs(behind: Path) -> None:
    (behind / "encrypted").mkdir()


_CRYFS: Final = """\
export CRYFS_FRONTEND=noninteractive CRYFS_NO_UPDATE_CHECK=true XDG_DATA_HOME="$3"
exec cryfs -f "$1" "$2" -o allow_other <<END
password
END
"""


def _cryfs(behind: Path, root: Path) -> Command:
    # It asks for a password, and notes in its user's home what it has seen of a filesystem.
    return ("sh", "-c", _CRYFS, "sh", behind / "encrypted", root, behind)


SERVERS: Final[Mapping[str, Server]] = {
    "bindfs": _bindfs(),
    "bindfs with made-up modes": _bindfs("-p", "0777", "--chmod-ignore"),
    "bindfs that refuses chmod": _bindfs("-p", "0777", "--chmod-deny"),
    "bindfs with another owner": _bindfs("--force-user=games", "--chown-ignore"),
    "sshfs": Server("sshfs", _sshfs, _prepare_sshfs, transparent=True),
    "mergerfs": Server("mergerfs", _mergerfs, _prepare_mergerfs),
    # As soon as it is mounted it opens a file in itself, which waits for ever when somebody else's mkdir is there
    # first and holds the folder's lock in the kernel.
    "gocryptfs": Server(
        "gocryptfs", _gocryptfs, _prepare_gocryptfs, ready=b"Filesystem mounted and ready."
    ),
    "ntfs-3g": _ntfs(),
    "ntfs-3g with permissions": _ntfs("permissions"),
    "exfat-fuse": Server("mount.exfat-fuse", _exfat, _prepare_exfat, device=True, quiet=True),
    "fuse-overlayfs": Server("fuse-overlayfs", _overlay, _prepare_overlay),
    "rclone": Server("rclone", _rclone, transparent=True, quiet=True),
    "cryfs": Server("cryfs", _cryfs, _prepare_cryfs, quiet=True),
}

AGAIN: Final = " again"
"""Ends the name of the second mount of one folder."""


def prepare(name: str, behind: Path) -> None:
    """Makes in an empty folder what the server of this name serves.

    Raises `Missing` where something is not installed, and `MountFailed` where what is installed does not work.
    """
    server = SERVERS[name]
    need(server.program)
    need("setpriv")
    try:
        _DEVICE.open("rb").close()
    except OSError as error:
        raise Missing(f"{_DEVICE} cannot be opened: {error.strerror}") from error
    try:
        server.prepare(behind)
    except subprocess.CalledProcessError as error:
        raise MountFailed(f"{error.cmd[0]} says: {error.stderr.strip()}") from error


def serve(name: str, behind: Path, root: Path, undo: ExitStack) -> None:
    """Mounts what `behind` holds on `root` until `undo` ends, or raises `MountFailed`."""
    server = SERVERS[name]
    undo.callback(_forget, root)
    with ExitStack() as attached:
        if server.device:
            behind = Path(run("losetup", "--find", "--show", behind / "image").strip())
            # One that is in use is freed when it is no longer.
            attached.callback(run, "losetup", "--detach", behind)
        # In the foreground, and killed when this process is: a daemon would outlive it and hold the
        # mount namespace, and all that is mounted in it, forever.
        command = ("setpriv", "--pdeathsig", "KILL", *server.command(behind, root))
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if server.ready else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if server.quiet else subprocess.PIPE,
        )
        undo.callback(_finish, daemon)
        undo.callback(kernel.unmount, root)
        if daemon.stdout is not None:
            while server.ready not in (line := daemon.stdout.readline()):
                if line == b"":
                    raise MountFailed(f"{server.program} says: {_last_words(daemon)}")
        _wait_until_mounted(server.program, daemon, root)


def _wait_until_mounted(program: str, daemon: "subprocess.Popen[bytes]", root: Path) -> None:
    ended = os.pidfd_open(daemon.pid)
    try:
        with Path("/proc/self/mountinfo").open("rb") as mountinfo:
            poll = select.poll()
            # poll(2) tells when the mount table has changed.
            poll.register(mountinfo, select.POLLPRI)
            poll.register(ended, select.POLLIN)
            # Other mounts change the table, too: they do not give this one more time.
            end = time.monotonic() + _MOUNT_SECONDS
            while not os.path.ismount(root):
                ready = poll.poll(max(0, end - time.monotonic()) * 1000)
                if any(fd == ended for fd, _ in ready):
                    raise MountFailed(f"{program} says: {_last_words(daemon)}")
                if not ready:
                    raise MountFailed(f"{program} does not mount within {_MOUNT_SECONDS} s")
    finally:
        os.close(ended)


def _last_words(daemon: "subprocess.Popen[bytes]") -> str:
    said = daemon.stderr.read() if daemon.stderr is not None else b""
    return said.decode(errors="replace").strip() or f"status {daemon.wait()}"


def _finish(daemon: "subprocess.Popen[bytes]") -> None:
    # It ends by itself when its mount is gone, and takes the mount with it when it must end before.
    daemon.terminate()
    try:
        daemon.wait(SECONDS)
    except subprocess.TimeoutExpired:
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    for pipe in (daemon.stdout, daemon.stderr):
        if pipe is not None:
            pipe.close()


def _forget(root: Path) -> None:
    root.with_suffix(".ssh").unlink(missing_ok=True)
    shutil.rmtree(root.with_suffix(".cache"), ignore_errors=True)
