"""What can be known before the body runs is said before the body runs, so that no work is lost."""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Final

import atomik
import pytest
from support.filesystems import Filesystem, Missing, Mounts
from support.processes import NOBODY, ROOT, User, run_as, run_program
from support.publishing import (
    ALL,
    IN_GROUP,
    MAKING_FILES,
    MAKING_FOLDERS,
    AnyPath,
    Attempt,
    attempt,
    nothing,
)
from support.trees import identities, tree

OTHER_USER: Final = 12345

IN_ONE_STEP: Final = ("file", "write_bytes", "write_text")
"""Where the filesystem has unnamed files."""

each_call = pytest.mark.parametrize("call", ALL)
each_file_call = pytest.mark.parametrize("call", MAKING_FILES)
each_folder_call = pytest.mark.parametrize("call", MAKING_FOLDERS)
each_overwrite = pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
each_user = pytest.mark.parametrize("user", [ROOT, NOBODY], ids=User.label)
each_path_type = pytest.mark.parametrize(
    "as_given", [os.fspath, os.fsencode, PurePath], ids=["str", "bytes", "PathLike"]
)
only_overlay = pytest.mark.parametrize("fs", ["overlay"], indirect=True)
only_bindfs = pytest.mark.parametrize("fs", ["bindfs"], indirect=True)


@pytest.fixture(autouse=True)
def folders_can_be_published(request: pytest.FixtureRequest) -> None:
    """Skips what would fail for want of the flags; test_matrix.py looks at that."""
    params = getattr(request.node, "callspec", None)
    if params is None or params.params.get("fs") != "bindfs":
        return
    if (
        params.params.get("call") in MAKING_FOLDERS
        and "bindfs" not in request.node.name.split("[")[0]
    ):
        pytest.skip("bindfs cannot publish folders")


def refused(
    call: str,
    destination: AnyPath,
    *,
    user: User = ROOT,
    words: tuple[str, ...] = (),
    **options: Any,
) -> OSError:
    """Makes a call that must fail before its body runs, and returns its error.

    The message must name the path and say each of these words besides.
    """
    made = run_as(user, partial(attempt, ALL[call], destination, **options))
    return assert_refused(made, destination, words)


def assert_refused(made: Attempt, destination: AnyPath, words: tuple[str, ...] = ()) -> OSError:
    assert made.error is not None, "the call succeeded"
    assert not made.body_ran, f"the body ran before {made.error!r}"
    assert made.error.filename == os.fspath(destination), made.error
    assert repr(os.fspath(destination)) in str(made.error)
    for word in words:
        assert word in str(made.error.strerror)
    return made.error


def old_file(path: Path, owner: int = 0) -> Path:
    path.write_bytes(b"old")
    os.chown(path, owner, owner)
    return path


def old_folder(path: Path, owner: int = 0) -> Path:
    path.mkdir()
    os.chown(path, owner, owner)
    old_file(path / "old", owner)
    return path


def old_version(call: str, path: Path, owner: int = 0) -> Path:
    return old_file(path, owner) if call in MAKING_FILES else old_folder(path, owner)


# The parent


@each_path_type
@each_call
def test_a_missing_parent(fs: Filesystem, call: str, as_given: Callable[[Path], AnyPath]) -> None:
    destination = as_given(fs.here / "missing" / "destination")
    error = refused(call, destination)
    assert type(error) is FileNotFoundError
    assert error.errno == errno.ENOENT
    assert list(fs.here.iterdir()) == []


@each_call
def test_a_parent_that_is_a_file(fs: Filesystem, call: str) -> None:
    parent = old_file(fs.here / "file")
    error = refused(call, parent / "destination")
    assert type(error) is NotADirectoryError
    assert error.errno == errno.ENOTDIR


@each_call
def test_a_parent_in_a_loop_of_symlinks(fs: Filesystem, call: str) -> None:
    (fs.here / "loop").symlink_to("loop")
    assert refused(call, fs.here / "loop" / "destination").errno == errno.ELOOP


@pytest.mark.parametrize("permissions", [0o555, 0o666, 0o000], ids=oct)
@each_call
def test_a_parent_that_the_user_may_not_write(fs: Filesystem, call: str, permissions: int) -> None:
    parent = fs.folder("parent", permissions, NOBODY.uid, NOBODY.gid)
    error = refused(call, parent / "destination", user=NOBODY)
    assert type(error) is PermissionError
    assert error.errno == errno.EACCES


@each_overwrite
@each_call
def test_a_parent_that_the_user_may_not_write_though_it_may_write_tmp_dir(
    fs: Filesystem, call: str, overwrite: bool
) -> None:
    parent, tmp_dir = fs.folder("parent"), fs.folder("tmp", 0o777)
    destination = old_version(call, parent / "destination") if overwrite else parent / "destination"
    error = refused(call, destination, user=NOBODY, overwrite=overwrite, tmp_dir=tmp_dir)
    assert type(error) is PermissionError
    assert error.errno == errno.EACCES


@each_overwrite
@each_user
@each_call
def test_a_read_only_mount(fs: Filesystem, call: str, user: User, overwrite: bool) -> None:
    source, target = fs.folder("source", 0o777), fs.folder("target")
    old_version(call, source / "destination", user.uid)
    fs.bind(source, target, read_only=True)
    name = "destination" if overwrite else "new"
    error = refused(call, target / name, user=user, overwrite=overwrite)
    assert type(error) is OSError
    assert error.errno == errno.EROFS


# The destination's name


@each_path_type
@each_call
def test_a_name_that_is_too_long(
    fs: Filesystem, call: str, as_given: Callable[[Path], AnyPath]
) -> None:
    error = refused(call, as_given(fs.here / ("n" * 256)))
    assert error.errno == errno.ENAMETOOLONG


@each_call
def test_the_longest_name_is_not_too_long(fs: Filesystem, call: str) -> None:
    destination = fs.here / ("n" * 255)
    made = attempt(ALL[call], destination)
    if made.error is not None:
        raise made.error
    assert destination.exists()


@pytest.mark.parametrize(
    "nul", ["a\0b", b"a\0b", PurePath("a\0b")], ids=["str", "bytes", "PathLike"]
)
@each_call
def test_a_nul_in_the_path(call: str, nul: AnyPath) -> None:
    assert_wrong(ValueError, partial(ALL[call], nul))


@each_call
def test_a_nul_in_tmp_dir(here: Path, call: str) -> None:
    assert_wrong(ValueError, partial(ALL[call], here / "destination", tmp_dir="a\0b"))


# What is already there


@each_path_type
@each_user
@each_call
def test_an_existing_destination(
    fs: Filesystem, call: str, user: User, as_given: Callable[[Path], AnyPath]
) -> None:
    parent = fs.folder("parent", owner=user.uid, group=user.gid)
    destination = old_version(call, parent / "destination", user.uid)
    before = tree(fs.here), identities(fs.here)
    error = refused(call, as_given(destination), user=user, words=("overwrite",))
    assert type(error) is atomik.FileAlreadyExistsError
    assert isinstance(error, FileExistsError)
    assert error.errno == errno.EEXIST
    assert (tree(fs.here), identities(fs.here)) == before


@each_call
def test_a_destination_of_the_wrong_type(fs: Filesystem, call: str) -> None:
    if call.startswith("path"):
        pytest.skip("`path` learns only at the commit what has been made")
    makes_files = call in MAKING_FILES
    destination = (old_folder if makes_files else old_file)(fs.here / "destination")
    error = refused(call, destination, overwrite=True)
    assert type(error) is (IsADirectoryError if makes_files else NotADirectoryError)
    assert error.errno == (errno.EISDIR if makes_files else errno.ENOTDIR)


@each_call
def test_a_mount_point(fs: Filesystem, call: str) -> None:
    source, destination = old_folder(fs.here / "source"), fs.folder("destination")
    fs.bind(source, destination)
    before = tree(fs.here)
    error = refused(call, destination, overwrite=True, words=("mount",))
    assert type(error) is atomik.DestinationBusyError
    assert error.errno == errno.EBUSY
    assert tree(fs.here) == before


@each_user
@each_call
def test_a_bind_mounted_file_as_in_a_container(fs: Filesystem, call: str, user: User) -> None:
    source = old_file(fs.here / "source", user.uid)
    parent = fs.folder("parent", owner=user.uid, group=user.gid)
    destination = old_file(parent / "destination", user.uid)
    fs.bind(source, destination)
    error = refused(call, destination, user=user, overwrite=True, words=("mount",))
    assert type(error) is atomik.DestinationBusyError
    assert error.errno == errno.EBUSY
    assert destination.read_bytes() == b"old"


each_follow = pytest.mark.parametrize("follow", [False, True], ids=["itself", "followed"])


@pytest.mark.parametrize(
    "target",
    ["/dev/null", "fifo", "socket", "mount point", "/proc/self/fd/0", "/proc/self/fd/1000", "/dev/stdin",
     "/proc/self/cwd/file", "/proc/self/mounts"],
)  # fmt: skip
@pytest.mark.parametrize("hops", [1, 3])
@pytest.mark.parametrize("fs", ["ext4", "bindfs"], indirect=True)
@each_follow
@each_call
def test_a_symlink_to_what_is_never_replaced(
    here: Path, fs: Filesystem, call: str, follow: bool, hops: int, target: str
) -> None:
    place = fs.folder("place")
    if target == "fifo":
        os.mkfifo(place / target)
    elif target == "socket":
        os.mknod(place / target, stat.S_IFSOCK | 0o600)
    elif target == "mount point":
        fs.bind(fs.folder("source"), fs.folder("place/mount point"))
    for hop in range(hops):
        (place / f"link{hop}").symlink_to(target if hop == 0 else f"../place/link{hop - 1}")
    before = tree(place)
    destination = place / f"link{hops - 1}"
    # Standard input is a regular file: what it is does not count.
    with (here / "input").open("w+") as standard:
        error = refused_with(standard.fileno(), call, destination, follow)
    assert type(error) is atomik.DestinationBusyError
    assert error.errno == errno.EBUSY
    assert tree(place) == before
    assert (here / "input").read_bytes() == b""


def refused_with(standard_input: int, call: str, destination: Path, follow: bool) -> OSError:
    def attempt_it() -> OSError:
        os.dup2(standard_input, 0)
        os.chdir(destination.parent)
        made = attempt(ALL[call], destination, overwrite=True, follow_symlinks=follow)
        return assert_refused(made, destination)

    return run_as(ROOT, attempt_it)


@each_call
def test_a_member_of_a_group_that_is_a_symlink_to_a_device(here: Path, call: str) -> None:
    (here / "link").symlink_to("/dev/null")
    with atomik.group() as group:
        made = attempt(IN_GROUP[call], here / "link", group=group, overwrite=True)
    assert type(assert_refused(made, here / "link")) is atomik.DestinationBusyError
    assert os.readlink(here / "link") == "/dev/null"


@each_follow
@each_file_call
def test_a_symlink_to_a_file_elsewhere_is_replaced_or_followed(
    fs: Filesystem, call: str, follow: bool
) -> None:
    target = old_file(fs.folder("elsewhere") / "target")
    (fs.here / "link").symlink_to(target)
    MAKING_FILES[call](fs.here / "link", nothing, overwrite=True, follow_symlinks=follow)
    assert (fs.here / "link").is_symlink() is follow
    assert target.read_bytes() == (b"new" if follow else b"old")


@pytest.mark.parametrize(
    "name",
    [".atomik-0.notes", ".atomik-0.notes~", ".atomik-lock.notes~", ".atomik-u0.notes~", ".atomik-s0123.notes~",
     ".atomik-backup", ".atomik-", ".atomik"],
)  # fmt: skip
@each_overwrite
@each_path_type
@each_call
def test_a_name_of_the_librarys_own(
    here: Path, call: str, as_given: Callable[[Path], AnyPath], overwrite: bool, name: str
) -> None:
    destination = here / name
    if overwrite:
        old_version(call, destination)
    before = tree(here), identities(here)
    error = refused(call, as_given(destination), words=(".atomik",), overwrite=overwrite)
    assert type(error) is OSError
    assert error.errno == errno.EINVAL
    assert (tree(here), identities(here)) == before
    # As its clean-up would take it for an orphan.
    if overwrite:
        (shutil.rmtree if destination.is_dir() else os.unlink)(destination)


@each_call
def test_a_symlink_to_a_name_of_the_librarys_own_is_not_followed(here: Path, call: str) -> None:
    (here / "link").symlink_to(".atomik-0.notes~")
    error = refused(call, here / "link", overwrite=True, follow_symlinks=True)
    assert error.errno == errno.EINVAL
    assert os.listdir(here) == ["link"]


@each_call
def test_a_member_of_a_group_with_a_name_of_the_librarys_own(here: Path, call: str) -> None:
    with atomik.group() as group:
        made = attempt(IN_GROUP[call], here / ".atomik-0.notes~", group=group)
    assert assert_refused(made, here / ".atomik-0.notes~").errno == errno.EINVAL
    assert os.listdir(here) == []


@each_file_call
def test_an_immutable_file(fs: Filesystem, call: str) -> None:
    if fs.name == "bindfs":
        pytest.skip("bindfs does not show that a file is immutable")
    destination = old_file(fs.here / "destination")
    fs.make_immutable(destination)
    error = refused(call, destination, overwrite=True, words=("immutable",))
    assert type(error) is PermissionError
    assert error.errno == errno.EPERM


@pytest.mark.parametrize("attribute", ["immutable", "append-only"])
@each_overwrite
@each_call
def test_a_folder_that_takes_no_new_version_is_called_what_it_is(
    fs: Filesystem, call: str, overwrite: bool, attribute: str
) -> None:
    if fs.name == "bindfs":
        pytest.skip("bindfs does not show the attributes of a folder")
    parent = fs.folder("parent")
    if overwrite:
        old_version(call, parent / "destination")
    fs.set_attribute(parent, attribute)
    if attribute == "append-only" and not overwrite and call in IN_ONE_STEP:
        # A new file is linked, not renamed.
        ALL[call](parent / "destination", nothing)
        return
    error = refused(call, parent / "destination", words=(attribute,), overwrite=overwrite)
    assert type(error) is PermissionError
    assert error.errno == errno.EPERM
    assert {"immutable": "append-only", "append-only": "immutable"}[attribute] not in str(error)


@each_call
def test_anothers_version_in_a_sticky_folder(fs: Filesystem, call: str) -> None:
    parent = fs.folder("parent", 0o1777)
    destination = old_version(call, parent / "destination", OTHER_USER)
    before = tree(parent), identities(parent)
    error = refused(call, destination, user=NOBODY, overwrite=True)
    assert type(error) is PermissionError
    assert error.errno in (errno.EPERM, errno.EACCES)
    assert (tree(parent), identities(parent)) == before


@each_call
def test_ones_own_version_in_a_sticky_folder_is_replaced(fs: Filesystem, call: str) -> None:
    parent = fs.folder("parent", 0o1777)
    destination = old_version(call, parent / "destination", NOBODY.uid)
    run_as(NOBODY, partial(ALL[call], destination, nothing, overwrite=True))
    assert not (
        destination.read_bytes() == b"old"
        if destination.is_file()
        else (destination / "old").exists()
    )


# Other mounts


@each_call
def test_a_missing_tmp_dir(fs: Filesystem, call: str) -> None:
    made = attempt(ALL[call], fs.here / "destination", tmp_dir=fs.here / "missing")
    assert isinstance(made.error, FileNotFoundError)
    assert not made.body_ran
    assert os.fspath(fs.here / "missing") in (made.error.filename, made.error.filename2)


@each_call
def test_a_tmp_dir_on_another_filesystem(fs: Filesystem, call: str) -> None:
    tmp_dir = fs.folder("tmp")
    fs.mount_tmpfs(tmp_dir)
    assert_crosses(fs, call, tmp_dir)


@each_call
def test_a_tmp_dir_on_another_mount_of_the_same_filesystem(fs: Filesystem, call: str) -> None:
    source, tmp_dir = fs.folder("source"), fs.folder("tmp")
    fs.bind(source, tmp_dir)
    if fs.name != "btrfs":
        assert tmp_dir.stat().st_dev == fs.here.stat().st_dev
    assert_crosses(fs, call, tmp_dir)


def assert_crosses(fs: Filesystem, call: str, tmp_dir: Path) -> None:
    destination = fs.here / "destination"
    made = attempt(ALL[call], destination, tmp_dir=tmp_dir)
    assert isinstance(made.error, atomik.InvalidCrossDeviceError)
    assert not made.body_ran
    assert made.error.errno == errno.EXDEV
    assert (made.error.filename, made.error.filename2) == (
        os.fspath(tmp_dir),
        os.fspath(destination),
    )
    assert "tmp_dir" in str(made.error.strerror)
    assert list(tmp_dir.iterdir()) == []


@each_call
def test_a_tmp_dir_that_the_user_may_not_write(fs: Filesystem, call: str) -> None:
    parent, tmp_dir = fs.folder("parent", 0o777), fs.folder("tmp", 0o755)
    made = run_as(NOBODY, partial(attempt, ALL[call], parent / "destination", tmp_dir=tmp_dir))
    assert type(made.error) is PermissionError
    assert not made.body_ran


@pytest.mark.parametrize("call", ["rename", "exchange"])
@pytest.mark.parametrize("bound", [False, True], ids=["another filesystem", "another mount"])
def test_renaming_to_another_mount(fs: Filesystem, call: str, bound: bool) -> None:
    source, target = old_file(fs.here / "source"), fs.folder("target")
    if bound:
        fs.bind(fs.folder("other"), target)
    else:
        fs.mount_tmpfs(target)
    destination = target / "destination"
    if call == "exchange":
        old_file(destination)
    renaming = partial(atomik.rename if call == "rename" else atomik.exchange, source, destination)
    with pytest.raises(atomik.InvalidCrossDeviceError) as caught:
        renaming()
    assert caught.value.errno == errno.EXDEV
    assert (caught.value.filename, caught.value.filename2) == (
        os.fspath(source),
        os.fspath(destination),
    )
    assert "mount" in str(caught.value.strerror)


# Filesystems that cannot


@only_overlay
def test_replacing_a_folder_of_an_overlays_lower_layer(fs: Filesystem) -> None:
    parent = fs.take_lower()
    before = tree(parent)
    error = refused("folder", parent / "folder", overwrite=True, words=("overlay",))
    assert type(error) is atomik.InvalidCrossDeviceError
    assert error.errno == errno.EXDEV
    assert tree(parent) == before


@only_overlay
@each_file_call
def test_a_file_of_an_overlays_lower_layer_is_replaced(fs: Filesystem, call: str) -> None:
    destination = fs.take_lower() / "file"
    ALL[call](destination, nothing, overwrite=True)
    assert destination.read_bytes() == b"new"


@only_overlay
@each_folder_call
def test_a_folder_is_published_in_a_folder_of_an_overlays_lower_layer(
    fs: Filesystem, call: str
) -> None:
    destination = fs.take_lower() / "folder" / "inner" / "destination"
    ALL[call](destination)
    assert (destination / "new").read_bytes() == b"new"


@only_bindfs
@each_path_type
def test_bindfs_cannot_replace_a_folder(
    fs: Filesystem, as_given: Callable[[Path], AnyPath]
) -> None:
    destination = old_folder(fs.here / "destination")
    before = tree(fs.here), identities(fs.here)
    error = refused("folder", as_given(destination), overwrite=True, words=("filesystem",))
    assert type(error) is atomik.UnsupportedFilesystemError
    assert error.errno in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
    assert (tree(fs.here), identities(fs.here)) == before


def test_what_bindfs_cannot_do_is_still_done_elsewhere(mounts: Mounts) -> None:
    with ExitStack() as undo:
        try:
            weak, able = (mounts.test_folder(name, undo).here for name in ("bindfs", "ext4"))
        except Missing as reason:
            pytest.skip(str(reason))
        for folder in (weak, able):
            old_file(folder / "a")
            old_file(folder / "b")
        for _ in range(2):
            with pytest.raises(atomik.UnsupportedFilesystemError):
                atomik.exchange(weak / "a", weak / "b")
            atomik.exchange(able / "a", able / "b")


# Arguments


def assert_wrong(expected: type[Exception], call: Callable[[], object]) -> None:
    """Makes a call that must fail with exactly this exception, an `OSError` not being one."""
    with pytest.raises(expected) as caught:
        call()
    assert not isinstance(caught.value, OSError)


@pytest.mark.parametrize(
    "mode", ["", "r", "q", "wr", "wt+b", "ww", "rb", "ra", "aw+", "r+a", "bw+b"]
)
def test_a_bad_mode(here: Path, mode: Any) -> None:
    assert_wrong(ValueError, partial(atomik.file, here / "destination", mode))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("durability", ["", "FULL", "fsync"])
@each_call
def test_a_bad_durability(here: Path, call: str, durability: str) -> None:
    assert_wrong(ValueError, partial(ALL[call], here / "destination", durability=durability))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("durability", 1),
        ("permissions", "644"),
        ("permissions", 0.5),
        ("tmp_dir", 1.5),
        ("dir_fd", "1"),
    ],
)
@each_call
def test_an_option_of_the_wrong_type(here: Path, call: str, option: str, value: object) -> None:
    assert_wrong(TypeError, partial(ALL[call], here / "destination", **{option: value}))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("permissions", [-1, 0o10000, 1 << 40])
@each_call
def test_permissions_that_are_none(here: Path, call: str, permissions: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        ALL[call](here / "destination", permissions=permissions)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("path", [None, 1.5, 3, ["a"], bytearray(b"a")], ids=repr)
@each_call
def test_a_path_of_the_wrong_type(call: str, path: Any) -> None:
    assert_wrong(TypeError, partial(ALL[call], path))


@each_call
def test_an_unknown_option(here: Path, call: str) -> None:
    assert_wrong(TypeError, partial(ALL[call], here / "destination", overwriting=True))


@pytest.mark.parametrize("data", ["text", 3, None, [1, 2]], ids=repr)
def test_data_that_are_no_bytes(here: Path, data: Any) -> None:
    assert_wrong(TypeError, partial(atomik.write_bytes, here / "destination", data))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("text", [b"bytes", 3, None], ids=repr)
def test_text_that_is_no_str(here: Path, text: Any) -> None:
    assert_wrong(TypeError, partial(atomik.write_text, here / "destination", text))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [{"encoding": "utf-8"}, {"errors": "strict"}, {"newline": ""}],
    ids=lambda options: next(iter(options)),
)
def test_a_text_option_with_a_binary_mode(here: Path, options: dict[str, Any]) -> None:
    assert_wrong(ValueError, partial(atomik.file, here / "destination", "wb", **options))
    assert list(here.iterdir()) == []


def test_an_unknown_encoding(here: Path) -> None:
    assert_wrong(LookupError, partial(enter, atomik.file(here / "destination", encoding="no-such")))
    assert list(here.iterdir()) == []


def enter(guard: AbstractContextManager[object]) -> None:
    with guard:
        raise AssertionError("the body ran")


# The errors themselves


WITHOUT_PROC: Final = """
import subprocess, sys
import atomik
from support import kernel

kernel.enter_private_mount_namespace()
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/proc"], check=True)
try:
    with atomik.snapshot(sys.argv[1]):
        pass
except OSError as error:
    assert error.errno and error.filename == sys.argv[1], error
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="hiding /proc needs root")
def test_what_the_system_lacks_is_no_value_error(here: Path) -> None:
    ran = run_program("-c", WITHOUT_PROC, here)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    "error",
    [
        atomik.FileAlreadyExistsError,
        atomik.InvalidCrossDeviceError,
        atomik.UnsupportedFilesystemError,
        atomik.DestinationBusyError,
        atomik.DurabilityError,
    ],
)
def test_every_error_of_the_library_is_an_os_error(error: type[Exception]) -> None:
    assert issubclass(error, atomik.AtomikError)
    assert issubclass(error, OSError)
    assert getattr(atomik.errors, error.__name__) is error


@pytest.mark.parametrize("as_given", [os.fspath, os.fsencode], ids=["str", "bytes"])
def test_both_paths_of_a_failed_rename_come_as_given(
    here: Path, as_given: Callable[[Path], AnyPath]
) -> None:
    src, dst = as_given(here / "src"), as_given(here / "dst")
    with pytest.raises(FileNotFoundError) as caught:
        atomik.rename(src, dst)
    assert (caught.value.filename, caught.value.filename2) == (src, dst)
    with pytest.raises(FileNotFoundError) as caught:
        atomik.exchange(src, dst)
    assert (caught.value.filename, caught.value.filename2) == (src, dst)
