"""Folders that two clients share, on servers and filesystems that are started in the guest.

A server and its two clients are one kernel here, but the clients do not know each other: each has a
superblock of its own (`nosharecache`, `nosharesock`), with its own cache and its own locks on folders,
as two machines have. Nothing is taken down: the guest ends with the tests.
"""

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Final, Literal

Reach = Literal["everybody", "this machine and mount", "nobody"]

IN_THE_GUEST: Final = Path("/run/guest")
"""Exists only there: the runner puts it."""

_GROUND: Final = Path("/run/shares")
_SERVED: Final = _GROUND / "served"
_SECONDS: Final = 120


@dataclass(frozen=True)
class Traits:
    """What a shared folder is known for; `atomik.probe` must say the same."""

    type: str
    reach: Reach
    noreplace: bool = False
    exchange: bool = False
    unnamed: bool = False
    hard_links: bool = True
    modes_kept: bool = True
    owners_kept: bool = True


@dataclass(frozen=True)
class Share:
    """A folder as its server has it, and as two clients see it."""

    name: str
    traits: Traits
    server: Path
    a: Path
    b: Path

    def folder(self, name: str) -> "Share":
        """Returns a new empty folder of the share; made by the first client, seen by both."""
        (self.a / name).mkdir()
        if self.traits.modes_kept:
            (self.a / name).chmod(0o777)
        assert os.listdir(self.b / name) == []
        return Share(self.name, self.traits, self.server / name, self.a / name, self.b / name)

    @property
    def two_clients(self) -> bool:
        """Tells whether its two sides do not see each other's locks on folders."""
        return self.traits.reach == "this machine and mount"


_FAT: Final = Traits(
    *("vfat", "everybody"),
    noreplace=True,
    exchange=True,
    hard_links=False,
    modes_kept=False,
)
_CLIENTS: Final[Reach] = "this machine and mount"

TRAITS: Final[Mapping[str, Traits]] = {
    "nfs 4.2": Traits("nfs4", _CLIENTS),
    "nfs 3": Traits("nfs", _CLIENTS),
    "cifs": Traits("cifs", _CLIENTS, noreplace=True, modes_kept=False),
    "exfat": replace(_FAT, type="exfat", exchange=False),
    "vfat": _FAT,
    "f2fs": Traits("f2fs", "everybody", noreplace=True, exchange=True, unnamed=True),
}

SOMEBODYS: Final[Mapping[str, Traits]] = {
    "nfs 4.2 squashed": replace(TRAITS["nfs 4.2"], owners_kept=False),
    **{f"{name} of a user": TRAITS[name] for name in ("cifs", "exfat", "vfat")},
}
"""Where all belongs to one user, whoever made it. They must be asked for by name."""


class Shares:
    """The shares of this guest, each started when first asked for."""

    def __init__(self) -> None:
        self._known: dict[str, Share] = {}
        self._numbers = count()
        self._served: dict[str, Path] = {}

    def new_folder(self, name: str) -> Share:
        """Returns a new empty folder of a share."""
        if name not in self._known:
            self._known[name] = self._start(name)
        return self._known[name].folder(f"folder{next(self._numbers)}")

    def _start(self, name: str) -> Share:
        place = _GROUND / name.replace(" ", "-")
        a, b = place / "a", place / "b"
        for client in (a, b):
            client.mkdir(parents=True)
        kind = name.partition(" ")[0]
        if kind == "nfs":
            server = self._mount_nfs(name, a, b)
        else:
            owner = ",uid=65534,gid=65534" if name.endswith("of a user") else ""
            mount = self._mount_cifs if kind == "cifs" else _mount_local
            server = mount(kind, owner, a, b)
        return Share(name, {**TRAITS, **SOMEBODYS}[name], server, a, b)

    def _mount_nfs(self, name: str, a: Path, b: Path) -> Path:
        number, squashed = (2, True) if name.endswith("squashed") else (1, False)
        export = self._export("nfs-squashed" if squashed else "nfs", _start_nfs)
        squash = "all_squash,anonuid=4242,anongid=4242" if squashed else "no_root_squash"
        run(
            *("exportfs", "-o", f"rw,{squash},no_subtree_check,insecure,fsid={number}"),
            f"*:{export}",
        )
        # In version 4 all paths begin at the export with the number 0.
        version, path = ("3", export) if name == "nfs 3" else ("4.2", f"/{export.name}")
        # To a server of NFS 4 a client is its host's name: with one name they would be one, which never
        # has to give back to itself what it may cache.
        for client, address in ((a, "127.0.0.1"), (b, "127.0.0.2")):
            options = f"vers={version},nosharecache,addr={address}"
            mount = ("mount", "-t", "nfs", "-o", options, f"{address}:{path}", str(client))
            rename = f"hostname client-{client.name} && exec {shlex.join(mount)}"
            run("unshare", "--uts", "sh", "-c", rename)
        return export

    def _mount_cifs(self, kind: str, owner: str, a: Path, b: Path) -> Path:
        export = self._export(kind, _start_samba)
        for client in (a, b):
            options = f"guest,vers=3.1.1,nosharesock{owner}"
            run("mount", "-t", "cifs", "-o", options, "//127.0.0.1/share", client)
        return export

    def _export(self, name: str, start: Callable[[Path], None]) -> Path:
        if name not in self._served:
            export = _SERVED / name
            export.mkdir(parents=True)
            mount_image("ext4", export, size=512 << 20)
            shutil.rmtree(export / "lost+found")
            export.chmod(0o777)
            start(export)
            self._served[name] = export
        return self._served[name]


def run(*command: str | Path) -> str:
    """Runs a program; what it says on failure is the message of the error."""
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
    )
    if ended.returncode != 0:
        raise RuntimeError(f"{command}: {ended.returncode}: {ended.stdout}{ended.stderr}".strip())
    return ended.stdout


def mount_image(kind: str, target: Path, *, size: int, options: str = "") -> None:
    """Makes a filesystem in a file in memory and mounts it."""
    image = _GROUND / f"{target.parent.name}-{target.name}.img"
    with image.open("wb") as file:
        file.truncate(size)
    run(f"mkfs.{kind}", image)
    run("mount", "-t", kind, "-o", f"loop{options}", image, target)


def _mount_local(kind: str, owner: str, a: Path, b: Path) -> Path:
    mount_image(kind, a, size=256 << 20, options=owner)
    run("mount", "--bind", a, b)
    return a


def _start_nfs(_export: Path) -> None:
    if Path("/proc/fs/nfsd/threads").exists():
        return
    # No client of an earlier run may claim its locks first; by default that takes the first 50 seconds.
    run("modprobe", "lockd", "nlm_grace_period=1")
    run("modprobe", "-a", "nfsd", "nfsv4", "nfsv3")
    for folder in ("/run/rpcbind", "/run/rpc_pipefs", "/var/lib/nfs/v4recovery", "/var/lib/nfs/sm"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    # The server keeps its state where it can be renamed in: in memory, not on an overlay.
    run("mount", "-t", "tmpfs", "none", "/var/lib/nfs")
    for name in ("v4recovery", "sm", "sm.bak"):
        (Path("/var/lib/nfs") / name).mkdir()
    for name in ("etab", "rmtab", "state"):
        (Path("/var/lib/nfs") / name).touch()
    run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    run("mount", "-t", "rpc_pipefs", "none", "/run/rpc_pipefs")
    run("rpcbind", "-w")
    run("rpc.statd", "--no-notify")
    run("rpc.mountd")
    run("exportfs", "-o", "ro,no_subtree_check,insecure,fsid=0", f"*:{_SERVED}")
    run("rpc.nfsd", "4")
    Path("/proc/fs/nfsd/v4_end_grace").write_text("Y")


def _start_samba(export: Path) -> None:
    folder = _GROUND / "samba"
    folder.mkdir()
    # Nothing of the machine's own configuration and state; one user, who is not asked for a password.
    state = "\n".join(
        f"{kind} = {folder}"
        for kind in (
            *("lock directory", "state directory", "cache directory", "private dir"),
            *("pid directory", "ncalrpc dir"),
        )
    )
    (folder / "smb.conf").write_text(
        f"""[global]
{state}
log file = {folder}/log
map to guest = bad user
guest account = root
load printers = no
disable spoolss = yes
disable netbios = yes
smb ports = 445
interfaces = 127.0.0.1
bind interfaces only = yes
[share]
path = {export}
read only = no
guest ok = yes
force user = root
"""
    )
    run("smbd", "--daemon", "--configfile", folder / "smb.conf")
    _wait_for_port(445)


def _wait_for_port(number: int) -> None:
    end = time.monotonic() + _SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", number)).close()
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return
