"""Parameters of the templates: JSON Schema, title and description, as Airflow's form and the API show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param
from airflow.sdk.exceptions import ParamValidationError

HIDDEN = "ma"


def data() -> dict[str, Param]:
    """Parameters of the data stages."""
    section = "Data"
    return {
        "module": _text(
            "", "Module", "Python file in the project's root_dir: feature_sources() and examples().", section
        ),
        "feature_service": _text("", "Feature service", "The Feast FeatureService whose features are joined.", section),
        "features_until": Param(
            None,
            type=["string", "null"],
            format="date-time",
            title="Features until",
            description="The online store is filled as of this instant; empty: now.  For replaying history.",
            section=section,
        ),
        "label": _text("label", "Label", "Column of the examples that is predicted, 0 or 1.", section),
        "train_until": _date("Train until", "Last day of the training part (UTC).", section),
        "validate_until": _date(
            "Validate until", "Last day of the validation part; what is later is the test.", section
        ),
        "sample_fraction": Param(
            1.0,
            type="number",
            exclusiveMinimum=0,
            maximum=1,
            title="Sample",
            description="Part of the examples to use: 1 is all of them.",
            section=section,
        ),
    }


def model() -> dict[str, Param]:
    """Parameters of the model stages."""
    section = "Model"
    return {
        "algorithm": Param("lightgbm", type="string", enum=["lightgbm"], title="Algorithm", section=section),
        "hyperparameters": Param(
            {},
            type="object",
            title="Hyperparameters",
            description="Names and values of the algorithm's own, over its defaults here.",
            section=section,
        ),
        "seed": Param(7, type="integer", minimum=0, maximum=2**31 - 1, title="Seed", section=section),
        "baseline_columns": Param(
            [],
            type="array",
            items={"type": "string"},
            title="Baseline columns",
            description="The baseline is the historical rate of the label by these columns.",
            section=section,
        ),
        "minimum_auc": Param(
            None,
            type=["number", "null"],
            minimum=0,
            maximum=1,
            title="Least AUC",
            description="A model below it is not registered.",
            section=section,
        ),
        "model_name": _text("model", "Model name", "Name in the registry and of the ModelFamily.", section),
    }


def engine() -> dict[str, Param]:
    """Where jobs run."""
    return {"engine": Param("local", type="string", enum=["local", "ray"], title="Engine", section="Compute")}


def deployment() -> dict[str, Param]:
    """What is deployed."""
    text = "The Deployment to which the new model is rolled out; empty: none."
    return {"deployment": _text("", "Deployment", text, "Deployment")}


def hidden(described: Mapping[str, Any] | None = None) -> dict[str, Param]:
    """What the platform tells a run about itself."""
    text = "Set by the platform."
    return {HIDDEN: Param(dict(described or {}), type="object", title="Platform", description=text, section="Platform")}


def over(params: Mapping[str, Param], values: Mapping[str, Any]) -> dict[str, Param]:
    """Return `params` with other defaults: a pipeline's own values.  Raises ValueError for one that cannot be."""
    unknown = [name for name in values if name not in params]
    if unknown:
        raise ValueError(f"there is no parameter {unknown[0]!r}: use {', '.join(params)}")
    found = dict(params)
    for name, value in values.items():
        found[name] = Param(value, **_described(params[name]))
        try:
            found[name].resolve()
        except ParamValidationError as error:
            raise ValueError(f"parameter {name!r}: {str(error).splitlines()[0]}") from error
    return found


def _described(param: Param) -> dict[str, Any]:
    return {"description": param.description, **param.schema}


def _text(default: str, title: str, description: str, section: str) -> Param:
    return Param(default, type="string", title=title, description=description, section=section)


def _date(title: str, description: str, section: str) -> Param:
    return Param(None, type=["string", "null"], format="date", title=title, description=description, section=section)
