"""What a commit asks of the kernel: how many system calls, which syncs, and in which order."""

import os
import platform
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from support import slot_names
from support.strace import Call, calls_between_marks

PAGE = Path(__file__).parents[2] / "docs" / "how-it-works.md"

BUDGET = {
    "`write_bytes`, new": 10,
    "`write_bytes`, replacing": 16,
    "`file`, new": 14,
    "`file`, replacing": 20,
    "`folder`, new": 21,
    "`folder`, replacing": 34,
}
"""Of the operations in the page's table; `removing` is what the old folder itself needs, and extra."""

REMOVING = "… removing an empty old folder"

PROGRAM = """
import os, sys
import atomik
from support.strace import mark

kind, durability, exists = sys.argv[1], sys.argv[2], sys.argv[3] == "replacing"


def operation(name, overwrite):
    options = {"overwrite": overwrite, "durability": durability}
    if kind == "write_bytes":
        atomik.write_bytes(name, b"content", **options)
    elif kind == "file":
        with atomik.file(name, "wb", **options) as f:
            f.write(b"content")
    else:
        with atomik.folder(name, **options) as folder:
            if kind == "full folder":
                os.mkdir(folder / "sub")
                for file in ("one", "sub/two"):
                    os.close(os.open(folder / file, os.O_CREAT | os.O_WRONLY))


# So that imports, and what is asked of the kernel once in a process, are over.
operation("warm", False)
operation("warm", True)
mark()
operation("warm" if exists else "fresh", exists)
mark()
"""

UNIQUE_MOUNT_NUMBERS = tuple(map(int, re.findall(r"\d+", platform.release())[:2])) >= (6, 8)

SYNCS = {"fsync", "fdatasync", "syncfs", "sync", "sync_file_range", "msync"}
PUBLISHES = {"linkat", "rename", "renameat", "renameat2"}


def trace(folder: Path, kind: str, durability: str, state: str) -> list[Call]:
    """The system calls of one operation, in order."""
    [calls] = calls_between_marks(PROGRAM, folder, kind, durability, state)
    return calls


def publish(calls: list[Call], name: str) -> int:
    """Where the destination gets its new version; that it does so once is tested as well."""
    places = [
        number
        for number, call in enumerate(calls)
        if call.name in PUBLISHES
        and re.search(rf'"{name}"(, \w+)?\) = 0$', call.text)
        # Not what moves inside a slot.
        and "/.atomik-" not in call.text.rpartition("<")[2]
    ]
    assert len(places) == 1, "\n".join(call.text for call in calls)
    return places[0]


def removing(calls: list[Call], folder: Path) -> int:
    """How many calls are about the displaced folder, from looking into its slot on."""
    slot = re.compile(re.escape(str(slot_names.porch(folder / "warm"))) + "(/|$)")
    return sum(
        slot.match(call.first_path) is not None and call.name != "statx"
        for call in calls[publish(calls, "warm") + 1 :]
    )


def table() -> dict[str, tuple[str, str]]:
    lines = PAGE.read_text("utf-8").splitlines()
    start = lines.index("| operation | calls | budget |")
    rows: dict[str, tuple[str, str]] = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        operation, calls, budget = (cell.strip() for cell in line.strip("|").split("|"))
        rows[operation] = (calls, budget)
    return rows


def overlay_calls(folder: Path) -> int:
    """What a replaced folder needs more on an overlay: is it one of a lower layer?"""
    asked = ["stat", "--file-system", "--format=%T", str(folder)]
    kind = subprocess.run(asked, capture_output=True, check=True, text=True).stdout
    return 5 if kind.strip() == "overlayfs" else 0


def exact() -> bool:
    """Older kernels link an unnamed file by `/proc` for ordinary users: one call more."""
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    assert release
    return os.geteuid() == 0 or (int(release[1]), int(release[2])) >= (6, 10)


@pytest.mark.parametrize("operation", BUDGET)
def test_an_operation_keeps_its_budget_and_the_page_says_how_much_it_needs(
    operation: str, here: Path
) -> None:
    kind, state = operation.replace("`", "").split(", ")
    calls = trace(here, kind, "none", state)
    count = len(calls)
    if kind == "folder" and state == "replacing":
        old = removing(calls, here)
        count -= old + overlay_calls(here)
        if exact():
            assert table()[REMOVING] == (str(old), "")
    listing = "\n".join(call.text for call in calls)
    assert count <= BUDGET[operation], listing
    if exact():
        assert table()[operation] == (str(count), str(BUDGET[operation])), listing


def test_the_table_has_no_other_rows() -> None:
    assert table().keys() == BUDGET.keys() | {REMOVING}


@pytest.mark.parametrize("state", ["new", "replacing"])
@pytest.mark.parametrize("kind", ["write_bytes", "file", "folder", "full folder"])
def test_without_durability_nothing_is_synced(kind: str, state: str, here: Path) -> None:
    calls = trace(here, kind, "none", state)
    assert [call.text for call in calls if call.name in SYNCS] == []


@pytest.mark.parametrize("state", ["new", "replacing"])
@pytest.mark.parametrize("kind", ["write_bytes", "file", "full folder"])
def test_full_syncs_the_content_then_publishes_then_syncs_the_parent(
    kind: str, state: str, here: Path
) -> None:
    calls = trace(here, kind, "full", state)
    name = "warm" if state == "replacing" else "fresh"
    place = publish(calls, name)
    syncs = [number for number, call in enumerate(calls) if call.name in SYNCS]
    before = {calls[number].first_path: number for number in syncs if number < place}
    after = {calls[number].first_path: number for number in syncs if number > place}

    assert list(after) == [str(here)]
    if kind == "full folder":
        tree = {"/one", "/sub/two", "/sub", ""}
        staging = slot_names.porch(here / name) / name
        names = {calls[number].name for number in before.values()}
        if names == {"sync_file_range"}:
            # One flush is enough here: the journal has the folders.
            tree -= {"/sub", ""}
        assert "syncfs" in names or before.keys() == {f"{staging}{entry}" for entry in tree}
    else:
        ((content, synced),) = before.items()
        written = max(number for number, call in enumerate(calls) if '"content"' in call.text)
        assert (calls[written].name, calls[written].first_path) == ("write", content)
        assert written < synced


@pytest.mark.skipif(not UNIQUE_MOUNT_NUMBERS, reason="before Linux 6.8 mounts are looked at again")
@pytest.mark.parametrize("state", ["new", "replacing"])
@pytest.mark.parametrize("kind", ["write_bytes", "file"])
def test_durability_adds_two_syncs_and_asks_where_the_parent_is(
    kind: str, state: str, here: Path
) -> None:
    counts: dict[str, Counter[str]] = {}
    for durability in ("none", "full"):
        (folder := here / durability).mkdir()
        counts[durability] = Counter(call.name for call in trace(folder, kind, durability, state))
    more = counts["full"] - counts["none"]
    # A body asks where the parent is without a sync, too.
    assert more.pop("readlink", 0) == (1 if kind == "write_bytes" else 0)
    assert more.keys() <= SYNCS
    assert more.total() == 2


@pytest.mark.parametrize("state", ["new", "replacing"])
@pytest.mark.parametrize("kind", ["folder", "full folder"])
def test_a_small_folder_is_synced_without_asking_how_much_others_have_to_write(
    kind: str, state: str, here: Path
) -> None:
    calls = trace(here, kind, "full", state)
    assert [call.text for call in calls if "meminfo" in call.text] == []
    # It is read once, to its end, before the publish.
    staging = f"{slot_names.porch(here / ('warm' if state == 'replacing' else 'fresh'))}/"
    before = calls[: publish(calls, "warm" if state == "replacing" else "fresh")]
    read = Counter(
        call.first_path
        for call in before
        if call.name == "getdents64" and call.first_path.startswith(staging)
    )
    assert set(read.values()) <= {2}


@pytest.mark.parametrize("kind", ["write_bytes", "file", "full folder"])
def test_ordered_syncs_the_content_only(kind: str, here: Path) -> None:
    calls = trace(here, kind, "ordered", "replacing")
    place = publish(calls, "warm")
    syncs = [number for number, call in enumerate(calls) if call.name in SYNCS]
    assert syncs
    assert all(number < place for number in syncs)
