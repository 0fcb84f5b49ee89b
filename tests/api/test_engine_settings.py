"""Where steps run beyond this machine: variables, who sees them, and what an engine needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.cli.airflow_env import of_airflow
from api.config import Config, ConfigurationError, load
from api.engine_settings import EngineSettings, java_home, unconfigured

GOOD = [
    ("MA_RAY_ADDRESS", "10.0.0.7:6379"),
    ("MA_RAY_ADDRESS", "ray://head.ray.svc:10001"),
    ("MA_RAY_ADDRESS", "ray://[::1]:10001"),
    ("MA_SPARK_URL", "sc://localhost:15002/;token=abc"),
    ("MA_SPARK_URL", "spark://master:7077"),
    ("MA_SPARK_URL", "k8s://https://kubernetes:443"),
    ("MA_SPARK_URL", "local[2]"),
]
BAD = [
    ("MA_RAY_ADDRESS", "head"),
    ("MA_RAY_ADDRESS", "http://head:10001"),
    ("MA_RAY_ADDRESS", "ray://head:10001\nx"),
    ("MA_SPARK_URL", "http://spark:15002/;token=canary"),
    ("MA_SPARK_URL", "localhost"),
]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_an_address_reaches_airflow_and_comes_back(name: str, value: str) -> None:
    config = load({name: value})
    assert value in (config.engines.ray_address, config.engines.spark_url)
    whole = config.environ()
    assert of_airflow(whole)[name] == value
    assert load(whole).engines == config.engines


@pytest.mark.parametrize(("name", "value"), BAD)
def test_an_address_that_is_none_is_named_and_no_token_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be") as refused:
        load({name: value})
    assert "canary" not in str(refused.value)


def test_a_token_of_spark_is_not_shown() -> None:
    settings = EngineSettings(spark_url="sc://spark:15002/;token=canary")
    assert "canary" not in repr(Config(Path("/x"), Path("/x"), engines=settings))


def test_java_is_the_one_that_was_named(tmp_path: Path) -> None:
    assert java_home({"JAVA_HOME": str(tmp_path)}) == ""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch()
    assert java_home({"JAVA_HOME": str(tmp_path)}) == str(tmp_path)


def test_an_engine_that_cannot_run_says_what_to_do(tmp_path: Path) -> None:
    assert unconfigured("local") == unconfigured("ray") == ""
    assert re.search("needs .*(pip install|MA_SPARK_URL)", unconfigured("spark", {"JAVA_HOME": str(tmp_path)}))
