"""Program of PrepareDataset: joins features to the examples as they were known, and splits the examples by time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from api.config import load
from operators.data import dataset
from operators.data.examples import EVENT_TIMESTAMP, Examples, dtype_of, examples_of
from operators.data.layout import folder_of, written
from operators.errors import DataError, UserError
from operators.features.graph import Input
from operators.jobs.materialize_features import definitions

SAMPLE_SEED = 20130101


def run(args: Mapping[str, Any]) -> dict[str, str]:
    """Args: run, module, feature_service, label, train_until, validate_until, sample_fraction."""
    examples = examples_of(args["module"])
    if args["label"] != examples.label:
        raise UserError(f"label {args['label']!r}: the examples of {args['module']} have the label {examples.label!r}")
    chosen = sampled(examples.frame, float(args["sample_fraction"]))
    parts_of = split(chosen, args.get("train_until"), args.get("validate_until"))
    joined, views, project = join(args, chosen)
    parts = {name: joined[rows.to_numpy()] for name, rows in parts_of.items()}
    _refuse_useless(parts, examples.label)
    description = _describe(args, examples, joined, views, project, parts)
    folder = folder_of(args["run"], "dataset")
    with written(folder) as temporary:
        dataset.write(temporary, parts, description)
    for name, frame in parts.items():
        print(f"{name}: {len(frame):,} rows, {frame[examples.label].mean():.1%} positive")
    return {"dataset_uri": folder.as_uri(), **{f"{name}_rows": str(len(frame)) for name, frame in parts.items()}}


def sampled(frame: pd.DataFrame, fraction: float) -> pd.DataFrame:
    """Return a part of the examples, the same for the same data, in order of time."""
    if not 0 < fraction <= 1:
        raise UserError(f"sample_fraction must be over 0 and at most 1, not {fraction}")
    chosen = frame if fraction == 1 else frame.sample(frac=fraction, random_state=SAMPLE_SEED)
    return chosen.sort_values(EVENT_TIMESTAMP, kind="stable", ignore_index=True)


def split(frame: pd.DataFrame, train_until: str | None, validate_until: str | None) -> dict[str, pd.Series[bool]]:
    """Return which rows belong to each part: to the end of each of the two days (UTC), and what is later."""
    first, second = _day_end("train_until", train_until), _day_end("validate_until", validate_until)
    if first >= second:
        raise UserError(f"train_until {train_until} must be before validate_until {validate_until}")
    instants = frame[EVENT_TIMESTAMP]
    return {
        "train": instants < first,
        "validate": (instants >= first) & (instants < second),
        "test": instants >= second,
    }


def _day_end(name: str, day: str | None) -> pd.Timestamp:
    try:
        moment = pd.Timestamp(day or "")
    except ValueError:
        moment = pd.NaT  # type: ignore[assignment]
    if pd.isna(moment):
        raise UserError(f"{name} must be a date such as 2013-09-30, not {day!r}")
    return moment.tz_localize("UTC") + pd.Timedelta(days=1)


def join(args: Mapping[str, Any], frame: pd.DataFrame) -> tuple[pd.DataFrame, list[dict[str, Any]], str]:
    """Return the frame with its features, the views they come from and Feast's name of the project."""
    if not args["feature_service"]:
        return frame, [], ""
    from operators.hooks.feast import FeatureRepository

    repository = FeatureRepository(
        args["run"]["project"], definitions=definitions(args["run"]), home=load().features_path
    )
    views = repository.describe(args["feature_service"])
    return repository.join(args["feature_service"], frame), views, repository.project


def _refuse_useless(parts: Mapping[str, pd.DataFrame], label: str) -> None:
    for name, frame in parts.items():
        if frame.empty:
            raise DataError(f"the {name} part has no rows: look at train_until, validate_until and sample_fraction")
        if frame[label].nunique() < 2:
            raise DataError(
                f"every row of the {name} part has {label} = {frame[label].iloc[0]}: there is nothing to learn"
            )


def _describe(
    args: Mapping[str, Any],
    examples: Examples,
    joined: pd.DataFrame,
    views: Sequence[Mapping[str, Any]],
    project: str,
    parts: Mapping[str, pd.DataFrame],
) -> dataset.Description:
    request: list[dict[str, Any]] = [
        {"name": name, "dtype": dtype_of(examples.frame[name]), "required": bool(examples.frame[name].notna().all())}
        for name in examples.request
    ]
    read = [
        Input(item["name"], item["dtype"], "request", examples.zone)
        for item in request
        if item["name"] not in examples.keys
    ]
    read += [Input(item["input"], item["dtype"], "feature") for view in views for item in view["features"]]
    return dataset.Description(
        label=examples.label,
        inputs=read,
        request=request,
        feature_project=project,
        feature_service=args["feature_service"],
        views=views,
        split={name: _period(frame) for name, frame in parts.items()},
        notes=list(examples.notes),
    )


def _period(frame: pd.DataFrame) -> dict[str, Any]:
    instants = frame[EVENT_TIMESTAMP]
    return {"first": instants.min().isoformat(), "last": instants.max().isoformat(), "rows": len(frame)}
