"""Every message, enum, field and method of `proto/michelangelo` is explained in one line.  It judges no wording."""

import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2 as d
from grpc_tools import protoc  # type: ignore[import-untyped,unused-ignore]

PROTO = Path(__file__).resolve().parents[2] / "proto"
# Numbers of the fields below which a descriptor holds its parts.  Source: google/protobuf/descriptor.proto.
EXPLAINED = {"message": 4, "enum": 5, "service": 6, "extension": 7}
FIELD, NESTED_MESSAGE, NESTED_ENUM, METHOD = 2, 3, 4, 2

Place = tuple[int, ...]


def described(proto: Path, into: Path) -> list[d.FileDescriptorProto]:
    """Return the descriptors of our own files with their comments."""
    sources = sorted(path.relative_to(proto).as_posix() for path in proto.glob("michelangelo/**/*.proto"))
    well_known = resources.files("grpc_tools") / "_proto"
    status = protoc.main(
        ["protoc", f"-I{proto}", f"-I{well_known}", "--include_source_info", f"--descriptor_set_out={into}", *sources]
    )
    assert status == 0
    return list(d.FileDescriptorSet.FromString(into.read_bytes()).file)


def parts(file: d.FileDescriptorProto) -> Iterator[tuple[Place, str]]:
    """Yield the path and the name of everything that needs a comment."""
    for number, message in enumerate(file.message_type):
        yield from parts_of_message((EXPLAINED["message"], number), message)
    for number, enum in enumerate(file.enum_type):
        yield (EXPLAINED["enum"], number), enum.name
    for number, extension in enumerate(file.extension):
        yield (EXPLAINED["extension"], number), extension.name
    for number, service in enumerate(file.service):
        yield (EXPLAINED["service"], number), service.name
        for at, method in enumerate(service.method):
            yield (EXPLAINED["service"], number, METHOD, at), f"{service.name}.{method.name}"


def parts_of_message(path: Place, message: d.DescriptorProto) -> Iterator[tuple[Place, str]]:
    if message.options.map_entry:
        return
    yield path, message.name
    for number, field in enumerate(message.field):
        yield (*path, FIELD, number), f"{message.name}.{field.name}"
    for number, nested in enumerate(message.nested_type):
        yield from parts_of_message((*path, NESTED_MESSAGE, number), nested)
    for number, enum in enumerate(message.enum_type):
        yield (*path, NESTED_ENUM, number), f"{message.name}.{enum.name}"


def unexplained(file: d.FileDescriptorProto) -> list[str]:
    """Return what has no comment, or one of several lines."""
    comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    return [name for path, name in parts(file) if len(comments.get(path, "").strip().splitlines()) != 1]


def test_everything_on_the_wire_is_explained_in_one_line(tmp_path: Path) -> None:
    files = described(PROTO, tmp_path / "set")
    assert len(files) > 40
    assert {file.name: missing for file in files if (missing := unexplained(file))} == {}


@pytest.mark.parametrize(
    ("comment", "name"),
    [
        ("  // User name; empty means unknown.\n", "UserInfo.name"),
        ("// A person or a program that acts.\n", "UserInfo"),
    ],
)
def test_a_missing_comment_is_noticed(comment: str, name: str, tmp_path: Path) -> None:
    shutil.copytree(PROTO, tmp_path / "proto")
    user = tmp_path / "proto" / "michelangelo" / "api" / "v2" / "user.proto"
    assert comment in user.read_text()
    user.write_text(user.read_text().replace(comment, ""))
    files = described(tmp_path / "proto", tmp_path / "set")
    assert [missing for file in files for missing in unexplained(file)] == [name]
