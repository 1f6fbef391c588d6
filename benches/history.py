"""What readers and history cost: snapshots, the copies that updates begin with, and clean-up in the background."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import atomik
from figures import Row
from ground import Samples, elapsed, in_turns, run, settle
from place import OPENED, Place
from scale import Tree

_Cleanup = Literal["inline", "background"]


# --- Snapshots ---


def bare(path: Path) -> None:
    """Opens, locks and closes a folder: the least that a snapshot must do."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    os.close(fd)


def with_statement(path: Path) -> None:
    """Opens and closes a snapshot as a body does."""
    with atomik.snapshot(path):
        pass


def guard(path: Path) -> None:
    """Opens and closes a snapshot by the guard's own verb."""
    snapshot = atomik.snapshot(path)
    snapshot.__enter__()
    snapshot.close()


def snapshots(place: Place) -> Iterator[Row]:
    """Times one opening of a snapshot; a clock cannot tell apart less than many of them."""
    path, openings = place.new(), place.scale.openings

    def sample(name: str, do: Callable[[Path], None]) -> Samples:
        def repeat() -> None:
            for _ in range(openings):
                do(path)

        return {name: [elapsed(repeat) / openings]}

    ways = {OPENED: bare, "atomik.snapshot": with_statement, "atomik.snapshot, close()": guard}
    samples = in_turns({name: partial(sample, name, do) for name, do in ways.items()}, rounds=40)
    yield from place.rows("snapshots", "none", "opened and closed", samples, OPENED)


# --- Clones ---


def clones(place: Place) -> Iterator[Row]:
    """Times the copy that an update begins with against `cp -a --reflink=auto`, page cache warm."""
    for tree in place.scale.clones:
        parent = place.new()
        place.fill(parent / "original", tree, place.seed())
        yield from clone_case(place, parent / "original", str(tree), tree.rounds)
        run("rm", "-rf", parent)
    large, parent = place.scale.cloned, place.new()
    (parent / "original").mkdir()
    path = parent / "original" / "large"
    place.bare.ask("plain", path, large.bytes, 1 << 20, place.seed())
    yield from clone_case(place, parent / "original", f"one file, {large}", large.rounds)
    run("rm", "-rf", parent)


def clone_case(place: Place, path: Path, case: str, rounds: int) -> Iterator[Row]:
    """Compares the copies by themselves, and with their removal."""

    def update() -> Samples:
        settle(path)
        start = time.perf_counter()
        with (new := atomik.folder(path, update=True, durability="none")):
            copied = time.perf_counter()
            new.rollback()
        return {"update": [copied - start], "update, all": [time.perf_counter() - start]}

    def cp() -> Samples:
        settle(path)
        copy = path.with_name("copy")
        copied = elapsed(lambda: run("cp", "-a", "--reflink=auto", path, copy))
        removed = elapsed(lambda: run("rm", "-rf", copy))
        return {"cp -a": [copied], "cp -a, all": [copied + removed]}

    samples = in_turns({"cp": cp, "update": update}, rounds)
    for what, suffix in (("copied", ""), ("copied and removed", ", all")):
        pair = {name: samples[name + suffix] for name in ("cp -a", "update")}
        yield from place.rows("clones", "none", f"{case}, {what}", pair, "cp -a")


# --- Commits ---


def commits(place: Place) -> Iterator[Row]:
    """Times commits that leave the removal of the old tree to a thread against those that do it."""
    for tree in place.scale.displaced:
        path = place.new() / "replaced"

        def sample(cleanup: _Cleanup, path: Path = path, tree: Tree = tree) -> Samples:
            return {cleanup: [displace(place, path, tree, cleanup)]}

        ways = {"inline": partial(sample, "inline"), "background": partial(sample, "background")}
        samples = in_turns(ways, tree.rounds)
        yield from place.rows("commits", "none", f"over {tree}", samples, "inline")
        shutil.rmtree(path.parent)


def displace(place: Place, path: Path, tree: Tree, cleanup: _Cleanup) -> float:
    """Replaces a folder of so many files by an empty one, and times nothing but the commit."""
    with atomik.folder(path, overwrite=True, durability="none") as old:
        place.fill(old, tree, place.seed())
    settle(path)
    with (new := atomik.folder(path, overwrite=True, durability="none", cleanup=cleanup)):
        took = elapsed(new.commit)
    while any(name.startswith(".atomik") for name in os.listdir(path.parent)):  # noqa: PTH208
        time.sleep(0.01)
    return took
