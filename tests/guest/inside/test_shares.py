"""Two clients of one folder: every version is whole or refused, and nobody touches what another stages.

The clients are two mounts that do not know each other (NFS, CIFS), or two paths to one mount.
What has been published is looked at on the server, where no cache stands between.
"""

import os
import random
import re
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import atomik
import pytest
from shares import Share
from sharing import CALLS, Call, broken, fork, in_turn, killed_in_its_body, tokens, word
from support.filesystems import leftovers
from support.processes import NOBODY, ROOT, User, run_as

CROWD_SECONDS: Final = float(os.environ.get("ATOMIK_GUEST_SECONDS", "8"))

pytestmark = pytest.mark.timeout(300)

with_a_body = pytest.mark.parametrize(
    "call", in_turn(call for call in CALLS.values() if call.has_body), indirect=True
)
making_a_folder = pytest.mark.parametrize(
    "call", in_turn(call for call in CALLS.values() if call.makes_folder), indirect=True
)
for_two_clients = pytest.mark.parametrize("share", ["nfs 4.2", "nfs 3", "cifs"], indirect=True)
of_made_up_owners = pytest.mark.parametrize(
    "share",
    ["nfs 4.2 squashed", "cifs of a user", "vfat of a user", "exfat of a user"],
    indirect=True,
)


def _first_version(call: Call, destination: Path) -> None:
    """Publishes a first version where the call needs one."""
    if call.needs_old:
        CALLS["folder"].publish(destination, "old")


def _can_replace(share: Share, call: Call) -> bool:
    # A backup keeps the old version by a link or an exchange; a group takes back by exchanges.
    if call.name == "backup":
        return share.traits.exchange and share.traits.hard_links
    return share.traits.exchange or not (call.makes_folder or call.name == "group")


def _contract(publish: Callable[[], None]) -> str:
    """Makes a call; returns "" or the error, which must be one of the library's own."""
    try:
        publish()
    except atomik.AtomikError as error:
        return word(error)
    return ""


def test_a_new_version_is_whole_and_seen_by_the_other_client(share: Share, call: Call) -> None:
    if call.needs_old:
        pytest.skip("it starts from an old version")
    call.publish(share.a / "site", "new")
    assert broken(share.server) == []
    assert tokens(share.server / "site") == {"new"}
    assert tokens(share.b / "site") == {"new"}


@pytest.mark.parametrize("name", ["file", "folder", "path"])
def test_what_exists_is_not_replaced_unasked(share: Share, name: str) -> None:
    begin: dict[str, Any] = {"file": atomik.file, "folder": atomik.folder, "path": atomik.path}
    CALLS[name].publish(share.a / "site", "old")
    with pytest.raises(atomik.FileAlreadyExistsError):
        with begin[name](share.b / "site"):
            pytest.fail("the body runs")
    assert tokens(share.server / "site") == {"old"}


def test_a_version_is_replaced_whole_or_refused_before_the_body(share: Share, call: Call) -> None:
    first = CALLS["folder"] if call.needs_old else call
    first.publish(share.a / "site", "old")
    body_ran: list[bool] = []
    # By the other client, which has to see that there is one.
    said = _contract(lambda: call.publish(share.b / "site", "new", lambda: body_ran.append(True)))
    assert broken(share.server) == []
    if _can_replace(share, call):
        assert said == ""
        assert "new" in tokens(share.server / "site")
    else:
        assert said.startswith("UnsupportedFilesystemError")
        assert body_ran == []
        assert tokens(share.server / "site") == {"old"}


@with_a_body
def test_what_one_client_stages_survives_the_others_sweep(share: Share, call: Call) -> None:
    _first_version(call, share.a / "site")

    def sweep() -> None:
        assert [orphan for orphan in atomik.sweep(share.b) if orphan.removed] == []

    if call.needs_old and not share.traits.exchange:
        pytest.skip("it replaces no folder")
    call.publish(share.a / "site", "new", sweep)
    assert broken(share.server) == []
    assert "new" in tokens(share.server / "site")


@with_a_body
def test_two_writers_of_one_name_publish_whole_versions(share: Share, call: Call) -> None:
    if call.needs_old and not share.traits.exchange:
        pytest.skip("it replaces no folder")
    _first_version(call, share.a / "site")
    said: list[str] = []

    def other() -> None:
        said.append(_contract(lambda: call.publish(share.b / "site", "theirs")))

    said.append(_contract(lambda: call.publish(share.a / "site", "mine", other)))
    assert broken(share.server) == []
    # The other one has met nobody: it published first.
    assert said[0] == ""
    published = tokens(share.server / "site")
    assert ("mine" in published) is (said[1] == "")
    if call.name == "append" and said[1] == "":
        assert "theirs" in published


def _killed_over_a_first_version(call: Call, share: Share) -> None:
    if call.needs_old and not share.traits.exchange:
        pytest.skip("it replaces no folder")
    _first_version(call, share.a / "site")
    killed_in_its_body(call, share.a / "site", "killed")


@with_a_body
def test_what_a_killed_process_leaves_is_removed_by_its_own_clients_next_writer(
    share: Share, call: Call
) -> None:
    _killed_over_a_first_version(call, share)
    call.publish(share.a / "site", "next")
    assert broken(share.server) == []
    assert "killed" not in tokens(share.server / "site")
    assert leftovers(share.server) == []


@with_a_body
def test_what_a_killed_process_leaves_is_removed_by_its_own_clients_sweep(
    share: Share, call: Call
) -> None:
    _killed_over_a_first_version(call, share)
    atomik.sweep(share.a)
    assert leftovers(share.server) == []


@with_a_body
@for_two_clients
def test_what_a_killed_process_leaves_stays_for_the_other_client_until_its_age_is_given(
    share: Share, call: Call
) -> None:
    if call.needs_old:
        pytest.skip("it replaces no folder")
    killed_in_its_body(call, share.a / "site", "killed")
    left = leftovers(share.server)
    assert left
    _domains(left)
    assert [orphan for orphan in atomik.sweep(share.b) if orphan.removed] == []
    call.publish(share.b / "site", "theirs")
    assert tokens(share.server / "site") == {"theirs"}
    assert leftovers(share.server) == left
    assert [orphan for orphan in atomik.sweep(share.b, older_than=3600) if orphan.removed] == []
    assert leftovers(share.server) == left
    # A server of CIFS takes a moment to close what a killed process had open.
    end = time.monotonic() + 20
    while leftovers(share.server) and time.monotonic() < end:
        atomik.sweep(share.b, older_than=0)
        time.sleep(0.1)
    assert leftovers(share.server) == []


@with_a_body
@for_two_clients
def test_a_writer_that_lost_its_staging_to_a_sweep_by_age_is_refused(
    share: Share, call: Call
) -> None:
    if call.needs_old:
        pytest.skip("it replaces no folder")
    said = ""
    try:
        call.publish(share.a / "site", "mine", lambda: atomik.sweep(share.b, older_than=0))
    except OSError as error:
        # The body meets it before the library does, and what it meets is the kernel's.
        said = word(error)
    assert broken(share.server) == []
    assert (share.server / "site").exists() is (said == "")
    atomik.sweep(share.a)
    atomik.sweep(share.b, older_than=0)


@for_two_clients
def test_the_two_clients_names_differ(share: Share) -> None:
    seen: list[str] = []
    with (
        atomik.folder(share.a / "site", overwrite=True) as a,
        atomik.folder(share.b / "other", overwrite=True) as b,
    ):
        seen.extend(leftovers(share.server))
        (a / "x").touch()
        (b / "x").touch()
    assert len(_domains(seen)) == 2


def _domains(names: list[str]) -> set[str]:
    """Returns the lock domains in names of slots; each has one."""
    found: set[str] = set()
    for name in names:
        matched = re.match(r"\.atomik-(?:\w+)-([0-9a-f]{16})\..*~", Path(name).parts[0])
        assert matched, name
        found.add(matched[1])
    return found


@making_a_folder
def test_a_snapshot_is_whole_while_the_other_client_sweeps_and_writes(
    share: Share, call: Call
) -> None:
    CALLS["folder"].publish(share.a / "site", "old")
    with atomik.snapshot(share.a / "site") as version:
        atomik.sweep(share.b)
        said = _contract(lambda: call.publish(share.b / "site", "new"))
        assert (said == "") is share.traits.exchange
        atomik.sweep(share.b)
        assert tokens(Path(version)) == {"old"}
    atomik.sweep(share.a)
    assert broken(share.server) == []
    assert tokens(share.server / "site") == {"new" if share.traits.exchange else "old"}


def test_a_backup_is_the_version_before_whoever_wrote_it(share: Share) -> None:
    backup = CALLS["backup"]
    if not _can_replace(share, backup):
        pytest.skip("it is refused there, as another test tells")
    for number, client in enumerate((share.a, share.b, share.a, share.b)):
        backup.publish(client / "site", f"version{number}")
    assert tokens(share.server / "site") == {"version3"}
    assert tokens(share.server / "site.old") == {"version2"}


def test_a_body_that_fails_leaves_nothing(share: Share, call: Call) -> None:
    if not call.has_body or (call.needs_old and not share.traits.exchange):
        pytest.skip("it has no body")
    _first_version(call, share.a / "site")

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call.publish(share.a / "site", "failed", fail)
    assert leftovers(share.server) == []
    assert broken(share.server) == []


@pytest.mark.parametrize("opener", ["a", "b"])
def test_a_version_that_a_reader_has_open_is_replaced_and_leaves_nothing(
    share: Share, opener: str
) -> None:
    if share.name == "cifs" and opener == "a":
        pytest.skip(
            "a server of CIFS lets no client replace a file that the client itself has open"
        )
    # An NFS client renames what it removes while it is open there (.nfs…); CIFS goes on listing it.
    # So what is displaced may have to stay until the reader has closed it: then a sweep takes it.
    warnings.simplefilter("ignore", atomik.CleanupWarning)
    for number in range(3):
        with suppress(atomik.UnsupportedFilesystemError):
            CALLS["folder"].publish(share.a / "folder", f"version{number}")
        CALLS["file"].publish(share.a / "file", f"version{number}")
        if number == 1:
            side = share.a if opener == "a" else share.b
            with (side / "folder" / "one").open("rb"), (side / "file").open("rb"):
                with suppress(atomik.UnsupportedFilesystemError):
                    CALLS["folder"].publish(share.a / "folder", "meanwhile")
                CALLS["file"].publish(share.a / "file", "meanwhile")
    assert broken(share.server) == []
    end = time.monotonic() + 20
    while leftovers(share.server) and time.monotonic() < end:
        atomik.sweep(share.a)
        time.sleep(0.1)


@dataclass
class Crowd:
    """Processes that write the same names through both clients, and others that sweep there."""

    share: Share
    seed: int
    end: float
    report: Path
    writers: dict[int, int] = field(default_factory=dict)
    sweepers: list[int] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    def start(self) -> None:
        for client in (0, 1, 0, 1):
            self._start_writer(client)
        for path in (self.share.a, self.share.b):
            self.sweepers.append(fork(partial(self._sweep, path)))

    def kill_one(self, rng: random.Random) -> None:
        """Kills a writer; another takes its place on the same client."""
        pid = rng.choice(list(self.writers))
        client = self.writers.pop(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self._start_writer(client)

    def finish(self) -> None:
        """Waits for the end of all, which must be a good one."""
        for pid in self.sweepers + list(self.writers):
            _, status = os.waitpid(pid, 0)
            self.writers.pop(pid, None)
            assert os.waitstatus_to_exitcode(status) == 0
        self.sweepers.clear()

    def close(self) -> None:
        """Ends what still runs, after a failure."""
        for pid in self.writers:
            os.kill(pid, signal.SIGKILL)

    def _start_writer(self, client: int) -> None:
        path = (self.share.a, self.share.b)[client]
        self.writers[fork(partial(self._write, path, next(self._numbers)))] = client

    def _write(self, client: Path, number: int) -> None:
        rng = random.Random(self.seed * 1000 + number)
        calls = list(CALLS.values())
        with self.report.open("a", buffering=1) as said:
            turn = 0
            while time.monotonic() < self.end:
                turn += 1
                call = rng.choice(calls)
                kind = "folder" if call.makes_folder else "file"
                destination = client / f"{kind}{rng.randrange(3)}"
                try:
                    call.publish(destination, f"writer{number}turn{turn}", durability="none")
                    said.write(f"{call.name}: published\n")
                except atomik.AtomikError as error:
                    said.write(f"{call.name}: refused, {type(error).__name__}\n")
                except BaseException as error:
                    said.write(f"{call.name}: BAD, {type(error).__name__} {error}\n")

    def _sweep(self, client: Path) -> None:
        with self.report.open("a", buffering=1) as said:
            while time.monotonic() < self.end:
                try:
                    atomik.sweep(client)
                except BaseException as error:
                    said.write(f"sweep: BAD, {type(error).__name__} {error}\n")
                time.sleep(0.2)


@pytest.mark.parametrize("kill", [False, True], ids=["all end well", "some are killed"])
def test_a_crowd_on_both_clients_publishes_whole_versions_only(share: Share, kill: bool) -> None:
    if share.name == "cifs":
        pytest.skip(
            "a server of CIFS lets no client replace a file that the client itself has open"
        )
    seed = int(os.environ.get("ATOMIK_SEED") or random.SystemRandom().getrandbits(32))
    print(f"ATOMIK_SEED={seed}")
    rng = random.Random(seed)
    report = share.server.with_name(f"{share.server.name}.said")
    crowd = Crowd(share, seed, time.monotonic() + CROWD_SECONDS, report)
    try:
        crowd.start()
        while kill and time.monotonic() < crowd.end - 2:
            time.sleep(rng.uniform(0.2, 1.5))
            crowd.kill_one(rng)
        crowd.finish()
    finally:
        crowd.close()
    lines = Counter(report.read_text().splitlines())
    print(*(f"{number} times {line}" for line, number in lines.most_common()), sep="\n")
    assert [line for line in lines if "BAD" in line] == []
    assert broken(share.server) == []
    if kill:
        # Each client's sweep takes what its own killed processes have left.
        atomik.sweep(share.a)
        atomik.sweep(share.b)
    assert leftovers(share.server) == []


@pytest.mark.slow
@of_made_up_owners
@pytest.mark.parametrize("user", [ROOT, NOBODY], ids=User.label)
@with_a_body
def test_where_owners_are_made_up_ones_own_orphans_are_known(
    share: Share, call: Call, user: User
) -> None:
    if call.needs_old and not share.traits.exchange:
        pytest.skip("it replaces no folder")

    def use() -> tuple[list[str], list[str]]:
        _first_version(call, share.a / "site")
        killed_in_its_body(call, share.a / "site", "killed")
        call.publish(share.a / "site", "next")
        after_next = leftovers(share.a)
        killed_in_its_body(
            call, share.a / "site2" if not call.needs_old else share.a / "site", "killed"
        )
        atomik.sweep(share.a)
        return after_next, leftovers(share.a)

    assert run_as(user, use) == ([], [])
    assert broken(share.server) == []
