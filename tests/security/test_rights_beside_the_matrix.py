"""Rights that no matrix of methods and roles shows: in another's name, given on, used over there, taken by stopping."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from api.auth.entrance import IMPERSONATE_USER
from api.auth.rights import INCLUDED, OTHERS, WRITERS, mask, needed
from api.calls import SYSTEM, Call, Principal
from api.errors import PermissionDenied
from api.gen.michelangelo.api.v2 import trigger_run_pb2
from api.kinds import kinds
from tests.security.conftest import ROLES
from tests.security.objects import NAME, smallest
from tests.security.secured import OWNER, Secured, outcome, refused, token_of


@pytest.fixture(scope="module")
def project(secured: Secured) -> str:
    """A project in which every role has its user, with a pipeline to run."""
    made = secured.owner.project()
    for role in ROLES:
        secured.owner.bind(made, role.upper(), f"user:{role}")
    secured.owner.create(smallest("Pipeline", made))
    secured.owner.create(smallest("InferenceServer", made))
    return made


def test_the_table_knows_every_kind_and_an_administrator_holds_everything() -> None:
    assert set(WRITERS) == set(kinds())
    every = mask(max(INCLUDED))
    for role in INCLUDED:
        assert mask(role) & every == mask(role)
    for verb in ("Create", "NoSuchVerb", *OTHERS):
        assert every >> needed(verb, "NoSuchKind") & 1
    assert needed("Create", "NoSuchKind") == needed("NoSuchVerb", "Pipeline") == max(INCLUDED)


@pytest.mark.parametrize("role", ["viewer", "editor", "operator", "approver"])
@pytest.mark.parametrize("given", ["VIEWER", "ADMIN"])
def test_nobody_gives_what_is_not_his_to_give(secured: Secured, project: str, role: str, given: str) -> None:
    """Row 39."""
    told = refused(lambda: secured.user(role).bind(project, given, f"user:{role}"))
    assert (told.code, told.reason) == ("PERMISSION_DENIED", "ESCALATION")
    bound = secured.owner.list("RoleBinding", project).items[0]
    bound.spec.role = 5
    told = refused(lambda: secured.user(role).update(bound))
    assert (told.code, told.reason) == ("PERMISSION_DENIED", "ESCALATION")


def test_an_administrator_of_a_project_gives_nothing_beyond_it(secured: Secured, project: str) -> None:
    other = secured.owner.project()
    for place in (other, "ma-system", "no-such-project"):
        assert outcome(secured.user("admin").bind, place, "VIEWER", "user:admin") == "NOT_FOUND"


def test_a_binding_for_somebody_unknown_is_accepted_with_a_warning(secured: Secured, project: str) -> None:
    """Row 40: the identity provider is the truth, and it is not asked."""
    secured.user("bob").list("Project")
    new = smallest("RoleBinding", project, "warned")
    del new.spec.subjects[:]
    for name in ("bob", "never-seen"):
        new.spec.subjects.add(kind=1, name=name)
    sent: Any = secured.owner.channel.unary_unary("/michelangelo.platform.v1.RoleBindingService/CreateRoleBinding")
    method: Any = kinds()["RoleBinding"].method("Create").input_type
    body = method._concrete_class(role_binding=new).SerializeToString()
    _, call = sent.with_call(body, metadata=secured.owner.metadata, timeout=10)
    warnings = [value for key, value in call.trailing_metadata() if key == "warning"]
    assert warnings == ["299 - \"spec.subjects[1].name: 'never-seen' has not been here yet\""]


def test_over_http_a_binding_is_refused_and_warned_of_alike(secured: Secured, project: str) -> None:
    """Rows 39 and 40 over HTTP."""
    url = f"/apis/michelangelo.platform/v1/namespaces/{project}/rolebindings"
    spec = {"role": "ROLE_ADMIN", "subjects": [{"kind": "SUBJECT_KIND_USER", "name": "never-here"}]}
    sent = {
        "apiVersion": "michelangelo.platform/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "by-http", "namespace": project},
        "spec": spec,
    }
    told = secured.http.post(url, json=sent, headers={"authorization": f"Bearer {token_of('editor')}"})
    assert (told.status_code, told.json()["reason"]) == (403, "ESCALATION")
    told = secured.http.post(url, json=sent, headers={"authorization": f"Bearer {token_of('stranger')}"})
    assert (told.status_code, told.json()["reason"]) == (404, "UNKNOWN_PROJECT")
    told = secured.http.post(url, json=sent, headers={"authorization": f"Bearer {OWNER}"})
    assert told.status_code in (200, 201), told.text
    assert "'never-here' has not been here yet" in told.headers["warning"]


@pytest.mark.parametrize(
    ("role", "subject", "path"),
    [
        (0, (1, "bob"), "spec.role"),
        (9, (1, "bob"), "spec.role"),
        (1, (0, "bob"), "spec.subjects[0].kind"),
        (1, (4, "bob"), "spec.subjects[0].kind"),
        (1, (1, ""), "spec.subjects[0].name"),
        (1, (1, "x" * 257), "spec.subjects[0].name"),
        (1, (2, "system:admins"), "spec.subjects[0].name"),
        (1, (1, "system:platform\n"), "spec.subjects[0].name"),
    ],
)
def test_a_binding_that_means_nothing_is_refused(
    secured: Secured, project: str, role: Any, subject: tuple[Any, str], path: str
) -> None:
    new = smallest("RoleBinding", project, "wrong")
    new.spec.role = role
    new.spec.subjects[0].kind, new.spec.subjects[0].name = subject
    told = refused(lambda: secured.owner.create(new))
    assert (told.code, told.paths) == ("INVALID_ARGUMENT", [path])


def test_the_name_of_the_admins_gives_nothing_to_whoever_is_called_so(secured: Secured) -> None:
    """A subject is compared whole: neither a user of a group's name nor one of a service's gets its rights."""
    other = secured.owner.project()
    secured.owner.bind(other, "VIEWER", "user:group:ml", "group:user:bob", "user:service:robot")
    for name in ("member", "robot", "bob"):
        assert outcome(secured.user(name).get, "Project", other, other) == "NOT_FOUND"


def test_in_another_name_only_with_the_right_to_it(secured: Secured, project: str) -> None:
    """Row 42."""
    as_viewer = ((IMPERSONATE_USER, "viewer"),)
    for role in ROLES:
        before = len(secured.audit())
        told = refused(secured.user(role).call, "Project", "List", more=as_viewer)
        assert told.code == "PERMISSION_DENIED"
        (record,) = secured.audit()[before:]
        assert (record.subject, record.outcome, record.verb) == (role, "PERMISSION_DENIED", "List")
    page = secured.owner.call("Project", "List", more=as_viewer).project_list
    assert [item.metadata.name for item in page.items] == [project]
    told = refused(
        lambda: secured.owner.call(
            "ModelFamily", "Create", model_family=smallest("ModelFamily", project), more=as_viewer
        )
    )
    assert told.code == "PERMISSION_DENIED"
    record = secured.audit()[-1]
    assert (record.subject, record.via, record.outcome) == ("viewer", "root", "PERMISSION_DENIED")


@pytest.mark.parametrize("name", ["", "system:platform", "service:robot", "a\tb", "x" * 300])
def test_nobody_speaks_in_a_name_that_nobody_has(secured: Secured, name: str) -> None:
    if not name.isprintable():
        return
    told = refused(lambda: secured.owner.call("Project", "List", more=((IMPERSONATE_USER, name),)))
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "BAD_IMPERSONATION")


def test_two_names_are_none(secured: Secured) -> None:
    more = ((IMPERSONATE_USER, "viewer"), (IMPERSONATE_USER, "admin"))
    assert refused(lambda: secured.owner.call("Project", "List", more=more)).reason == "BAD_IMPERSONATION"


def test_stopping_takes_an_operator(secured: Secured, project: str) -> None:
    editor, operator = secured.user("editor"), secured.user("operator")
    run = editor.create(smallest("PipelineRun", project, "run"))
    trigger = editor.create(smallest("TriggerRun", project, "trigger"))
    trigger.spec.action = trigger_run_pb2.TRIGGER_RUN_ACTION_PAUSE
    trigger = editor.update(trigger)
    trigger.spec.action = trigger_run_pb2.TRIGGER_RUN_ACTION_KILL
    run.spec.kill = True
    for stopped in (run, trigger):
        kind, name = stopped.DESCRIPTOR.name, stopped.metadata.name
        assert refused(editor.update, stopped).message.endswith("needs the role operator")
        delete = {"namespace": project, "name": name}
        assert outcome(editor.call, kind, "Delete", **delete) == "PERMISSION_DENIED"
        assert (
            outcome(lambda kind=kind: editor.call(kind, "DeleteCollection", namespace=project)) == "PERMISSION_DENIED"
        )
        operator.update(stopped)
        operator.call(kind, "Delete", **delete)


def test_what_has_ended_an_editor_may_delete(secured: Secured, project: str) -> None:
    run = secured.user("editor").create(smallest("PipelineRun", project, "ended"))
    run.status.end_time.GetCurrentTime()
    secured.run(secured.resources.update_status(run))
    secured.user("editor").call("PipelineRun", "Delete", namespace=project, name="ended")


@pytest.mark.parametrize(
    ("kind", "field", "target"),
    [("PipelineRun", "pipeline", "Pipeline"), ("TriggerRun", "pipeline", "Pipeline")],
)
def test_to_run_anothers_pipeline_takes_the_right_to_run_it(
    secured: Secured, project: str, kind: str, field: str, target: str
) -> None:
    """Who may read a pipeline of another project does not run it there from his own."""
    mine = secured.user("alice").project()
    new = smallest(kind, mine, "abroad")
    getattr(new.spec, field).namespace = project
    told = refused(lambda: secured.user("alice").create(new))
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "UNKNOWN_REFERENCE")
    secured.owner.bind(project, "VIEWER", "user:alice", name=f"reads-{kind.lower()}")
    told = refused(lambda: secured.user("alice").create(new))
    assert (told.code, told.paths) == ("PERMISSION_DENIED", [f"spec.{field}"])
    assert told.message.endswith("needs the role editor there")
    secured.owner.bind(project, "EDITOR", "user:alice", name=f"runs-{kind.lower()}")
    made = secured.user("alice").create(new)
    secured.owner.call("RoleBinding", "Delete", namespace=project, name=f"runs-{kind.lower()}")
    secured.owner.call("RoleBinding", "Delete", namespace=project, name=f"reads-{kind.lower()}")
    made.metadata.labels["still"] = "mine"
    # What was allowed once stays: this write refers to nothing new.
    secured.user("alice").update(made)


def test_to_deploy_on_anothers_server_takes_the_right_to_it(secured: Secured, project: str) -> None:
    mine = secured.user("bob").project()
    new = smallest("Deployment", mine)
    new.spec.inference_server.namespace = project
    secured.owner.bind(project, "EDITOR", "user:bob", name="edits")
    told = refused(lambda: secured.user("bob").create(new))
    assert (told.code, told.paths) == ("PERMISSION_DENIED", ["spec.inference_server"])
    secured.owner.bind(project, "OPERATOR", "user:bob", name="operates")
    assert secured.user("bob").create(new).metadata.name == NAME


def test_an_approval_takes_a_person_with_the_role(secured: Secured, project: str) -> None:
    """Row 41, as far as there is something to approve: not a program, and not in another's name."""
    secured.owner.bind(project, "APPROVER", "service:robot", name="approves")
    principals = [Principal(role) for role in ROLES]
    principals += [Principal("service:robot", kind="service"), Principal("approver", via="root"), SYSTEM]
    allowed = []
    for principal in principals:
        asked = secured.access.require(Call(principal=principal), "Approve", "Model", project, "model")
        with contextlib.suppress(PermissionDenied):
            secured.run(asked)
            allowed.append((principal.subject, principal.via))
    assert allowed == [("approver", ""), ("admin", "")]
