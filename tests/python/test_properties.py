"""Any path that the kernel takes, and any order of calls."""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

import atomik
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from support import slot_names
from support.filesystems import NAMES, Filesystem, leftovers

pytestmark = pytest.mark.thread_unsafe(reason="hypothesis runs one test in one thread")

NAME_MAX: Final = 255
PATH_MAX: Final = 4096

OLD: Final = b"old"
NEW: Final = b"new"


class BytesPath:
    """An `os.PathLike` of bytes."""

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __fspath__(self) -> bytes:
        return self._path


AnyPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
Publish: TypeAlias = Callable[..., None]

FORMS: Final[Mapping[str, Callable[[bytes], AnyPath]]] = {
    "str": os.fsdecode,
    "bytes": bytes,
    "PathLike of str": lambda path: Path(os.fsdecode(path)),
    "PathLike of bytes": BytesPath,
}


def file(path: AnyPath, content: bytes, **options: Any) -> None:
    # No overload is chosen by options that are not known here.
    make: Callable[..., atomik.File[Any]] = atomik.file
    with make(path, "wb", durability="none", **options) as staging:
        staging.write(content)


def write_bytes(path: AnyPath, content: bytes, **options: Any) -> None:
    atomik.write_bytes(path, content, durability="none", **options)


def write_text(path: AnyPath, content: bytes, **options: Any) -> None:
    atomik.write_text(path, content.decode(), durability="none", **options)


def has_the_name_of(path: AnyPath, staging: Path) -> bool:
    return os.fsencode(staging.name) == os.path.basename(os.fsencode(path).rstrip(b"/"))


def folder(path: AnyPath, content: bytes, **options: Any) -> None:
    with atomik.folder(path, durability="none", **options) as staging:
        assert has_the_name_of(path, staging)
        (staging / "index.html").write_bytes(content)


def path_to_file(path: AnyPath, content: bytes, **options: Any) -> None:
    with atomik.path(path, durability="none", **options) as staging:
        assert has_the_name_of(path, staging)
        staging.write_bytes(content)


def path_to_folder(path: AnyPath, content: bytes, **options: Any) -> None:
    with atomik.path(path, durability="none", **options) as staging:
        assert has_the_name_of(path, staging)
        staging.mkdir()
        (staging / "index.html").write_bytes(content)


def rename(
    path: AnyPath, content: bytes, *, overwrite: bool = False, dir_fd: int | None = None
) -> None:
    # The source is gone at the end, whether it has been renamed or not.
    with tempfile.NamedTemporaryFile(dir=place(dir_fd, path), delete=False) as source:
        source.write(content)
    try:
        atomik.rename(source.name, path, overwrite=overwrite, dst_dir_fd=dir_fd)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(source.name)


def place(dir_fd: int | None, path: AnyPath) -> str:
    """Returns where the source of a rename can be: in the folder that `path` starts from."""
    if dir_fd is not None:
        return f"/proc/self/fd/{dir_fd}"
    return os.fsdecode(os.path.dirname(os.fsencode(path).rstrip(b"/")))


MAKING_FILES: Final[Mapping[str, Publish]] = {
    "file": file,
    "write_bytes": write_bytes,
    "write_text": write_text,
    "path to a file": path_to_file,
    "rename": rename,
}
MAKING_FOLDERS: Final[Mapping[str, Publish]] = {
    "folder": folder,
    "path to a folder": path_to_folder,
}
CALLS: Final[Mapping[str, Publish]] = {**MAKING_FILES, **MAKING_FOLDERS}

each_call = pytest.mark.parametrize("call", CALLS)
everywhere = pytest.mark.parametrize(
    ("fs", "call"),
    [
        *((fs, call) for fs in NAMES if fs != "bindfs" for call in CALLS),
        # Without renameat2's flags no folder can be published.
        *(("bindfs", call) for call in MAKING_FILES),
    ],
    indirect=["fs"],
)
on_some = pytest.mark.parametrize("fs", ["ext4", "tmpfs"], indirect=True)
quickly = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def refused(publish: Publish, *arguments: Any, **options: Any) -> OSError:
    """Returns the error with which a call must end."""
    try:
        publish(*arguments, **options)
    except OSError as error:
        return error
    raise AssertionError("nothing was refused")


def read(path: bytes, dir_fd: int | None = None) -> bytes:
    """Returns the content of a file, or of the one file in a folder."""
    fd = os.open(path, os.O_RDONLY, dir_fd=dir_fd)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        try:
            assert os.listdir(fd) == ["index.html"]
            return read(b"index.html", fd)
        finally:
            os.close(fd)
    with open(fd, "rb") as file:
        return file.read()


@contextmanager
def opened(folder: Path) -> Generator[int, None, None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def new_folder(fs: Filesystem) -> Generator[bytes, None, None]:
    """Makes a folder for one example; nothing of the library's may be left in it."""
    with tempfile.TemporaryDirectory(dir=fs.here) as folder:
        yield os.fsencode(folder)
        assert leftovers(Path(folder)) == []


def is_name(name: bytes) -> bool:
    return (
        name not in (b".", b"..")
        and b"/" not in name
        and b"\0" not in name
        and not name.startswith(b".atomik-")
    )


def cut(text: str) -> bytes:
    return text.encode(errors="surrogateescape")[:NAME_MAX]


ANY_NAME: Final = st.one_of(
    st.binary(min_size=1, max_size=NAME_MAX),
    st.binary(min_size=101, max_size=107),
    st.binary(min_size=240, max_size=NAME_MAX),
    st.text(min_size=1, max_size=130).map(lambda text: text.encode(errors="ignore")[:NAME_MAX]),
    st.sampled_from([b"\xff" * NAME_MAX, b" ", b"\n", b"-", b"~", b"...", b"\\", b"%s%n", b"{}"]),
).filter(lambda name: len(name) > 0 and is_name(name))


@everywhere
@quickly
@given(name=ANY_NAME, form=st.sampled_from(sorted(FORMS)))
def test_any_name_can_be_published_replaced_and_refused(
    fs: Filesystem, call: str, name: bytes, form: str
) -> None:
    publish = CALLS[call]
    with new_folder(fs) as parent:
        path = FORMS[form](parent + b"/" + name)
        publish(path, OLD)
        assert (os.listdir(parent), read(parent + b"/" + name)) == ([name], OLD)
        with pytest.raises(atomik.FileAlreadyExistsError) as caught:
            publish(path, NEW)
        named = caught.value.filename if call != "rename" else caught.value.filename2
        assert named == os.fspath(path)
        publish(path, NEW, overwrite=True)
        assert (os.listdir(parent), read(parent + b"/" + name)) == ([name], NEW)


@everywhere
def test_names_near_the_limits_are_published_side_by_side(fs: Filesystem, call: str) -> None:
    """Names that differ only where a slot's name is shortened stage in slots of their own."""
    publish = CALLS[call]
    lengths = [*range(101, 108), *range(240, NAME_MAX + 1)]
    for length in lengths:
        for character in ("n", "ä", "\udcff"):
            name = os.fsencode(character) * length
            for ending in (b"1", b"2"):
                path = os.fsencode(fs.here) + b"/" + name[: length - 1] + ending
                publish(path, NEW)
                assert read(path) == NEW
    assert len(os.listdir(fs.here)) == len(lengths) * 3 * 2


@everywhere
def test_a_name_that_is_too_long_is_refused_before_the_body(fs: Filesystem, call: str) -> None:
    for length in (NAME_MAX + 1, NAME_MAX + 2, 1000, PATH_MAX):
        error = refused(CALLS[call], os.fsencode(fs.here) + b"/" + b"n" * length, NEW)
        assert error.errno == errno.ENAMETOOLONG
    assert os.listdir(fs.here) == []


@contextmanager
def two_guards(first: bytes, second: bytes) -> Generator[tuple[Path, Path], None, None]:
    with (
        atomik.folder(first, durability="none") as one,
        atomik.folder(second, durability="none") as other,
    ):
        yield one, other


@on_some
@quickly
@given(
    prefix=st.binary(min_size=100, max_size=254).filter(is_name),
    endings=st.lists(
        st.binary(min_size=1, max_size=1).filter(lambda end: end not in (b"/", b"\0")),
        min_size=2,
        max_size=2,
        unique=True,
    ),
)
def test_long_names_of_one_beginning_never_share_a_slot(
    fs: Filesystem, prefix: bytes, endings: list[bytes]
) -> None:
    with new_folder(fs) as parent:
        names = [prefix + ending for ending in endings]
        with two_guards(*(parent + b"/" + name for name in names)) as (one, other):
            assert one.parent != other.parent
            assert one.parent == slot_names.porch(Path(os.fsdecode(parent)) / os.fsdecode(names[0]))
            assert other.parent == slot_names.porch(
                Path(os.fsdecode(parent)) / os.fsdecode(names[1])
            )
        assert sorted(os.listdir(parent)) == sorted(names)


DETOURS: Final = st.lists(
    st.sampled_from([b"./", b"/", b"sub/../", b"sub/./../", b".//"]), max_size=12
).map(b"".join)
SLASHES: Final = st.integers(0, 3).map(lambda count: b"/" * count)


@each_call
@on_some
@quickly
@given(detour=DETOURS, slashes=SLASHES, relative=st.booleans())
@example(detour=b"", slashes=b"/", relative=True)
def test_every_spelling_of_a_path_means_the_same(
    fs: Filesystem, call: str, detour: bytes, slashes: bytes, relative: bool
) -> None:
    with new_folder(fs) as parent, opened(Path(os.fsdecode(parent))) as dir_fd:
        os.mkdir(parent + b"/sub")
        if relative:
            path = detour.lstrip(b"/") + b"name" + slashes
            options: dict[str, Any] = {"dir_fd": dir_fd}
        else:
            path, options = parent + b"/" + detour + b"name" + slashes, {}
        if slashes and call in MAKING_FILES:
            expected = {
                "path to a file": errno.ENOTDIR,
                "rename": errno.ENOTDIR,
            }.get(call, errno.EISDIR)
            # A file's path does not end with a slash, to the kernel neither.
            error = refused(CALLS[call], path, NEW, **options)
            if call == "path to a file":
                # The tool gets a path without the slash, and is free to make a folder there.
                assert error.errno in (errno.ENOTDIR, errno.EISDIR)
            else:
                assert error.errno == expected
            assert os.listdir(parent) == [b"sub"]
            return
        CALLS[call](path, NEW, **options)
        assert sorted(os.listdir(parent)) == [b"name", b"sub"]
        assert read(parent + b"/name") == NEW


@each_call
@on_some
@pytest.mark.parametrize("end", [".", "..", "sub/.", "sub/..", "./", "../", "sub/./", "sub/..//"])
def test_a_path_that_ends_in_a_dot_names_nothing(fs: Filesystem, call: str, end: str) -> None:
    fs.folder("sub")
    for overwrite in (False, True):
        error = refused(CALLS[call], os.fspath(fs.here) + "/" + end, NEW, overwrite=overwrite)
        # As rename(2) answers; with RENAME_NOREPLACE it says EEXIST.
        assert error.errno in (errno.EBUSY, errno.EEXIST)
    assert os.listdir(fs.here) == ["sub"]


@each_call
@on_some
def test_an_empty_path_names_nothing(fs: Filesystem, call: str) -> None:
    with opened(fs.here) as dir_fd:
        for path in ("", b""):
            with pytest.raises(FileNotFoundError):
                CALLS[call](path, NEW, dir_fd=dir_fd)
    assert os.listdir(fs.here) == []


@each_call
@on_some
@pytest.mark.parametrize("path", ["a\0b", b"\0", "\0", b"sub/a\0"])
def test_a_nul_in_a_path_is_a_wrong_argument(fs: Filesystem, call: str, path: str | bytes) -> None:
    with opened(fs.here) as dir_fd, pytest.raises(ValueError, match="null"):
        CALLS[call](path, NEW, dir_fd=dir_fd)
    assert os.listdir(fs.here) == []


@each_call
@on_some
@pytest.mark.parametrize("length", [PATH_MAX - 300, PATH_MAX - 10, PATH_MAX - 2, PATH_MAX - 1])
def test_the_longest_path_is_published(fs: Filesystem, call: str, length: int) -> None:
    name = b"name"
    padding = length - len(name)
    path = b"./" * (padding // 2) + b"/" * (padding % 2) + name
    assert len(path) == length
    with opened(fs.here) as dir_fd:
        CALLS[call](path, NEW, dir_fd=dir_fd)
        assert read(b"name", dir_fd) == NEW
    assert os.listdir(fs.here) == ["name"]


@each_call
@on_some
def test_a_path_that_is_too_long_is_refused(fs: Filesystem, call: str) -> None:
    with opened(fs.here) as dir_fd:
        # The folder's path alone is too long already: with a shorter one, less would be refused than
        # the kernel refuses, since the name is looked up in the open folder.
        for length in (PATH_MAX, PATH_MAX + 1, 2 * PATH_MAX):
            path = b"./" * (length // 2) + b"/" * (length % 2) + b"name"
            error = refused(CALLS[call], path, NEW, dir_fd=dir_fd)
            assert error.errno == errno.ENAMETOOLONG
    assert os.listdir(fs.here) == []


@contextmanager
def deep_folder(here: Path, length: int) -> Generator[int, None, None]:
    """Opens a folder whose absolute path has this length, PATH_MAX or not."""
    missing = length - len(os.fsencode(here))
    fd = os.open(here, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while missing > 0:
            # A component takes its slash too, and the rest must not be a slash alone.
            part = min(missing, 101)
            if missing - part == 1:
                part -= 1
            with suppress(FileExistsError):
                os.mkdir("d" * (part - 1), dir_fd=fd)
            deeper = os.open("d" * (part - 1), os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd, missing = deeper, missing - part
        yield fd
    finally:
        os.close(fd)


@each_call
@on_some
@pytest.mark.parametrize("name", [b"name", b"n" * NAME_MAX], ids=["short", "long"])
@pytest.mark.parametrize(
    "length", [3700, 3900, 4060, 4070, 4075, 4080, 4085, 4090, 4095, 4200, 9000]
)
def test_the_staging_path_is_usable_however_deep_the_folder(
    fs: Filesystem, call: str, name: bytes, length: int
) -> None:
    with deep_folder(fs.here, length) as dir_fd:
        CALLS[call](name, OLD, dir_fd=dir_fd)
        CALLS[call](name, NEW, overwrite=True, dir_fd=dir_fd)
        assert (read(name, dir_fd), os.listdir(dir_fd)) == (NEW, [os.fsdecode(name)])


@on_some
@pytest.mark.parametrize("call", MAKING_FOLDERS)
def test_what_fits_below_the_destination_fits_below_staging(fs: Filesystem, call: str) -> None:
    """Also where the staging path is longer than the destination's, but not too long by itself."""
    below = len(b"/index.html")
    for name in (b"n" * 4, b"n" * 30, b"n" * 90, b"n" * 150):
        for spare in (0, len(name), len(name) + below - 1, len(name) + below):
            folder_length = PATH_MAX - 1 - below - spare - 1 - len(name)
            with deep_folder(fs.here, folder_length) as dir_fd:
                parent = os.readlink(os.fsencode(f"/proc/self/fd/{dir_fd}"))
                assert len(parent) == folder_length
                CALLS[call](parent + b"/" + name, NEW)
                assert read(parent + b"/" + name) == NEW
                CALLS[call](parent + b"/" + name, NEW, overwrite=True)


@dataclass
class Open:
    """An open guard, and what the model knows of it."""

    guard: Any
    """A `File`, `Folder` or `Entry`; None if it was dropped."""
    staging: Any
    name: str
    kind: str
    overwrite: bool
    old: "Version | None"
    content: bytes = b""
    ended: bool = False

    def loses_what_was_written(self, now: "Version | None") -> bool:
        """Tells whether an empty file would replace what has been written since it was begun."""
        empty = isinstance(self.guard, atomik.File) and self.content == b""
        return empty and now is not None and now is not self.old and now.content != b""


@dataclass(frozen=True)
class Version:
    """What the model says of a destination."""

    kind: str
    content: bytes


NAMES_IN_USE: Final = ("one", "other", "n" * NAME_MAX)
CONTENTS: Final = st.binary(max_size=20)


class Orders(RuleBasedStateMachine):
    """Guards opened, written, ended in any order, on the same destinations, against a dictionary."""

    here: ClassVar[Path]
    guards: Bundle[Open] = Bundle("guards")

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=self.here))
        self.model: dict[str, Version] = {}
        self.still_open: list[Open] = []

    def refusal(self, name: str, kind: str, overwrite: bool) -> type[OSError] | None:
        """Returns how a new version must be refused now."""
        old = self.model.get(name)
        if old is None:
            return None
        if not overwrite:
            return atomik.FileAlreadyExistsError
        if kind in ("any", old.kind):
            return None
        return NotADirectoryError if kind == "folder" else IsADirectoryError

    def make(self, name: str, kind: str, overwrite: bool) -> Any:
        path = self.folder / name
        match kind:
            case "file":
                return atomik.file(path, "wb", overwrite, durability="none", buffering=0)
            case "folder":
                return atomik.folder(path, overwrite, durability="none")
            case _:
                return atomik.path(path, overwrite=overwrite, durability="none")

    @rule(
        target=guards,
        name=st.sampled_from(NAMES_IN_USE),
        kind=st.sampled_from(["file", "folder", "file by path", "folder by path"]),
        overwrite=st.booleans(),
    )
    def enter(self, name: str, kind: str, overwrite: bool) -> Any:
        by_path = kind.endswith(" by path")
        guard = self.make(name, "any" if by_path else kind, overwrite)
        if refusal := self.refusal(name, "any" if by_path else kind, overwrite):
            with pytest.raises(refusal):
                guard.__enter__()
            with pytest.raises(RuntimeError):
                guard.commit()
            nothing: MultipleResults[Open] = multiple()
            return nothing
        old = self.model.get(name)
        entered = Open(guard, guard.__enter__(), name, kind.split(maxsplit=1)[0], overwrite, old)
        if by_path and kind.startswith("folder"):
            entered.staging.mkdir()
        self.still_open.append(entered)
        self.put(entered, b"")
        return entered

    @rule(entered=guards, content=CONTENTS)
    def write(self, entered: Open, content: bytes) -> None:
        if not entered.ended:
            self.put(entered, content)

    def put(self, entered: Open, content: bytes) -> None:
        entered.content = content
        if isinstance(entered.guard, atomik.File):
            entered.staging.seek(0)
            entered.staging.truncate()
            entered.staging.write(content)
        elif entered.kind == "file":
            entered.staging.write_bytes(content)
        else:
            (entered.staging / "index.html").write_bytes(content)

    @rule(entered=consumes(guards), by_exit=st.booleans())
    def commit(self, entered: Open, by_exit: bool) -> None:
        if entered.ended:
            self.must_be_over(entered)
            return
        refusal = self.refusal(entered.name, entered.kind, entered.overwrite)
        if refusal is None and entered.loses_what_was_written(self.model.get(entered.name)):
            refusal = atomik.ConflictError
        self.end(entered)

        def commit() -> None:
            if by_exit:
                entered.guard.__exit__(None, None, None)
            else:
                entered.guard.commit()

        if refusal is None:
            commit()
            self.model[entered.name] = Version(entered.kind, entered.content)
        else:
            with pytest.raises(refusal):
                commit()
        assert entered.guard.committed == (refusal is None)

    @rule(entered=guards, how=st.sampled_from(["rollback", "exit", "drop"]))
    def discard(self, entered: Open, how: str) -> None:
        if entered.ended:
            self.must_be_over(entered)
            return
        self.end(entered)
        if how == "rollback":
            entered.guard.rollback()
        elif how == "exit":
            assert not entered.guard.__exit__(KeyError, KeyError(), None)
        else:
            # Never ended, and nobody keeps it.
            entered.staging = None
            entered.guard = None
            return
        assert not entered.guard.committed

    def end(self, entered: Open) -> None:
        entered.ended = True
        self.still_open = [other for other in self.still_open if other is not entered]

    def must_be_over(self, entered: Open) -> None:
        if entered.guard is None:
            return
        for again in (entered.guard.commit, entered.guard.rollback):
            with pytest.raises(RuntimeError):
                again()

    @rule(name=st.sampled_from(NAMES_IN_USE), content=CONTENTS, overwrite=st.booleans())
    def write_bytes(self, name: str, content: bytes, overwrite: bool) -> None:
        def write() -> None:
            atomik.write_bytes(self.folder / name, content, overwrite=overwrite, durability="none")

        if refusal := self.refusal(name, "file", overwrite):
            with pytest.raises(refusal):
                write()
        else:
            write()
            self.model[name] = Version("file", content)

    @rule(src=st.sampled_from(NAMES_IN_USE), dst=st.sampled_from(NAMES_IN_USE))
    def rename(self, src: str, dst: str) -> None:
        def rename() -> None:
            atomik.rename(self.folder / src, self.folder / dst)

        if src not in self.model:
            with pytest.raises(FileNotFoundError):
                rename()
        elif dst in self.model:
            with pytest.raises(atomik.FileAlreadyExistsError):
                rename()
        else:
            rename()
            self.model[dst] = self.model.pop(src)

    @rule(a=st.sampled_from(NAMES_IN_USE), b=st.sampled_from(NAMES_IN_USE))
    def exchange(self, a: str, b: str) -> None:
        if a in self.model and b in self.model:
            atomik.exchange(self.folder / a, self.folder / b)
            self.model[a], self.model[b] = self.model[b], self.model[a]
        else:
            with pytest.raises(FileNotFoundError):
                atomik.exchange(self.folder / a, self.folder / b)

    @rule(name=st.sampled_from(NAMES_IN_USE))
    def remove(self, name: str) -> None:
        if version := self.model.pop(name, None):
            if version.kind == "folder":
                (self.folder / name / "index.html").unlink()
                (self.folder / name).rmdir()
            else:
                (self.folder / name).unlink()

    @invariant()
    def the_destinations_are_what_the_model_says(self) -> None:
        for name in NAMES_IN_USE:
            version = self.model.get(name)
            path = self.folder / name
            if version is None:
                assert not path.exists()
            else:
                assert ("folder" if path.is_dir() else "file") == version.kind
                assert read(os.fsencode(path)) == version.content

    @invariant()
    def only_open_guards_have_staging(self) -> None:
        if not self.still_open:
            assert sorted(os.listdir(self.folder)) == sorted(self.model)

    def teardown(self) -> None:
        for entered in self.still_open:
            entered.guard.rollback()
        assert sorted(os.listdir(self.folder)) == sorted(self.model)


@pytest.mark.parametrize("fs", ["ext4", "tmpfs", "btrfs", "overlay"], indirect=True)
@pytest.mark.filterwarnings("ignore:.*use 'with':ResourceWarning")
def test_any_order_of_calls_does_what_a_dictionary_does(fs: Filesystem) -> None:
    class Here(Orders):
        here = fs.here

    run_state_machine_as_test(
        Here, settings=settings(quickly, max_examples=60, stateful_step_count=40)
    )
