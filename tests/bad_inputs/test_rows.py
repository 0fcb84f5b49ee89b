"""Every row of the catalogue of bad inputs that the control plane answers, refused alike on every surface.

A row is here, through each surface where its input can be given, or in a test of its own that is named below.  gRPC has
no text, media types or paths; `ma` makes its own request ids, versions, pages and deadlines.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_inputs import calls, objects
from tests.bad_inputs.surfaces import Case, Surfaces

HERE = Path(__file__).resolve().parents[1]
ROWS = frozenset([*range(1, 43), *range(115, 125)])
CASES = [*objects.all_cases(), *calls.all_cases()]

# Rows with tests of their own: what they need is more than one call.
ELSEWHERE = {
    3: ["api/test_bad_inputs_messages.py"],
    12: ["api/test_http_bad_inputs.py"],
    13: ["api/test_http_bad_inputs.py"],
    14: ["api/test_http_bad_inputs.py"],
    22: ["api/test_call_rules.py", "cli/test_documents.py"],
    25: ["api/test_call_rules.py"],
    26: ["api/test_call_rules.py"],
    28: ["api/test_bad_inputs_lists.py", "security/test_page_tokens.py"],
    31: ["api/test_watch.py"],
    32: ["api/test_watch.py"],
    33: ["api/test_call_rules.py"],
    34: ["api/test_call_rules.py"],
    35: ["security/test_tokens.py"],
    36: ["security/test_tokens.py"],
    37: ["security/test_tokens.py"],
    38: ["security/test_tokens.py"],
    39: ["security/test_rights_beside_the_matrix.py"],
    40: ["security/test_rights_beside_the_matrix.py"],
    41: ["security/test_rights_beside_the_matrix.py"],
    42: ["security/test_rights_beside_the_matrix.py"],
    115: ["cli/test_exit_codes.py", "cli/test_documents.py"],
    116: ["cli/test_documents.py"],
    117: ["api/test_bad_inputs_documents.py"],
    118: ["cli/test_exit_codes.py"],
    119: ["cli/test_exit_codes.py", "cli/test_output.py"],
    120: ["cli/test_exit_codes.py"],
    121: ["cli/test_commands.py"],
    122: ["api/test_bad_inputs_configuration.py", "security/test_start.py"],
    123: ["api/test_bad_inputs_configuration.py", "api/test_store_migrations.py"],
    124: ["ports/test_store_contract.py"],
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_input_is_refused_alike_on_every_surface(here: Surfaces, case: Case) -> None:
    answer = case.send(here)
    if not case.reason:
        assert not answer.reasons, answer.text
        return
    assert case.reason in answer.reasons, answer
    assert case.field in ("", *answer.fields) or case.field in answer.text, answer
    assert not set(_INSIDE) & set(answer.text.split()), answer.text


_INSIDE = ("Traceback", "SELECT", "INSERT", "sqlite3")


def test_every_row_is_tested() -> None:
    assert {case.row for case in CASES} | set(ELSEWHERE) == ROWS


def test_what_is_pointed_to_is_there() -> None:
    missing = [path for paths in ELSEWHERE.values() for path in paths if not (HERE / path).is_file()]
    assert not missing
