"""Publishes this interpreter's standard library again and again while others read it.

One process publishes: every version is a whole folder of thousands of files, and every fourth file
is different in every version. Reader processes read it meanwhile, from the first file to the last,
and compare what they saw with the list of hashes of one version. One writer is killed in the
middle of its work. In the end three numbers count: reads that saw two versions mixed (0), things
that the killed writer left behind (0), and how often a reader found its version removed.

    python examples/demo.py [--seconds 15] [--readers 2] [--at FOLDER]

The exit status is 0 only if nothing was mixed and nothing was left.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import atomik

SKIPPED = {"site-packages", "__pycache__"}
"""Not the standard library: what pip installed, and what the interpreter can make again."""

LARGEST = 2**20
"""Larger files (the interpreter's static library) would make this a test of the disk."""

Manifest = dict[str, str]
"""One version, complete: the path of every file, relative to the folder, and its hash."""


# --- The writer ----------------------------------------------------------------------------------


def standard_library() -> list[tuple[str, Path]]:
    """The files to publish: their paths inside the folder, and where they are now."""
    root = Path(sysconfig.get_path("stdlib"))
    found: list[tuple[str, Path]] = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED)
        paths = (Path(folder, name) for name in sorted(files))
        found += [
            (str(path.relative_to(root)), path)
            for path in paths
            if path.is_file() and path.stat().st_size <= LARGEST
        ]
    return found


def build(
    staging: Path, sources: list[tuple[str, Path]], version: int
) -> Iterator[tuple[str, str]]:
    """Writes one version into `staging`; yields the path and the hash of each file written."""
    (staging / "VERSION").write_text(f"{version}\n")
    yield "VERSION", digest(f"{version}\n".encode())
    for number, (name, source) in enumerate(sources):
        content = source.read_bytes()
        if number % 4 == 0:
            content += f"\n# version {version}\n".encode()
        target = staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        yield name, digest(content)


def publish(site: Path, manifests: Path, sources: list[tuple[str, Path]], version: int) -> None:
    """Publishes one version: this is all that a program has to do."""
    with atomik.folder(site, overwrite=True) as staging:
        manifest: Manifest = dict(build(staging, sources, version))
        # The readers' list must be there before the version is.
        atomik.write_text(manifests / f"{version}.json", json.dumps(manifest), durability="none")


def writer_to_be_killed(
    site: Path, sources: list[tuple[str, Path]], version: int, half_way: Connection
) -> None:
    """Starts a version that it never finishes."""
    with atomik.folder(site, overwrite=True) as staging:
        for number, _ in enumerate(build(staging, sources, version)):
            if number == len(sources) // 2:
                half_way.send(number)
                signal.pause()


# --- The readers ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Readings:
    """What one reader has to say."""

    complete: int = 0
    mixed: int = 0
    removed: int = 0
    versions: set[int] = dataclasses.field(default_factory=set)
    complaints: list[str] = dataclasses.field(default_factory=list)


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_everything(folder: int) -> Manifest:
    """Reads every file below an open folder.

    Everything goes through the descriptor, never through the path again: the path may lead to the
    next version from one file to the next, the descriptor belongs to one version for good.
    """
    seen: Manifest = {}
    for path, _, names, subfolder in os.fwalk(".", dir_fd=folder, onerror=complain):
        for name in names:
            seen[os.path.normpath(os.path.join(path, name))] = digest(read(name, subfolder))
    return seen


def read(name: str, folder: int) -> bytes:
    with open(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
        return file.read()


def complain(error: OSError) -> None:
    """Makes `os.fwalk` raise what it would ignore."""
    raise error


def still_published(site: Path, folder: int) -> bool:
    return os.path.samestat(os.stat(site), os.fstat(folder))


def read_once(site: Path, manifests: Path, readings: Readings) -> None:
    """Reads one version and judges it."""
    folder = os.open(site, os.O_RDONLY | os.O_DIRECTORY)
    version, seen, missing = 0, Manifest(), ""
    try:
        version = int(read("VERSION", folder))
        seen = read_everything(folder)
    except FileNotFoundError as error:
        missing = error.filename
    finally:
        replaced = not still_published(site, folder)
        os.close(folder)

    if not missing:
        manifest: Manifest = json.loads((manifests / f"{version}.json").read_text())
        if seen == manifest:
            readings.complete += 1
            readings.versions.add(version)
            return
        foreign = [name for name in seen if seen[name] != manifest.get(name)]
        if foreign:
            readings.mixed += 1
            readings.complaints.append(f"version {version} with foreign files: {foreign[:3]}")
            return
        missing = min(manifest.keys() - seen.keys())
    # A file was missing. That is what a removed version looks like, and only a removed one.
    if replaced:
        readings.removed += 1
    else:
        readings.mixed += 1
        readings.complaints.append(f"a published version lacked {missing}")


def reader(site: Path, manifests: Path, stop: Event, answer: Connection) -> None:
    readings = Readings()
    try:
        while not stop.is_set():
            read_once(site, manifests, readings)
    except Exception as error:  # The report must come, whatever happens, and must not be good.
        readings.mixed += 1
        readings.complaints.append(f"the reader failed: {error!r}")
    answer.send(readings)


# --- The story -----------------------------------------------------------------------------------


def slots(folder: Path) -> list[Path]:
    """What writers keep beside the destination while they work. Nothing, when nobody does."""
    return sorted(path for path in folder.iterdir() if path.name.startswith(".atomik-"))


def count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def kill_a_writer(site: Path, sources: list[tuple[str, Path]], version: int) -> str:
    """Lets a writer do half its work, kills it, and says what it left."""
    receive, send = multiprocessing.Pipe(duplex=False)
    writer = multiprocessing.Process(
        target=writer_to_be_killed, args=(site, sources, version, send)
    )
    writer.start()
    receive.recv()
    writer.kill()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL, writer.exitcode
    return ", ".join(
        f"{slot.name}/ with {count_files(slot):,} files" for slot in slots(site.parent)
    )


def run(base: Path, seconds: float, readers: int) -> bool:
    site, manifests = base / "public" / "stdlib", base / "manifests"
    site.parent.mkdir()
    manifests.mkdir()
    sources = standard_library()
    size = sum(path.stat().st_size for _, path in sources)
    print(f"Python {platform.python_version()}, Linux {platform.release()}, in {base}")
    print(
        f"Publishing {len(sources) + 1:,} files, {size / 1e6:.0f} MB, a version, durability=full."
    )
    print(f"{readers} processes read all of it, over and over, for {seconds:g} seconds.\n")

    started = time.monotonic()
    publish(site, manifests, sources, version := 1)
    stop = multiprocessing.Event()
    reading: list[tuple[multiprocessing.Process, Connection]] = []
    for _ in range(readers):
        receive, send = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(
            target=reader, args=(site, manifests, stop, send), daemon=True
        )
        process.start()
        reading.append((process, receive))

    times: list[float] = []
    left = ""
    remover = 0
    while len(times) < 2 or time.monotonic() - started < seconds:
        if len(times) == 1 and not left:
            left = kill_a_writer(site, sources, version := version + 1)
        begin = time.monotonic()
        publish(site, manifests, sources, version := version + 1)
        times.append(time.monotonic() - begin)
        if left and not remover and not slots(site.parent):
            remover = version
    stop.set()
    results = [receive.recv() for _, receive in reading]
    for process, _ in reading:
        process.join()
    still_there = slots(site.parent)

    mixed = sum(r.mixed for r in results)
    complete = sum(r.complete for r in results)
    versions_seen = {version for r in results for version in r.versions}
    report = {
        "versions published": f"{len(times) + 1}, one in {sum(times) / len(times):.1f} s",
        "versions that readers saw": f"{len(versions_seen)}",
        "complete reads": f"{complete:,}, every file's hash as in one version's list",
        "reads that mixed versions": f"{mixed}",
        "reads started again": f"{sum(r.removed for r in results)}, their version was removed meanwhile",
        "the killed writer left": left or "nothing",
        "removed by": f"the next writer, publishing version {remover}" if remover else "NOBODY",
        "left now": ", ".join(path.name for path in still_there) or "nothing",
    }
    for title, value in report.items():
        print(f"  {title:<26} {value}")
    for complaint in [c for r in results for c in r.complaints][:5]:
        print(f"  ! {complaint}")
    good = mixed == 0 and complete > 0 and bool(left) and bool(remover) and not still_there
    print("\nEvery read was one version." if good else "\nFAILED: see above.")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--seconds", type=float, default=15, help="how long to publish (default: 15)"
    )
    parser.add_argument("--readers", type=int, default=2, help="reader processes (default: 2)")
    parser.add_argument(
        "--at", type=Path, help="a folder on the filesystem to try (default: the temporary one)"
    )
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="atomik-demo-", dir=options.at))
    try:
        return 0 if run(base, options.seconds, options.readers) else 1
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    sys.exit(main())
