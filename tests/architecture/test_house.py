"""The house stays tidy: small files, small functions, a promise at the top of each, and no word about where it is built."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 300
TEST_FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 50
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "base", "lib"}

# Written in pieces, so that this file does not find itself.
_MACHINE = ["/" + "root/", "/" + "work/", "/" + "tmp/foo", "/" + "home/", "/" + "Users/"]
_INDEX = [
    "pypi" + ".org",
    "files.python" + "hosted.org",
    "--index" + "-url",
    "--extra-index" + "-url",
    "registry.npm" + "js.org",
]


@cache
def files() -> tuple[Path, ...]:
    """What is tracked, or would be: everything that no ignore rule covers."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return tuple(ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())


def modules() -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.parts[-2] != "versions"]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_there_is_something_to_look_at():
    assert len(modules()) > 50


def test_no_file_is_longer_than_a_reader_has_patience():
    long = []
    for path in modules():
        limit = TEST_FILE_LINES_MAX if "tests" in path.parts else FILE_LINES_MAX
        lines = path.read_text().count("\n")
        if lines > limit:
            long.append(f"{named(path)}: {lines} > {limit}")
    assert long == []


def test_no_function_is_longer_than_a_screen():
    long = []
    for path in modules():
        for function in functions(ast.parse(path.read_text())):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                long.append(f"{named(path)}:{function.name} {lines}")
    assert long == []


def test_every_module_opens_with_what_it_promises():
    silent = [named(path) for path in modules() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_no_module_has_a_name_that_says_nothing():
    assert [named(path) for path in modules() if path.stem in VAGUE] == []


def test_nothing_is_left_for_later():
    words = re.compile(
        r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X:", "NotImplemented" + "Error\\("]) + r")\b"
    )
    product = [path for path in modules() if "tests" not in path.parts]
    assert [named(path) for path in product if words.search(path.read_text())] == []


def test_nothing_is_pickled():
    unpickling = re.compile(r"^\s*(import|from) pickle\b", re.MULTILINE)
    assert [named(path) for path in modules() if unpickling.search(path.read_text())] == []


@pytest.mark.parametrize("words", [_MACHINE, _INDEX], ids=["paths of a machine", "hosts of package indexes"])
def test_no_file_says_where_it_was_built(words):
    found = []
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{named(path)}: {word}" for word in words if word in text]
    assert found == []


def test_no_file_is_large_or_binary_without_reason():
    large = [named(path) for path in files() if path.stat().st_size > 512 * 1024]
    assert large == []
