"""Files of resources: what is read, what is refused and on which line."""

from pathlib import Path

import pytest

from api.cli import documents
from api.cli.documents import Document
from api.cli.exits import Failure

PROJECT = """\
apiVersion: michelangelo.api/v2
kind: Project
metadata: {name: shop}
spec:
  tier: 2
"""


def read(folder: Path, text: str, *, newline: str = "\n") -> list[Document]:
    path = folder / "file.yaml"
    path.write_bytes(text.replace("\n", newline).encode())
    return documents.load([str(path)])


def faults(folder: Path, text: str) -> list[str]:
    """Return the faults without the path of the file."""
    return [fault.removeprefix(f"{folder}/") for document in read(folder, text) for fault in document.faults]


def test_a_document_becomes_a_resource_with_its_type(tmp_path: Path) -> None:
    (document,) = read(tmp_path, PROJECT)
    assert document.faults == ()
    assert document.resource is not None
    assert document.resource.spec.tier == 2
    assert document.resource.type_meta.kind == "Project"
    assert document.resource.metadata.namespace == "shop", "a project lives in its own namespace"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_windows_line_ends_change_nothing(tmp_path: Path, newline: str) -> None:
    (document,) = read(tmp_path, PROJECT, newline=newline)
    assert document.resource is not None
    assert document.resource.spec.tier == 2


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    (document,) = read(tmp_path, "\ufeff" + PROJECT)
    assert document.faults == ()


@pytest.mark.parametrize("text", ["no", "on", "012", "1_000", "1:30", "2026-11-21", "0x1F", "1e3", "true", ".5"])
def test_a_string_is_what_was_written(tmp_path: Path, text: str) -> None:
    (document,) = read(tmp_path, PROJECT + f"  description: {text}\n")
    assert document.resource is not None
    assert document.resource.spec.description == text


@pytest.mark.parametrize("text", ["012", "1_000", "1:30", "two", "2.5", "yes", "2026-11-21", "[2]", "{a: 1}"])
def test_a_number_is_a_decimal_number_and_nothing_else(tmp_path: Path, text: str) -> None:
    (fault,) = faults(tmp_path, PROJECT.replace("tier: 2", f"tier: {text}"))
    assert fault.startswith("file.yaml:5: spec.tier: wants a whole number")


@pytest.mark.parametrize("text", ["yes", "on", "1", "'true'"])
def test_only_true_and_false_are_booleans(tmp_path: Path, text: str) -> None:
    run = "apiVersion: michelangelo.api/v2\nkind: PipelineRun\nmetadata: {name: r, namespace: shop}\nspec:\n  kill: "
    (fault,) = faults(tmp_path, run + text)
    assert fault.startswith("file.yaml:5: spec.kill: wants true or false")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("  description: &a x\n", 6, "anchors and aliases"),
        ("  description: *a\n", 6, "anchors and aliases"),
        ("  description: !!python/object:os.system x\n", 6, "tag"),
        ("  description: !secret x\n", 6, "tag"),
    ],
)
def test_features_that_hide_or_run_something_are_refused(tmp_path: Path, text: str, line: int, said: str) -> None:
    (fault,) = faults(tmp_path, PROJECT + text)
    assert fault.startswith(f"file.yaml:{line}: ")
    assert said in fault
    assert "YAML_FEATURE" in fault


def test_an_expanding_bomb_is_refused_before_it_expands(tmp_path: Path) -> None:
    bomb = "a: &a [x,x]\n" + "".join(f"{n}: &{n} [*{p},*{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True))
    (fault,) = faults(tmp_path, bomb)
    assert "YAML_FEATURE" in fault


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, PROJECT + "  description: " + "[" * 5000 + "]" * 5000)
    assert "nested deeper" in fault


def test_a_tab_is_named_with_its_line(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, PROJECT + "\ttier: 3\n")
    assert fault.startswith("file.yaml:6: ")
    assert "tab" in fault


def test_what_is_not_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, PROJECT + "  description: [1, 2\n")
    assert fault.startswith("file.yaml:")
    assert "not YAML" in fault


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(PROJECT.encode() + b"  description: \xff\n")
    (document,) = documents.load([str(path)])
    assert document.faults == (f"{path}:6: byte 0xff is not UTF-8 (BAD_TEXT)",)


def test_a_control_character_is_refused(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, PROJECT + "  description: a\x00b\n")
    assert "U+0000" in fault


def test_a_key_given_twice_is_refused_wherever_it_is(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, PROJECT + "  tier: 3\n")
    assert fault == "file.yaml:6: key 'tier' is given twice (DUPLICATE_KEY)"


def test_a_field_in_both_spellings_is_refused(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, PROJECT + "  rootDir: a\n  root_dir: b\n")
    assert fault == "file.yaml:7: spec.root_dir: is given twice (DUPLICATE_KEY)"


def test_every_unknown_field_is_named_with_the_nearest(tmp_path: Path) -> None:
    assert faults(tmp_path, PROJECT + "  descripton: x\n  zzz: 1\n") == [
        "file.yaml:6: spec.descripton: unknown field: did you mean description? (UNKNOWN_FIELD)",
        "file.yaml:7: spec.zzz: unknown field (UNKNOWN_FIELD)",
    ]


def test_an_unknown_kind_is_named_with_the_nearest(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, PROJECT.replace("Project", "Projekt"))
    assert fault == "file.yaml:2: kind: unknown 'Projekt': did you mean Project?"


def test_a_document_without_a_header_says_all_that_is_missing(tmp_path: Path) -> None:
    assert faults(tmp_path, "metadata: {name: x}\n") == [
        "file.yaml:1: apiVersion: is missing, for example michelangelo.api/v2",
        "file.yaml:1: kind: is missing, for example CachedOutput",
    ]


@pytest.mark.parametrize("text", ["just text", "- a\n- b\n", "42"])
def test_a_document_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert "a document must be fields" in fault


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n---\n", "null"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert "holds no document" in fault


def test_a_resource_without_a_name_is_refused(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, PROJECT.replace("{name: shop}", "{labels: {a: b}}"))
    assert fault == "file.yaml:3: metadata.name: is required"


def test_status_is_ignored_with_a_warning(tmp_path: Path) -> None:
    (document,) = read(tmp_path, PROJECT + "status: {anything: 1}\n")
    assert document.faults == ()
    assert len(document.warnings) == 1
    assert "status is ignored" in document.warnings[0]


def test_an_enum_is_written_long_or_short(tmp_path: Path) -> None:
    pipeline = "apiVersion: michelangelo.api/v2\nkind: Pipeline\nmetadata: {name: p, namespace: s}\nspec: {type: %s}\n"
    for text in ("TRAIN", "PIPELINE_TYPE_TRAIN", "train"):
        (document,) = read(tmp_path, pipeline % text)
        assert document.resource is not None
        assert document.resource.spec.type == 1
    (fault,) = faults(tmp_path, pipeline % "TRIAN")
    assert "did you mean PIPELINE_TYPE_TRAIN?" in fault


def test_a_template_keeps_the_types_of_its_parameters(tmp_path: Path) -> None:
    text = """\
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata: {name: p, namespace: s}
spec:
  manifest:
    content:
      "@type": type.googleapis.com/michelangelo.api.TypedStruct
      typeUrl: michelangelo.airflow/Template
      value: {seed: 7, name: no, ratio: 0.5, on: true, list: [1, a], gone: null, text: "7"}
"""
    (document,) = read(tmp_path, text)
    assert document.faults == ()
    assert document.resource is not None
    from api.gen.michelangelo.api import typed_struct_pb2

    packed = typed_struct_pb2.TypedStruct()
    assert document.resource.spec.manifest.content.Unpack(packed)
    fields = packed.value.fields
    assert fields["seed"].number_value == 7
    assert fields["name"].string_value == "no"
    assert fields["on"].bool_value is True
    assert fields["gone"].WhichOneof("kind") == "null_value"
    assert fields["text"].string_value == "7"


def test_the_same_text_gives_the_same_bytes(tmp_path: Path) -> None:
    values = ", ".join(f"k{number}: {number}" for number in range(50))
    text = (
        "apiVersion: michelangelo.api/v2\nkind: Pipeline\nmetadata: {name: p, namespace: s}\n"
        "spec: {manifest: {content: "
        f'{{"@type": type.googleapis.com/michelangelo.api.TypedStruct, value: {{{values}}}}}}}}}\n'
    )
    seen = set()
    for _ in range(5):
        (document,) = read(tmp_path, text)
        assert document.resource is not None
        seen.add(document.resource.spec.manifest.content.value)
    assert len(seen) == 1


def test_an_any_of_unknown_type_is_refused(tmp_path: Path) -> None:
    text = PROJECT.replace("Project", "Pipeline").replace("tier: 2", 'manifest: {content: {"@type": a/b.C}}')
    (fault,) = faults(tmp_path, text)
    assert fault.startswith("file.yaml:5: spec.manifest.content.@type: unknown message")


def test_documents_come_in_the_order_in_which_they_depend(tmp_path: Path) -> None:
    kinds = ["TriggerRun", "Deployment", "Pipeline", "InferenceServer", "ModelFamily", "Project"]
    text = "---\n".join(PROJECT.replace("Project", kind).replace("  tier: 2", "  {}") for kind in kinds)
    names = [document.resource.DESCRIPTOR.name for document in read(tmp_path, text) if document.resource is not None]
    assert names == ["Project", "ModelFamily", "InferenceServer", "Pipeline", "Deployment", "TriggerRun"]


def test_one_bad_document_leaves_the_others(tmp_path: Path) -> None:
    found = read(tmp_path, f"{PROJECT}---\nkind: Nonsense\n---\n{PROJECT.replace('shop', 'other')}")
    assert [document.resource is not None for document in found] == [True, True, False]


def test_a_folder_is_its_yaml_files(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(PROJECT)
    (tmp_path / "a.yml").write_text(PROJECT.replace("shop", "first"))
    (tmp_path / "request.json").write_text("{}")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "c.yaml").write_text("nonsense")
    assert [document.where.rsplit("/", 1)[-1] for document in documents.load([str(tmp_path)])] == [
        "a.yml:1",
        "b.yaml:1",
    ]


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failure, match=str(tmp_path)):
        documents.load([str(tmp_path / name)])
