"""Tables, arrays and models: back as they were, one digest for one content."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnx.helper
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.values import Values, values_at
from operators.values.formats import ValueRefused
from operators.values.store import passing_values


@pytest.fixture(scope="session")
def stored() -> Iterator[Values]:
    with passing_values() as values:
        yield values


TYPES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    (pa.large_string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    (pa.binary(), st.binary(max_size=5)),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.timestamp("us", "UTC"), st.integers(0, 2**50)),
    (pa.date32(), st.integers(0, 50_000)),
    (pa.decimal128(10, 2), st.decimals(-1000, 1000, places=2)),
    (pa.null(), st.none()),
    (pa.list_(pa.int64()), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=3)),
    (pa.list_(pa.string()), st.lists(st.none() | st.just("é"), max_size=3)),
    (
        pa.struct([("a", pa.int64()), ("b", pa.list_(pa.bool_()))]),
        st.fixed_dictionaries(
            {"a": st.none() | st.integers(0, 9), "b": st.none() | st.lists(st.booleans(), max_size=2)}
        ),
    ),
    (pa.map_(pa.string(), pa.int64()), st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=3)),
    (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["x", "y"])),
]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 5))
    columns = {}
    for number, (kind, values) in enumerate(draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))):
        column = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        columns[f"c{number}"] = pa.array(column, kind)
    return pa.table(columns)


@given(table=tables(), data=st.data())
def test_an_arrow_table_comes_back_and_cuts_are_no_content(
    stored: Values, table: pa.Table, data: st.DataObject
) -> None:
    reference = stored.put(table)
    assert reference.format == "arrow"
    back = stored.get(reference)
    assert back.to_pylist() == table.to_pylist()
    assert back.schema.names == table.schema.names
    cut = data.draw(st.integers(0, table.num_rows))
    assert stored.put(pa.concat_tables([table.slice(0, cut), table.slice(cut)])) == reference
    assert stored.put(back) == reference


@given(one=tables(), other=tables())
def test_other_tables_have_other_digests(stored: Values, one: pa.Table, other: pa.Table) -> None:
    if stored.put(one) == stored.put(other):
        assert one.to_pylist() == other.to_pylist()
        assert one.schema.names == other.schema.names


def test_what_lies_under_a_null_is_no_content(stored: Values) -> None:
    valid = pa.array([True, False, True]).buffers()[1]
    hidden = [pa.Array.from_buffers(pa.int64(), 3, [valid, pa.array([1, under, 3]).buffers()[1]]) for under in (2, 99)]
    assert stored.put(pa.table({"a": hidden[0]})) == stored.put(pa.table({"a": hidden[1]}))
    assert stored.put(pa.table({"a": hidden[0]})) != stored.put(pa.table({"a": [1, 2, 3]}))


def test_a_pandas_table_comes_back_with_index_and_types(stored: Values) -> None:
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, 3], dtype="Int64"),
            "c": pd.Categorical(["a", "b", "a"]),
            "t": pd.Series(["2026-01-01", None, "2026-01-03"]).astype("datetime64[ns, UTC]"),
            "s": ["x", None, "é"],
            "f": [0.5, float("nan"), -0.0],
        },
        index=pd.Index([10, 20, 30], name="key"),
    )
    reference = stored.put(frame)
    back = stored.get(reference)
    pd.testing.assert_frame_equal(back, frame)
    assert stored.put(back) == reference
    assert stored.put(frame.reset_index(drop=True)) != reference
    assert stored.put(frame["f"]) != reference


def test_a_pandas_series_comes_back_with_its_name(stored: Values) -> None:
    for name in ("auc", None, 7):
        series = pd.Series([1.5, 2.5], index=["a", "b"], name=name)
        pd.testing.assert_series_equal(stored.get(stored.put(series)), series)


def test_a_pandas_column_of_mixed_types_is_refused(stored: Values) -> None:
    with pytest.raises(ValueRefused, match="astype"):
        stored.put(pd.DataFrame({"mixed": [1, "a", object()]}))


def test_a_polars_table_comes_back(stored: Values) -> None:
    frame = pl.DataFrame({"a": [1, None], "b": [["x"], []], "c": [0.5, 1.5]})
    reference = stored.put(frame)
    back = stored.get(reference)
    assert isinstance(back, pl.DataFrame)
    assert back.equals(frame)
    assert stored.put(back) == reference


DTYPES = ["bool", "int8", "uint64", "float16", "float32", "float64", "complex64", ">i4", ">f8"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_an_array_comes_back_with_type_and_shape(stored: Values, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    reference = stored.put(array)
    back = stored.get(reference)
    assert (back.dtype, back.shape) == (array.dtype.newbyteorder("="), array.shape)
    np.testing.assert_array_equal(back, array)
    assert stored.put(array.copy(order="F")) == reference
    back[...] = 1  # what a step was given it may change


def test_shape_and_type_are_content(stored: Values) -> None:
    digests = {stored.put(np.zeros(shape, dtype)).digest for shape in [(4,), (2, 2)] for dtype in ("f4", "f8")}
    assert len(digests) == 4


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.array(["2026-01-01"], "M8[D]")])
def test_an_array_of_no_numbers_is_refused(stored: Values, array: Any) -> None:
    with pytest.raises(ValueRefused, match="use one of bool"):
        stored.put(array)


def test_numbers_of_numpy_become_plain(stored: Values) -> None:
    back = stored.get(
        stored.put({"auc": np.float64(0.5), "n": np.int32(3), "all": [np.bool_(True)], "top": np.float32(1)})
    )
    assert back == {"auc": 0.5, "n": 3, "all": [True], "top": 1.0}
    assert [type(value) for value in (back["auc"], back["n"], back["all"][0])] == [float, int, bool]
    assert stored.get(stored.put(np.int64(7))) == 7


def test_tables_and_arrays_stand_in_lists_and_dicts(stored: Values) -> None:
    value = {"parts": [pd.DataFrame({"a": [1]}), np.zeros(2)], "name": "x"}
    tree = stored.tree(stored.put(value))
    assert [found["$ref"]["format"] for found in tree["parts"]] == ["pandas", "numpy"]
    back = stored.get(stored.put(value))
    assert back["parts"][0].equals(value["parts"][0])


def booster(seed: int) -> lightgbm.Booster:
    rows = np.random.default_rng(7).normal(size=(200, 3))
    data = lightgbm.Dataset(rows, label=(rows[:, 0] > 0).astype(float))
    settings = {"objective": "binary", "verbose": -1, "seed": seed, "num_leaves": 4, "bagging_fraction": 0.5}
    return lightgbm.train({**settings, "bagging_freq": 1, "num_threads": 1}, data, num_boost_round=3)


def test_a_lightgbm_model_comes_back_as_text(stored: Values) -> None:
    reference = stored.put(booster(1))
    rows = np.random.default_rng(8).normal(size=(20, 3))
    np.testing.assert_array_equal(stored.get(reference).predict(rows), booster(1).predict(rows))
    assert stored.put(booster(1)) == reference
    assert stored.put(booster(2)) != reference


def test_an_onnx_model_comes_back(stored: Values) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    kind = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [kind], [out]))
    assert stored.get(stored.put(model)) == model


def test_a_model_of_scikit_learn_is_refused_with_the_way_to_onnx(stored: Values) -> None:
    from sklearn.linear_model import LinearRegression

    with pytest.raises(ValueRefused, match=r"skl2onnx\.to_onnx"):
        stored.put(LinearRegression())
    with pytest.raises(ValueRefused, match=r"model\.booster_"):
        stored.put(lightgbm.LGBMClassifier())


def test_no_file_is_a_pickle(stored: Values, tmp_path: Path) -> None:
    values = values_at(str(tmp_path))
    for value in (pd.DataFrame({"a": [1]}), np.zeros(2), booster(1), [1], b"x"):
        values.put(value)
    suffixes = sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file())
    assert suffixes == [".bin", ".json", ".parquet", ".safetensors", ".txt"]
