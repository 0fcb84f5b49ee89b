"""Every name, number, type and option of `api.gen` against the contract, both ways.  It reads no `.proto` file.

`contract.tsv` changes only when Michelangelo does: whoever edits it breaks Michelangelo's own clients.
"""

from collections.abc import Callable

import pytest
from google.protobuf import descriptor_pb2 as d

from api.gen.michelangelo.api import conditions_pb2, options_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2
from tests.wire.facts import Fact, contract_lines, declared, generated, listed

CONTRACT = listed(contract_lines())
GENERATED = generated()

RUN = "michelangelo/api/v2/pipeline_run.proto"
SERVICE = "michelangelo/api/v2/pipeline_run_svc.proto"
OPTIONS = "michelangelo/api/options.proto"


def differences(expected: set[Fact], found: set[Fact]) -> list[str]:
    """Return what is missing (`-`) and what is extra (`+`), a line each."""
    missing = [f"- {' '.join(fact)}" for fact in sorted(expected - found)]
    return missing + [f"+ {' '.join(fact)}" for fact in sorted(found - expected)]


def test_the_generated_files_are_those_of_the_contract() -> None:
    assert set(GENERATED) == set(CONTRACT)


@pytest.mark.parametrize("path", sorted(CONTRACT))
def test_a_file_declares_what_the_contract_lists_and_nothing_else(path: str) -> None:
    assert differences(CONTRACT[path], declared(GENERATED[path])) == []


def test_the_contract_has_fifteen_services_of_six_unary_methods() -> None:
    methods = [fact for facts in CONTRACT.values() for fact in facts if fact[0] == "service" and len(fact) > 2]
    services = [fact[1] for fact in methods]
    assert len(set(services)) == 15
    assert {services.count(name) for name in services} == {6}
    assert {fact[-1] for fact in methods} == {"unary"}


def test_a_field_is_called_in_json_as_protobuf_calls_it() -> None:
    def check(message: d.DescriptorProto) -> None:
        for field in message.field:
            first, *rest = field.name.split("_")
            assert field.json_name in ("", first + "".join(word[:1].upper() + word[1:] for word in rest))
        for nested in message.nested_type:
            check(nested)

    for file in GENERATED.values():
        for message in file.message_type:
            check(message)


def test_the_bytes_of_a_condition_follow_from_the_contract() -> None:
    condition = conditions_pb2.Condition(
        type="Ready", status=conditions_pb2.CONDITION_STATUS_TRUE, last_updated_timestamp=1, observed_generation=3
    )
    assert condition.SerializeToString(deterministic=True) == b"\x0a\x05Ready\x10\x01\x28\x01\x38\x03"


def test_the_bytes_of_a_run_follow_from_the_contract() -> None:
    spec = pipeline_run_pb2.PipelineRunSpec(pipeline=options_pb2.ResourceIdentifier(name="p"), kill=True)
    run = pipeline_run_pb2.PipelineRun(spec=spec)
    assert run.SerializeToString(deterministic=True) == b"\x1a\x07\x0a\x03\x12\x01p\x18\x01"


def field(file: d.FileDescriptorProto, message: str, name: str) -> d.FieldDescriptorProto:
    declaration = next(found for found in file.message_type if found.name == message)
    return next(found for found in declaration.field if found.name == name)


def renumber_a_field(file: d.FileDescriptorProto) -> None:
    field(file, "PipelineRunSpec", "kill").number = 99


def rename_a_field(file: d.FileDescriptorProto) -> None:
    field(file, "PipelineRunSpec", "kill").name = "stop"


def change_the_type_of_a_field(file: d.FileDescriptorProto) -> None:
    field(file, "PipelineRunSpec", "kill").type = d.FieldDescriptorProto.TYPE_INT32


def repeat_a_field(file: d.FileDescriptorProto) -> None:
    field(file, "PipelineRunSpec", "actor").label = d.FieldDescriptorProto.LABEL_REPEATED


def move_a_field_out_of_its_oneof(file: d.FileDescriptorProto) -> None:
    field(file, "PipelineRunResource", "internal_resource").ClearField("oneof_index")


def drop_an_option_of_a_field(file: d.FileDescriptorProto) -> None:
    field(file, "PipelineRunStatus", "conditions").ClearField("options")


def drop_the_options_of_a_message(file: d.FileDescriptorProto) -> None:
    next(found for found in file.message_type if found.name == "PipelineRun").ClearField("options")


def drop_a_field(file: d.FileDescriptorProto) -> None:
    del file.message_type[0].field[0]


def add_a_field(file: d.FileDescriptorProto) -> None:
    file.message_type[0].field.add(name="extra", number=77, type=d.FieldDescriptorProto.TYPE_STRING)


def add_a_nested_message(file: d.FileDescriptorProto) -> None:
    file.message_type[0].nested_type.add(name="Extra")


def drop_a_message(file: d.FileDescriptorProto) -> None:
    del file.message_type[-1]


def renumber_a_value(file: d.FileDescriptorProto) -> None:
    file.enum_type[0].value[1].number = 99


def change_the_syntax(file: d.FileDescriptorProto) -> None:
    file.syntax = "proto2"


def change_the_response_of_a_method(file: d.FileDescriptorProto) -> None:
    file.service[0].method[0].output_type = ".google.protobuf.Empty"


def stream_a_method(file: d.FileDescriptorProto) -> None:
    file.service[0].method[0].server_streaming = True


def add_a_method(file: d.FileDescriptorProto) -> None:
    file.service[0].method.add(name="WatchPipelineRun")


def renumber_an_extension(file: d.FileDescriptorProto) -> None:
    file.extension[0].number = 2000


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (RUN, renumber_a_field),
        (RUN, rename_a_field),
        (RUN, change_the_type_of_a_field),
        (RUN, repeat_a_field),
        (RUN, move_a_field_out_of_its_oneof),
        (RUN, drop_an_option_of_a_field),
        (RUN, drop_the_options_of_a_message),
        (RUN, drop_a_field),
        (RUN, add_a_field),
        (RUN, add_a_nested_message),
        (RUN, drop_a_message),
        (RUN, renumber_a_value),
        (RUN, change_the_syntax),
        (SERVICE, change_the_response_of_a_method),
        (SERVICE, stream_a_method),
        (SERVICE, add_a_method),
        (OPTIONS, renumber_an_extension),
    ],
    ids=lambda value: value.__name__ if callable(value) else "in",
)
def test_a_changed_descriptor_is_noticed(path: str, change: Callable[[d.FileDescriptorProto], None]) -> None:
    changed = d.FileDescriptorProto()
    changed.CopyFrom(GENERATED[path])
    change(changed)
    assert differences(CONTRACT[path], declared(changed))


@pytest.mark.parametrize("kind", ["file", "message", "enum", "service", "extension", "\t"])
def test_a_changed_line_of_the_contract_is_noticed(kind: str) -> None:
    lines = contract_lines()
    at = max(number for number, line in enumerate(lines) if line.startswith(kind))
    changed = listed([*lines[:at], f"{lines[at]}x", *lines[at + 1 :]])
    assert any(changed.get(path) != declared(file) for path, file in GENERATED.items())


def test_a_fact_that_is_said_twice_is_refused() -> None:
    lines = contract_lines()
    with pytest.raises(ValueError, match="says twice"):
        listed([*lines, lines[-1]])
