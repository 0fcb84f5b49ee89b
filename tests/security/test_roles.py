"""What each role may do, who becomes whose administrator, and what a right given or taken changes at once."""

from __future__ import annotations

from typing import Any

import pytest

from api.auth.bindings import CREATOR
from api.kinds import kinds
from tests.security.conftest import ROLES
from tests.security.secured import Secured, eventually, outcome, refused

SYSTEM = "ma-system"


def family(project: str, name: str = "family") -> Any:
    return kinds()["ModelFamily"].new(project, name)


@pytest.mark.parametrize(
    ("role", "kind", "may"),
    [
        ("viewer", "ModelFamily", False),
        ("approver", "ModelFamily", False),
        ("editor", "ModelFamily", True),
        ("operator", "ModelFamily", True),
        ("editor", "InferenceServer", False),
        ("operator", "InferenceServer", True),
        ("operator", "RoleBinding", False),
        ("admin", "RoleBinding", True),
        ("admin", "InferenceServer", True),
    ],
)
def test_a_role_creates_what_is_its(secured: Secured, project: str, role: str, kind: str, may: bool) -> None:
    new = kinds()[kind].new(project, f"by-{role}")
    if kind == "RoleBinding":
        new.spec.role = 1
        new.spec.subjects.add(kind=1, name="alice")
    assert outcome(lambda: secured.user(role).create(new)) == ("OK" if may else "PERMISSION_DENIED")


def test_every_role_reads_and_a_refusal_names_the_role_it_takes(secured: Secured, project: str) -> None:
    secured.owner.create(family(project, "read"))
    for role in ROLES:
        assert secured.user(role).get("ModelFamily", project, "read").metadata.name == "read"
    told = refused(lambda: secured.user("viewer").create(family(project)))
    assert told.message == f"viewer may not Create ModelFamily in '{project}': that needs the role editor"


def test_the_creator_of_a_project_is_its_administrator(secured: Secured) -> None:
    alice, bob = secured.user("alice"), secured.user("bob")
    mine = alice.project()
    assert alice.get("Project", mine, mine).metadata.annotations[CREATOR] == "user:alice"
    alice.create(family(mine))
    assert outcome(lambda: bob.get("ModelFamily", mine, "family")) == "NOT_FOUND"
    alice.bind(mine, "VIEWER", "user:bob")
    assert bob.get("ModelFamily", mine, "family").metadata.name == "family"
    assert [item.metadata.name for item in bob.list("Project").items].count(mine) == 1


def test_nobody_names_another_creator_and_leaving_it_out_changes_nothing(secured: Secured) -> None:
    alice, bob = secured.user("alice"), secured.user("bob")
    forged = kinds()["Project"].new("forged", "forged")
    forged.metadata.annotations[CREATOR] = "user:bob"
    made = alice.create(forged)
    assert made.metadata.annotations[CREATOR] == "user:alice"
    made.metadata.ClearField("annotations")
    kept = alice.update(made)
    assert kept.metadata.annotations[CREATOR] == "user:alice"
    kept.metadata.annotations[CREATOR] = "user:bob"
    alice.update(kept)
    assert bob.get("Project", "forged", "forged").metadata.name == "forged"
    assert outcome(lambda: alice.get("Project", "forged", "forged")) == "NOT_FOUND"


def test_a_service_creates_no_project(secured: Secured) -> None:
    assert outcome(lambda: secured.user("robot").project()) == "PERMISSION_DENIED"


def test_a_binding_of_the_system_holds_for_all_projects(secured: Secured) -> None:
    other = secured.owner.project()
    stranger = secured.user("stranger")
    assert outcome(lambda: stranger.get("Project", other, other)) == "NOT_FOUND"
    secured.owner.bind(SYSTEM, "VIEWER", "user:stranger", name="everywhere")
    assert stranger.get("Project", other, other).metadata.name == other
    assert outcome(lambda: stranger.create(family(other))) == "PERMISSION_DENIED"
    secured.owner.call("RoleBinding", "Delete", namespace=SYSTEM, name="everywhere")
    assert outcome(lambda: stranger.get("Project", other, other)) == "NOT_FOUND"


def test_groups_and_services_are_subjects_of_their_own(secured: Secured) -> None:
    project = secured.owner.project()
    secured.owner.bind(project, "VIEWER", "user:ml", "user:robot")
    assert outcome(lambda: secured.user("member").get("Project", project, project)) == "NOT_FOUND"
    assert outcome(lambda: secured.user("robot").get("Project", project, project)) == "NOT_FOUND"
    secured.owner.bind(project, "VIEWER", "group:ml", "service:robot")
    assert outcome(lambda: secured.user("member").get("Project", project, project)) == "OK"
    assert outcome(lambda: secured.user("robot").get("Project", project, project)) == "OK"


def test_rights_add_up_and_go_one_by_one(secured: Secured) -> None:
    project = secured.owner.project()
    bob = secured.user("bob")
    secured.owner.bind(project, "VIEWER", "user:bob", name="reads")
    secured.owner.bind(project, "EDITOR", "user:bob", name="writes")
    bob.create(family(project))
    secured.owner.call("RoleBinding", "Delete", namespace=project, name="writes")
    assert outcome(lambda: bob.create(family(project, "second"))) == "PERMISSION_DENIED"
    assert bob.get("ModelFamily", project, "family").metadata.name == "family"
    secured.owner.call("RoleBinding", "Delete", namespace=project, name="reads")
    assert outcome(lambda: bob.get("ModelFamily", project, "family")) == "NOT_FOUND"


def test_a_change_of_a_binding_by_another_server_counts(secured: Secured) -> None:
    project = secured.owner.project()
    bob = secured.user("bob")
    bound = kinds()["RoleBinding"].new(project, "elsewhere")
    bound.spec.role = 1
    bound.spec.subjects.add(kind=1, name="bob")
    # Written below access: this server learns of it from the store alone.
    secured.run(secured.resources.create(bound))
    assert outcome(lambda: bob.get("Project", project, project)) == "OK"
    secured.run(secured.resources.delete("RoleBinding", project, "elsewhere"))
    eventually(lambda: outcome(lambda: bob.get("Project", project, project)) == "NOT_FOUND")


def test_a_binding_that_waits_for_its_finalizers_gives_nothing(secured: Secured) -> None:
    project = secured.owner.project()
    bound = kinds()["RoleBinding"].new(project, "held")
    bound.spec.role = 1
    bound.spec.subjects.add(kind=1, name="bob")
    bound.metadata.finalizers.append("a.example/held")
    secured.owner.create(bound)
    bob = secured.user("bob")
    assert outcome(lambda: bob.get("Project", project, project)) == "OK"
    secured.owner.call("RoleBinding", "Delete", namespace=project, name="held")
    assert secured.owner.get("RoleBinding", project, "held").metadata.HasField("deletionTimestamp")
    assert outcome(lambda: bob.get("Project", project, project)) == "NOT_FOUND"


def test_a_project_of_an_old_name_inherits_nobody(secured: Secured) -> None:
    name = secured.user("alice").project()
    secured.user("alice").bind(name, "ADMIN", "user:bob", name="left")
    secured.owner.call("Project", "Delete", namespace=name, name=name)
    new = kinds()["Project"].new(name, name)
    told = refused(lambda: secured.user("stranger").create(new))
    assert (told.code, told.reason) == ("FAILED_PRECONDITION", "PROJECT_NOT_EMPTY")
    secured.owner.call("RoleBinding", "Delete", namespace=name, name="left")
    secured.user("stranger").create(new)
    assert outcome(lambda: secured.user("bob").get("Project", name, name)) == "NOT_FOUND"
    assert outcome(lambda: secured.user("alice").get("Project", name, name)) == "NOT_FOUND"
