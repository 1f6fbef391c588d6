"""Folders, and what tools write: published whole, and the displaced removed without harm to others."""

import os
import resource
import sqlite3
import stat
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from support import slot_names
from support.filesystems import Filesystem
from support.processes import NOBODY, ROOT, User, run_as
from support.publishing import MAKING_FOLDERS, nothing
from support.trees import tree

DEPTH: Final = 10_000
DESCRIPTORS: Final = 128

each_filesystem_for_folders = pytest.mark.parametrize(
    "fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"], indirect=True
)
each_call = pytest.mark.parametrize("call", MAKING_FOLDERS)
each_user = pytest.mark.parametrize("user", [ROOT, NOBODY], ids=User.label)


def publish(destination: Path, version: str = "new", **options: Any) -> None:
    with atomik.folder(destination, **options) as staging:
        (staging / "inner").mkdir()
        (staging / "inner" / "version").write_text(version)


def assert_new(destination: Path) -> None:
    """The new version is there, complete, and nothing of the old one."""
    assert [
        os.fspath(path.relative_to(destination)) for path in sorted(destination.rglob("*"))
    ] == [
        "inner",
        "inner/version",
    ]
    assert (destination / "inner" / "version").read_text() == "new"


def old_folder(destination: Path) -> Path:
    (destination / "old" / "inner").mkdir(parents=True)
    (destination / "old" / "inner" / "file").write_text("old")
    return destination


def home(fs: Filesystem, user: User) -> Path:
    return fs.folder("home", 0o755, user.uid, user.gid)


# New and replaced


@each_filesystem_for_folders
def test_an_exception_leaves_no_folder(fs: Filesystem) -> None:
    with pytest.raises(LookupError), atomik.folder(fs.here / "site") as staging:
        (staging / "inner").mkdir()
        (staging / "inner" / "file").write_text("new")
        raise LookupError
    assert list(fs.here.iterdir()) == []


@each_filesystem_for_folders
def test_an_exception_leaves_the_old_folder(fs: Filesystem) -> None:
    destination = old_folder(fs.here / "site")
    before = tree(fs.here)
    with pytest.raises(LookupError), atomik.folder(destination, overwrite=True) as staging:
        (staging / "file").write_text("new")
        raise LookupError
    assert tree(fs.here) == before


@each_filesystem_for_folders
def test_a_folder_that_appears_in_the_body_is_not_replaced(fs: Filesystem) -> None:
    destination = fs.here / "site"
    with pytest.raises(atomik.FileAlreadyExistsError), atomik.folder(destination) as staging:
        (staging / "file").write_text("new")
        destination.mkdir()
    assert list(destination.iterdir()) == []


@each_filesystem_for_folders
def test_a_removed_staging_folder_is_not_published(fs: Filesystem) -> None:
    destination = old_folder(fs.here / "site")
    before = tree(fs.here)
    with pytest.raises(FileNotFoundError), atomik.folder(destination, overwrite=True) as staging:
        staging.rmdir()
    assert tree(fs.here) == before


@each_filesystem_for_folders
def test_a_new_folder_appears_whole(fs: Filesystem) -> None:
    destination = fs.here / "site"
    with atomik.folder(destination) as staging:
        (staging / "inner").mkdir()
        (staging / "inner" / "version").write_text("new")
        assert not destination.exists()
    assert_new(destination)


@each_filesystem_for_folders
def test_a_folder_is_replaced_whole(fs: Filesystem) -> None:
    destination = old_folder(fs.here / "site")
    before = tree(destination)
    with atomik.folder(destination, overwrite=True) as staging:
        assert list(staging.iterdir()) == []
        (staging / "inner").mkdir()
        (staging / "inner" / "version").write_text("new")
        assert tree(destination) == before
    assert_new(destination)


@each_filesystem_for_folders
def test_an_empty_folder_is_a_version_too(fs: Filesystem) -> None:
    destination = old_folder(fs.here / "site")
    with atomik.folder(destination, overwrite=True):
        pass
    assert list(destination.iterdir()) == []


@each_filesystem_for_folders
@each_call
def test_a_folder_that_vanishes_in_the_body_is_made_anew(fs: Filesystem, call: str) -> None:
    destination = fs.here / "site"
    destination.mkdir()
    MAKING_FOLDERS[call](destination, destination.rmdir, overwrite=True)
    assert (destination / "new").exists()


@each_filesystem_for_folders
@each_call
def test_a_folder_that_appears_in_the_body_is_replaced_when_asked(
    fs: Filesystem, call: str
) -> None:
    destination = fs.here / "site"
    MAKING_FOLDERS[call](destination, partial(old_folder, destination), overwrite=True)
    assert sorted(path.name for path in destination.iterdir()) == ["inner", "new"]


@each_filesystem_for_folders
def test_a_reader_of_the_old_folder_keeps_its_open_files(fs: Filesystem) -> None:
    destination = old_folder(fs.here / "site")
    with open(destination / "old" / "inner" / "file") as file:
        publish(destination, overwrite=True)
        assert file.read() == "old"
    assert_new(destination)


def test_the_arguments_of_the_first_release_go_by_position(here: Path) -> None:
    destination = old_folder(here / "site")
    (tmp_dir := here / "elsewhere").mkdir()
    with atomik.folder(destination, True, tmp_dir) as staging:
        assert staging.parent.parent == tmp_dir
        (staging / "inner").mkdir()
        (staging / "inner" / "version").write_text("new")
    assert_new(destination)
    assert list(tmp_dir.iterdir()) == []


# Symlinks


@each_filesystem_for_folders
@each_call
def test_replacing_a_link_to_a_folder_leaves_the_folder_alone(fs: Filesystem, call: str) -> None:
    # systemd's install_file() empties the folder that the link leads to.
    target = old_folder(fs.here / "target")
    before = tree(target)
    destination = fs.here / "link"
    destination.symlink_to("target")
    MAKING_FOLDERS[call](destination, nothing, overwrite=True)
    assert not destination.is_symlink()
    assert (destination / "new").exists()
    assert tree(target) == before


@each_filesystem_for_folders
@each_call
def test_a_followed_link_stays_and_its_folder_is_replaced(fs: Filesystem, call: str) -> None:
    target = old_folder(fs.folder("elsewhere") / "target")
    destination = fs.here / "link"
    destination.symlink_to("hop")
    (fs.here / "hop").symlink_to(target)
    MAKING_FOLDERS[call](destination, nothing, overwrite=True, follow_symlinks=True)
    assert os.readlink(destination) == "hop"
    assert os.readlink(fs.here / "hop") == os.fspath(target)
    assert sorted(path.name for path in target.iterdir()) == ["inner", "new"]


@each_filesystem_for_folders
@each_call
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_followed_dangling_link_names_what_is_made(
    fs: Filesystem, call: str, overwrite: bool
) -> None:
    destination = fs.here / "link"
    destination.symlink_to("elsewhere/target")
    elsewhere = fs.folder("elsewhere")
    MAKING_FOLDERS[call](destination, nothing, overwrite=overwrite, follow_symlinks=True)
    assert os.readlink(destination) == "elsewhere/target"
    assert (elsewhere / "target" / "new").exists()


# What tools write


@pytest.mark.parametrize("name", ["table", "table.tmp", ".atomik"])
def test_nothing_written_names_what_was_found_instead(here: Path, name: str) -> None:
    destination = here / "table.csv"
    destination.write_text("old")
    with (
        pytest.raises(FileNotFoundError) as caught,
        atomik.path(destination, overwrite=True) as staging,
    ):
        staging.with_name(name).write_text("new")
    assert caught.value.filename == os.fspath(destination)
    assert f"found instead: {name}" in str(caught.value)
    assert tree(here).keys() == {"table.csv"}
    assert destination.read_text() == "old"


def test_nothing_written_at_all_is_an_error(here: Path) -> None:
    with pytest.raises(FileNotFoundError), atomik.path(here / "table.csv"):
        pass
    assert list(here.iterdir()) == []


def test_a_path_with_a_slash_at_its_end_takes_no_file(here: Path) -> None:
    with pytest.raises(NotADirectoryError), atomik.path(f"{here}/site/") as staging:
        Path(os.fspath(staging)).write_text("new")
    assert list(here.iterdir()) == []


def test_a_path_with_a_slash_at_its_end_takes_a_folder(here: Path) -> None:
    with atomik.path(f"{here}/site/") as staging:
        staging.mkdir()
        (staging / "file").write_text("new")
    assert (here / "site" / "file").read_text() == "new"


@pytest.mark.parametrize("old", ["folder", "file"])
def test_the_other_type_is_never_replaced(here: Path, old: str) -> None:
    destination = here / "thing"
    destination.mkdir() if old == "folder" else destination.touch()
    expected = IsADirectoryError if old == "folder" else NotADirectoryError
    with pytest.raises(expected), atomik.path(destination, overwrite=True) as staging:
        staging.touch() if old == "folder" else staging.mkdir()
    assert destination.is_dir() == (old == "folder")


def test_a_fifo_is_not_published(here: Path) -> None:
    with pytest.raises((OSError, ValueError)), atomik.path(here / "pipe") as staging:
        os.mkfifo(staging)
    assert list(here.iterdir()) == []


@each_filesystem_for_folders
@pytest.mark.parametrize("target", ["target", "missing", "/"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_symlink_is_published_as_it_is(fs: Filesystem, target: str, overwrite: bool) -> None:
    old_folder(fs.here / "target")
    destination = fs.here / "current"
    if overwrite:
        destination.symlink_to("before")
    with atomik.path(destination, overwrite=overwrite) as staging:
        staging.symlink_to(target)
    assert os.readlink(destination) == target
    assert (fs.here / "target" / "old").exists()


def test_numpy_saves_under_the_name_that_was_asked_for(here: Path) -> None:
    numpy = pytest.importorskip("numpy")
    with atomik.path(here / "data.npy") as staging:
        numpy.save(staging, numpy.arange(5))
    assert numpy.load(here / "data.npy").tolist() == [0, 1, 2, 3, 4]


def test_zipfile_writes_an_archive(here: Path) -> None:
    with atomik.path(here / "site.zip") as staging, zipfile.ZipFile(staging, "w") as archive:
        archive.writestr("index.html", "hello")
    with zipfile.ZipFile(here / "site.zip") as archive:
        assert archive.read("index.html") == b"hello"


def test_sqlite_makes_a_database(here: Path) -> None:
    with (
        atomik.path(here / "facts.db") as staging,
        closing(sqlite3.connect(staging)) as database,
        database,
    ):
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE facts (n)")
        database.execute("INSERT INTO facts VALUES (42)")
    with closing(sqlite3.connect(here / "facts.db")) as database:
        assert database.execute("SELECT n FROM facts").fetchall() == [(42,)]


def test_another_program_writes_the_file(here: Path) -> None:
    program = "import sys; open(sys.argv[1], 'x').write('new')"
    with atomik.path(here / "out.txt") as staging:
        subprocess.run([sys.executable, "-c", program, staging], check=True)
    assert (here / "out.txt").read_text() == "new"


def test_another_program_that_fails_publishes_nothing(here: Path) -> None:
    program = "import sys; open(sys.argv[1], 'x').write('half'); sys.exit(1)"
    with pytest.raises(subprocess.CalledProcessError), atomik.path(here / "out.txt") as staging:
        subprocess.run([sys.executable, "-c", program, staging], check=True)
    assert list(here.iterdir()) == []


# What removing the displaced does, and does not do


@pytest.mark.parametrize("fs", ["ext4", "tmpfs"], indirect=True)
@pytest.mark.leaves_orphans  # whose search would be as deep
def test_a_very_deep_folder_is_removed_with_few_descriptors(fs: Filesystem) -> None:
    destination = fs.here / "site"
    make_deep(destination)

    def replace() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        publish(destination, overwrite=True)

    run_as(ROOT, replace)
    assert_new(destination)
    assert fs.leftovers() == []


def make_deep(folder: Path) -> None:
    """Makes a tree that no path can name: 10,000 levels, each with a long name."""
    folder.mkdir()
    name = "deep" * 25
    fd = os.open(folder, os.O_DIRECTORY)
    for level in range(DEPTH):
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_DIRECTORY, dir_fd=fd)
        if level % 1000 == 0:
            os.close(os.open("file", os.O_CREAT, dir_fd=inner))
        os.close(fd)
        fd = inner
    os.close(fd)


@each_filesystem_for_folders
@each_user
def test_a_very_deep_new_version_can_be_published_and_discarded(fs: Filesystem, user: User) -> None:
    # Rolled back by its owner, 40 levels: deeper than the descriptors that are kept open.
    destination = home(fs, user) / "site"

    def discard() -> None:
        with pytest.raises(LookupError), atomik.folder(destination) as staging:
            (staging / "/".join(["deep"] * 40)).mkdir(parents=True)
            raise LookupError

    run_as(user, discard)
    assert list(destination.parent.iterdir()) == []


@each_filesystem_for_folders
@each_user
@pytest.mark.parametrize("permissions", [0o555, 0o444, 0o111, 0o000], ids=oct)
def test_read_only_folders_inside_are_removed(fs: Filesystem, user: User, permissions: int) -> None:
    destination = home(fs, user) / "site"

    def replace() -> None:
        old_folder(destination)
        (destination / "old" / "inner").chmod(permissions)
        (destination / "old").chmod(permissions)
        publish(destination, overwrite=True)

    run_as(user, replace)
    assert_new(destination)


@each_filesystem_for_folders
@each_user
@pytest.mark.parametrize("permissions", [0o555, 0o444, 0o311, 0o111, 0o000], ids=oct)
def test_a_read_only_folder_is_replaced_and_keeps_its_mode(
    fs: Filesystem, user: User, permissions: int
) -> None:
    destination = home(fs, user) / "site"

    def replace() -> None:
        old_folder(destination).chmod(permissions)
        publish(destination, overwrite=True)

    run_as(user, replace)
    assert stat.S_IMODE(destination.stat().st_mode) == permissions
    destination.chmod(0o755)
    assert_new(destination)


@each_filesystem_for_folders
def test_symlinks_inside_are_not_followed(fs: Filesystem) -> None:
    outside = old_folder(fs.here / "outside")
    (outside / "read-only").mkdir(mode=0o555)
    before = tree(outside)
    destination = old_folder(fs.here / "site")
    (destination / "to-folder").symlink_to(outside)
    (destination / "to-file").symlink_to(outside / "old" / "inner" / "file")
    (destination / "old" / "up").symlink_to("../../outside")
    (destination / "old" / "root").symlink_to("/")
    publish(destination, overwrite=True)
    assert_new(destination)
    assert tree(outside) == before
    assert stat.S_IMODE((outside / "read-only").stat().st_mode) == 0o555


@each_filesystem_for_folders
def test_hard_links_outside_keep_content_and_mode(fs: Filesystem) -> None:
    destination = old_folder(fs.here / "site")
    file = destination / "old" / "inner" / "file"
    file.chmod(0o400)
    (fs.here / "outside").hardlink_to(file)
    publish(destination, overwrite=True)
    status = (fs.here / "outside").stat()
    assert (fs.here / "outside").read_text() == "old"
    assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o400, 1)


@each_filesystem_for_folders
def test_pipes_and_sockets_inside_do_not_block(fs: Filesystem) -> None:
    destination = old_folder(fs.here / "site")
    os.mkfifo(destination / "pipe")
    os.mknod(destination / "device", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    publish(destination, overwrite=True)
    assert_new(destination)


def assert_cleanup_warning(publish: Callable[[], None], destination: Path) -> None:
    """Publishes with exactly one warning, which names the destination and the orphan."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        publish()
    (warning,) = caught
    assert warning.category is atomik.CleanupWarning
    assert os.fspath(destination) in str(warning.message)
    assert slot_names.porch(destination).name in str(warning.message)


@each_filesystem_for_folders
def test_a_mount_inside_is_not_crossed_and_the_next_writer_removes_the_rest(
    fs: Filesystem,
) -> None:
    outside = old_folder(fs.here / "outside")
    before = tree(outside)
    destination = old_folder(fs.here / "site")
    (destination / "old" / "mount").mkdir()
    orphan = slot_names.porch(destination)
    subprocess.run(["mount", "--bind", outside, destination / "old" / "mount"], check=True)
    try:
        assert_cleanup_warning(partial(publish, destination, overwrite=True), destination)
        assert_new(destination)
        assert tree(outside) == before
        assert fs.leftovers() == [orphan.name]
        # A second writer finds it, leaves it, and names it again.
        assert_cleanup_warning(partial(publish, destination, overwrite=True), destination)
        assert tree(outside) == before
        assert fs.leftovers() == [orphan.name]
    finally:
        for _, mounted in mounts_below(fs.here):
            subprocess.run(["umount", mounted], check=True)
    publish(destination, overwrite=True)
    assert_new(destination)
    assert tree(outside) == before


def mounts_below(folder: Path) -> list[tuple[bytes, bytes]]:
    """Lists what is mounted below a folder: source root and mount point."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    fields = [line.split() for line in lines]
    inside = os.fsencode(folder) + b"/"
    return [(found[3], found[4]) for found in fields if found[4].startswith(inside)]


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs"], indirect=True)
@pytest.mark.parametrize("where", ["file", "folder"])
def test_an_immutable_thing_inside_stays_with_a_warning(fs: Filesystem, where: str) -> None:
    destination = old_folder(fs.here / "site")
    immutable = destination / "old" / "inner"
    if where == "file":
        immutable /= "file"
    (destination / "removable").touch()
    fs.make_immutable(immutable)
    orphan = slot_names.porch(destination)
    assert_cleanup_warning(partial(publish, destination, overwrite=True), destination)
    assert_new(destination)
    rest = orphan / "site" / immutable.relative_to(destination)
    assert rest.exists()
    assert not (orphan / "site" / "removable").exists()
    subprocess.run(["chattr", "-i", rest], check=True)
    publish(destination, overwrite=True)
    assert_new(destination)
    assert fs.leftovers() == []


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
def test_a_warning_that_is_an_error_comes_after_the_publish(fs: Filesystem) -> None:
    destination = old_folder(fs.here / "site")
    fs.make_immutable(destination / "old" / "inner" / "file")
    guard = atomik.folder(destination, overwrite=True)
    with pytest.raises(atomik.CleanupWarning), guard as staging:
        (staging / "inner").mkdir()
        (staging / "inner" / "version").write_text("new")
    assert guard.committed
    assert_new(destination)
    subprocess.run(
        ["chattr", "-i", slot_names.porch(destination) / "site" / "old" / "inner" / "file"],
        check=True,
    )
    publish(destination, overwrite=True)


@each_filesystem_for_folders
def test_an_orphan_that_resists_is_named_by_each_later_writer(fs: Filesystem) -> None:
    destination = old_folder(fs.here / "site")
    fs.make_immutable(destination / "old" / "inner" / "file")
    again: dict[str, Callable[[], None]] = {
        "the first": partial(publish, destination, overwrite=True),
        "a folder": partial(publish, destination, overwrite=True),
        "an update": partial(update, destination),
        "an entry": partial(publish_entry, destination),
        "a group": partial(publish_in_group, destination),
        "a rollback": partial(roll_back, destination),
    }
    for writer in again.values():
        assert_cleanup_warning(writer, destination)
        assert_new(destination)
    # Who only reads is not bothered.
    with atomik.snapshot(destination):
        pass
    rest = slot_names.porch(destination) / "site" / "old" / "inner" / "file"
    subprocess.run(["chattr", "-i", rest], check=True)
    publish(destination, overwrite=True)
    assert fs.leftovers() == []


def publish_entry(destination: Path) -> None:
    with atomik.path(destination, overwrite=True) as staging:
        (staging / "inner").mkdir(parents=True)
        (staging / "inner" / "version").write_text("new")


def publish_in_group(destination: Path) -> None:
    with atomik.group() as g, g.folder(destination, overwrite=True) as staging:
        (staging / "inner").mkdir()
        (staging / "inner" / "version").write_text("new")


def update(destination: Path) -> None:
    with atomik.folder(destination, update=True) as staging:
        (staging / "inner" / "version").write_text("new")


def roll_back(destination: Path) -> None:
    with pytest.raises(LookupError), atomik.folder(destination, overwrite=True):
        raise LookupError


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
def test_a_cleanup_warning_is_shown_unasked(fs: Filesystem) -> None:
    """With the filters that Python has by itself."""
    destination = old_folder(fs.here / "site")
    fs.make_immutable(destination / "old" / "inner" / "file")
    program = "import atomik, sys\nwith atomik.folder(sys.argv[1], overwrite=True): pass"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    environment["PYTHONPATH"] = os.fspath(Path(atomik.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program, destination],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert "CleanupWarning" in done.stderr
    assert str(slot_names.porch(destination)) in done.stderr
    rest = slot_names.porch(destination) / "site" / "old" / "inner" / "file"
    subprocess.run(["chattr", "-i", rest], check=True)
    publish(destination, overwrite=True)


@each_filesystem_for_folders
def test_foreign_files_inside_are_removed_by_the_owner_of_their_folder(fs: Filesystem) -> None:
    destination = old_folder(home(fs, NOBODY) / "site")
    for path in (destination, *destination.rglob("*")):
        if path.is_dir():
            os.chown(path, NOBODY.uid, NOBODY.gid)
    (destination / "old" / "inner" / "file").chmod(0o400)
    run_as(NOBODY, partial(publish, destination, overwrite=True))
    assert_new(destination)
