"""The cache says exactly what was edited, and nothing of what was not."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from operators.cache import environment
from operators.cache.reasons import MATCHED, NOTHING
from operators.values.store import scratch_values
from tests.operators.cache.project import BEGINNING, Project, said

EDITS = 100
Edit = Callable[[Project, int, random.Random], str]
"""Changes one thing and returns what the cache is to say; empty if the output is still good."""


def lines_of_the_task(project: Project, number: int, rng: random.Random) -> str:
    count = rng.randint(1, 4)
    added = "".join(f"    step_{number}_{each} = {number}\n" for each in range(count))
    project.edit("flow.py", "    best = math.inf\n", f"{added}    best = math.inf\n")
    return f"code of flow.train changed ({count} line{'s' if count > 1 else ''})"


def a_helper(project: Project, number: int, rng: random.Random) -> str:
    project.edit("flow.py", "    total = ", f"    {rng.choice('uvw')}{number} = {number}\n    total = ")
    return "code of flow.scaled changed (1 line)"


def a_helper_elsewhere(project: Project, number: int, rng: random.Random) -> str:
    project.edit("shop/rates.py", "    return value - ", f"    value += {number}\n    return value - ")
    return "code of shop.rates.discount changed (1 line)"


def a_method(project: Project, number: int, rng: random.Random) -> str:
    project.edit("shop/cleaning.py", "        return row >=", f"        row += {number}\n        return row >=")
    return "code of shop.cleaning.Limits changed (1 line)"


def _value(project: Project, file: str, begins: str, ends: str, new: str) -> None:
    whole = project.files[file]
    start = whole.index(begins) + len(begins)
    end = whole.index(ends, start)
    project.files[file] = whole[:start] + new + whole[end:]


def a_constant(project: Project, number: int, rng: random.Random) -> str:
    _value(project, "flow.py", "ROUNDS = ", "\n", str(1000 + number))
    return "code of flow.ROUNDS changed (1 line)"


def a_constant_elsewhere(project: Project, number: int, rng: random.Random) -> str:
    _value(project, "shop/rates.py", "BASE = ", "\n", str(1000 + number))
    return "code of shop.rates.BASE changed (1 line)"


def an_object(project: Project, number: int, rng: random.Random) -> str:
    _value(project, "flow.py", "Limits(low=", ")", str(1000 + number))
    return "code of flow.LIMITS changed (1 line)"


def an_input(project: Project, number: int, rng: random.Random) -> str:
    name = rng.choice(["rows", "depth"])
    project.inputs[name] = [number, 1] if name == "rows" else 1000 + number
    return f"inputs.{name} changed"


def the_version(project: Project, number: int, rng: random.Random) -> str:
    before = str((project.step.cache or {})["version"])
    _set(project, cache={"version": f"v{number}", "ttl_s": None})
    return f"declared version: {before} -> v{number}"


def _set(project: Project, **settings: object) -> None:
    from dataclasses import replace

    project.step = replace(project.step, **settings)  # type: ignore[arg-type]


def the_environment(project: Project, number: int, rng: random.Random) -> str:
    before = (project.step.environment or {}).get("image")
    _set(project, environment={"image": f"train:{number}"})
    return f"environment: declared image {f'{before} -> train:{number}' if before else 'is new'}"


def a_comment(project: Project, number: int, rng: random.Random) -> str:
    project.edit("flow.py", "    total = ", f"    # comment {number}\n\n    total = ")
    return ""


def the_documentation(project: Project, number: int, rng: random.Random) -> str:
    _value(project, "flow.py", '    """Train', '"""', f" {number}.")
    return ""


def another_function(project: Project, number: int, rng: random.Random) -> str:
    project.edit("flow.py", "    return rows[:1]", f"    rows = rows[{number}:]\n    return rows[:1]")
    return ""


def another_task(project: Project, number: int, rng: random.Random) -> str:
    _value(project, "flow.py", "return best + ", "\n", str(1000 + number))
    return ""


def what_nothing_uses(project: Project, number: int, rng: random.Random) -> str:
    file, begins, ends = rng.choice(
        [("shop/rates.py", 'RATES = {"a": ', "}"), ("shop/cleaning.py", "def unused(rows):\n    return ", "\n")]
    )
    _value(project, file, begins, ends, str(1000 + number))
    return ""


def what_the_task_asks_for(project: Project, number: int, rng: random.Random) -> str:
    _value(project, "flow.py", "@task.local(cpu=", ",", str(1 + number))
    return ""


ALL: list[Edit] = [
    *(lines_of_the_task, a_helper, a_helper_elsewhere, a_method, a_constant, a_constant_elsewhere, an_object),
    *(an_input, the_version, the_environment, a_comment, the_documentation, another_function, another_task),
    *(what_nothing_uses, what_the_task_asks_for),
]


@pytest.mark.parametrize("seed", range(3))
def test_of_a_hundred_random_edits_the_reason_is_exactly_the_edited_part(project: Project, seed: int) -> None:
    rng = random.Random(seed)
    assert project.run().why == NOTHING
    for number in range(1, EDITS + 1):
        edit = rng.choice(ALL)
        expected = edit(project, number, rng)

        found = project.run()

        told = (number, edit.__name__, found.why)
        assert (found.output is None) == bool(expected), told
        assert said(found) == expected if expected else found.why.endswith(MATCHED), told


@pytest.mark.parametrize("edit", ALL, ids=lambda edit: str(edit.__name__))
def test_each_kind_of_edit_is_told(project: Project, edit: Edit) -> None:
    project.run()

    expected = edit(project, 1, random.Random(0))

    found = project.run()
    assert said(found) == expected if expected else found.output is not None
    assert (found.output is None) == bool(expected)


def test_a_hit_says_from_where_and_why(project: Project) -> None:
    project.run(output={"auc": 0.9})

    found = project.run()

    assert found.output is not None
    assert project.values.get(found.output) == {"auc": 0.9}
    assert found.why == "taken over from nightly of 2026-01-01 00:01 UTC: same code, inputs, environment and version"


def test_two_edits_are_both_told_and_the_nearest_entry_is_compared(project: Project) -> None:
    project.run()
    project.inputs["depth"] = 7
    project.run()
    project.inputs["depth"] = 2
    a_constant(project, 5, random.Random(0))

    # Of the first run one part differs, of the second two.
    assert said(project.run()) == "code of flow.ROUNDS changed (1 line)"
    project.inputs["depth"] = 8
    the_version(project, 6, random.Random(0))
    assert said(project.run()) == "inputs.depth changed; declared version: 1 -> v6"


def test_a_new_version_of_a_library_that_the_code_names_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"numpy": "1.26.4"}
    monkeypatch.setattr(environment, "_version", versions.get)
    project.run()
    versions["numpy"], versions["pandas"] = "2.4.6", "3"

    assert said(project.run()) == "environment: numpy 1.26.4 -> 2.4.6"


def test_what_a_name_stands_for_when_it_is_imported_is_seen_too(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    _value(project, "flow.py", "ROUNDS = ", "\n", "int(__import__('os').environ['ROUNDS'])")
    monkeypatch.setenv("ROUNDS", "1")
    project.run()
    monkeypatch.setenv("ROUNDS", "2")

    assert said(project.run()) == "code changed in a value that it computes when it is imported"


def test_an_output_is_kept_for_its_time(project: Project) -> None:
    _set(project, cache={"version": "1", "ttl_s": 3600})
    project.run()
    project.now += timedelta(minutes=58)
    assert project.run().output is not None
    project.now += timedelta(hours=2)

    found = project.run()

    assert found.output is None
    assert found.why == "expired 2 h ago (nightly of 2026-01-01 00:01 UTC)"
    # It was run and kept again.
    assert project.run().output is not None
    assert project.now > BEGINNING


def test_an_output_whose_value_is_gone_or_damaged_is_made_again(project: Project) -> None:
    project.run(output="kept")
    for content in (None, b'"other"'):
        for path in (project.root.parent / "values").rglob("*.json"):
            if path.read_bytes() in (b'"kept"', b'"other"'):
                path.unlink() if content is None else path.write_bytes(content)
        project.values = scratch_values(project.root.parent / "values")
        found = project.run(output="kept")
        assert found.output is None
        assert found.why.startswith("the output is no longer stored" if content is None else "the stored output is dam")
