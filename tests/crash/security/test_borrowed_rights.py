"""What an attacker may not do itself, the library does not do for it.

In a folder that others may write to they may rename what is the victim's, but not look into it, empty
it or change its mode. These tests try to have that done by the victim's own publishes.
"""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Final

import atomik
import pytest
from support import kernel, slot_names
from support.filesystems import Filesystem
from support.processes import ROOT, User, run_as
from support.publishing import ALL
from support.trees import tree

from security.people import (
    ATTACKER,
    OPEN,
    STICKY,
    VICTIM,
    Attack,
    Step,
    attacking,
    each_length,
    publish_for,
)
from security.places import home, permissions, shared

NAME: Final = "site"
SECRET: Final = "secret"

on_tmpfs = pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
each_call = pytest.mark.parametrize("call", ALL)


def make_precious(path: Path, mode: int = 0o755) -> None:
    path.mkdir(mode=0o700)
    (path / "file").write_text(SECRET)
    path.chmod(mode)


@on_tmpfs
@each_call
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["readable", "private"])
@pytest.mark.parametrize("which", ["porch", "room", "room beside a taken porch", "lock"])
@pytest.mark.leaves_orphans  # what is looked for is called so
def test_a_folder_that_was_renamed_to_a_slot_is_not_emptied(
    fs: Filesystem, call: str, which: str, mode: int
) -> None:
    parent = shared(fs, OPEN)
    destination, precious = parent / NAME, parent / "precious"
    places = {
        "porch": slot_names.porch(destination),
        "room": slot_names.room(destination, VICTIM.uid),
        "lock": slot_names.lock(destination),
    }
    slot = places[which.split(maxsplit=1)[0]]
    run_as(VICTIM, partial(make_precious, precious, mode))
    if "taken" in which:
        run_as(ATTACKER, places["porch"].mkdir)
    before = tree(precious)
    run_as(ATTACKER, partial(os.rename, precious, slot))
    for overwrite in (False, True):
        try:
            run_as(VICTIM, partial(ALL[call], destination, overwrite=overwrite))
        except OSError:
            # Of a folder in the place of the lock; a publish that fails is none of the attacker's gains.
            assert which == "lock"
            assert overwrite
        assert tree(slot) == before
        assert permissions(slot) == mode
    run_as(VICTIM, partial(atomik.sweep, parent))
    assert tree(slot) == before


@each_length
@on_tmpfs
@pytest.mark.leaves_orphans  # an attacker can take a slot away from its owner
def test_a_private_folder_in_the_place_of_the_destination_stays_private(
    fs: Filesystem, seconds: float
) -> None:
    # To move, a folder that its owner may not write is made writable: the one that was looked at, or
    # one that has its name by then?
    parent = shared(fs, OPEN)
    destination, private = parent / NAME, parent / "private"
    forge = fs.folder("forge", 0o700, VICTIM.uid, VICTIM.gid)

    def look(_: Attack) -> Step:
        def step() -> bool:
            kernel.renameat2(destination, private, kernel.EXCHANGE)
            return readable(destination / "file") or readable(private / "file")

        return step

    def publish() -> None:
        # Nothing is written, and no mode widened, where the attacker could swap it meanwhile.
        if not (readable(destination / "file") or readable(private / "file")):
            for name in (destination, private):
                if name.exists():
                    name.chmod(0o700)
                    name.rename(forge / "waste")
                    shutil.rmtree(forge / "waste")
            make_precious(forge / "private", 0o700)
            (forge / "private").rename(private)
        with atomik.folder(
            destination, overwrite=True, durability="none", permissions=0o555
        ) as staging:
            (staging / "file").write_text("public")

    with attacking(look) as attack:
        publish_for(attack, VICTIM, seconds, publish)
    assert attack.wins == 0


def readable(path: Path) -> bool:
    try:
        return path.read_text() == SECRET
    except OSError:
        return False


@on_tmpfs
@each_call
@pytest.mark.parametrize(("user", "mode"), [(VICTIM, OPEN), (ROOT, STICKY)], ids=["open", "root"])
def test_private_content_does_not_get_a_strangers_mode(
    fs: Filesystem, call: str, user: User, mode: int
) -> None:
    destination = shared(fs, mode) / NAME
    run_as(ATTACKER, partial(ALL[call], destination), umask=0)
    run_as(user, partial(ALL[call], destination, overwrite=True), umask=0o077)
    assert destination.stat().st_uid == user.uid
    assert permissions(destination) & 0o077 == 0


@on_tmpfs
@each_call
def test_a_mode_that_was_asked_for_is_not_a_strangers(fs: Filesystem, call: str) -> None:
    destination = shared(fs, OPEN) / NAME
    run_as(ATTACKER, partial(ALL[call], destination), umask=0)
    run_as(VICTIM, partial(ALL[call], destination, overwrite=True, permissions=0o700))
    assert destination.stat().st_uid == VICTIM.uid
    assert permissions(destination) == 0o700


@on_tmpfs
@pytest.mark.parametrize("call", ["file", "write_bytes", "path to a file"])
def test_a_link_that_the_kernel_does_not_follow_is_not_followed(fs: Filesystem, call: str) -> None:
    # fs.protected_symlinks: in a sticky folder only links of one's own or of the folder's owner.
    private = home(fs)
    destination = shared(fs, STICKY) / NAME
    run_as(ATTACKER, partial(os.symlink, private.file, destination))
    if Path("/proc/sys/fs/protected_symlinks").read_text().strip() == "0":
        pytest.skip("fs.protected_symlinks is 0: the kernel follows it")
    with pytest.raises(PermissionError):
        run_as(VICTIM, partial(ALL[call], destination, overwrite=True, follow_symlinks=True))
    private.assert_untouched()
