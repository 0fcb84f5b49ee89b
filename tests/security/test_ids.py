"""Identities that are not what they seem: two in one request, wildcards, look-alikes, names that begin like another.

T1, T2 and T3 of the threat list: Airflow CVE-2026-41084, CVE-2026-26929, CVE-2026-24098 and CVE-2026-45426.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf import json_format
from hypothesis import example, given
from hypothesis import strategies as st

from api.auth.rights import ADMIN, VIEWER, held, name_of, names_of
from api.calls import Principal
from api.gen.michelangelo.platform.v1 import role_binding_pb2 as wire
from api.kinds import Kind, kinds
from tests.security.objects import NAME, OF_THE_SYSTEM, in_order, smallest
from tests.security.secured import OWNER, Secured, known, outcome, refused, token_of

MINE, THEIRS = "mine", "theirs"
# Projects that begin alike, for a comparison that looks at beginnings only.
ALIKE = ("dag", "dag-a", "dag-ab", "aaaa-x", "a", "aaaa")
ODD_IDS = (
    "-", "~", "*", "", ".", "..", "../theirs", "%2e%2e", "%", "_", "theirs ", " theirs", "theirs.", "THEIRS", "Theirs",
    "ｔｈｅｉｒｓ", "thеirs", "theirs\u200b", "theirs\x00", "mine,theirs", "mine/theirs", "mine|theirs", "mine theirs",
    "theirs' OR '1'='1", "%theirs%", "th%", "the_rs", "null", "None", "0", "all", "default", "ma-system",
    "\u202esrieht",
)  # fmt: skip
ROLES = ("viewer", "editor", "admin")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Two projects with an object of every kind; members of the first; and projects that begin alike."""
    made = Secured(tmp_path_factory.mktemp("ids"), [known(name) for name in (*ROLES, *(f"of-{p}" for p in ALIKE))])
    for project in (MINE, THEIRS):
        made.owner.create(smallest("Project", project))
        for kind in in_order():
            if kind not in OF_THE_SYSTEM:
                made.owner.create(smallest(kind, project))
    for role in ROLES:
        made.owner.bind(MINE, role.upper(), f"user:{role}")
    for project in ALIKE:
        made.owner.create(smallest("Project", project))
        made.owner.create(smallest("ModelFamily", project))
        made.owner.bind(project, "EDITOR", f"user:of-{project}")
    yield made
    made.close()


def collection(kind: Kind, project: str) -> str:
    """Return the path of a kind in a project."""
    plural = kind.plural.replace("_", "")
    return f"/apis/{kind.group_version}/namespaces/{quote(project, safe='')}/{plural}"


def document(resource: Any) -> Mapping[str, Any]:
    """Return an object as HTTP takes it."""
    kind = kinds()[resource.DESCRIPTOR.name]
    return {**json_format.MessageToDict(resource), "apiVersion": kind.group_version, "kind": kind.name}


@pytest.mark.parametrize("name", [name for name in kinds() if name not in OF_THE_SYSTEM and name != "Project"])
def test_two_ids_in_one_request_are_refused_for_everybody(secured: Secured, name: str) -> None:
    """T1: whoever is asked about one and acts on the other would write into a project that is not the caller's."""
    kind = kinds()[name]
    revision = secured.run(secured.resources.revision())
    cases = 0
    for token in (OWNER, *(token_of(role) for role in ROLES)):
        headers = {"authorization": f"Bearer {token}"}
        for path, body in itertools.permutations((MINE, THEIRS), 2):
            stored = secured.owner.get(name, body, NAME)
            stored.metadata.labels["changed"] = "yes"
            new = smallest(name, body, "new")
            # The same under another name, in the project that is the caller's.
            renamed = secured.owner.get(name, path, NAME)
            renamed.metadata.labels["changed"] = "yes"
            url = collection(kind, path)
            for method, where, sent in (
                ("POST", url, new),
                ("PUT", f"{url}/{NAME}", stored),
                ("PATCH", f"{url}/{NAME}", stored),
                ("PUT", f"{url}/other", renamed),
                ("PATCH", f"{url}/other", renamed),
            ):
                more = {"content-type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
                told = secured.http.request(method, where, json=document(sent), headers={**headers, **more})
                wanted = {400} if token == OWNER and "other" not in where else {400, 403, 404}
                assert told.status_code in wanted, (method, where, told.text)
                cases += 1
    assert cases == 40
    assert secured.run(secured.resources.revision()) == revision, "something was written"


def test_a_project_of_two_names_is_refused(secured: Secured) -> None:
    for role in (*ROLES, ""):
        caller = secured.user(role) if role else secured.owner
        for name, namespace in itertools.permutations((MINE, THEIRS, "new"), 2):
            new = kinds()["Project"].new(namespace, name)
            assert outcome(caller.create, new) in ("INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"), (role, name)


@pytest.mark.parametrize("odd", ODD_IDS, ids=ascii)
def test_an_odd_id_selects_nothing_of_others(secured: Secured, odd: str) -> None:
    """T2: it is refused, or selects what the caller may see."""
    for role in ROLES:
        caller = secured.user(role)
        for name in ("ModelFamily", "RoleBinding", "Pipeline"):
            single = kinds()[name].singular
            told = outcome(caller.list, name, odd)
            assert told in (("OK",) if odd == "" else ("INVALID_ARGUMENT", "NOT_FOUND")), (role, name)
            if told == "OK":
                assert {item.metadata.namespace for item in caller.list(name, odd).items} == {MINE}
            new = smallest(name, "x", "new")
            new.metadata.namespace = odd
            by_name = {"namespace": MINE, "name": odd}
            for verb, fields in (
                ("Get", {"namespace": odd, "name": NAME}),
                ("Get", by_name),
                ("Delete", {"namespace": odd, "name": NAME}),
                ("Delete", by_name),
                ("DeleteCollection", {"namespace": odd}),
                ("Create", {single: new}),
            ):
                told = outcome(caller.call, name, verb, **fields)
                assert told in ("INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"), (role, name, verb, told)


@pytest.mark.parametrize("odd", [odd for odd in ODD_IDS if odd], ids=ascii)
def test_an_odd_id_in_a_path_selects_nothing_of_others(secured: Secured, odd: str) -> None:
    headers = {"authorization": f"Bearer {token_of('editor')}"}
    for path in (
        collection(kinds()["ModelFamily"], odd),
        f"{collection(kinds()['ModelFamily'], odd)}/{NAME}",
        f"{collection(kinds()['ModelFamily'], MINE)}/{quote(odd, safe='')}",
        f"/apis/michelangelo.api/v2/namespaces/{odd}/modelfamilies".replace("\x00", "%00"),
    ):
        told = secured.http.get(path, headers=headers)
        assert told.status_code in (400, 404) or THEIRS not in told.text, (path, told.text)


def test_a_project_that_begins_like_another_is_another(secured: Secured) -> None:
    """T3, on the server."""
    for own, other in itertools.product(ALIKE, ALIKE):
        told = outcome(secured.user(f"of-{own}").get, "ModelFamily", other, NAME)
        assert told == ("OK" if own == other else "NOT_FOUND"), (own, other)
    for own in ALIKE:
        seen = {item.metadata.namespace for item in secured.user(f"of-{own}").list("ModelFamily").items}
        assert seen == {own}


names = st.text("ab-.", min_size=1, max_size=6)


@given(names, names)
@example("dag_a", "dag_ab")
@example("a", "aaaa")
def test_a_role_in_one_project_is_none_in_another(own: str, other: str) -> None:
    """T3, on the decision, for any pair of names."""
    mine = held(Principal("alice"), [(own, ADMIN)])
    for verb, kind in (("Get", "Model"), ("Delete", "Project"), ("Create", "RoleBinding")):
        assert mine.has(verb, kind, other) == (own == other)
        assert mine.has(verb, kind, own)
    assert (other in mine.visible) == (own == other)


subjects = st.tuples(st.sampled_from(["user", "group", "service"]), st.text("ab:", min_size=1, max_size=8))


@given(subjects, subjects)
@example(("user", "group:ml"), ("group", "ml"))
@example(("user", "service:a"), ("service", "a"))
def test_a_binding_means_the_subject_of_its_kind_and_name_alone(one: tuple[str, str], other: tuple[str, str]) -> None:
    bound = wire.Subject(kind=wire.SubjectKind.Value(f"SUBJECT_KIND_{one[0].upper()}"), name=one[1])
    principal = {
        "user": Principal(other[1]),
        "group": Principal("somebody-else", frozenset({other[1]})),
        "service": Principal(f"service:{other[1]}", kind="service"),
    }[other[0]]
    assert (name_of(bound) in set(names_of(principal))) == (one == other)


@given(st.integers(), st.text(max_size=5))
def test_a_role_that_is_none_gives_nothing(role: int, project: str) -> None:
    mine = held(Principal("alice"), [(project, role if role not in range(VIEWER, ADMIN + 1) else 0)])
    assert mine.in_project(project) == mine.everywhere == 0


def test_the_positive_control_compares_beginnings_and_is_caught() -> None:
    """A comparison by beginning, as the real case had it, gives what the tests above refuse."""

    def weak(own: str, asked: str) -> bool:
        return asked.startswith(own) or not asked.lstrip(own)

    assert weak("dag", "dag-a")
    assert weak("a", "aaaa")


def test_a_refused_id_is_not_echoed_at_length(secured: Secured) -> None:
    told = refused(secured.user("viewer").get, "ModelFamily", "x" * 10_000, "y" * 10_000)
    assert len(told.message) < 500
