"""Filesystems whose folders cannot be locked (NFS answers EBADF or ENOLCK): strace answers for them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import slot_names

STRACE = ("strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=flock")

PUBLISH = """
import os, sys
import atomik

with atomik.folder("site", overwrite=True, durability="none") as staging:
    print(staging.parent.name)
    (staging / "index.html").write_text(sys.argv[1])
with atomik.file("page", "w", overwrite=True, durability="none") as f:
    f.write(sys.argv[1])
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("errno", ["EBADF", "ENOLCK"])
def test_slots_have_random_names_and_an_orphan_is_never_taken_over(here: Path, errno: str) -> None:
    porch = slot_names.porch(here / "site")
    porch.mkdir()
    taken: list[str] = []
    for content in ("first", "second"):
        done = subprocess.run(
            [*STRACE, "-e", f"inject=flock:error={errno}", sys.executable, "-c", PUBLISH, content],
            cwd=here,
            check=True,
            capture_output=True,
            text=True,
        )
        taken.append(done.stdout.strip())
        assert (here / "site" / "index.html").read_text() == content
        assert (here / "page").read_text() == content
    assert taken[0] != taken[1]
    assert all(re.fullmatch(r"\.atomik-0-[0-9a-f]{16}\.site~", slot) for slot in taken)
    assert sorted(os.listdir(here)) == [porch.name, "page", "site"]
    porch.rmdir()
