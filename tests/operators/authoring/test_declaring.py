"""What is declared wrong is refused at once, with file, line and the way out: bad inputs 43 to 45 and 51 to 53."""

import dataclasses
import enum
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest

from api.errors import InvalidArgument
from operators import Cache, foreach, loop, matrix, pipeline, task, when
from operators.authoring.errors import PipelineError
from operators.authoring.graph import read


@task
def one(x: Any = 0) -> int:
    return 1


@task
def two(x: Any, y: Any = 0) -> tuple[int, str]:
    return x, y


BAD_SETTINGS: list[tuple[dict[str, Any], str, str]] = [
    ({"cpu": -1}, "BAD_RESOURCES", "more than 0"),
    ({"gpu": 1e9}, "BAD_RESOURCES", "whole number from 0 to 64"),
    ({"memory": 4}, "BAD_RESOURCES", '"2Gi"'),
    ({"memory": "4gb"}, "BAD_RESOURCES", "did you mean '4Gi'?"),
    ({"timeout": 0}, "BAD_TIMEOUT", "at most 7 days"),
    ({"timeout": "-1s"}, "BAD_TIMEOUT", '"10m"'),
    ({"timeout": "8d"}, "BAD_TIMEOUT", "at most 7 days"),
    ({"retries": -1}, "BAD_RETRIES", "from 0 to 10"),
    ({"retries": 1000}, "BAD_RETRIES", "from 0 to 10"),
    ({"cache": "yes"}, "BAD_CACHE", "Cache(version="),
    ({"cache": Cache(ttl="soon")}, "BAD_CACHE", '"7d"'),
    ({"environment": object()}, "BAD_ENVIRONMENT", "must be a list of requirements"),
    ({"environment": ["x>=1"]}, "UNPINNED_REQUIREMENT", "must name one version, such as x==1.2.3"),
    ({"environment": "nowhere.txt"}, "NO_REQUIREMENTS_FILE", "'nowhere.txt', which cannot be read: No such file"),
    ({"memroy": "2Gi"}, "BAD_TASK", "did you mean memory?"),
]


@pytest.mark.parametrize(("settings", "reason", "way_out"), BAD_SETTINGS, ids=range(len(BAD_SETTINGS)))
def test_what_a_task_asks_for_is_judged_where_it_stands(settings: Any, reason: str, way_out: str) -> None:
    with pytest.raises(PipelineError) as refused:
        task(**settings)(lambda: 1)
    assert refused.value.reason == reason
    assert way_out in str(refused.value)
    assert str(refused.value).startswith(f"{Path(__file__).name}:")
    assert refused.value.violations[0].field.partition(".")[0] in settings
    with pytest.raises(PipelineError):
        one.options(**settings)


def test_settings_come_into_the_graph() -> None:
    @task.ray(
        cpu=4, memory="8Gi", gpu=1, retries=3, timeout="1h30m", environment=["Y_z == 2", "x==1"], cache=Cache("2", "7d")
    )
    def big() -> int:
        return 1

    @pipeline
    def flow() -> Any:
        return big.options(name="small", cpu="500m", cache=True)()

    (step,) = flow.trace().graph.steps
    assert (step.name, step.engine, step.retries, step.timeout_s) == ("small", "ray", 3, 5400)
    assert step.resources == {"cpu": "500m", "gpu": 1, "memory": "8Gi"}
    assert step.cache == {"version": "1", "ttl_s": None}
    assert step.environment == {"requirements": ["x==1", "y-z==2"]}
    assert big.settings.kept() == {"version": "2", "ttl_s": 604_800}


BODIES: list[tuple[Callable[[], Any], str, str]] = [
    (lambda: None, "NO_STEPS", "at least one step"),
    (lambda: "x" if one() else "y", "BAD_PIPELINE", "use when(condition, then, otherwise)"),
    (lambda: list(one()), "BAD_PIPELINE", "go over it with foreach"),
    (lambda: one() + 1, "BAD_PIPELINE", "compute with it in a task"),
    (lambda: f"{one()}", "BAD_PIPELINE", "compute with it in a task"),
    (lambda: len(one()), "BAD_PIPELINE", "compute with it in a task"),
    (lambda: one(float("nan")), "BAD_PIPELINE", "make it in a task"),
    (lambda: one({1, 2}), "BAD_PIPELINE", "a set stands in a pipeline's body"),
    (lambda: one(object()), "BAD_PIPELINE", "make it in a task"),
    (lambda: one(1, 2, 3), "BAD_PIPELINE", "too many positional arguments"),
    (lambda: one(z=1), "BAD_PIPELINE", "unexpected keyword argument 'z'"),
    (lambda: foreach(one, range(10**6)), "TOO_MANY", "1000000 instances"),
    (lambda: foreach(one, matrix(a=range(1000), b=range(1000), c=range(1000))), "TOO_MANY", "1000000000 instances"),
    (lambda: foreach(lambda x: foreach(one, range(101)), range(100)), "TOO_MANY", "10100 instances"),
    (lambda: foreach(one, {"a": 1}), "BAD_PIPELINE", "use list"),
    (lambda: foreach(one, 7), "BAD_PIPELINE", "not over a int"),
    (lambda: foreach(one, [1], x=2), "BAD_PIPELINE", "takes no argument for the item"),
    (lambda: when(one(), one()), "BAD_PIPELINE", "what to call, not what was called"),
    (lambda: loop(one, 0, most=0), "TOO_MANY", "from 1 to 1000"),
    (lambda: loop(one, 0, most=10**6), "TOO_MANY", "from 1 to 1000"),
    (lambda: [one() for _ in range(10_001)], "TOO_MANY", "at most 10000 steps"),
    (lambda: one.options(name="a b")(), "BAD_NAME", "cannot be a name"),
    (lambda: one.options(after=["x"])(), "BAD_PIPELINE", "takes outputs of tasks"),
]


@pytest.mark.parametrize(("body", "reason", "way_out"), BODIES, ids=range(len(BODIES)))
def test_a_body_that_cannot_be_a_graph_says_where_and_what_instead(body: Any, reason: str, way_out: str) -> None:
    def flow() -> Any:
        return body()

    with pytest.raises(PipelineError) as refused:
        pipeline(flow).trace()
    assert refused.value.reason == reason
    assert way_out in str(refused.value)
    assert str(refused.value).startswith(f"{Path(__file__).name}:")
    assert isinstance(refused.value, InvalidArgument)


def test_an_output_from_inside_of_a_loop_cannot_leave_it() -> None:
    @pipeline
    def flow() -> Any:
        leaked: list[Any] = []

        def body(x: Any) -> Any:
            leaked.append(one(x))
            return leaked[0]

        foreach(body, [1, 2])
        return one(leaked[0])

    with pytest.raises(PipelineError, match="only what foreach returns can be") as refused:
        flow.trace()
    assert refused.value.reason == "OUTSIDE_LOOP"


def test_the_line_of_a_fault_is_the_users() -> None:
    @pipeline
    def flow() -> Any:
        return one() + 1  # this line

    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith("# this line"))
    with pytest.raises(PipelineError) as refused:
        flow.trace()
    assert refused.value.source == {"file": Path(__file__).name, "line": line}


def test_control_outside_of_a_pipeline_is_refused() -> None:
    calls: list[Callable[[], Any]] = [lambda: foreach(one, [1]), lambda: when(True, one), lambda: loop(one, 1, most=1)]
    for call in calls:
        with pytest.raises(PipelineError, match="in the body of a pipeline"):
            call()


def test_a_pipeline_is_not_called_but_run() -> None:
    @pipeline
    def flow() -> Any:
        return one()

    with pytest.raises(PipelineError, match=r"run it here with flow\.run"):
        flow()


def test_functions_that_cannot_be_tasks_are_refused() -> None:
    def many(*args: int) -> None: ...

    async def later() -> None: ...

    def yields() -> Any:
        yield 1

    for function in (many, later, yields):
        with pytest.raises(PipelineError, match="task "):
            task(function)


def test_outputs_are_unpacked_where_the_task_says_how_many() -> None:
    @pipeline
    def flow() -> Any:
        number, text = two(1, "a")
        return {"text": text, "number": one(number)}

    assert flow.run() == {"text": "a", "number": 1}


def test_order_without_data_is_kept() -> None:
    @pipeline
    def flow() -> Any:
        first = one()
        return one.options(name="second", after=[first])()

    assert flow.trace().graph.step("second").needs == ("one",)


class Optimizer(enum.Enum):
    ADAM = "adam"
    SGD = "sgd"


@dataclasses.dataclass
class Layer:
    width: int
    dropout: float = 0.1


@dataclasses.dataclass
class Config:
    """What is trained.

    optimizer: how weights change
    rate (float): how fast, which is
        the first thing to try
    """

    optimizer: Optimizer
    rate: Annotated[float, {"exclusiveMinimum": 0}] = 0.1
    layers: list[Layer] = dataclasses.field(default_factory=lambda: [Layer(8)])
    loss: Literal["mse", "mae"] = "mse"
    seed: int | None = None
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    day: date = date(2026, 1, 2)
    note: Optional[str] = None  # noqa: UP045
    either: int | str = 1


@task
def describe(optimizer: Optimizer, layers: list[Layer], rate: float, day: date) -> list[Any]:
    assert isinstance(optimizer, Optimizer)
    assert isinstance(day, date)
    return [optimizer.name, [layer.width for layer in layers], rate, day.year]


@pipeline
def configured(config: Config) -> Any:
    return describe(config.optimizer, config.layers, rate=config.rate, day=config.day)


def test_a_dataclass_is_the_schema_of_the_parameters() -> None:
    schema = configured.params
    assert schema["required"] == ["optimizer"]
    assert schema["additionalProperties"] is False
    properties = {
        name: {key: said[key] for key in said if key != "title"} for name, said in schema["properties"].items()
    }
    layer = {
        "type": "object",
        "properties": {"width": {"type": "integer"}, "dropout": {"type": "number", "default": 0.1}},
        "required": ["width"],
        "additionalProperties": False,
    }
    assert properties == {
        "optimizer": {"type": "string", "enum": ["adam", "sgd"], "description": "how weights change"},
        "rate": {
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 0.1,
            "description": "how fast, which is the first thing to try",
        },
        "layers": {"type": "array", "items": layer, "default": [{"width": 8, "dropout": 0.1}]},
        "loss": {"type": "string", "enum": ["mse", "mae"], "default": "mse"},
        "seed": {"type": ["integer", "null"], "default": None},
        "tags": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
        "day": {"type": "string", "format": "date", "default": "2026-01-02"},
        "note": {"type": ["string", "null"], "default": None},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string"}], "default": 1},
    }


def test_tasks_get_parameters_as_their_annotations_say() -> None:
    expected = ["ADAM", [8], 0.1, 2026]
    assert configured.run(Config(Optimizer.ADAM)) == expected
    assert configured.run(optimizer="adam") == expected
    assert configured.run(optimizer=Optimizer.SGD, layers=[{"width": 3}], rate=1) == ["SGD", [3], 1.0, 2026]


BAD_PARAMS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"optimizer"}),
    ({"optimizer": "adma", "rate": 0, "seed": 1.5, "more": 1}, {"optimizer", "rate", "seed", "more"}),
    ({"optimizer": "sgd", "layers": [{"width": "x"}], "tags": {"a": 1}}, {"layers.0.width", "tags.a"}),
    ({"optimizer": "sgd", "day": "tomorrow", "loss": None}, {"day", "loss"}),
    ({"optimizer": "sgd", "either": 1.5, "seed": True}, {"either", "seed"}),
]


@pytest.mark.parametrize(("given", "fields"), BAD_PARAMS, ids=range(len(BAD_PARAMS)))
def test_every_wrong_parameter_is_in_the_one_refusal(given: dict[str, Any], fields: set[str]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        configured.run(**given)
    assert {fault.field.removeprefix("params.") for fault in refused.value.violations} == fields


def test_a_pipeline_with_a_dataclass_is_called_by_another() -> None:
    @pipeline
    def outer(rate: float = 0.5) -> Any:
        return [configured(optimizer="sgd", rate=rate), configured(Config(Optimizer.ADAM))]

    assert outer.run() == [["SGD", [8], 0.5, 2026], ["ADAM", [8], 0.1, 2026]]


def untyped(x) -> None: ...  # type: ignore[no-untyped-def]


def of_a_set(x: set[int]) -> None: ...


def of_a_path(x: Path) -> None: ...


def of_numbered_keys(x: dict[int, str]) -> None: ...


def of_many(*xs: int) -> None: ...


def of_a_moment(x: datetime | None = None) -> Any:
    return one(x)


@pytest.mark.parametrize("function", [untyped, of_a_set, of_a_path, of_numbered_keys, of_many])
def test_a_parameter_without_a_schema_is_refused_with_the_types_that_have_one(function: Any) -> None:
    with pytest.raises(PipelineError) as refused:
        pipeline(function)
    assert refused.value.reason == "BAD_PARAM_TYPE"
    assert refused.value.violations[0].field in ("params.x", "params.xs")


def test_the_graph_is_json_and_comes_back() -> None:
    for each in (configured, pipeline(of_a_moment)):
        graph = each.trace().graph
        assert read(graph.to_json()) == graph
        assert graph.steps[0].source["file"] == Path(__file__).name
        assert graph.steps[0].code.startswith("sha256:")
