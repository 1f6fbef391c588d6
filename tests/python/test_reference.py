"""The page "Python reference", as it is built, has every public name, with its signature and its example."""

import inspect
import os
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import atomik
import pytest

pytest.importorskip("mkdocs", reason="the tools of the documentation are not installed")

ROOT: Final = Path(__file__).parents[2]
ELSEWHERE: Final = {"errors", "swap"}
"""A module whose names stand by themselves, and another name of `exchange`."""


@dataclass
class Section:
    """What stands below the heading of one name, before the next one."""

    text: str = ""
    signature: str = ""
    code: str = ""


@dataclass
class Page(HTMLParser):
    """Reads the page that mkdocs has made."""

    sections: dict[str, Section] = field(default_factory=dict)
    quotes: int = 0
    _open: list[tuple[str, str]] = field(default_factory=list)
    _section: Section = field(default_factory=Section)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag in ("h2", "h3", "h4"):
            self._section = self.sections.setdefault(attributes.get("id") or "", Section())
        self.quotes += tag == "blockquote"
        if tag in ("div", "pre"):
            self._open.append((tag, attributes.get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("div", "pre"):
            assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if any("doc-signature" in name for _, name in self._open):
            self._section.signature += data
        elif any(tag == "pre" for tag, _ in self._open):
            self._section.code += data
        else:
            self._section.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    site = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", site)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = Page()
    page.feed((site / "api" / "index.html").read_text("utf-8"))
    return page


def public() -> dict[str, Any]:
    """Everything public, by its full name; attributes of instances stand with their class."""
    names = {f"atomik.{name}": getattr(atomik, name) for name in set(atomik.__all__) - ELSEWHERE}
    for name, it in list(names.items()):
        if inspect.isclass(it) and it.__module__ == "atomik":
            names |= {
                f"{name}.{method}": member
                for method, member in vars(it).items()
                if callable(member) and not method.startswith("_")
            }
    return names


def test_every_public_name_is_on_the_page(page: Page) -> None:
    assert [name for name in public() if name not in page.sections] == []
    assert "atomik.swap" in page.sections["atomik.exchange"].text


def test_every_function_is_shown_with_all_its_parameters(page: Page) -> None:
    signatures = {
        name: inspect.signature(it) for name, it in public().items() if inspect.isroutine(it)
    }
    assert {"atomik.file", "atomik.Group.file", "atomik.File.commit"} < set(signatures)
    for name, signature in signatures.items():
        shown = page.sections[name].signature
        assert shown.startswith(name.rpartition(".")[2] + "("), name
        missing = [it for it in signature.parameters if f"{it}:" not in shown and it != "self"]
        assert missing == [], name


def test_every_attribute_of_a_guard_is_described(page: Page) -> None:
    for name, it in public().items():
        if inspect.isclass(it) and it.__module__ == "atomik":
            attributes = [
                attribute for attribute, _ in inspect.getmembers(it, inspect.isdatadescriptor)
            ]
            words = page.sections[name].text.split()
            assert [it for it in attributes if it[0] != "_" and it not in words] == [], name


def test_every_example_is_shown_as_code(page: Page) -> None:
    names = [name for name in public() if name.count(".") == 1]
    assert [name for name in names if ">>> " not in page.sections[name].code] == []
    assert page.quotes == 0
    assert [name for name, section in page.sections.items() if ">>>" in section.text] == []


def test_where_parameters_share_a_line_each_has_its_own_row(page: Page) -> None:
    for name, section in page.sections.items():
        assert "encoding, errors" not in section.text, name
