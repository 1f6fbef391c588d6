"""Modes, owners, ACLs, attributes: as `open` and `mkdir` give them, or as they were."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support import publishing
from support.filesystems import Filesystem
from support.processes import NOBODY, ROOT, User, run_as
from support.publishing import ALL, MAKING_FILES, MAKING_FOLDERS, NEW, fill
from support.xattrs import ACCESS, DEFAULT, allowing, attributes, set_attribute

FOREIGN_GROUP: Final = 23456
OTHER_USER: Final = 12345

each_user = pytest.mark.parametrize("user", [ROOT, NOBODY], ids=User.label)
each_call = pytest.mark.parametrize("call", ALL)
each_file_call = pytest.mark.parametrize("call", MAKING_FILES)
each_folder_call = pytest.mark.parametrize("call", MAKING_FOLDERS)
each_staging_place = pytest.mark.parametrize("elsewhere", [False, True], ids=["beside", "tmp_dir"])
each_umask = pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)


@dataclass(frozen=True)
class Metadata:
    """What a new file or folder gets from where and by whom it is made."""

    mode: int
    owner: int
    group: int
    attributes: Mapping[str, bytes]


@pytest.fixture(autouse=True)
def folders_can_be_published(request: pytest.FixtureRequest, fs: Filesystem) -> None:
    """Skips what needs folders to be published; test_matrix.py says what happens elsewhere."""
    if not fs.flags and request.node.callspec.params.get("call") in (*MAKING_FOLDERS, "folder"):
        pytest.skip(f"{fs.name} cannot publish folders")


def metadata(path: Path) -> Metadata:
    status = path.lstat()
    return Metadata(status.st_mode, status.st_uid, status.st_gid, attributes(path))


def all_metadata(path: Path) -> dict[str, Metadata]:
    """Returns the metadata of a file, or of a folder and all that is in it."""
    found = {".": metadata(path)}
    for parent, folders, files in os.walk(path):
        for name in (*folders, *files):
            inside = Path(parent, name)
            found[os.fspath(inside.relative_to(path))] = metadata(inside)
    return found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def home(fs: Filesystem, user: User, permissions: int = 0o755, group: int | None = None) -> Path:
    """Makes a folder in which a user may write."""
    return fs.folder("home", permissions, user.uid, user.gid if group is None else group)


def make_reference(call: str, path: Path) -> None:
    """Makes what a call makes, in the ordinary way."""
    if call in MAKING_FILES:
        path.write_bytes(NEW)
    else:
        path.mkdir()
        fill(path)


def make_old(call: str, path: Path, permissions: int) -> None:
    """Makes the old version that a call replaces."""
    if call in MAKING_FILES:
        path.write_bytes(b"old")
    else:
        path.mkdir()
        (path / "old").write_bytes(b"old")
    path.chmod(permissions)


def staging_options(fs: Filesystem, user: User, elsewhere: bool) -> dict[str, Any]:
    """Returns the options for staging beside the destination or in a folder of other properties."""
    return {"tmp_dir": fs.folder("elsewhere", 0o700, user.uid, user.gid)} if elsewhere else {}


def publish(call: str, destination: Path, **options: Any) -> None:
    ALL[call](destination, publishing.nothing, **options)


def assert_made_as_usual(
    call: str, parent: Path, user: User, umask: int = 0o022, **options: Any
) -> None:
    """Makes the same with the library and without it, and compares all that was made."""
    ours, reference = parent / "ours", parent / "reference"
    run_as(user, partial(make_reference, call, reference), umask=umask)
    run_as(user, partial(publish, call, ours, **options), umask=umask)
    assert all_metadata(ours) == all_metadata(reference)


# New destinations


@each_umask
@each_staging_place
@each_user
@each_call
def test_a_new_version_gets_what_the_umask_leaves(
    fs: Filesystem, call: str, user: User, elsewhere: bool, umask: int
) -> None:
    options = staging_options(fs, user, elsewhere)
    assert_made_as_usual(call, home(fs, user), user, umask, **options)


@each_staging_place
@each_user
@each_call
def test_a_new_version_inherits_the_default_acl(
    fs: Filesystem, call: str, user: User, elsewhere: bool
) -> None:
    parent = home(fs, user)
    if not set_attribute(parent, DEFAULT, allowing(OTHER_USER)):
        pytest.skip(f"{fs.name} has no ACLs here")
    assert_made_as_usual(call, parent, user, **staging_options(fs, user, elsewhere))


@each_umask
@each_call
def test_the_umask_gives_way_to_a_default_acl(fs: Filesystem, call: str, umask: int) -> None:
    parent = home(fs, ROOT)
    if not set_attribute(parent, DEFAULT, allowing(OTHER_USER, 0o7, group=0o5, other=0o5)):
        pytest.skip(f"{fs.name} has no ACLs here")
    assert_made_as_usual(call, parent, ROOT, umask)


@each_user
@each_call
def test_the_default_acl_of_tmp_dir_is_not_inherited(fs: Filesystem, call: str, user: User) -> None:
    options = staging_options(fs, user, True)
    if not set_attribute(options["tmp_dir"], DEFAULT, allowing(OTHER_USER)):
        pytest.skip(f"{fs.name} has no ACLs here")
    assert_made_as_usual(call, home(fs, user), user, **options)


@pytest.mark.parametrize(
    "group", [NOBODY.groups[0], FOREIGN_GROUP], ids=["own group", "foreign group"]
)
@each_staging_place
@each_user
@each_call
def test_a_new_version_inherits_the_group_of_a_set_group_id_folder(
    fs: Filesystem, call: str, user: User, elsewhere: bool, group: int
) -> None:
    if elsewhere and group == FOREIGN_GROUP and user == NOBODY:
        pytest.skip("an ordinary user cannot give a file from elsewhere to a foreign group")
    parent = home(fs, user, 0o2775, group)
    assert_made_as_usual(call, parent, user, **staging_options(fs, user, elsewhere))


@each_call
def test_a_group_that_cannot_be_inherited_from_elsewhere_is_refused(
    fs: Filesystem, call: str
) -> None:
    parent = home(fs, NOBODY, 0o2770, FOREIGN_GROUP)
    tmp_dir = fs.folder("elsewhere", 0o2770, NOBODY.uid, NOBODY.groups[0])
    with pytest.raises(PermissionError, match="tmp_dir"):
        run_as(NOBODY, partial(publish, call, parent / "destination", tmp_dir=tmp_dir), umask=0o007)
    assert list(parent.iterdir()) == []


@each_user
@each_call
def test_the_group_of_a_set_group_id_tmp_dir_is_not_inherited(
    fs: Filesystem, call: str, user: User
) -> None:
    tmp_dir = fs.folder("elsewhere", 0o2775, user.uid, FOREIGN_GROUP)
    assert_made_as_usual(call, home(fs, user), user, tmp_dir=tmp_dir)


@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o755, 0o444], ids=oct)
@each_user
@each_call
def test_permissions_are_exact_whatever_the_umask(
    fs: Filesystem, call: str, user: User, permissions: int
) -> None:
    destination = home(fs, user) / "destination"
    run_as(user, partial(publish, call, destination, permissions=permissions), umask=0o077)
    assert mode(destination) == permissions


# Replaced destinations


@pytest.mark.parametrize("permissions", [0o640, 0o604, 0o777, 0o500], ids=oct)
@each_staging_place
@each_user
@each_call
def test_replacing_keeps_the_mode(
    fs: Filesystem, call: str, user: User, elsewhere: bool, permissions: int
) -> None:
    destination = home(fs, user) / "destination"
    options = staging_options(fs, user, elsewhere)
    run_as(user, partial(make_old, call, destination, permissions))
    run_as(user, partial(publish, call, destination, overwrite=True, **options), umask=0o077)
    assert mode(destination) == permissions


@each_call
def test_root_keeps_owner_and_group(fs: Filesystem, call: str) -> None:
    destination = home(fs, ROOT) / "destination"
    make_old(call, destination, 0o640)
    os.chown(destination, OTHER_USER, FOREIGN_GROUP)
    publish(call, destination, overwrite=True)
    status = destination.stat()
    assert (status.st_uid, status.st_gid, mode(destination)) == (OTHER_USER, FOREIGN_GROUP, 0o640)


@each_call
def test_an_ordinary_user_keeps_a_group_of_its_own(fs: Filesystem, call: str) -> None:
    destination = home(fs, NOBODY) / "destination"
    run_as(NOBODY, partial(make_old, call, destination, 0o770))
    os.chown(destination, -1, NOBODY.groups[0])
    run_as(NOBODY, partial(publish, call, destination, overwrite=True))
    status = destination.stat()
    assert (status.st_uid, status.st_gid, mode(destination)) == (
        NOBODY.uid,
        NOBODY.groups[0],
        0o770,
    )


@each_file_call
def test_an_ordinary_user_becomes_the_owner_of_what_it_replaces(fs: Filesystem, call: str) -> None:
    destination = home(fs, NOBODY) / "destination"
    make_old(call, destination, 0o644)
    run_as(NOBODY, partial(publish, call, destination, overwrite=True))
    status = destination.stat()
    assert (status.st_uid, status.st_gid, mode(destination)) == (NOBODY.uid, NOBODY.gid, 0o644)


@each_user
@each_call
def test_replacing_keeps_the_acl(fs: Filesystem, call: str, user: User) -> None:
    destination = home(fs, user) / "destination"
    run_as(user, partial(make_old, call, destination, 0o750))
    if not set_attribute(destination, ACCESS, allowing(OTHER_USER)):
        pytest.skip(f"{fs.name} has no ACLs here")
    before = metadata(destination)
    run_as(user, partial(publish, call, destination, overwrite=True), umask=0o077)
    assert metadata(destination) == before


@each_user
@each_folder_call
def test_replacing_keeps_the_default_acl_of_a_folder(fs: Filesystem, call: str, user: User) -> None:
    destination = home(fs, user) / "destination"
    run_as(user, partial(make_old, call, destination, 0o750))
    if not set_attribute(destination, DEFAULT, allowing(OTHER_USER)):
        pytest.skip(f"{fs.name} has no ACLs here")
    run_as(user, partial(publish, call, destination, overwrite=True))
    assert attributes(destination).get(DEFAULT) == allowing(OTHER_USER)


@each_call
def test_replacing_does_not_add_the_folders_default_acl(fs: Filesystem, call: str) -> None:
    parent = home(fs, ROOT)
    destination = parent / "destination"
    make_old(call, destination, 0o640)
    if not set_attribute(parent, DEFAULT, allowing(OTHER_USER)):
        pytest.skip(f"{fs.name} has no ACLs here")
    before = metadata(destination)
    publish(call, destination, overwrite=True)
    assert metadata(destination) == before


@each_staging_place
@each_user
@each_call
def test_replacing_keeps_user_attributes(
    fs: Filesystem, call: str, user: User, elsewhere: bool
) -> None:
    destination = home(fs, user) / "destination"
    run_as(user, partial(make_old, call, destination, 0o755))
    values = {"user.empty": b"", "user.note": b"kept", "user.bytes": bytes(range(256))}
    if not all(set_attribute(destination, name, value) for name, value in values.items()):
        pytest.skip(f"{fs.name} has no user attributes here")
    options = staging_options(fs, user, elsewhere)
    run_as(user, partial(publish, call, destination, overwrite=True, **options))
    assert attributes(destination, ["user."]) == values


@each_user
@each_call
def test_nothing_is_kept_without_preserve(fs: Filesystem, call: str, user: User) -> None:
    parent = home(fs, user)
    destination = parent / "ours"
    run_as(user, partial(make_old, call, destination, 0o711))
    set_attribute(destination, "user.note", b"not kept")
    set_attribute(destination, ACCESS, allowing(OTHER_USER))
    assert_made_as_usual(call, parent, user, overwrite=True, preserve=False)


@each_user
@each_call
def test_permissions_win_over_the_old_mode(fs: Filesystem, call: str, user: User) -> None:
    destination = home(fs, user) / "destination"
    run_as(user, partial(make_old, call, destination, 0o711))
    kept = set_attribute(destination, "user.note", b"kept")
    run_as(user, partial(publish, call, destination, overwrite=True, permissions=0o750))
    assert mode(destination) == 0o750
    assert attributes(destination, ["user."]) == ({"user.note": b"kept"} if kept else {})


@pytest.mark.parametrize(
    "special", [stat.S_ISUID, stat.S_ISGID, stat.S_ISUID | stat.S_ISGID], ids=oct
)
@each_user
@each_file_call
def test_set_id_bits_of_files_are_not_carried_over(
    fs: Filesystem, call: str, user: User, special: int
) -> None:
    destination = home(fs, user) / "destination"
    run_as(user, partial(make_old, call, destination, 0o755))
    destination.chmod(0o755 | special)
    run_as(user, partial(publish, call, destination, overwrite=True))
    assert mode(destination) == 0o755


@pytest.mark.parametrize("special", [stat.S_ISGID, stat.S_ISVTX], ids=["set-group-id", "sticky"])
@each_user
@each_folder_call
def test_the_special_bits_of_folders_are_kept(
    fs: Filesystem, call: str, user: User, special: int
) -> None:
    destination = home(fs, user) / "destination"
    run_as(user, partial(make_old, call, destination, 0o755))
    destination.chmod(0o755 | special)
    run_as(user, partial(publish, call, destination, overwrite=True))
    assert mode(destination) == 0o755 | special


@each_file_call
def test_replacing_a_symlink_keeps_nothing_of_what_it_points_to(fs: Filesystem, call: str) -> None:
    parent = home(fs, ROOT)
    make_old(call, parent / "target", 0o600)
    set_attribute(parent / "target", "user.note", b"not kept")
    (parent / "ours").symlink_to("target")
    before = metadata(parent / "target")
    assert_made_as_usual(call, parent, ROOT, overwrite=True)
    assert metadata(parent / "target") == before


# While it is being built


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "replacing"])
def test_others_cannot_read_a_file_that_is_being_written(fs: Filesystem, overwrite: bool) -> None:
    destination = home(fs, ROOT) / "destination"
    if overwrite:
        make_old("file", destination, 0o600)
    with atomik.file(destination, "wb", overwrite=overwrite, permissions=0o600) as staging:
        staging.write(NEW)
        staging.flush()
        handle = f"/proc/{os.getpid()}/fd/{staging.fileno()}"
        with pytest.raises(PermissionError):
            run_as(NOBODY, partial(os.open, handle, os.O_RDONLY))


@each_staging_place
@pytest.mark.parametrize("call", ["folder", "path"])
def test_others_cannot_enter_what_is_being_built(
    fs: Filesystem, call: str, elsewhere: bool
) -> None:
    destination = home(fs, ROOT) / "destination"
    guard = atomik.folder if call == "folder" else atomik.path
    tmp_dir = fs.folder("elsewhere", 0o777) if elsewhere else None
    with guard(destination, permissions=0o755, tmp_dir=tmp_dir) as staging:
        assert mode(staging.parent.resolve()) & 0o777 == 0o700
        if call == "path":
            staging.touch()
        with pytest.raises(PermissionError):
            run_as(NOBODY, partial(os.stat, staging))


@pytest.mark.parametrize("fs", ["bindfs"], indirect=True)
def test_a_named_file_being_written_lies_where_others_cannot_enter(fs: Filesystem) -> None:
    destination = home(fs, ROOT) / "destination"
    with atomik.file(destination):
        (slot,) = (
            entry for entry in destination.parent.iterdir() if entry.name.startswith(".atomik-")
        )
        assert mode(slot) == 0o700
