"""Private content stays private: while it is staged, at the publish, and afterwards.

The attacker looks the whole time: at every name in the folder, into everything that it may enter, and
at the victim's open files in /proc. The victim's umask is 0, and the folder's default ACL gives the
attacker all rights to what is made there. The traces show how each inode is made.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support import slot_names, strace
from support.filesystems import Filesystem
from support.processes import run_as

from security.people import ATTACKER, OPEN, STICKY, VICTIM, Attack, Step, attacking, publish_for
from security.people import SECONDS as RACE
from security.places import permissions, shared

NAME: Final = "site"
SECRET: Final = b"secret"

SECONDS: Final = RACE / 10

Publish = Callable[..., None]

# Which overload is meant, the options say: no type checker knows.
_open: Final[Callable[..., atomik.File[Any]]] = atomik.file


def file(destination: Path, **options: Any) -> None:
    with _open(destination, "wb", overwrite=True, durability="none", **options) as staging:
        staging.write(SECRET)
        staging.flush()


def write_bytes(destination: Path, **options: Any) -> None:
    atomik.write_bytes(destination, SECRET, overwrite=True, durability="none", **options)


def folder(destination: Path, **options: Any) -> None:
    with atomik.folder(destination, overwrite=True, durability="none", **options) as staging:
        (staging / "inner").mkdir()
        for name in ("one", "inner/two"):
            (staging / name).write_bytes(SECRET)


def path(destination: Path, **options: Any) -> None:
    with atomik.path(destination, overwrite=True, durability="none", **options) as staging:
        staging.write_bytes(SECRET)


PUBLISHES: Final[Mapping[str, Publish]] = {
    "file": file,
    "write_bytes": write_bytes,
    "folder": folder,
    "path": path,
}
each_publish = pytest.mark.parametrize("publish", PUBLISHES)
# Who finds the porch taken stages in the room.
each_place = pytest.mark.parametrize("place", ["porch", "room"])


def look_everywhere(parent: Path, attack: Attack) -> Step:
    def step() -> bool:
        descriptors = Path("/proc") / str(attack.victim) / "fd"
        numbers = [descriptors / str(number) for number in range(3, 12)]
        room = slot_names.room(parent / NAME, VICTIM.uid)
        guessed = [
            slot_names.porch(parent / NAME) / NAME,
            room,
            *(slot / NAME for slot in listed(room)),
        ]
        return any(sees(place) for place in (*numbers, *guessed, parent / NAME, *listed(parent)))

    return step


def sees(place: Path) -> bool:
    """Can the secret be read at a place, or below it?"""
    with suppress(OSError):
        return SECRET in read(place)
    return any(sees(inner) for inner in listed(place))


def read(place: Path) -> bytes:
    fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW * (place.parts[1] != "proc"))
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def listed(place: Path) -> list[Path]:
    # The descriptors of /proc are links that lead to the folder itself: not all again.
    if place.parts[1] == "proc":
        return []
    with suppress(OSError):
        return [place / name for name in os.listdir(place)]
    return []


@pytest.mark.parametrize("fs", ["ext4", "tmpfs", "bindfs"], indirect=True)
@pytest.mark.parametrize("preserved", [False, True], ids=["asked for", "preserved"])
@each_place
@each_publish
def test_private_content_is_never_seen(
    fs: Filesystem, publish: str, place: str, preserved: bool
) -> None:
    if publish == "folder" and fs.name == "bindfs":
        pytest.skip("bindfs cannot replace a folder")
    parent = shared(fs, OPEN)
    acl = f"d:u::rwx,d:g::rwx,d:o::rwx,d:u:{ATTACKER.uid}:rwx,d:m::rwx"
    subprocess.run(["setfacl", "-m", acl, fs.backing(parent)], check=True)
    destination, other = parent / NAME, parent / "other"
    private = {"permissions": 0o700 if publish == "folder" else 0o600}
    run_as(VICTIM, partial(PUBLISHES[publish], destination, **private), umask=0)

    def publish_both() -> None:
        PUBLISHES[publish](destination, **({} if preserved else private))
        # A new name as well: there is nothing whose metadata could help.
        PUBLISHES[publish](other, **private)
        if other.is_file():
            other.unlink()

    if place == "room":
        for name in (destination, other):
            run_as(ATTACKER, slot_names.porch(name).mkdir)
    with attacking(partial(look_everywhere, parent)) as attack:
        ends = publish_for(attack, VICTIM, SECONDS, publish_both, umask=0)
    if place == "room":
        for name in (destination, other):
            slot_names.porch(name).rmdir()
    assert attack.wins == 0
    assert set(ends) == {"published"}
    assert permissions(destination) == private["permissions"]


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
def test_the_attacker_sees_what_is_not_private(fs: Filesystem) -> None:
    # That the one above looks in the right places.
    parent = shared(fs, STICKY)
    with attacking(partial(look_everywhere, parent)) as attack:
        publish_for(attack, VICTIM, SECONDS, partial(file, parent / NAME), umask=0)
    assert attack.wins > 0


PROGRAM: Final = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from security.test_privacy import PUBLISHES
PUBLISHES[{publish!r}](Path("warm"), permissions=0o700)
os.umask(0)
PUBLISHES[{publish!r}](Path({name!r}), permissions={permissions})
"""


def trace(folder: Path, publish: str, private: int) -> list[str]:
    """Publishes twice, new and replacing; returns the calls that make, name or open to others."""
    output = folder.parent / "trace"
    program = PROGRAM.format(path=sys.path, publish=publish, name=NAME, permissions=private)
    calls = "openat,open,creat,mkdir,mkdirat,link,linkat,fchmod,fchmodat,chmod,/^rename,umask"
    command: list[str | Path] = ["strace", "-f", "-y", "-s", "400", "-o", output]
    command += ["-e", f"trace={calls}", sys.executable, "-B", "-c", program]
    lines: list[str] = []
    for _ in range(2):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        text = output.read_text()
        lines += text[text.index("umask(000)") :].splitlines()[1:]
    return lines


@pytest.mark.skipif(strace.why_not() is not None, reason=str(strace.why_not()))
@pytest.mark.parametrize("fs", ["tmpfs", "bindfs"], indirect=True)
@each_place
@each_publish
def test_every_inode_is_private_from_its_first_moment(
    fs: Filesystem, publish: str, place: str
) -> None:
    """Private means: without a name, or of a private mode, or in a folder that only its owner enters.

    That folder is the slot, which the body reaches through /proc where anybody can rename.
    """
    if publish == "folder" and fs.name == "bindfs":
        pytest.skip("bindfs cannot replace a folder")
    private = 0o700 if publish == "folder" else 0o600
    parent = shared(fs, OPEN)
    if place == "room":
        run_as(ATTACKER, slot_names.porch(parent / NAME).mkdir)
    lines = trace(parent, publish, private)
    if place == "room":
        slot_names.porch(parent / NAME).rmdir()
    made = [call for line in lines if (call := makes(line)) is not None]
    assert made or any("O_TMPFILE" in line for line in lines)
    for where, mode in made:
        in_a_slot = "/.atomik-" in where or '"/proc/' in where
        assert in_a_slot or mode & 0o077 == 0, (where, oct(mode))
    assert_narrowed_before_it_is_named(lines, private)


def makes(line: str) -> tuple[str, int] | None:
    """Where a call makes something with a name, and with which mode."""
    call = re.search(r"(openat|mkdirat|mkdir)\((.*)\) += (\d+)", line)
    if call is None or (call[1] == "openat" and "O_CREAT" not in call[2]):
        return None
    return call[2].rsplit(", ", 2)[0], int(call[2].rsplit(", ", 1)[1], 8)


def assert_narrowed_before_it_is_named(lines: list[str], private: int) -> None:
    """Each publish comes after the `fchmod` to the mode that was asked for."""
    narrowed, publishes = False, 0
    for line in lines:
        if re.search(rf"fchmod\(.*, 0{private:o}\) += 0", line):
            narrowed = True
        elif is_publish(line):
            assert narrowed, line
            publishes += 1
            narrowed = False
    assert publishes == 2


def is_publish(line: str) -> bool:
    """Does the call give the destination's name, or a file's slot's, to something that is staged?"""
    named = re.search(r"(linkat|rename\w*)\((.*)\) += 0", line)
    if named is None or "probe" in line:
        return False
    of_a_slot = re.search(r'"(\.atomik-0[^"]*|[0-9a-f]{16})"', named[2]) is not None
    return named[1] == "linkat" or (f'"{NAME}"' in named[2] and not of_a_slot)
