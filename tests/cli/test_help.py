"""Every command's help is read at 80 columns, says what each value is, and shows examples that can be typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from api.cli.main import app
from api.cli.usage import EXAMPLES, readable
from tests.e2e.conftest import ROOT

TREE = readable(typer.main.get_command(app))
WIDTH = 80
TYPED = [example for path, examples in EXAMPLES.items() for example in examples if path != "ma"]


def commands(command: Any = TREE, path: str = "ma") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}")


ALL = dict(commands())


def shown(path: str) -> str:
    context = ALL[path].make_context(path, [], resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH)
    return str(ALL[path].get_help(context))


@pytest.mark.parametrize("path", ALL)
def test_a_commands_help_is_whole_and_fits(path: str) -> None:
    text = shown(path)
    assert max(map(len, text.splitlines())) <= WIDTH, text
    assert "<" not in text, "a type of Python's"
    assert "...\n" not in text.partition("Commands:")[2], "a sentence was cut"
    for parameter in ALL[path].params:
        assert getattr(parameter, "hidden", False) or parameter.help, f"{parameter.name} says nothing"


@pytest.mark.parametrize("path", [path for path in EXAMPLES if path != "ma"])
def test_an_example_stands_in_the_help_of_its_command(path: str) -> None:
    text = " ".join(shown(path).split())
    for example in EXAMPLES[path]:
        assert example.startswith(path)
        assert example in text


@pytest.mark.parametrize("example", TYPED)
def test_an_example_can_be_typed(example: str) -> None:
    """The command takes it; files of the examples are there."""
    words = shlex.split(example.partition(" > ")[0])
    command, rest = TREE, words[1:]
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    context = command.make_context(words[0], list(rest))
    assert all((ROOT / word).exists() for word in rest if word.startswith("examples/"))
    assert context.params
