"""Plain values: back as they were, one digest for one content, refused with a way out."""

import collections
import dataclasses
import enum
import subprocess
import sys
import typing
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import DataLoss
from operators.errors import UserError
from operators.values import Reference, Values, register_format, values_at
from operators.values.formats import ValueRefused
from operators.values.store import passing_values

TEXT = st.text(alphabet=st.characters(), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXT
    | st.datetimes()
    | st.dates()
    | st.timedeltas(timedelta(days=-1000), timedelta(days=1000))
    | st.binary(max_size=8)
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(TEXT | st.sampled_from(["$ref", "$tuple", "$dict"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture(scope="session")
def stored() -> Iterator[Values]:
    with passing_values() as values:
        yield values


def same(one: Any, other: Any) -> bool:
    """Equal with equal types, where not-a-number is itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return repr(one) == repr(other) if isinstance(one, float) else one == other


@given(value=PLAIN)
def test_a_plain_value_comes_back_with_its_types(stored: Values, value: Any) -> None:
    reference = stored.put(value)
    assert same(stored.get(reference), value)
    assert stored.put(value) == reference


@given(one=PLAIN, other=PLAIN)
def test_two_contents_have_two_digests(stored: Values, one: Any, other: Any) -> None:
    assert (stored.put(one) == stored.put(other)) == same(one, other)


def test_the_order_in_which_a_dict_was_filled_is_no_content(stored: Values) -> None:
    assert stored.put({"a": 1, "b": 2}) == stored.put({"b": 2, "a": 1})
    assert list(stored.get(stored.put({"b": 2, "a": 1}))) == ["a", "b"]


def test_digests_are_the_same_in_another_process_and_release(stored: Values, tmp_path: Path) -> None:
    """The digest is written down here: a change of it would make every kept value unknown."""
    value = {"loss": [0.5, float("nan")], "when": datetime(2026, 1, 2, tzinfo=UTC), "pair": (1, date(2026, 1, 2))}
    assert stored.put(value).digest == "sha256:869c4c63ab64a3df1d8d4804c6e12a8a9999bd1ce88e454534aaeabee17d4bdc"
    code = (
        "import sys; from datetime import *; from operators.values import values_at; "
        "moment = datetime(2026, 1, 2, tzinfo=UTC); "
        "value = {'pair': (1, date(2026, 1, 2)), 'when': moment, 'loss': [.5, float('nan')]}; "
        "print(values_at(sys.argv[1]).put(value).digest)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == stored.put(value).digest


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Report:
    auc: float


class Pair(typing.NamedTuple):
    a: int


REFUSED = [
    ({1, 2}, "sorted(value)"),
    ((number for number in [1]), "list(value)"),
    (range(3), "list(value)"),
    (Colour.RED, "value.value"),
    (Report(0.5), "dataclasses.asdict(value)"),
    (Pair(1), "value._asdict()"),
    (collections.Counter("aab"), "dict(value)"),
    (Path("/etc/passwd"), "return its content instead"),
    (print, "plain values, a table, arrays or an ONNX model"),
    (lambda: 1, "code is no value"),
    (object(), "plain values, a table, arrays or an ONNX model"),
    ({1: "a"}, "keys of a dict must be texts"),
    (1j, "plain values"),
]


@pytest.mark.parametrize(("value", "way_out"), REFUSED, ids=[type(value).__name__ for value, _ in REFUSED])
def test_what_has_no_format_is_refused_with_the_way_out(stored: Values, value: Any, way_out: str) -> None:
    with pytest.raises(ValueRefused, match="cannot be passed between steps") as refused:
        stored.put(value)
    assert way_out in str(refused.value)
    assert isinstance(refused.value, UserError)


def test_a_refusal_says_where_in_the_value(stored: Values) -> None:
    with pytest.raises(ValueRefused, match=r"a set at models\[1\]\.classes cannot"):
        stored.put({"models": [1, {"classes": {1}}]})


def test_a_value_that_holds_itself_is_refused(stored: Values) -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueRefused, match="holds itself"):
        stored.put(value)


class Grid:
    """A type of the user's own."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows


def test_an_own_type_passes_with_a_registered_format(stored: Values) -> None:
    def write(grid: Grid) -> bytes:
        return "\n".join(" ".join(map(str, row)) for row in grid.rows).encode()

    def read(content: bytes) -> Grid:
        return Grid([[int(cell) for cell in line.split()] for line in content.decode().splitlines()])

    register_format(Grid, name="grid", write=write, read=read, suffix=".grid")
    reference = stored.put(Grid([[1, 2], [3]]))
    assert reference.format == "grid"
    assert stored.get(reference).rows == [[1, 2], [3]]
    assert [grid.rows for grid in stored.get(stored.put({"all": [Grid([[7]])]}))["all"]] == [[[7]]]


def test_the_formats_of_others_cannot_be_taken() -> None:
    for name in ("json", "pandas"):
        with pytest.raises(ValueError, match="there already"):
            register_format(Report, name=name, write=bytes, read=bytes)
    with pytest.raises(ValueError, match="Python's own"):
        register_format(set, name="sets", write=bytes, read=bytes)


def test_a_format_that_nobody_registered_is_told(stored: Values) -> None:
    with pytest.raises(ValueRefused, match="import the module that calls register_format"):
        stored.get(Reference("sha256:" + "0" * 64, "of-somebody-else"))


def test_changed_bytes_are_not_taken_for_the_value(tmp_path: Path) -> None:
    values = values_at(str(tmp_path))
    reference = values.put([1, 2, 3])
    (file,) = tmp_path.rglob("*.json")
    file.write_text("[1,2,4]")
    with pytest.raises(DataLoss, match="not what was stored"):
        values.get(reference)


def test_a_value_that_is_gone_says_what_to_do(tmp_path: Path) -> None:
    reference = values_at(str(tmp_path / "one")).put("x")
    with pytest.raises(UserError, match="run the step again"):
        values_at(str(tmp_path / "other")).get(reference)


def test_passing_values_go_with_the_block_and_large_ones_are_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with passing_values() as values:
        small, large = values.put("x"), values.put(b"x" * 1_000_000)
        assert len(list(tmp_path.rglob("*.bin"))) == 1
        assert (values.get(small), len(values.get(large))) == ("x", 1_000_000)
    assert not list(tmp_path.iterdir())


def test_values_lie_in_whatever_fsspec_reaches() -> None:
    values = values_at("memory://values-test")
    reference = values.put({"bytes": b"\x00\xff"})
    assert values_at("memory://values-test").get(reference) == {"bytes": b"\x00\xff"}


def test_nothing_imports_a_library_that_no_value_is_of() -> None:
    code = (
        "import sys, tempfile; from operators.values import values_at; "
        "v = values_at(tempfile.mkdtemp()); v.get(v.put([1, {'a': b'x'}])); print(*sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"airflow", "pandas", "numpy", "pyarrow", "ray", "fsspec", "polars", "onnx", "pickle5"}
    assert not heavy & {name.split(".")[0] for name in ended.stdout.split()}
