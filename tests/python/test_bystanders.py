"""Programs that read the folder of a destination: what they see of staging, and the rule that leaves it out.

The rules are those of the page on slots.
"""

import glob
import http.client
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import atomik
import pytest
from support.filesystems import Filesystem

SECONDS: Final = 60


def run(*command: str | Path, cwd: Path) -> list[str]:
    """Returns the lines that a program prints, or skips the test where it is missing."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is missing")
    ended = subprocess.run(
        command, cwd=cwd, check=True, capture_output=True, text=True, timeout=SECONDS
    )
    return ended.stdout.splitlines()


@pytest.fixture
def public(here: Path) -> Iterator[Path]:
    with building(here) as public:
        yield public


@contextmanager
def building(folder: Path) -> Generator[Path]:
    """A folder with `site/page`, while two writers are building new versions with `draft` in them."""
    public = folder / "public"
    public.mkdir()
    with atomik.folder(public / "site", durability="none") as site:
        (site / "page").write_text("page")
    with atomik.folder(public / "site", overwrite=True, durability="none") as one:
        (one / "draft").write_text("draft")
        with atomik.folder(public / "site", overwrite=True, durability="none") as two:
            (two / "draft").write_text("draft")
            # One is in the porch, the other in the room.
            assert one.parent.parent == public
            assert two.parent.parent.parent == public
            yield public


def test_without_a_rule_recursive_programs_find_drafts(public: Path) -> None:
    assert len(glob.glob("**/draft", root_dir=public, include_hidden=True, recursive=True)) == 2
    assert len(run("find", ".", "-name", "draft", cwd=public)) == 2


def test_globs_find_no_draft(public: Path) -> None:
    assert glob.glob("**/*", root_dir=public, recursive=True) == ["site", "site/page"]


def test_find_prunes_staging(public: Path) -> None:
    found = run(
        "find", ".", "-name", ".atomik-*", "-prune", "-o", "-type", "f", "-print", cwd=public
    )
    assert found == ["./site/page"]


def test_grep_excludes_staging(public: Path) -> None:
    assert run("grep", "-rl", "--exclude-dir=.atomik-*", "", ".", cwd=public) == ["./site/page"]


@pytest.mark.parametrize("program", ["rsync", "tar", "shutil"])
def test_a_copy_leaves_staging_out(public: Path, here: Path, program: str) -> None:
    copy = here / "copy"
    if program == "rsync":
        run("rsync", "-a", "--exclude=.atomik-*", f"{public}/", copy, cwd=here)
    elif program == "tar":
        run("tar", "--exclude=.atomik-*", "-cf", "archive", "-C", public, ".", cwd=here)
        with tarfile.open(here / "archive") as archive:
            archive.extractall(copy, filter="data")
    else:
        shutil.copytree(public, copy, ignore=shutil.ignore_patterns(".atomik-*"))
    assert sorted(copy.rglob("*")) == [copy / "site", copy / "site" / "page"]


def test_git_ignores_staging(public: Path) -> None:
    run("git", "init", "-q", cwd=public)
    (public / ".gitignore").write_text(".atomik-*\n")
    assert run("git", "status", "--porcelain", "-uall", cwd=public) == [
        "?? .gitignore",
        "?? site/page",
    ]
    assert run("git", "clean", "-fdn", "-e", ".gitignore", cwd=public) == ["Would remove site/"]
    assert len(run("git", "clean", "-fdxn", cwd=public)) == 4
    run("git", "clean", "-fdq", cwd=public)
    assert len(glob.glob("**/draft", root_dir=public, include_hidden=True, recursive=True)) == 2


def test_with_tmp_dir_nothing_of_staging_is_beside_the_destination(here: Path) -> None:
    public, work = here / "public", here / "work"
    public.mkdir()
    work.mkdir()
    for expected in ([], ["site"]):
        with atomik.folder(
            public / "site", overwrite=True, tmp_dir=work, durability="none"
        ) as staging:
            assert staging.is_relative_to(work)
            assert os.listdir(public) == expected


NGINX: Final = """
{user}
daemon off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen unix:{socket};
        root {root};
        {rule}
    }}
}}
"""

APACHE: Final = """
ServerRoot {place}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile apache.pid
ErrorLog apache.log
Mutex fcntl:{place}
User nobody
Group nogroup
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
DocumentRoot {root}
{rule}
"""


class UnixConnection(http.client.HTTPConnection):
    """HTTP through a socket that has a path."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.fspath(self._path))


@contextmanager
def served(ready: Path, *command: str | Path) -> Generator[None]:
    """Runs a server, which makes the file `ready` when it can be asked."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            while not ready.exists():
                assert server.poll() is None, server.stderr and server.stderr.read()
                time.sleep(0.01)
            yield
        finally:
            server.terminate()


def status(connection: http.client.HTTPConnection, path: str) -> int:
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def draft(public: Path) -> str:
    """The address of a draft, as somebody who knows the names would ask for it."""
    name = glob.glob("**/draft", root_dir=public, include_hidden=True, recursive=True)[0]
    return f"/{name}"


@pytest.mark.skipif(os.geteuid() != 0, reason="the server has to run as the writer's user")
@pytest.mark.parametrize(
    ("rule", "answer"), [("", 200), (r"location ~ /\.atomik- { return 404; }", 404)]
)
def test_nginx_serves_no_draft_by_this_rule(
    public: Path, here: Path, rule: str, answer: int
) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is missing")
    # The path of a socket has 107 bytes at most.
    where = Path(os.path.relpath(here / "socket"))
    config = here / "nginx.conf"
    config.write_text(
        NGINX.format(user="user root;", socket=here / "socket", root=public, rule=rule)
    )
    with served(here / "nginx.pid", "nginx", "-e", "stderr", "-p", here, "-c", config):
        assert status(UnixConnection(where), "/site/page") == 200
        assert status(UnixConnection(where), draft(public)) == answer


@pytest.mark.parametrize("fs", ["tmpfs"], indirect=True)
@pytest.mark.parametrize(("rule", "answer"), [("", 403), (r'RedirectMatch 404 "/\.atomik-"', 404)])
def test_apache_serves_no_draft_of_another_user_and_none_by_this_rule(
    fs: Filesystem, rule: str, answer: int
) -> None:
    if shutil.which("apache2") is None:
        pytest.skip("apache2 is missing")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with building(fs.here) as public:
        config = fs.here / "apache.conf"
        config.write_text(APACHE.format(place=fs.here, port=port, root=public, rule=rule))
        with served(fs.here / "apache.pid", "apache2", "-f", config, "-D", "FOREGROUND"):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            assert status(connection, "/site/page") == 200
            assert status(connection, draft(public)) == answer
