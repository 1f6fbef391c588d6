"""What the page on platforms says of subinterpreters."""

import sys
from pathlib import Path

import pytest
from support.processes import run_program

_PROGRAM = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
code = '''
try:
    import atomik
except ImportError as error:
    print("ImportError", "subinterpreters" in str(error))
else:
    print("imported")
'''
if sys.version_info >= (3, 13):
    it = interpreters.create("isolated")
else:
    it = interpreters.create(isolated=True)
run = getattr(interpreters, "exec", None) or interpreters.run_string
run(it, code)
interpreters.destroy(it)
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all subinterpreters share one lock there")
def test_an_isolated_subinterpreter_is_told_that_it_cannot_import_it() -> None:
    done = run_program("-W", "ignore", "-c", _PROGRAM)
    assert (done.returncode, done.stdout) == (0, "ImportError True\n"), done.stderr


def test_the_page_says_so() -> None:
    page = Path(__file__).parents[2] / "docs" / "platforms.md"
    assert "subinterpreters" in page.read_text("utf-8")
