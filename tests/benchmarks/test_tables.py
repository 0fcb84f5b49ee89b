"""Results as text, as Markdown between markers, and in files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measuring import document, tables
from benchmarks.measuring.figures import Figure
from benchmarks.measuring.results import Result, read

DOCUMENT = """# Title

<!-- benchmark serving -->
old
<!-- end serving -->

Text.

<!-- benchmark idle -->
<!-- end idle -->
"""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.0812345, "0.0812"),
        (0.5, "0.500"),
        (1.92, "1.92"),
        (9.996, "10.0"),
        (23.68, "23.7"),
        (99.96, "100"),
        (920.4, "920"),
        (5210.0, "5,210"),
        (-3.14159, "-3.14"),
    ],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert tables.number(value) == shown


def test_the_text_shows_medians_ratio_and_verdict(result: Result) -> None:
    lines = tables.text(result).splitlines()
    (line,) = [line for line in lines if line.startswith("p50")]
    assert line.split("  ")[0] == "p50, 1 connection"
    assert "0.0900 ms" in line
    assert "2.00 ms" in line
    assert "23.3 (19.0-25.0)" in line
    assert line.endswith(">=20x missed")
    assert any(line.startswith("answers") and "50.0 (few rounds)" in line for line in lines)
    assert any(line.startswith("more than the peer") and line.endswith("<=1 ms missed") for line in lines)
    assert "Load average before: 0.10, 0.20, 0.30; after: 1.00, 0.50, 0.40." in lines


def test_no_line_is_longer_than_eighty_columns(result: Result) -> None:
    long = replace(result, figures=(Figure("a name " * 20, "/s", (123456.0,), (98765.0,)),), notes=("word " * 60,))
    assert max(map(len, tables.text(long).splitlines())) <= tables.WIDTH
    assert tables.text(long).count("word") == 60


def test_a_column_in_which_nothing_stands_is_left_out(result: Result) -> None:
    alone = replace(result, figures=(Figure("whole", "s", (60.0,)), Figure("  a phase", "s", (12.0,))))
    assert "median of rounds  ours" in tables.text(alone).splitlines()
    assert "| median of rounds | ours |\n| --- | ---: |\n| whole | 60.0 s |" in tables.markdown(alone)
    assert "| &nbsp;&nbsp;a phase | 12.0 s |" in tables.markdown(alone)


def test_a_busy_machine_is_told(result: Result) -> None:
    busy = replace(result, load_before=(1.01, 0.5, 0.5))
    assert "busy" not in tables.text(result)
    assert "The machine was busy" in tables.text(busy)
    assert "The machine was busy" in tables.markdown(busy)


def test_a_result_is_read_as_it_was_written(result: Result, tmp_path: Path) -> None:
    path = result.write(tmp_path / "results")
    assert path.name == "serving.json"
    assert read(path) == result
    figure = json.loads(path.read_text())["figures"][0]
    assert (figure["median"], figure["peer_median"], figure["met"]) == (0.09, 2.0, False)
    assert [file.name for file in path.parent.iterdir()] == ["serving.json"]


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"name": "other"}')
    with pytest.raises(ValueError, match=r"other\.json is no result"):
        read(path)


def test_a_document_is_filled_between_its_markers_alone(result: Result) -> None:
    filled = document.filled(DOCUMENT, [result])
    assert filled.startswith("# Title\n\n<!-- benchmark serving -->\n\nPeer: `mlflow models serve`")
    assert "old" not in filled
    assert "| p50, 1 connection | 0.0900 ms | 2.00 ms | 23.3 (19.0-25.0) | >=20x missed |" in filled
    assert filled.endswith("<!-- end serving -->\n\nText.\n\n<!-- benchmark idle -->\n<!-- end idle -->\n")
    assert document.filled(filled, [result]) == filled
    assert document.places(filled) == ["serving", "idle"]


def test_a_result_without_a_place_is_refused(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(DOCUMENT)
    with pytest.raises(ValueError, match="no place for other"):
        document.fill(path, [result, replace(result, name="other")])
    assert path.read_text() == DOCUMENT
