"""Nothing is published into a folder that was displaced while the body ran, whatever led there."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import atomik
import pytest
from support import kernel
from support.filesystems import Filesystem
from support.guard_kinds import Kind, each_kind
from support.mounting import run
from support.processes import NOBODY, ROOT, User, run_as
from support.trees import tree

if TYPE_CHECKING:
    from io import TextIOWrapper

each_way_to_displace = pytest.mark.parametrize("held", [False, True], ids=["removed", "pinned"])
each_depth = pytest.mark.parametrize("depth", ["site", "site/sub", "site/sub/deeper"])
with_exchange = pytest.mark.parametrize(
    "fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "gocryptfs"], indirect=True
)

DURABILITIES: Final = ("full", "ordered", "none")


def make_site(here: Path) -> Path:
    """Publishes a folder of several levels."""
    with atomik.folder(here / "site") as staging:
        (staging / "sub/deeper").mkdir(parents=True)
        for folder in ("", "sub", "sub/deeper"):
            (staging / folder / "old").write_text("old")
    return here / "site"


def replace(site: Path) -> None:
    """Is what somebody else does meanwhile."""
    with atomik.folder(site, overwrite=True) as staging:
        (staging / "theirs").write_text("theirs")


def meanwhile(site: Path, held: bool, work: Callable[[], None]) -> None:
    """Does what must raise `ConflictError`; nothing of it may be in the version that a snapshot holds."""
    if not held:
        with pytest.raises(atomik.ConflictError):
            work()
    else:
        with atomik.snapshot(site) as version:
            before = tree(version)
            with pytest.raises(atomik.ConflictError):
                work()
            assert tree(version) == before
    assert os.listdir(site) == ["theirs"]
    assert os.listdir(site.parent) == ["site"]


@with_exchange
@each_way_to_displace
@each_depth
@each_kind
def test_a_guard_whose_folder_is_replaced_in_its_body(
    fs: Filesystem, kind: Kind, depth: str, held: bool
) -> None:
    site = make_site(fs.here)

    def work() -> None:
        with kind.open(fs.here / depth / "new") as staging:
            kind.write(staging, "new")
            replace(site)

    meanwhile(site, held, work)


@each_way_to_displace
@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("options", [{"overwrite": True}, {"backup": "older", "overwrite": True}])
@each_kind
def test_one_that_replaces_a_version_there(
    here: Path, kind: Kind, options: dict[str, Any], durability: str, held: bool
) -> None:
    site = make_site(here)
    kind.publish(site / "sub/present", "present")

    def work() -> None:
        with kind.open(site / "sub/present", durability=durability, **options) as staging:
            kind.write(staging, "new")
            replace(site)

    meanwhile(site, held, work)


@each_way_to_displace
@pytest.mark.parametrize("mode", ["a", "r+"])
def test_one_that_started_from_a_version_there(here: Path, mode: Any, held: bool) -> None:
    site = make_site(here)

    def work() -> None:
        with cast("atomik.File[TextIOWrapper]", atomik.file(site / "old", mode)) as file:
            file.write("new")
            replace(site)

    meanwhile(site, held, work)


@each_way_to_displace
@each_kind
@pytest.mark.parametrize("route", ["relative", "from inside", "dir_fd", "symlink", "dotted"])
def test_whatever_path_led_there(here: Path, route: str, kind: Kind, held: bool) -> None:
    site = make_site(here)

    def work() -> None:
        (here / "link").symlink_to("site/sub")
        options: dict[str, Any] = {}
        if route == "dir_fd":
            options["dir_fd"] = os.open(site / "sub", os.O_DIRECTORY)
        os.chdir(site / "sub" if route == "from inside" else "/" if options else here)
        path = {
            "relative": "site/sub/new",
            "symlink": "link/new",
            "dotted": "./site/../site/sub//new",
        }.get(route, "new")
        with pytest.raises(atomik.ConflictError) as raised, kind.open(path, **options) as staging:
            kind.write(staging, "new")
            replace(site)
        (here / "link").unlink()
        assert raised.value.filename == path
        raise raised.value

    meanwhile(site, held, lambda: run_as(ROOT, work))


@pytest.mark.skipif(os.geteuid() != 0, reason="hiding /proc needs root")
@each_kind
@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
def test_without_proc_it_is_told_as_well(here: Path, kind: Kind, absolute: bool) -> None:
    site = make_site(here)

    def work() -> None:
        kernel.enter_private_mount_namespace()
        run("mount", "--make-rprivate", "/")
        run("mount", "-t", "tmpfs", "tmpfs", "/proc")
        os.chdir(here)
        with kind.open(site / "sub/moved" if absolute else "site/sub/moved") as staging:
            kind.write(staging, "new")
            (here / "site").rename("elsewhere")
        assert kind.read(here / "elsewhere/sub/moved") == "new"
        (here / "elsewhere").rename("site")
        with kind.open(site / "sub/new" if absolute else "site/sub/new") as staging:
            kind.write(staging, "new")
            replace(site)

    with pytest.raises(atomik.ConflictError):
        run_as(ROOT, work)
    assert os.listdir(here) == ["site"]
    assert os.listdir(site) == ["theirs"]


def test_a_path_that_a_snapshot_gave_leads_into_nothing_that_was_displaced(here: Path) -> None:
    site = make_site(here)
    with atomik.snapshot(site) as version:
        replace(site)
        before = tree(version)
        with pytest.raises(atomik.ConflictError), atomik.file(version / "sub/new") as file:
            file.write("new")
        with pytest.raises(atomik.ConflictError):
            atomik.write_text(version / "new", "new")
        assert tree(version) == before


@each_way_to_displace
@pytest.mark.parametrize("user", [ROOT, NOBODY], ids=User.label)
def test_any_user_is_told(fs: Filesystem, user: User, held: bool) -> None:
    if fs.name == "bindfs":
        pytest.skip("bindfs cannot replace a folder")
    home = fs.folder("home", owner=user.uid, group=user.gid)

    def everything() -> None:
        site = make_site(home)

        def work() -> None:
            with atomik.file(site / "sub/new") as file:
                file.write("new")
                replace(site)

        meanwhile(site, held, work)

    run_as(user, everything)


@each_kind
def test_a_folder_that_is_removed_in_the_body(fs: Filesystem, kind: Kind) -> None:
    if fs.name == "bindfs":
        pytest.skip("bindfs keeps what is open in the folder, so that the folder cannot be removed")
    parent = fs.folder("parent")
    with (
        pytest.raises(atomik.ConflictError) as raised,
        kind.open(parent / "new", durability="none") as staging,
    ):
        kind.write(staging, "new")
        shutil.rmtree(parent)
    assert raised.value.filename == os.fspath(parent / "new")
    assert not raised.value.committed
    assert list(fs.here.iterdir()) == []


# A group


@with_exchange
@each_way_to_displace
@each_depth
@pytest.mark.parametrize("first", [False, True], ids=["last member", "first member"])
def test_a_group_publishes_nothing(fs: Filesystem, depth: str, held: bool, first: bool) -> None:
    site = make_site(fs.here)
    (elsewhere := fs.here / "elsewhere").mkdir()

    def work() -> None:
        group = atomik.group()
        with pytest.raises(atomik.ConflictError) as raised, group:
            if not first:
                group.write_text(elsewhere / "other", "new")
            group.write_text(fs.here / depth / "new", "new")
            with group.folder(fs.here / depth / "folder") as staging:
                (staging / "new").touch()
            if first:
                group.write_text(elsewhere / "other", "new")
            replace(site)
        assert raised.value.filename == os.fspath(fs.here / depth / "new")
        assert not raised.value.committed
        assert not group.committed
        assert os.listdir(elsewhere) == []
        elsewhere.rmdir()
        raise raised.value

    meanwhile(site, held, work)


def test_a_group_of_many_folders_publishes_nothing(here: Path) -> None:
    # More than it keeps open.
    many = [here / str(number) for number in range(100)]
    for folder in many:
        folder.mkdir()
    with pytest.raises(atomik.ConflictError), atomik.group(durability="none") as group:
        for folder in many:
            group.write_text(folder / "a", "new")
        replace(many[-1])
    assert [path.name for path in here.glob("*/*")] == ["theirs"]


# What goes on


@with_exchange
@each_kind
def test_a_folder_that_was_only_moved_still_gets_the_new_version(
    fs: Filesystem, kind: Kind
) -> None:
    make_site(fs.here)
    with kind.open(fs.here / "site/sub/new") as staging:
        kind.write(staging, "new")
        atomik.rename(fs.here / "site", fs.here / "moved")
        (fs.here / "site").mkdir()
    assert kind.read(fs.here / "moved/sub/new") == "new"
    assert os.listdir(fs.here / "site") == []


@each_kind
@pytest.mark.parametrize("within", ["folder", "path"])
@pytest.mark.parametrize("route", ["absolute", "relative", "dir_fd"])
def test_a_body_may_use_the_library_in_its_own_staging(
    fs: Filesystem, route: str, within: str, kind: Kind
) -> None:
    if fs.name == "bindfs":
        pytest.skip("test_fuse.py looks at what cannot be published there")

    def nested() -> None:
        with (atomik.folder if within == "folder" else atomik.path)(fs.here / "site") as staging:
            (staging / "sub").mkdir(parents=True)
            options: dict[str, Any] = {}
            if route == "dir_fd":
                options["dir_fd"] = os.open(staging / "sub", os.O_DIRECTORY)
            if route == "relative":
                os.chdir(staging)
            paths = {"absolute": staging / "sub/new", "relative": Path("sub/new")}
            path = paths.get(route, Path("new"))
            kind.publish(path, "1", **options)
            kind.publish(path, "2", overwrite=True, **options)
            atomik.write_text(staging / "sub/text", "text")
            with atomik.group() as group:
                group.write_text(staging / "sub/member", "text")

    run_as(ROOT, nested)
    assert kind.read(fs.here / "site/sub/new") == "2"
    assert sorted(os.listdir(fs.here / "site/sub")) == ["member", "new", "text"]
