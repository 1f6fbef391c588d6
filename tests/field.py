"""Runs the tests that keep what users have met: `make test-field`, or `python tests/field.py [CASE ...]`.

Each case was once a report: what a body, a tool, a sandbox or an old system did, and what the library got wrong.
The tests beside it vary it: other calls, filesystems, users, options.
"""

import os
import sys
from pathlib import Path
from typing import Final

_PYTHON: Final = "tests/python/"
_SANDBOXES: Final = "tests/crash/sandboxes/"

CASES: Final = {
    "two mounts of one folder": ["test_shared_folders.py"],
    "made-up modes and owners, refused chmod": ["test_fuse.py"],
    "no hard links": ["test_fuse.py::test_a_call_is_done_whole_or_refused_before_its_body"],
    "a path and a file at once, readers that cross writers": ["test_slots.py"],
    "a sandbox that forbids moves": [_SANDBOXES + "test_landlock.py"],
    "no /proc, and users without a number": ["test_kept_metadata.py"],
    "labels and inode flags": ["test_kept_metadata.py"],
    "what a body sets on its own version": ["test_body_metadata.py"],
    "symlinks to devices, and names of the library's own": ["test_early_errors.py"],
    "a folder that was displaced": ["test_displaced_parent.py"],
    "members of a group that contain each other": ["test_group.py"],
    "files that a tool leaves beside its path": ["test_siblings.py"],
    "a tool that is given f.name": ["test_name_attribute.py"],
    "paths that are kept from a snapshot, and tools that copy it": ["test_snapshot.py"],
    "watchers": ["test_watchers.py"],
    "relative links and virtual environments": ["test_docs.py"],
    "warnings that are seen": ["test_folder.py", "test_guard.py"],
    "event loops and their threads": ["test_async.py", "test_async_threads.py"],
    "subinterpreters": ["test_subinterpreters.py"],
    "containers, and programs that see staging": ["test_containers.py", "test_bystanders.py"],
}


def _path(test: str) -> str:
    return test if test.startswith("tests/") else _PYTHON + test


def main() -> None:
    """Becomes pytest with the tests of the cases given, or of all; an unknown case is an error."""
    asked = sys.argv[1:] or list(CASES)
    unknown = [case for case in asked if case not in CASES]
    if unknown:
        sys.exit("\n".join(["no such case; these are there:", *CASES]))
    tests = {_path(test): None for case in asked for test in CASES[case]}
    options = os.environ.get("PYTEST_ARGS", "").split()
    os.chdir(Path(__file__).parents[1])
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *options, *tests])


if __name__ == "__main__":
    main()
