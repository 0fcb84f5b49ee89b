"""What of a user's files a task is made of: all that it reaches, nothing else, whatever way it is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from operators.cache.code import Code, code_of

FLOW = """
import json, pkg.deep.maths
import pkg.plain as plain
from operators import task
from pkg import helpers, THRESHOLD
from pkg.deep.maths import *
from .sibling import nothing
from sklearn.linear_model import Ridge

rate = 1
table = {}
table["a"] = rate
try:
    import fast
except ImportError:
    fast = None


def logged(function):
    return function


def local_names(rows, rate):
    helpers = [rate for rate in rows]
    return helpers


@task.ray(cpu=2)
@logged
def decorated(rows):
    return rows


def imports_inside(rows):
    from pkg import helpers as h
    import numpy.linalg
    return h.clean(rows)


def by_attribute(rows):
    return pkg.deep.maths.square(rows) + plain.PLAIN


def by_from(rows):
    return helpers.clean(rows) if rows > THRESHOLD else json.dumps(rows)


def by_star(rows):
    return cube(rows)


def by_table(rows):
    return table[rows]


def by_try(rows):
    return fast


def by_class(rows):
    return Child(rows).run()


class Base:
    def run(self):
        return twice(self)


class Child(Base):
    weight: float = 1.0


def twice(value):
    return recursive(value)


def recursive(value):
    return recursive(value - 1) if value else twice


def model(rows):
    return Ridge().fit(rows)
"""
MATHS = """
from ..plain import NOT


def square(x):
    return x * x


def cube(x):
    return x**3 + NOT
"""
FILES = {
    "flow.py": FLOW,
    "pkg/__init__.py": "from pkg.limits import THRESHOLD\n",
    "pkg/limits.py": "THRESHOLD = 3\nOTHER = 4\n",
    "pkg/plain.py": "PLAIN = 1\nNOT = 2\n",
    "pkg/helpers.py": "from . import limits\n\n\ndef clean(rows):\n    return rows[: limits.OTHER]\n",
    "pkg/deep/maths.py": MATHS,
}
CLEAN = {"pkg.helpers.clean", "pkg.limits.OTHER"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("task", "others", "libraries"),
    [
        ("local_names", set(), set()),
        ("decorated", {"flow.logged"}, set()),
        ("imports_inside", CLEAN, {"numpy"}),
        ("by_attribute", {"pkg.deep.maths.square", "pkg.plain.PLAIN"}, set()),
        ("by_from", {*CLEAN, "pkg.limits.THRESHOLD"}, {"json"}),
        ("by_star", {"pkg.deep.maths.cube", "pkg.plain.NOT"}, set()),
        ("by_table", {"flow.table", "flow.rate"}, set()),
        ("by_try", {"flow.fast"}, {"fast"}),
        ("by_class", {"flow.Child", "flow.Base", "flow.twice", "flow.recursive"}, set()),
        ("model", set(), {"sklearn"}),
    ],
)
def test_a_task_is_made_of_what_it_reaches(root: Path, task: str, others: set[str], libraries: set[str]) -> None:
    found = code_of(root, f"flow:{task}")

    assert set(found.parts) == {f"flow.{task}", *others}
    assert found.libraries == libraries


def test_what_a_task_asks_of_the_platform_is_no_part_of_it_and_a_users_decorator_is(root: Path) -> None:
    text = code_of(root, "flow:decorated").parts["flow.decorated"]

    assert text == "@logged\ndef decorated(rows):\n    return rows"


@pytest.mark.parametrize("task", ["flow:absent", "absent:train", "", "flow", "../flow:model", "pkg:by_from"])
def test_what_is_not_there_is_made_of_nothing(root: Path, task: str) -> None:
    assert not code_of(root, task).parts


def test_a_file_that_cannot_be_read_is_made_of_nothing(root: Path) -> None:
    (root / "broken.py").write_text("def train(:\n")

    assert code_of(root, "broken:train") == Code({}, frozenset({"broken"}))
