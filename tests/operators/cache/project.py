"""A project of a user: files, inputs and settings that a test edits, and what the cache says after each edit."""

from __future__ import annotations

import importlib
import linecache
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from operators.authoring.graph import Step
from operators.authoring.sources import code_digest
from operators.cache.entries import MOST_COMPARED, Entry
from operators.cache.step_cache import Found, StepCache, parts_of
from operators.values.store import Values, scratch_values

FLOW = '''
"""Trains a model."""
import math
import numpy as np
from operators import task
from shop import cleaning
from shop.rates import RATES, discount as less

ROUNDS = 3
LIMITS = cleaning.Limits(low=1)


def scaled(rows):
    """Scale."""
    # a comment
    total = sum(rows)
    return [row / total for row in rows]


def unrelated(rows):
    return rows[:1]


@task.local(cpu=1, cache=True)
def train(rows, depth):
    """Train."""
    rows = cleaning.clean(rows, LIMITS)
    kept = scaled(rows)
    best = math.inf
    for _ in range(ROUNDS):
        best = min(best, less(np.sum(kept), depth))
    return best


@task.local
def report(best):
    return best + 100
'''
CLEANING = """
class Limits:
    def __init__(self, low):
        self.low = low

    def fits(self, row):
        return row >= self.low


def clean(rows, limits):
    return [row for row in rows if limits.fits(row)]


def unused(rows):
    return rows
"""
RATES = """
RATES = {"a": 1}
BASE = 10


def discount(value, depth):
    return value - BASE * depth
"""
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryEntries:
    """Entries in this process."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Entry] = {}

    def find(self, line: str, key: str) -> Entry | None:
        """Return the entry of a step's key."""
        return self._kept.get((line, key))

    def of_line(self, line: str) -> list[Entry]:
        """Return the newest entries of a step."""
        mine = [entry for entry in self._kept.values() if entry.line == line]
        return sorted(mine, key=lambda entry: entry.made, reverse=True)[:MOST_COMPARED]

    def add(self, entry: Entry) -> None:
        """Keep an entry."""
        self._kept[entry.line, entry.key] = entry


class Project:
    """Its code lies in `root`; time passes when it is told to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = {"flow.py": FLOW, "shop/__init__.py": "", "shop/cleaning.py": CLEANING, "shop/rates.py": RATES}
        self.inputs: dict[str, Any] = {"rows": [3, 2, 1], "depth": 2}
        self.step = Step(name="train", task="flow:train", cache={"version": "1", "ttl_s": None})
        self.entries = MemoryEntries()
        self.values: Values = scratch_values(root.parent / "values")
        self.now = BEGINNING

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that stands in a file once."""
        assert self.files[file].count(old) == 1, (file, old)
        self.files[file] = self.files[file].replace(old, new)

    def cache(self, run: str = "nightly") -> StepCache:
        """Return the cache of the step as the project is now: written, applied and run."""
        for name, text in self.files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        step = replace(self.step, code=self._traced())
        inputs = {name: self.values.encode(value) for name, value in self.inputs.items()}
        parts = parts_of(step, inputs, self.root)
        return StepCache(step, parts, self.entries, self.values, pipeline="train", run=run, now=lambda: self.now)

    def run(self, output: Any = 1.5) -> Found:
        """Ask the cache, and run and keep unless it has the output."""
        self.now += timedelta(minutes=1)
        cache = self.cache()
        found = cache.lookup()
        if found.output is None:
            cache.keep(self.values.put(output))
        return found

    def _traced(self) -> str:
        """Return the digest that applying the pipeline gives: its code is imported as it is now."""
        for name in [name for name in sys.modules if name.partition(".")[0] in ("flow", "shop")]:
            del sys.modules[name]
        linecache.clearcache()
        importlib.invalidate_caches()
        module, _, function = self.step.task.partition(":")
        return code_digest(getattr(importlib.import_module(module), function))


def said(found: Found) -> str:
    """Return why, without what it was compared with."""
    return found.why.partition(" (since ")[0]
