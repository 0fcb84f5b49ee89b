"""Checks that need to know what a kind means: manifests, parameters, schedules.  Reads resources; writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api import uniflow
from api.errors import FailedPrecondition, FieldViolation
from api.gen.michelangelo.api import typed_struct_pb2
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.kinds import Resource
from api.notifications.receivers import admit_notifications
from api.plain_admitters import admit_plain_pipeline, admit_plain_run, admit_plain_trigger, named_faults
from api.resources import Admitter, Resources
from api.revision_admitters import admit_revision, pinned, take_draft
from api.run_wishes import admit_attempts, admit_ttl, admit_wishes
from api.schedules import MOST_ENTRIES, trigger_faults
from api.store.base import Key
from api.subscriptions.admitters import admit_event, admit_subscription
from api.trigger_checks import refuse_ended, refuse_paused, trigger_run_faults
from api.trigger_dags import schedule_of
from api.validation import nearest, shown
from api.workflows import is_built, missing_params, param_faults, parse, plain

ADOPTED = "michelangelo.airflow/adopted-run"
OWN_PREFIX = "ma__"
# Airflow's DAG ids have at most 250 characters, and a trigger's manifest is a file whose name has at most 255.
LONGEST_PIPELINE = 150
LONGEST_TRIGGER_DAG = 230
MOST_KEYS = 100
INPUTS = ("kw_args", "environ", "args", "workflow_config", "task_configs")
Found = Sequence[FieldViolation]


async def admit_pipeline(_: Resources, old: Resource | None, new: Resource) -> Found:
    """A manifest that can be built, triggers that fire, a name that can stand in a DAG id."""
    found = _manifest_faults(new.spec, new.metadata.namespace, "spec.manifest")
    if old is None and "." in new.metadata.name:
        found.append(FieldViolation("metadata.name", "of a Pipeline has no '.': it stands between the dots of DAG ids"))
    if old is None and len(new.metadata.name) > LONGEST_PIPELINE:
        told = f"of a Pipeline has at most {LONGEST_PIPELINE} characters: it is a part of DAG ids"
        found.append(FieldViolation("metadata.name", told, shown(new.metadata.name)))
    for name, trigger in new.spec.manifest.trigger_map.items():
        found += trigger_faults(trigger, f"spec.manifest.trigger_map[{shown(name)}]")
    return found


def _manifest_faults(spec: Any, namespace: str, path: str) -> list[FieldViolation]:
    workflow, found = parse(spec, path)
    if workflow.authored.namespace not in ("", namespace):
        told = f"is code of project {shown(workflow.authored.namespace)!r}: apply it from a folder of your own"
        found.append(FieldViolation(f"{path}.uniflow_tar", told, shown(spec.manifest.uniflow_tar)))
    return found


async def admit_draft(_: Resources, old: Resource | None, new: Resource) -> Found:
    """A manifest that could be built."""
    path = "spec.content.manifest"
    return [
        *_manifest_faults(new.spec.content, new.metadata.namespace, path),
        *named_faults(new.spec.content.manifest, path),
    ]


async def admit_run(resources: Resources, old: Resource | None, new: Resource) -> Found:
    """A pipeline that can run, parameters that fit, a run that is not over."""
    if ADOPTED in new.metadata.annotations:
        return _adopted_faults(old, new)
    found = [*_unsupported(new), *await take_draft(resources, old, new)]
    if old is not None:
        if new.spec.kill and not old.spec.kill and old.status.HasField("end_time"):
            raise FailedPrecondition(f"PipelineRun {new.metadata.name!r} has ended", reason="ALREADY_FINISHED")
        fixed = ("pipeline", "input", "revision", "draft", "pipeline_spec", "local_diff")
        changed = [field for field in fixed if _differs(old.spec, new.spec, field)]
        return [*found, *(FieldViolation(f"spec.{field}", "of a run never changes") for field in changed)]
    found += _shape_faults(new.spec.input)
    if new.spec.HasField("pipeline_spec"):
        return [*found, *_inline_faults(new)]
    if new.spec.draft.name:
        return found
    if not new.spec.pipeline.name:
        return [*found, FieldViolation("spec.pipeline.name", "is required")]
    pipeline = await resources.find(
        Key("Pipeline", new.spec.pipeline.namespace or new.metadata.namespace, new.spec.pipeline.name)
    )
    if pipeline is None:
        return found
    if new.spec.revision.name:
        faults, was = await pinned(resources, pipeline, new)
        return [*found, *faults, *(_input_faults(pipeline, new.spec.input, was.params) if was else ())]
    _refuse_unusable(pipeline)
    if not is_built(pipeline):
        return found
    return [*found, *_input_faults(pipeline, new.spec.input)]


def _inline_faults(new: Any) -> list[FieldViolation]:
    """Return what is wrong with a run that brings its pipeline along: nothing is registered for it."""
    spec, path = new.spec, "spec.pipeline_spec.manifest"
    found = _manifest_faults(spec.pipeline_spec, new.metadata.namespace, path)
    found += named_faults(spec.pipeline_spec.manifest, path)
    graph = {} if found else parse(spec.pipeline_spec, path)[0].authored.graph
    for name in ("pipeline", "revision"):
        if getattr(spec, name).name:
            found.append(FieldViolation(f"spec.{name}", "is not given beside spec.pipeline_spec: leave one out"))
    if graph:
        known = uniflow.schemas(graph)
        values = plain(spec.input.fields["kw_args"].struct_value) if "kw_args" in spec.input.fields else {}
        found += param_faults(known, values, "spec.input.kw_args")
        found += missing_params(known, _with_defaults(known, values), "spec.input.kw_args")
    return found


def _refuse_unusable(pipeline: Any) -> None:
    """Raise FailedPrecondition for a pipeline that will never run again, or cannot as it is."""
    name = pipeline.metadata.name
    if pipeline.metadata.HasField("deletionTimestamp"):
        raise FailedPrecondition(f"Pipeline {name!r} is being deleted", reason="PIPELINE_DELETED")
    if pipeline.status.state == pipeline_pb2.PIPELINE_STATE_ERROR and is_built(pipeline):
        raise FailedPrecondition(
            f"Pipeline {name!r} cannot run: {pipeline.status.error_message}", reason="PIPELINE_ERROR"
        )
    refuse_paused(pipeline)


def _shape_faults(given: Any) -> list[FieldViolation]:
    """Return what is wrong with an input whatever the pipeline: its keys, and parameters that are no object."""
    found = [
        FieldViolation(
            f"spec.input.{shown(key)}", f"is unknown: use {', '.join(INPUTS)}{nearest(key, INPUTS)}", shown(key)
        )
        for key in list(given.fields)[:MOST_KEYS]
        if key not in INPUTS
    ]
    if "kw_args" in given.fields and given.fields["kw_args"].WhichOneof("kind") != "struct_value":
        found.append(FieldViolation("spec.input.kw_args", "must be an object: parameters by name"))
    return found


def _adopted_faults(old: Any | None, new: Any) -> list[FieldViolation]:
    """A run that was started in Airflow keeps its id, and is never one that another PipelineRun began."""
    path, run_id = f"metadata.annotations[{ADOPTED}]", new.metadata.annotations[ADOPTED]
    if run_id.startswith(OWN_PREFIX):
        return [FieldViolation(path, "names a run that belongs to another PipelineRun", shown(run_id))]
    if old is not None and old.metadata.annotations.get(ADOPTED) != run_id:
        return [FieldViolation(path, "never changes", shown(run_id))]
    return []


def _unsupported(run: Any) -> list[FieldViolation]:
    alone = run.spec.local_diff and not run.spec.HasField("pipeline_spec")
    told = "says how spec.pipeline_spec differs from its commit: give that too"
    return [FieldViolation("spec.local_diff", told)] if alone else []


def _differs(old: Any, new: Any, field: str) -> bool:
    return bool(getattr(old, field) != getattr(new, field))


def _input_faults(pipeline: Any, given: Any, own: Mapping[str, Any] | None = None) -> list[FieldViolation]:
    values = plain(given.fields["kw_args"].struct_value) if "kw_args" in given.fields else {}
    return _value_faults(pipeline, values, "spec.input.kw_args", own)


def _value_faults(
    pipeline: Any, values: Mapping[str, Any], path: str, own: Mapping[str, Any] | None = None
) -> list[FieldViolation]:
    """Check parameters against what the pipeline registered.  Until it has, Airflow checks them at the POST.

    own: the values that the pipeline itself gives, if not those that it has registered.
    """
    registered = typed_struct_pb2.TypedStruct()
    if not pipeline.status.registered_workflow.Unpack(registered):
        return []
    workflow: Mapping[str, Any] = plain(registered.value)
    schemas, configured = workflow.get("params_schema") or {}, (workflow.get("params") or {}) if own is None else own
    found = param_faults(schemas, values, path)
    return found + missing_params(schemas, _with_defaults(schemas, {**configured, **values}), path)


def _entry_faults(pipeline: Any, entries: Mapping[str, Any], path: str) -> list[FieldViolation]:
    """Check what each entry of a trigger would start; without entries a run starts with the pipeline's own values."""
    if not is_built(pipeline):
        return []
    if not entries:
        return _value_faults(pipeline, {}, path)
    return [
        fault
        for entry, given in list(entries.items())[:MOST_ENTRIES]
        for fault in _value_faults(
            pipeline, {**given.parameter_map, **plain(given.kw_args)}, f"{path}[{shown(entry)}].kw_args"
        )
    ]


def _with_defaults(schemas: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**{name: schema["default"] for name, schema in schemas.items() if "default" in schema}, **values}


async def admit_trigger(resources: Resources, old: Resource | None, new: Resource) -> Found:
    """A schedule that fires, given here or in the pipeline's trigger map, of a pipeline that can run."""
    spec = new.spec
    refuse_ended(old, new)
    found: list[FieldViolation] = []
    if not spec.pipeline.name:
        found.append(FieldViolation("spec.pipeline.name", "is required"))
    project, pipeline_name = spec.pipeline.namespace or new.metadata.namespace, spec.pipeline.name
    pipeline = await resources.find(Key("Pipeline", project, pipeline_name))
    if old is None and pipeline is not None:
        _refuse_unusable(pipeline)
        if len(f"{project}.{pipeline_name}.{new.metadata.name}") > LONGEST_TRIGGER_DAG:
            told = f"and its project's and pipeline's names have at most {LONGEST_TRIGGER_DAG - 2} characters together"
            found.append(FieldViolation("metadata.name", told, shown(new.metadata.name)))
    schedule = schedule_of(new, pipeline)
    found += await trigger_run_faults(resources, old, new, schedule)
    if spec.trigger.WhichOneof("trigger_type") is None:
        return [*found, *_source_faults(old, spec, pipeline)]
    # What the pipeline asks for may change later: a pause or a kill is never refused for it.
    repeats = spec.trigger.WhichOneof("trigger_type") == "batch_rerun"
    if pipeline is not None and not repeats and (old is None or old.spec.trigger != spec.trigger):
        found += _entry_faults(pipeline, spec.trigger.parameters_map, "spec.trigger.parameters_map")
    return found


def _source_faults(old: Any | None, spec: Any, pipeline: Any | None) -> Found:
    """Return the faults of a trigger that names an entry of its pipeline's map."""
    name = spec.source_trigger_name
    if not name:
        return [FieldViolation("spec.trigger", "give a trigger, or name one of the pipeline in source_trigger_name")]
    if pipeline is None:
        return []
    known = pipeline.spec.manifest.trigger_map
    if name not in known:
        told = f"is no trigger of the pipeline (it has: {', '.join(sorted(known)) or 'none'})"
        return [FieldViolation("spec.source_trigger_name", told, shown(name))]
    return (
        [] if old else _entry_faults(pipeline, known[name].parameters_map, f"trigger_map[{shown(name)}].parameters_map")
    )


ADMITTERS: Mapping[str, Sequence[Admitter]] = {
    "Draft": (admit_draft,),
    "Project": (admit_ttl, admit_attempts),
    "Revision": (admit_revision,),
    "Event": (admit_event,),
    "Pipeline": (admit_plain_pipeline, admit_pipeline, admit_ttl, admit_attempts, admit_notifications),
    "PipelineRun": (admit_plain_run, admit_run, admit_wishes, admit_attempts, admit_notifications),
    "Subscription": (admit_subscription,),
    "TriggerRun": (admit_trigger, admit_plain_trigger, admit_notifications),
}
