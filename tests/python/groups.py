"""What the tests of groups publish."""

from pathlib import Path

import atomik


def add_all(group: atomik.Group, top: Path) -> None:
    group.write_text(top / "one/file", "new", overwrite=True)
    with group.folder(top / "two/folder", overwrite=True) as folder:
        (folder / "new").write_text("new")
    group.write_bytes(top / "one/bytes", b"new")
    with group.file(top / "two/text") as file:
        file.write("new")
    with group.path(top / "one/tool.csv") as path:
        path.write_text("new")
