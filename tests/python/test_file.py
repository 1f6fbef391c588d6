"""Files: what the body gets is what `open` gives, and nothing truncated is ever published."""

import array
import ctypes
import errno
import io
import itertools
import mmap
import os
import resource
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import atomik
import pytest
from support.filesystems import Filesystem, leftovers
from support.processes import ROOT, run_as

TOO_MUCH: Final = 17 << 20  # a tmpfs of `mount_tmpfs` has 16 MiB
LARGE: Final = (2 << 30) + 5  # write(2) writes at most 0x7ffff000 bytes at once
ROOM: Final = 6 << 30

MODES: Final = (
    *("w", "wt", "x", "xt", "w+", "wt+", "x+", "+wt"),
    *("wb", "bw", "xb", "w+b", "wb+", "x+b"),
    *atomik.Mode,
)

each_mode = pytest.mark.parametrize("mode", MODES)
each_kind_of_staging = pytest.mark.parametrize(
    "fs", ["tmpfs", "bindfs"], ids=["unnamed", "named"], indirect=True
)


def attempt(call: Callable[[], object]) -> object:
    """Returns what a call returns, or the type of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error)


# Modes


@pytest.mark.filterwarnings("ignore:.*not entered:ResourceWarning")
def test_exactly_the_modes_of_open_that_write_are_taken(here: Path) -> None:
    reference, destination = here / "reference", here / "destination"
    for length in range(5):
        for letters in itertools.product("rwaxbt+U", repeat=length):
            mode = "".join(letters)
            expected = attempt(partial(open_and_close, reference, mode))
            if "r" in mode and "+" not in mode:
                expected = ValueError
            ours = attempt(partial(atomik.file, destination, cast("atomik.OpenMode", mode)))
            assert (ours is ValueError) == (expected is ValueError), mode
            reference.unlink(missing_ok=True)


def open_and_close(path: Path, mode: str) -> None:
    with open(path, mode):
        pass


@pytest.mark.parametrize("mode", ["r", "rb", "rt"])
def test_a_mode_that_only_reads_is_refused(here: Path, mode: atomik.OpenMode) -> None:
    with pytest.raises(ValueError, match="only reads"):
        atomik.file(here / "destination", mode)


@pytest.mark.parametrize("mode", ["x", "xb", "x+"])
def test_exclusive_creation_does_not_go_with_overwriting(here: Path, mode: atomik.OpenMode) -> None:
    with pytest.raises(ValueError, match="overwrite"):
        atomik.file(here / "destination", mode, overwrite=True)


@pytest.mark.parametrize("mode", [None, b"w", 1])
def test_a_mode_is_a_string(here: Path, mode: Any) -> None:
    with pytest.raises(TypeError):
        atomik.file(here / "destination", mode)


@each_kind_of_staging
@each_mode
def test_the_body_gets_what_open_gives(fs: Filesystem, mode: atomik.OpenMode) -> None:
    def look(file: Any) -> list[object]:
        file.write(b"one\ntwo\n" if "b" in mode else "one\ntwo\n")
        found: list[object] = [type(file).__name__, file.readable(), file.writable()]
        found += [file.seekable(), file.isatty()]
        found += [file.mode, file.tell(), file.closed, os.path.basename(file.name)]
        if file.readable():
            found += [file.seek(0), file.readlines()]
        return [*found, getattr(file, "encoding", None), getattr(file, "errors", None)]

    with open(fs.folder("reference") / "name", str(mode)) as reference:
        expected = look(reference)
    with atomik.file(fs.here / "name", mode) as ours:
        assert look(ours) == expected
    assert (fs.here / "name").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("as_given", [os.fspath, os.fsencode, Path])
def test_the_file_is_named_as_the_path_was_given(
    here: Path, as_given: Callable[[Path], Any]
) -> None:
    path = as_given(here / "destination")
    with atomik.file(path) as ours:
        assert ours.name == os.fspath(path)


def test_the_arguments_of_the_first_release_go_by_position(here: Path) -> None:
    destination, tmp_dir = here / "destination", here / "elsewhere"
    tmp_dir.mkdir()
    destination.write_text("old")
    with atomik.file(destination, atomik.Mode.TEXT, True, tmp_dir) as text:
        text.write("new")
    assert destination.read_text() == "new"
    with atomik.file(destination, atomik.Mode.BYTES, True, tmp_dir) as binary:
        binary.write(b"newer")
    assert destination.read_text() == "newer"
    with pytest.raises(TypeError):
        atomik.file(destination, "w", True, tmp_dir, "none")  # type: ignore[call-overload]


# open's semantics

TEXT: Final = "é\n€\r\nZ\r\x00\ud800"[:-1]

TEXT_OPTIONS: Final[list[dict[str, Any]]] = [
    {},
    {"encoding": "utf-8"},
    {"encoding": "utf-8-sig"},
    {"encoding": "utf-16"},
    {"encoding": "utf-16-be"},
    {"encoding": "locale"},
    {"encoding": "ascii"},
    {"encoding": "latin-1"},
    {"encoding": "ascii", "errors": "replace"},
    {"encoding": "ascii", "errors": "xmlcharrefreplace"},
    {"encoding": "utf-8", "errors": "surrogatepass"},
    {"encoding": "ascii", "errors": "nonsense"},
    {"encoding": "nonsense"},
    {"encoding": "rot13"},
    {"encoding": ""},
    {"encoding": "utf-8\0"},
    {"encoding": "utf-8\udcff"},
    {"encoding": 8},
    {"errors": 8},
    {"newline": ""},
    {"newline": "\n"},
    {"newline": "\r"},
    {"newline": "\r\n"},
    {"newline": "\n\r"},
    {"newline": "x"},
    {"newline": b"\n"},
]
BUFFERINGS: Final[list[dict[str, Any]]] = [
    *({"buffering": size} for size in (-2, -1, 0, 1, 2, 8192, 1 << 20, 2**31, 2**80)),
    {"buffering": None},
    {"buffering": "1"},
]


@each_kind_of_staging
@pytest.mark.parametrize("options", [*TEXT_OPTIONS, *BUFFERINGS], ids=repr)
def test_text_is_written_as_open_writes_it(fs: Filesystem, options: dict[str, Any]) -> None:
    def write(open_it: Callable[..., Any], path: Path) -> bytes:
        with open_it(path, "w", **options) as file:
            for part in (TEXT, TEXT * 5000):
                file.write(part)
        return path.read_bytes()

    expected = attempt(partial(write, open, fs.here / "reference"))
    assert attempt(partial(write, atomik.file, fs.here / "destination")) == expected
    assert (fs.here / "destination").exists() == isinstance(expected, bytes)


@pytest.mark.parametrize(
    "text", [TEXT, "", "lone \ud800 surrogate"], ids=["plain", "", "surrogate"]
)
@pytest.mark.parametrize("options", TEXT_OPTIONS, ids=repr)
def test_write_text_writes_what_open_writes(here: Path, options: dict[str, Any], text: str) -> None:
    def by_open() -> bytes:
        with open(here / "reference", "w", **options) as file:
            file.write(text)
        return (here / "reference").read_bytes()

    def by_us() -> bytes:
        atomik.write_text(here / "destination", text, **options)
        return (here / "destination").read_bytes()

    expected = attempt(by_open)
    assert attempt(by_us) == expected
    assert (here / "destination").exists() == isinstance(expected, bytes)


@pytest.mark.parametrize("text", [None, b"text", 5])
def test_write_text_writes_strings_only(here: Path, text: Any) -> None:
    with pytest.raises(TypeError):
        atomik.write_text(here / "destination", text)
    assert list(here.iterdir()) == []


@each_kind_of_staging
@pytest.mark.parametrize(
    "options",
    [*BUFFERINGS, {"encoding": "utf-8"}, {"errors": "strict"}, {"newline": "\n"}, {"newline": ""}],
    ids=repr,
)
def test_bytes_are_written_as_open_writes_them(fs: Filesystem, options: dict[str, Any]) -> None:
    def write(open_it: Callable[..., Any], path: Path) -> tuple[str, bytes]:
        with open_it(path, "wb", **options) as file:
            for size in (1, 5, 10_000):
                file.write(bytes(range(size % 256)) * 3)
        return type(file).__name__, path.read_bytes()

    expected = attempt(partial(write, open, fs.here / "reference"))
    assert attempt(partial(write, atomik.file, fs.here / "destination")) == expected
    assert (fs.here / "destination").exists() == isinstance(expected, tuple)


# What the body does with its file


@each_kind_of_staging
@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_detached_layer_is_never_published_truncated(
    fs: Filesystem, mode: atomik.OpenMode
) -> None:
    destination = fs.here / "destination"
    destination.write_text("old")
    layers: list[io.IOBase] = []
    open_guard: Callable[..., atomik.File[Any]] = atomik.file
    guard = open_guard(destination, mode, overwrite=True)
    with pytest.raises(ValueError, match="detached"), guard as file:
        file.write(b"begin" if mode == "wb" else "begin")
        layers.append(file.detach())
    assert destination.read_text() == "old"
    assert layers[0].closed


def test_a_detached_layer_of_a_layer_is_never_published_truncated(here: Path) -> None:
    layers: list[io.IOBase] = []
    guard: atomik.File[Any] = atomik.file(here / "destination")
    with pytest.raises(ValueError, match="detached"), guard as file:
        file.write("begin")
        layers.append(file.buffer.detach())
    assert layers[0].closed
    assert list(here.iterdir()) == []


def test_an_exception_after_a_detach_is_the_one_that_is_raised(here: Path) -> None:
    with pytest.raises(LookupError), atomik.file(here / "destination") as file:
        file.write("begin")
        file.detach()
        raise LookupError
    assert list(here.iterdir()) == []


@each_kind_of_staging
@each_mode
def test_after_the_commit_the_file_is_closed(fs: Filesystem, mode: atomik.OpenMode) -> None:
    with atomik.file(fs.here / "destination", mode) as file:
        pass
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.write(b"" if "b" in mode else "")
    with pytest.raises(ValueError, match="closed"):
        file.fileno()
    assert (fs.here / "destination").read_bytes() == b""


def test_after_the_rollback_the_file_is_closed(here: Path) -> None:
    with pytest.raises(LookupError), atomik.file(here / "destination") as file:
        raise LookupError
    assert file.closed


@each_kind_of_staging
@each_mode
def test_closing_in_the_body_is_fine(fs: Filesystem, mode: atomik.OpenMode) -> None:
    destination = fs.here / "destination"
    with atomik.file(destination, mode) as file:
        file.write(b"new" if "b" in mode else "new")
        file.close()
        assert not destination.exists()
    assert destination.read_bytes() == b"new"


@each_kind_of_staging
def test_another_with_in_the_body_is_fine(fs: Filesystem) -> None:
    destination = fs.here / "destination"
    with atomik.file(destination, "wb") as file, io.TextIOWrapper(file, "utf-8") as text:
        text.write("new")
    assert destination.read_bytes() == b"new"


@each_kind_of_staging
def test_what_is_written_through_the_descriptor_is_published(fs: Filesystem) -> None:
    destination = fs.here / "destination"
    with atomik.file(destination, "w") as file:
        os.write(file.fileno(), b"one ")
        file.write("two ")
        file.flush()
        os.write(file.fileno(), b"three")
    assert destination.read_text() == "one two three"


@each_kind_of_staging
def test_the_last_size_is_published(fs: Filesystem) -> None:
    destination = fs.here / "destination"
    with atomik.file(destination, "w+b") as file:
        file.write(b"0123456789")
        file.seek(4)
        file.truncate()
        file.seek(6)
        file.write(b"x")
        file.seek(0)
        assert file.read() == b"0123\0\0x"
    assert destination.read_bytes() == b"0123\0\0x"


# A full disk


def write_bytes(destination: Path) -> None:
    atomik.write_bytes(destination, bytes(TOO_MUCH), overwrite=True)


def write_text(destination: Path) -> None:
    atomik.write_text(destination, "x" * TOO_MUCH, overwrite=True, encoding="utf-8")


def write_utf_16(destination: Path) -> None:
    atomik.write_text(destination, "x" * (TOO_MUCH // 2), overwrite=True, encoding="utf-16")


def leave_in_the_buffer(destination: Path) -> None:
    with atomik.file(destination, "wb", overwrite=True, buffering=2 * TOO_MUCH) as file:
        file.write(bytes(TOO_MUCH))


def leave_text_in_the_buffer(destination: Path) -> None:
    with atomik.file(destination, overwrite=True, buffering=2 * TOO_MUCH) as file:
        file.write("x" * TOO_MUCH)


each_way_to_write_too_much = pytest.mark.parametrize(
    "write", [write_bytes, write_text, write_utf_16, leave_in_the_buffer, leave_text_in_the_buffer]
)
each_overwrite = pytest.mark.parametrize("old", [None, b"old"], ids=["new", "replacing"])


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
@each_overwrite
@each_way_to_write_too_much
def test_a_full_disk_leaves_the_old_version_and_nothing_else(
    fs: Filesystem, write: Callable[[Path], None], old: bytes | None
) -> None:
    destination = full_disk(fs, old)
    free = os.statvfs(destination.parent).f_bfree
    with pytest.raises(OSError, match="No space left") as caught:
        write(destination)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == os.fspath(destination)
    assert_untouched(destination, old)
    assert os.statvfs(destination.parent).f_bfree == free


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
@each_overwrite
@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_disk_that_is_full_in_the_body_leaves_the_old_version_and_nothing_else(
    fs: Filesystem, mode: atomik.OpenMode, old: bytes | None
) -> None:
    destination = full_disk(fs, old)
    free = os.statvfs(destination.parent).f_bfree
    with (
        pytest.raises(OSError, match="No space left") as caught,
        atomik.file(destination, mode, overwrite=True) as file,
    ):
        for _ in range(TOO_MUCH >> 16):
            file.write(b"x" * (1 << 16) if mode == "wb" else "x" * (1 << 16))
    assert caught.value.errno == errno.ENOSPC
    assert_untouched(destination, old)
    assert os.statvfs(destination.parent).f_bfree == free


@each_kind_of_staging
@each_overwrite
@each_way_to_write_too_much
def test_a_limited_file_size_leaves_the_old_version_and_nothing_else(
    fs: Filesystem, write: Callable[[Path], None], old: bytes | None
) -> None:
    destination = fs.here / "destination"
    if old is not None:
        destination.write_bytes(old)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (TOO_MUCH - 1, TOO_MUCH - 1))
        write(destination)

    with pytest.raises(OSError, match="File too large") as caught:
        run_as(ROOT, limited)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == os.fspath(destination)
    assert_untouched(destination, old)


def full_disk(fs: Filesystem, old: bytes | None) -> Path:
    """Mounts 16 MiB and returns a destination there."""
    disk = fs.folder("disk")
    fs.mount_tmpfs(disk)
    if old is not None:
        (disk / "destination").write_bytes(old)
    return disk / "destination"


def assert_untouched(destination: Path, old: bytes | None) -> None:
    assert (destination.read_bytes() if destination.exists() else None) == old
    assert leftovers(destination.parent) == []


# write_bytes

CONTENT: Final = bytes(range(256)) * 40


def a_memory_map() -> mmap.mmap:
    mapped = mmap.mmap(-1, len(CONTENT))
    mapped[:] = CONTENT
    return mapped


BUFFERS: Final[dict[str, Callable[[], Any]]] = {
    "bytes": lambda: CONTENT,
    "bytearray": lambda: bytearray(CONTENT),
    "empty": lambda: b"",
    "empty bytearray": bytearray,
    "memoryview": lambda: memoryview(CONTENT),
    "slice": lambda: memoryview(CONTENT)[100:3000],
    "2-d view": lambda: memoryview(CONTENT).cast("B", (40, 256)),
    "0-d view": lambda: memoryview(b"abcd").cast("i", ()),
    "every second byte": lambda: memoryview(CONTENT)[::2],
    "backwards": lambda: memoryview(CONTENT)[::-1],
    "array": lambda: array.array("d", [0.0, 1.5, -2.25]),
    "empty array": lambda: array.array("i"),
    "memory map": a_memory_map,
    "ctypes array": lambda: (ctypes.c_int16 * 3)(1, 2, 3),
    "ctypes number": lambda: ctypes.c_int32(5),
    "BytesIO's view": lambda: io.BytesIO(CONTENT).getbuffer(),
    "released": lambda: released(memoryview(CONTENT)),
    "str": lambda: "text",
    "None": lambda: None,
    "int": lambda: 5,
    "list": lambda: [1, 2, 3],
}


def released(view: memoryview) -> memoryview:
    view.release()
    return view


def assert_written_as_open_does(here: Path, data: Any) -> object:
    """Writes the same with `open`, compares what happens, and returns it."""
    destination = here / "destination"

    def by_open() -> bytes:
        with open(here / "reference", "wb") as file:
            file.write(data)
        return (here / "reference").read_bytes()

    def by_us() -> bytes:
        atomik.write_bytes(destination, data)
        return destination.read_bytes()

    expected = attempt(by_open)
    assert attempt(by_us) == expected
    assert destination.exists() == isinstance(expected, bytes)
    return expected


@pytest.mark.parametrize("make", BUFFERS.values(), ids=BUFFERS)
def test_write_bytes_takes_exactly_the_buffers_that_open_takes(
    here: Path, make: Callable[[], Any]
) -> None:
    assert_written_as_open_does(here, make())


def test_write_bytes_takes_numpy_arrays(here: Path) -> None:
    numpy = pytest.importorskip("numpy")
    matrix = numpy.arange(12, dtype="u2").reshape(3, 4)
    for number, data in enumerate(
        (
            matrix,
            matrix[1:],
            matrix.astype("f8"),
            numpy.empty((0, 3)),
            numpy.zeros((1, 1, 1)),
            numpy.array(5, dtype="u4"),
            numpy.array([(1, 2.5)], dtype=[("a", "i2"), ("b", "f8")]),
            numpy.array(["2020"], dtype="M8[D]"),
            numpy.float64(2.5),
        )
    ):
        (folder := here / str(number)).mkdir()
        assert assert_written_as_open_does(folder, data) == data.tobytes()


@pytest.mark.parametrize("which", ["Fortran order", "every second column", "backwards"])
def test_write_bytes_refuses_what_is_not_contiguous(here: Path, which: str) -> None:
    numpy = pytest.importorskip("numpy")
    matrix = numpy.arange(12).reshape(3, 4)
    data = {
        "Fortran order": numpy.asfortranarray(matrix),
        "every second column": matrix[:, ::2],
        "backwards": matrix[::-1],
    }[which]
    for given in (data, memoryview(data)):
        # numpy itself would say ValueError, memoryview BufferError.
        with pytest.raises((BufferError, ValueError), match="contiguous"):
            atomik.write_bytes(here / "destination", given)
    assert list(here.iterdir()) == []


def test_write_bytes_lets_go_of_the_buffer(here: Path) -> None:
    data = bytearray(b"data")
    atomik.write_bytes(here / "destination", data)
    with pytest.raises(FileExistsError):
        atomik.write_bytes(here / "destination", data)
    data.extend(b"more")  # BufferError if anybody still looked at it


@pytest.mark.slow
@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
def test_more_than_one_write_call_can_take_is_written_whole(fs: Filesystem) -> None:
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if min(memory, shutil.disk_usage(fs.here).free) < ROOM:
        pytest.skip("needs 6 GB of memory")
    destination = fs.here / "destination"
    with mmap.mmap(-1, LARGE) as data:
        data[-5:] = b"final"
        atomik.write_bytes(destination, data, durability="none")
    assert destination.stat().st_size == LARGE
    with destination.open("rb") as file:
        file.seek(-10, os.SEEK_END)
        assert file.read() == b"\0\0\0\0\0final"
