"""What a body sets on its own version stands: mode, owner, times, attributes, ACL.

Replacing takes from the old version only what the body has left alone.
"""

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import atomik
import pytest
from support.filesystems import Filesystem
from support.processes import NOBODY, ROOT, User, run_as
from support.xattrs import ACCESS, DEFAULT, allowing, attributes, set_attribute

if TYPE_CHECKING:
    from io import BufferedRandom

Target: TypeAlias = int | Path
"""The body's own version: a descriptor, or a path."""

Body: TypeAlias = Callable[[Any], object]

OTHER_USER: Final = 12345
OWNER: Final = (12, 34)


def _open(
    path: Path, mode: Literal["wb", "ab", "r+b"], **options: Any
) -> "atomik.File[BufferedRandom]":
    return cast("atomik.File[BufferedRandom]", atomik.file(path, mode, **options))


def _file(path: Path, body: Body, **options: Any) -> None:
    with _open(path, "wb", overwrite=True, **options) as f:
        f.write(b"new")
        body(f.fileno())


def _append(path: Path, body: Body, **options: Any) -> None:
    with _open(path, "ab", **options) as f:
        f.write(b"new")
        body(f.fileno())


def _edit(path: Path, body: Body, **options: Any) -> None:
    with _open(path, "r+b", **options) as f:
        f.write(b"new")
        body(f.fileno())


def _file_with_backup(path: Path, body: Body, **options: Any) -> None:
    _file(path, body, backup=path.name + ".old", **options)


def _file_elsewhere(path: Path, body: Body, **options: Any) -> None:
    tmp_dir = path.parent / "elsewhere"
    tmp_dir.mkdir()
    _file(path, body, tmp_dir=tmp_dir, **options)


def _file_in_a_group(path: Path, body: Body, **options: Any) -> None:
    with atomik.group() as group:
        guard = cast(
            "atomik.File[BufferedRandom]", group.file(path, "wb", overwrite=True, **options)
        )
        with guard as f:
            f.write(b"new")
            body(f.fileno())


def _path_to_a_file(path: Path, body: Body, **options: Any) -> None:
    with atomik.path(path, overwrite=True, **options) as staging:
        staging.write_bytes(b"new")
        body(staging)


def _update_by_path(path: Path, body: Body, **options: Any) -> None:
    with atomik.path(path, update=True, **options) as staging:
        body(staging)


def _folder(path: Path, body: Body, **options: Any) -> None:
    with atomik.folder(path, overwrite=True, **options) as staging:
        (staging / "new").write_bytes(b"new")
        body(staging)


def _update(path: Path, body: Body, **options: Any) -> None:
    with atomik.folder(path, update=True, **options) as staging:
        (staging / "new").write_bytes(b"new")
        body(staging)


def _folder_in_a_group(path: Path, body: Body, **options: Any) -> None:
    with atomik.group() as group:
        with group.folder(path, overwrite=True, **options) as staging:
            body(staging)


def _path_to_a_folder(path: Path, body: Body, **options: Any) -> None:
    with atomik.path(path, overwrite=True, **options) as staging:
        staging.mkdir()
        body(staging)


Way: TypeAlias = Callable[..., None]

GIVEN_FILES: Final[Mapping[str, Way]] = {
    "file": _file,
    "a": _append,
    "r+": _edit,
    "backup": _file_with_backup,
    "tmp_dir": _file_elsewhere,
    "file in a group": _file_in_a_group,
    "path, update, of a file": _update_by_path,
}
GIVEN_FOLDERS: Final[Mapping[str, Way]] = {
    "folder": _folder,
    "update": _update,
    "folder in a group": _folder_in_a_group,
    "path, update, of a folder": _update_by_path,
}
MADE: Final[Mapping[str, Way]] = {
    "path to a file": _path_to_a_file,
    "path to a folder": _path_to_a_folder,
}
"""What a tool makes by itself: it is not given anything before."""

GIVEN: Final = {**GIVEN_FILES, **GIVEN_FOLDERS}
ALL: Final = {**GIVEN, **MADE}
FOLDERS: Final = {*GIVEN_FOLDERS, "path to a folder"}

CANNOT_DO_WITHOUT: Final = {*FOLDERS, "backup", "file in a group"}
"""What needs two names to be exchanged."""

each_way = pytest.mark.parametrize("way", ALL)
each_given_way = pytest.mark.parametrize("way", GIVEN)
each_made_way = pytest.mark.parametrize("way", MADE)
each_user = pytest.mark.parametrize("user", [ROOT, NOBODY], ids=User.label)
each_umask = pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)


@pytest.fixture(autouse=True)
def it_can_be_published(request: pytest.FixtureRequest, fs: Filesystem) -> None:
    """Skips what needs folders, or backups, to be exchanged; test_matrix.py has the refusals."""
    if not fs.flags and request.node.callspec.params["way"] in CANNOT_DO_WITHOUT:
        pytest.skip(f"{fs.name} cannot exchange")


def old(fs: Filesystem, way: str, user: User = ROOT, permissions: int = 0o644) -> Path:
    """Makes the version that is to be replaced."""
    path = fs.folder("home", 0o755, user.uid, user.gid) / "destination"
    if way in FOLDERS:
        path.mkdir()
        (path / "old").write_bytes(b"old")
        if permissions & 0o400:
            permissions |= 0o100
    else:
        path.write_bytes(b"old")
    os.chown(path, user.uid, user.gid)
    path.chmod(permissions)
    return path


def mode(target: Target) -> int:
    return stat.S_IMODE(os.stat(target).st_mode)


def owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def untouched(_: Target) -> None:
    """Is a body that sets nothing."""


@pytest.mark.parametrize("permissions", [0o600, 0o644, 0o666, 0o400], ids=oct)
@each_umask
@each_user
@each_way
def test_the_bodys_mode_stands(
    fs: Filesystem, way: str, user: User, umask: int, permissions: int
) -> None:
    destination = old(fs, way, user, permissions)
    body = partial(_chmod, permissions=0o705)
    run_as(user, partial(ALL[way], destination, body), umask=umask)
    assert mode(destination) == 0o705


@each_umask
@each_user
@each_given_way
def test_a_body_that_narrows_the_mode_never_ends_with_a_wider_one(
    fs: Filesystem, way: str, user: User, umask: int
) -> None:
    destination = old(fs, way, user, 0o666)
    # With the last umask, what `open` gives is what the body sets.
    body = partial(_chmod, permissions=0o700 if way in FOLDERS else 0o600)
    run_as(user, partial(ALL[way], destination, body), umask=umask)
    assert mode(destination) & 0o077 == 0


@each_user
@each_way
def test_a_body_that_narrows_the_mode_takes_the_old_acls_rights(
    fs: Filesystem, way: str, user: User
) -> None:
    destination = old(fs, way, user)
    if not set_attribute(destination, ACCESS, allowing(OTHER_USER, 0o7)):
        pytest.skip(f"{fs.name} has no ACLs here")
    narrow = 0o700 if way in FOLDERS else 0o600
    run_as(user, partial(ALL[way], destination, partial(_chmod, permissions=narrow)))
    # With an ACL the group bits are the mask: nothing gets past it.
    assert mode(destination) == narrow


@each_given_way
def test_a_body_that_removes_the_acl_ends_without_it(fs: Filesystem, way: str) -> None:
    destination = old(fs, way)
    if not set_attribute(destination, ACCESS, allowing(OTHER_USER)):
        pytest.skip(f"{fs.name} has no ACLs here")

    def remove(target: Target) -> None:
        os.removexattr(target, ACCESS)
        os.chmod(target, 0o750)

    GIVEN[way](destination, remove)
    assert ACCESS not in attributes(destination)
    assert mode(destination) == 0o750


@each_way
def test_the_bodys_acl_stands(fs: Filesystem, way: str) -> None:
    destination = old(fs, way)
    if not set_attribute(destination, ACCESS, allowing(OTHER_USER, 0o7)):
        pytest.skip(f"{fs.name} has no ACLs here")
    own = allowing(777, 0o4)
    ALL[way](destination, lambda target: os.setxattr(target, ACCESS, own))
    assert attributes(destination)[ACCESS] == own


@each_way
def test_the_bodys_owner_and_group_stand(fs: Filesystem, way: str) -> None:
    destination = old(fs, way)
    os.chown(destination, 56, 78)
    ALL[way](destination, lambda target: os.chown(target, *OWNER))
    assert owner(destination) == OWNER


@each_way
def test_the_bodys_times_stand(fs: Filesystem, way: str) -> None:
    destination = old(fs, way)

    def age(target: Target) -> None:
        os.utime(target, (1, 2))

    with_buffer = way in GIVEN_FILES and way != "path, update, of a file"
    # What is written later sets them anew.
    options = {"buffering": 0} if with_buffer else {}
    ALL[way](destination, age, **options)
    assert destination.stat().st_mtime == 2


@each_way
def test_the_bodys_attributes_stand_beside_the_old_ones(fs: Filesystem, way: str) -> None:
    destination = old(fs, way)
    if not set_attribute(destination, "user.checksum", b"old"):
        pytest.skip(f"{fs.name} has no user attributes here")
    set_attribute(destination, "user.kept", b"old")

    def describe(target: Target) -> None:
        os.setxattr(target, "user.checksum", b"new")
        os.setxattr(target, "user.more", b"new")

    ALL[way](destination, describe)
    assert attributes(destination, ["user."]) == {
        "user.checksum": b"new",
        "user.kept": b"old",
        "user.more": b"new",
    }


@each_given_way
def test_an_attribute_that_the_body_removes_stays_removed(fs: Filesystem, way: str) -> None:
    destination = old(fs, way)
    if not set_attribute(destination, "user.checksum", b"old"):
        pytest.skip(f"{fs.name} has no user attributes here")
    GIVEN[way](destination, lambda target: os.removexattr(target, "user.checksum"))
    assert attributes(destination, ["user."]) == {}


@each_user
@each_given_way
def test_staging_shows_what_the_old_version_has(fs: Filesystem, way: str, user: User) -> None:
    destination = old(fs, way, user, 0o640)
    set_attribute(destination, "user.note", b"old")
    set_attribute(destination, ACCESS, allowing(OTHER_USER))
    if way in FOLDERS:
        set_attribute(destination, DEFAULT, allowing(OTHER_USER))
    expected = attributes(destination), mode(destination)

    def look(target: Target) -> None:
        names = ("user.note", ACCESS, DEFAULT)
        found = {name: os.getxattr(target, name) for name in names if name in os.listxattr(target)}
        assert (found, mode(target)) == expected

    run_as(user, partial(GIVEN[way], destination, look))
    assert (attributes(destination), mode(destination)) == expected


@each_way
def test_permissions_beat_the_body_and_the_old_version(fs: Filesystem, way: str) -> None:
    destination = old(fs, way)
    ALL[way](destination, partial(_chmod, permissions=0o777), permissions=0o710)
    assert mode(destination) == 0o710


@each_way
def test_without_preserve_the_bodys_mode_stands_alone(fs: Filesystem, way: str) -> None:
    destination = old(fs, way, permissions=0o600)
    ALL[way](destination, partial(_chmod, permissions=0o711), preserve=False)
    assert mode(destination) == 0o711


@pytest.mark.parametrize("way", sorted({*GIVEN_FILES} - {"path, update, of a file"}))
def test_the_bodys_set_user_id_bit_stands(fs: Filesystem, way: str) -> None:
    destination = old(fs, way)
    # Writing takes the bit away: nothing is left in a buffer.
    GIVEN_FILES[way](destination, partial(_chmod, permissions=0o4755), buffering=0)
    assert mode(destination) == 0o4755


# What happens to the destination meanwhile


@each_way
def test_what_the_destination_gets_meanwhile_is_kept_too(fs: Filesystem, way: str) -> None:
    destination = old(fs, way)
    set_attribute(destination, "user.gone", b"old")

    def meanwhile(_: Target) -> None:
        destination.chmod(0o750)
        os.chown(destination, *OWNER)
        if set_attribute(destination, "user.note", b"meanwhile"):
            os.removexattr(destination, "user.gone")

    ALL[way](destination, meanwhile)
    assert (mode(destination), owner(destination)) == (0o750, OWNER)
    assert attributes(destination, ["user."]).get("user.note") in (b"meanwhile", None)
    assert "user.gone" not in attributes(destination, ["user."])


@each_way
def test_an_acl_that_the_destination_gets_meanwhile_is_kept_too(fs: Filesystem, way: str) -> None:
    destination = old(fs, way)
    acl = allowing(OTHER_USER)
    supported: list[bool] = []
    ALL[way](destination, lambda _: supported.append(set_attribute(destination, ACCESS, acl)))
    if not all(supported):
        pytest.skip(f"{fs.name} has no ACLs here")
    assert attributes(destination)[ACCESS] == acl


@each_way
def test_what_the_body_sets_beats_what_the_destination_gets_meanwhile(
    fs: Filesystem, way: str
) -> None:
    destination = old(fs, way)

    def both(target: Target) -> None:
        destination.chmod(0o777)
        os.chmod(target, 0o700)

    ALL[way](destination, both)
    assert mode(destination) == 0o700


@pytest.mark.parametrize("way", ["file", "path to a file", "folder", "path to a folder"])
@each_umask
def test_a_version_that_appears_meanwhile_is_kept_from(
    fs: Filesystem, way: str, umask: int
) -> None:
    destination = fs.folder("home") / "destination"

    def appear(_: Target) -> None:
        if way in FOLDERS:
            destination.mkdir()
        else:
            destination.touch()
        destination.chmod(0o710)

    run_as(ROOT, partial(ALL[way], destination, appear), umask=umask)
    assert mode(destination) == 0o710


@pytest.mark.parametrize("way", GIVEN_FOLDERS)
def test_a_folder_that_the_body_puts_in_place_of_staging_is_given_the_rest(
    fs: Filesystem, way: str
) -> None:
    destination = old(fs, way, permissions=0o750)
    set_attribute(destination, "user.note", b"kept")

    def replace(staging: Path) -> None:
        shutil.rmtree(staging)
        staging.mkdir()

    expected = attributes(destination), mode(destination)
    GIVEN[way](destination, replace)
    assert (attributes(destination), mode(destination)) == expected


@pytest.mark.parametrize("way", [*GIVEN_FOLDERS, "path, update, of a file"])
def test_the_mode_of_what_the_body_puts_in_place_of_staging_stands(
    fs: Filesystem, way: str
) -> None:
    destination = old(fs, way, permissions=0o755)

    def replace(staging: Path) -> None:
        if staging.is_dir():
            shutil.rmtree(staging)
            staging.mkdir()
        else:
            staging.unlink()
            staging.touch()
        staging.chmod(0o711)

    GIVEN[way](destination, replace)
    assert mode(destination) == 0o711


@each_user
@pytest.mark.parametrize("way", sorted(FOLDERS - {"path to a folder", "folder in a group"}))
def test_a_folder_that_its_owner_may_not_write_to_is_replaced_and_stays_so(
    fs: Filesystem, way: str, user: User
) -> None:
    destination = old(fs, way, user, 0o555)
    run_as(user, partial(ALL[way], destination, untouched))
    assert mode(destination) == 0o555


def _chmod(target: Target, permissions: int) -> None:
    os.chmod(target, permissions)
