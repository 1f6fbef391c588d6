"""The engine finds the damage that is there, and none that is not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from powercut import engine, fuse, linux, states
from powercut.__main__ import main
from powercut.configurations import CONFIGURATIONS
from powercut.engine import Outcome, Task
from powercut.log import Event, Flush, Marker, Write

_SEED: Final = 20
_SECONDS: Final = 60


def judge(configuration: str, recipe: str, count: int, **task: bool) -> Outcome:
    need(configuration)
    bystander, heed_flushes = task.get("bystander", False), task.get("heed_flushes", True)
    (outcome,) = engine.judge_all(
        [Task(configuration, "recipes", recipe, bystander, count, _SEED, heed_flushes)], jobs=1
    )
    print(outcome)
    return outcome


def need(configuration: str) -> None:
    if (reason := engine.missing(CONFIGURATIONS[configuration])) is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_good_recipe_survives_every_cut(configuration: str) -> None:
    outcome = judge(configuration, "good", 60, bystander=True)
    assert (outcome.tried, outcome.bad, outcome.errors) == (60, 0, [])


@pytest.mark.parametrize("configuration", ["ext4-noauto_da_alloc", "xfs"])
def test_a_rename_without_sync_is_found_to_leave_empty_files(configuration: str) -> None:
    outcome = judge(configuration, "careless", 0, bystander=True)
    assert outcome.kinds["empty"] > 0
    assert outcome.errors == []


_IN_ORDER: Final = ("ext4-journal", "ext4-nodelalloc")
_UNSYNCED: Final = ("write_bytes-new-none-4096", "folder-replace-none-tree")


# With data=journal all that is written is in the journal, in its order, whoever syncs it (ext4(5)). With nodelalloc
# blocks are allocated as they are written, and the journal waits for them before it commits. A new file of
# btrfs comes with the transaction that has its content, unless the fsync of another's log asks for it: of 17 recordings
# none had an empty one; of a folder each had dozens.
@pytest.mark.parametrize(
    ("configuration", "recipe"),
    [
        (configuration, recipe)
        for configuration in CONFIGURATIONS
        for recipe in _UNSYNCED
        if configuration not in _IN_ORDER
        and (configuration, recipe) != ("btrfs", "write_bytes-new-none-4096")
    ],
)
def test_what_nobody_syncs_is_found_to_leave_empty_files(configuration: str, recipe: str) -> None:
    # Whether the filesystem commits between two steps is chance: a recording may show nothing.
    for _ in range(5):
        outcome = judge(configuration, recipe, 60, bystander=True)
        assert outcome.errors == []
        if outcome.kinds["empty"] > 0:
            return
    pytest.fail("nothing was found in five recordings")


@pytest.mark.parametrize("configuration", _IN_ORDER)
@pytest.mark.parametrize("recipe", _UNSYNCED)
def test_a_journal_that_waits_for_all_data_keeps_it_in_order_without_any_sync(
    configuration: str, recipe: str
) -> None:
    outcome = judge(configuration, recipe, 60, bystander=True)
    assert (outcome.bad, outcome.errors) == (0, [])


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_commit_that_returned_too_early_is_found_to_be_lost(configuration: str) -> None:
    outcome = judge(configuration, "hasty", 60)
    assert outcome.kinds["lost"] > 0
    assert outcome.errors == []


def test_an_overwritten_file_is_found_torn_between_blocks() -> None:
    outcome = judge("ext4", "overwrite", 0)
    assert outcome.kinds["torn"] > 0
    assert outcome.errors == []


@pytest.mark.parametrize("configuration", ["ext4", "xfs", "btrfs"])
def test_the_bystander_has_the_filesystem_commit_between_the_steps(configuration: str) -> None:
    busy = judge(configuration, "careless", 1, bystander=True)
    quiet = judge(configuration, "careless", 1)
    assert busy.epochs >= quiet.epochs + 3


@pytest.mark.parametrize("configuration", ["ext4", "btrfs"])
def test_a_disk_that_ignores_flushes_makes_a_good_recipe_fail(configuration: str) -> None:
    outcome = judge(configuration, "good", 60, heed_flushes=False)
    assert outcome.kinds["lost"] > 0


@pytest.mark.parametrize("configuration", ["ext4", "xfs", "btrfs"])
def test_nothing_of_one_state_is_left_in_the_next(configuration: str) -> None:
    outcome = judge(configuration, "scribble", 40)
    assert (outcome.tried, outcome.bad, outcome.errors) == (40, 0, [])


def test_a_loop_device_forgets_what_it_was_before_the_file_changed(here: Path) -> None:
    need("ext4")
    image = here / "image"
    image.write_bytes(b"old" + bytes(4093))
    with linux.Loop(image, direct=False) as loop:
        assert os.pread(loop.fd, 3, 0) == b"old"
        with image.open("r+b") as file:
            file.write(b"new")
        assert os.pread(loop.fd, 3, 0) == b"old"
        loop.drop_cache()
        assert os.pread(loop.fd, 3, 0) == b"new"


def test_a_state_that_cannot_be_mounted_is_an_error_and_not_a_verdict() -> None:
    outcome = judge("ext4", "vandal", 0)
    assert outcome.bad == 0
    assert 0 < len(outcome.errors) < outcome.tried
    assert "ext4" in outcome.errors[0]


@pytest.mark.parametrize("neighbour", ["busy", "quiet"])
def test_killing_the_command_frees_its_processes_and_loop_devices(
    here: Path, neighbour: str
) -> None:
    need("ext4")
    options = ("--workload", "folder-replace-full-tree", "--neighbour", neighbour, "--jobs", "1")
    command = subprocess.Popen(
        [sys.executable, "-m", "powercut", "--filesystem", "ext4", *options],
        env={
            **os.environ,
            "TMPDIR": str(here),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONUNBUFFERED": "1",
        },
        stdout=subprocess.PIPE,
    )
    deadline = time.monotonic() + _SECONDS
    used: list[Path] = []
    recording = f"disk/{fuse.IMAGE}"
    while not used and time.monotonic() < deadline:
        time.sleep(0.001)
        used = [
            path
            for path in _loop_devices()
            if here.name in _backing_file(path) and _backing_file(path).endswith(recording)
        ]
    assert used
    command.send_signal(signal.SIGKILL)
    # All its processes have the other end: when they are gone, this one ends.
    command.communicate(timeout=_SECONDS)
    while any(map(_is_left, used)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [path for path in used if _is_left(path)] == []
    for folder in here.iterdir():
        folder.rmdir()


def _loop_devices() -> list[Path]:
    return list(Path("/sys/block").glob("loop*/loop/backing_file"))


def _backing_file(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:  # freed meanwhile
        return ""


def _is_left(path: Path) -> bool:
    # A file whose mount is gone has lost all of its path but the name; a longer one is the next user's.
    return _backing_file(path).count("/") == 1


def test_the_command_prints_a_table_and_writes_it_as_json(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need("ext4")
    report = here / "report.json"
    workload = "rename-file-replace-full"
    options = ["--filesystem", "ext4", "--workload", workload, "--states", "7", "--jobs", "1"]
    assert main([*options, "--seed", "5", "--json", str(report)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("seed 5, 2 recordings\n")
    assert "14 states in " in text
    written = json.loads(report.read_text())
    assert [each["task"]["workload"] for each in written["outcomes"]] == [workload] * 2
    assert [each["tried"] for each in written["outcomes"]] == [7, 7]


def test_a_bad_state_fails_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    need("ext4")

    def judged(tasks: Iterable[Task], jobs: int) -> list[Outcome]:
        del jobs
        return [Outcome(task, tried=1, bad=1) for task in tasks]

    monkeypatch.setattr(engine, "judge_all", judged)
    assert main(["--filesystem", "ext4", "--workload", "rename-file-new-full"]) == 1


def test_what_peers_do_is_told_and_no_failure(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need("xfs")
    report = here / "report.json"
    workload = "peer-replace-unsynced-replace-full-102400"
    options = ["--filesystem", "xfs", "--workload", workload, "--neighbour", "busy", "--peers"]
    assert main([*options, "--states", "40", "--jobs", "1", "--json", str(report)]) == 0
    assert "BAD" in capsys.readouterr().out
    (outcome,) = json.loads(report.read_text())["outcomes"]
    assert max(outcome["kinds"].values()) <= outcome["bad"] <= 40


# Which states there are, on a log that is written by hand.

_BLOCK: Final = states.TORN_AT
_LOG: Final[list[Event]] = [
    Write(0, b"before"),
    Marker("begin"),
    Write(_BLOCK, b"a"),
    Marker("1"),
    Flush(),
    Write(0, bytes(3 * _BLOCK)),
    Write(8, b"c"),
    Write(9, b"d"),
    Marker("2"),
    Flush(),
    Marker("3"),
    Write(10, b"e"),
]


def _states() -> list[states.State]:
    return list(states.possible(states.epochs(_LOG, "begin"), _SEED))


def _kept(end: int) -> list[tuple[int, ...]]:
    return [
        state.kept
        for state in _states()
        if state.epoch.end == end and not state.name.startswith("random") and not state.torn
    ]


def test_an_epoch_ends_with_a_flush_and_knows_what_returned_before_it() -> None:
    assert [(each.end, each.writes, each.returned) for each in states.epochs(_LOG, "begin")] == [
        (4, (0, 2), ("1",)),
        (9, (5, 6, 7), ("1", "2")),
        (12, (11,), ("1", "2", "3")),
    ]


def test_a_cut_leaves_nothing_any_prefix_or_all_but_one_of_the_unflushed_writes() -> None:
    assert _kept(9) == [(), (5,), (5, 6), (6, 7), (5, 7)]


def test_the_last_write_of_a_prefix_may_be_torn_if_it_is_longer_than_a_block() -> None:
    torn = [state.kept for state in _states() if state.torn and "first" in state.name]
    assert torn == [(5,)]


def test_all_unflushed_writes_are_a_state_of_the_last_epoch_and_nothing_of_the_next() -> None:
    assert _kept(12) == [(), (11,)]


def test_random_subsets_keep_the_order_of_the_log_and_are_torn_at_blocks() -> None:
    random = [state for state in _states() if state.name.startswith("random")]
    assert len({state.kept for state in random}) > 1
    assert all(tuple(sorted(state.kept)) == state.kept for state in random)
    assert {write for state in random for write, _ in state.torn} == {5}
    pieces = {
        (piece.offset, len(piece.data))
        for seed in range(50)
        for piece in states.pieces(Write(_BLOCK - 1, bytes(_BLOCK + 2)), seed)
    }
    assert pieces == {(_BLOCK - 1, 1), (_BLOCK, _BLOCK), (2 * _BLOCK, 1)}


def test_the_same_seed_gives_the_same_states() -> None:
    assert _states() == _states()
    other = list(states.possible(states.epochs(_LOG, "begin"), _SEED + 1))
    assert _states() != other


def test_a_sample_takes_one_from_each_equal_stretch_and_the_same_for_the_same_seed() -> None:
    many = list(range(1003))
    for count in (1, 7, 100):
        chosen = states.sampled(many, count, _SEED)
        assert chosen == states.sampled(many, count, _SEED)
        bounds = [number * len(many) // count for number in range(count + 1)]
        assert all(
            start <= number < end
            for start, number, end in zip(bounds, chosen, bounds[1:], strict=False)
        )
        assert len(chosen) == count
    assert states.sampled(many, 0, _SEED) == many


def test_without_heed_of_flushes_all_that_was_recorded_is_one_epoch() -> None:
    (epoch,) = states.epochs(_LOG, "begin", heed_flushes=False)
    assert (epoch.end, epoch.writes, epoch.returned) == (12, (2, 5, 6, 7, 11), ("1", "2", "3"))
