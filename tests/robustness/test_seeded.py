"""Each known bug, planted into a copy of the code, turns the test red that is there for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.results import told
from tests.robustness.seeded.__main__ import ROOT, Seed, apply, copied, seeds, seen

SEEDS = seeds()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code."""
    folder = tmp_path_factory.mktemp("tree")
    copied(folder)
    return folder


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.path.stem)
def test_each_bug_can_still_be_planted(seed: Seed, tree: Path) -> None:
    assert apply(seed, tree, "--check") == ""
    assert (ROOT / seed.test.partition("::")[0]).is_file()


@pytest.mark.robustness
def test_each_bug_is_seen_by_its_test(tree: Path) -> None:
    unseen = {seed.path.stem: fault for seed in SEEDS if (fault := seen(seed, tree))}
    told("G0", "planted bugs are seen by the test that is there for them", trials=len(SEEDS), failed=len(unseen))
    assert unseen == {}
