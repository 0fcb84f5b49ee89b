"""What users change, one edit after another, as a seed decides."""

from __future__ import annotations

import random
from typing import Any

from api.gen.michelangelo.api.v2 import pipeline_pb2, trigger_run_pb2
from api.kinds import kinds
from api.workflows import STEPS_TYPE, TEMPLATE_TYPE, typed
from tests.plans.world import PROJECT

PIPELINES = ("late", "early", "other")
TRIGGERS = ("nightly", "hourly", "again", "back")
DEPLOYMENTS = ("one", "two")
OTHERS = ("Pipeline", "Deployment")
CRONS = ("0 3 * * *", "30 4 * * 1", "15 0 1 * *")


class Users:
    """Makes edits.  It remembers what it applied, to apply it again or to change it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._now: dict[tuple[str, str], Any] = {}
        self._was: list[Any] = []
        self._theirs: dict[tuple[str, str], Any] = {}

    def first(self) -> list[Any]:
        """Return what everything begins with."""
        return [self._project(), self._pipeline("late")]

    def edit(self) -> list[Any]:
        """Return one to three resources to apply, in the order in which they depend on each other."""
        made: list[Any] = []
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            make = self.rng.choice(
                (
                    self._a_pipeline,
                    self._a_pipeline,
                    self._a_pipeline,
                    self._a_trigger,
                    self._a_trigger,
                    self._project,
                    self._a_deployment,
                    self._a_model,
                    self._back,
                    self._the_same,
                )
            )
            new = make()
            if new is not None:
                made = [one for one in made if self._key(one) != self._key(new)] + [new]
        if any(one.DESCRIPTOR.name == "Pipeline" for one in made):
            # Whether a trigger fits a pipeline is known when that is built: before the apply comes to it, or after.
            made = [one for one in made if one.DESCRIPTOR.name != "TriggerRun"]
        order = ("Project", "Model", "Pipeline", "Deployment", "TriggerRun")
        made.sort(key=lambda one: order.index(one.DESCRIPTOR.name))
        return made

    def others(self) -> list[Any]:
        """Return what another manager declares of one resource that is there: a few fields, or fewer than before."""
        there = [one for kind in OTHERS for one in self._has(kind)]
        if not there:
            return []
        of = self.rng.choice(there)
        known = self._theirs.get(self._key(of))
        new = kinds()[of.DESCRIPTOR.name].new(PROJECT, of.metadata.name) if known is None else self._copy(known)
        self._few(new)
        self._theirs[self._key(of)] = new
        return [new]

    def by_hand(self) -> tuple[str, str] | None:
        """Return the kind and the name of a resource to write to, None if there is none."""
        there = [self._key(one) for kind in OTHERS for one in self._has(kind)]
        return self.rng.choice(there) if there else None

    def write(self, resource: Any) -> None:
        """Change, in place, what somebody has read and writes back."""
        self._few(resource)

    def _few(self, new: Any) -> None:
        """Set some fields that others set too, and leave some out."""
        if self.rng.random() < 0.5:
            new.spec.owner.name = self.rng.choice(("", "ann", "bob"))
        if self.rng.random() < 0.5:
            self._label(new)
        if new.DESCRIPTOR.name == "Pipeline":
            new.spec.description = self.rng.choice(("", "of flights", "of delays"))
        elif models := self._has("Model"):
            new.spec.desired_revision.name = self.rng.choice(models).metadata.name

    def _label(self, new: Any) -> None:
        key = self.rng.choice(("team", "tier"))
        if key in new.metadata.labels and self.rng.random() < 0.4:
            del new.metadata.labels[key]
        else:
            new.metadata.labels[key] = self.rng.choice("ab")

    def applied(self, resource: Any) -> None:
        """Note what was applied."""
        self._now[self._key(resource)] = resource
        if resource.DESCRIPTOR.name == "Pipeline":
            self._was.append(resource)

    @staticmethod
    def _key(resource: Any) -> tuple[str, str]:
        return resource.DESCRIPTOR.name, resource.metadata.name

    def _has(self, kind: str) -> list[Any]:
        return [one for (of, _), one in self._now.items() if of == kind]

    def _copy(self, resource: Any) -> Any:
        return type(resource).FromString(resource.SerializeToString())

    def _project(self) -> Any:
        new = kinds()["Project"].new(PROJECT, PROJECT)
        new.spec.description = self.rng.choice(("a", "b"))
        new.spec.root_dir = self.rng.choice(("", "code", "code/flights"))
        return new

    def _a_pipeline(self) -> Any:
        return self._pipeline(self.rng.choice(PIPELINES))

    def _pipeline(self, name: str) -> Any:
        known = self._now.get(("Pipeline", name))
        new = kinds()["Pipeline"].new(PROJECT, name) if known is None else self._copy(known)
        spec = new.spec
        if known is None:
            spec.manifest.type = pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_YAML
            spec.manifest.file_path = "train"
            spec.manifest.content.Pack(typed(TEMPLATE_TYPE, {"rows": 5}), deterministic=True)
        for _ in range(self.rng.randint(1, 3)):
            self.rng.choice((self._params, self._params, self._steps, self._words, self._commit, self._map, self._map))(
                new
            )
        return new

    def _params(self, new: Any) -> None:
        manifest = new.spec.manifest
        # Some cannot be built: a value out of range, a template that nobody has.
        manifest.file_path = self.rng.choice(("train",) * 8 + ("score", "trian"))
        values: dict[str, Any] = {"rows": self.rng.choice((1, 2, 3, 5, 8, 0))}
        if self.rng.random() < 0.4:
            values["deployment"] = self.rng.choice(DEPLOYMENTS)
        manifest.content.Pack(typed(TEMPLATE_TYPE, values), deterministic=True)

    def _steps(self, new: Any) -> None:
        names = self.rng.sample("abcd", self.rng.randint(1, 3))
        steps = [{"name": name, "operator": "train", "with": {"seed": self.rng.randint(1, 3)}} for name in names]
        new.spec.manifest.file_path = ""
        new.spec.manifest.content.Pack(typed(STEPS_TYPE, {"steps": steps}), deterministic=True)

    def _words(self, new: Any) -> None:
        new.spec.description = self.rng.choice(("", "of flights", "of delays"))
        new.spec.owner.name = self.rng.choice(("", "ann", "bob"))
        self._label(new)

    def _commit(self, new: Any) -> None:
        new.spec.commit.git_ref = self.rng.choice(("aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"))
        new.spec.commit.branch = self.rng.choice(("main", "next"))

    def _map(self, new: Any) -> None:
        entries = new.spec.manifest.trigger_map
        if "daily" in entries and self.rng.random() < 0.2:
            del entries["daily"]
        else:
            entries["daily"].cron_schedule.cron = self.rng.choice(CRONS)

    def _a_trigger(self) -> Any:
        name = self.rng.choice(TRIGGERS)
        known = self._now.get(("TriggerRun", name))
        if known is not None:
            new = self._copy(known)
            action = self.rng.choice(("PAUSE", "RESUME", "NO_ACTION", "PAUSE", "KILL"))
            new.spec.action = trigger_run_pb2.TriggerRunAction.Value(f"TRIGGER_RUN_ACTION_{action}")
            if new.spec.trigger.HasField("cron_schedule") and self.rng.random() < 0.5:
                new.spec.trigger.cron_schedule.cron = self.rng.choice(CRONS)
            return new
        pipelines = self._has("Pipeline")
        new = kinds()["TriggerRun"].new(PROJECT, name)
        of = self.rng.choice(pipelines)
        new.spec.pipeline.name = of.metadata.name
        new.spec.auto_flip = self.rng.random() < 0.5
        if name == "nightly" and "daily" in of.spec.manifest.trigger_map:
            new.spec.source_trigger_name = "daily"
        elif name == "hourly":
            new.spec.trigger.interval_schedule.interval.FromSeconds(self.rng.choice((3600, 7200)))
        else:
            new.spec.trigger.cron_schedule.cron = self.rng.choice(CRONS)
        if name == "back":
            new.spec.start_timestamp.FromJsonString("2026-01-01T00:00:00Z")
            new.spec.end_timestamp.FromJsonString("2026-03-01T00:00:00Z")
        return new

    def _a_deployment(self) -> Any | None:
        models = self._has("Model")
        if not models:
            return None
        new = kinds()["Deployment"].new(PROJECT, self.rng.choice(DEPLOYMENTS))
        if self.rng.random() < 0.5:
            # Else what it serves is the business of runs, as in an example's document.
            new.spec.desired_revision.name = self.rng.choice(models).metadata.name
        new.spec.strategy.rolling.increment_percentage = 100
        new.spec.definition.type = 1
        return new

    def _a_model(self) -> Any:
        new = kinds()["Model"].new(PROJECT, f"m-{len(self._has('Model')) + 1}")
        new.spec.deployable_artifact_uri.append(f"file:///{new.metadata.name}")
        return new

    def _back(self) -> Any | None:
        """Apply a pipeline as it was once."""
        return self._copy(self.rng.choice(self._was)) if self._was else None

    def _the_same(self) -> Any | None:
        """Apply what is there once more."""
        known = [one for (kind, _), one in self._now.items() if kind != "TriggerRun"]
        return self._copy(self.rng.choice(known)) if known else None
