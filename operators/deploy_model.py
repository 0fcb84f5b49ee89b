"""Deploy stage: makes a model the desired revision of a deployment and waits for its rollout.  Loads no model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from api.errors import Conflict, InvalidArgument, NotFound
from operators.hooks.michelangelo import client
from operators.job import run_of, taken_over
from operators.triggers import RolloutTrigger

REVISION_WAIT_S = 10.0
LOOK_S = 0.1


class DeployModelOperator(BaseOperator):
    """Rolls a model out.

    deployment: name of a Deployment in the run's project; empty: nothing is deployed.
    model: name of a Model in the same project.
    Returns deployment, revision.
    """

    template_fields: Sequence[str] = ("deployment", "model")

    def __init__(self, *, deployment: str, model: str, **kwargs: Any) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.deployment = deployment
        self.model = model

    def execute(self, context: Any) -> dict[str, str]:
        """Set the desired revision and wait outside of a worker."""
        if (taken := taken_over(context)) is not None:
            return taken
        context["ti"].xcom_push(key="inputs", value={"deployment": self.deployment, "model": self.model})
        outputs = {"deployment": self.deployment, "revision": self.model}
        if self.deployment:
            namespace = run_of(context)["project"]
            self._desire(context, namespace)
            self.defer(
                trigger=RolloutTrigger(namespace=namespace, deployment=self.deployment, revision=self.model),
                method_name="resume",
                kwargs={"outputs": outputs},
            )
        return outputs

    def _desire(self, context: Any, namespace: str) -> None:
        deadline = time.monotonic() + REVISION_WAIT_S
        with client() as api:
            while True:
                try:
                    found = api.get("Deployment", namespace, self.deployment)
                    found.spec.desired_revision.namespace = namespace
                    found.spec.desired_revision.name = self.model
                    api.update(found)
                    return
                except NotFound as error:
                    self._give_up(context, f"{error.message}: apply the Deployment before the pipeline runs")
                except InvalidArgument as error:
                    # A model's revision is made by its controller, a moment after the model.
                    if time.monotonic() > deadline:
                        self._give_up(context, error.message)
                except Conflict:
                    if time.monotonic() > deadline:
                        raise
                time.sleep(LOOK_S)

    def resume(self, context: Any, event: Mapping[str, Any], outputs: dict[str, str]) -> dict[str, str]:
        """Go on when the rollout has ended."""
        if not event["complete"]:
            self._give_up(context, f"deployment {self.deployment} refused {self.model}: {event['message']}")
        return outputs

    def _give_up(self, context: Any, message: str) -> NoReturn:
        context["ti"].xcom_push(key="verdict", value={"kind": "user", "message": message})
        raise AirflowFailException(message)
