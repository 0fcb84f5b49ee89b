"""What Airflow's provider manager shows exists, and what its scheduler loads does not load gRPC."""

import importlib
import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import airflow
import jsonschema
import pytest

from operators.hooks.michelangelo import MichelangeloHook
from operators.provider import STAGES, get_provider_info

ROOT = Path(__file__).resolve().parents[2]
# A scheduler forks its workers: gRPC does not survive that, and the others take seconds to load.
TOO_MUCH = ("grpc", "ray", "feast", "mlflow", "pandas", "pyarrow", "lightgbm", "onnx", "sklearn")


def loaded_by(code: str, tmp_path: Path) -> set[str]:
    """Return the modules that a fresh process has loaded after `code`."""
    environ = {
        "PATH": "",
        "AIRFLOW_HOME": str(tmp_path),
        "MA_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\nLOADED', *sys.modules)"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED ")[2].split())


def test_what_the_scheduler_loads_loads_no_grpc(tmp_path: Path) -> None:
    stages = "".join(f"import operators.{stage}\n" for stage in STAGES)
    loaded = loaded_by(
        f"{stages}import operators.triggers, operators.timetable, operators.engines, operators.hooks.michelangelo\n"
        "import operators.provider, operators.templates.project, operators.templates.trigger, api.client\n"
        "from airflow.plugins_manager import integrate_macros_plugins, get_plugin_info\n"
        "import airflow.plugins_manager as manager\n"
        "assert 'michelangelo' in {plugin['name'] for plugin in get_plugin_info()}, get_plugin_info()\n"
        "from operators.templates.registry import TEMPLATES, template_dag\n"
        "for name in TEMPLATES: template_dag(name)\n",
        tmp_path,
    )
    assert "operators.train" in loaded
    assert not {module for module in loaded if module.split(".")[0] in TOO_MUCH}


def test_the_provider_is_found_by_its_entry_point() -> None:
    (entry,) = [found for found in entry_points(group="apache_airflow_provider") if found.value.startswith("operators")]
    assert entry.load()() == get_provider_info()


def test_airflow_accepts_the_description() -> None:
    path = Path(airflow.__file__).with_name("provider_info.schema.json")
    jsonschema.Draft7Validator(json.loads(path.read_text())).validate(get_provider_info())


@pytest.mark.parametrize("section", ["operators", "hooks", "triggers"])
def test_every_module_of_the_description_exists(section: str) -> None:
    for group in get_provider_info()[section]:
        for module in group["python-modules"]:
            assert importlib.import_module(module).__doc__


def test_the_hook_of_the_connection_type_exists() -> None:
    (described,) = get_provider_info()["connection-types"]
    module, _, name = described["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), name)
    assert hook.conn_type == described["connection-type"]


def test_every_stage_has_its_operator() -> None:
    from operators.templates.steps import operator_class

    for stage in STAGES:
        assert operator_class(stage).__name__ == "".join(word.title() for word in stage.split("_")) + "Operator"
    with pytest.raises(ValueError, match=r"no operator 'trian': use materialize_features"):
        operator_class("trian")


def test_the_hook_goes_where_its_connection_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_FAR", "michelangelo://api.example:1234")
    monkeypatch.setenv("AIRFLOW_CONN_BARE", "michelangelo://api.example")
    monkeypatch.setenv("MA_API_PORT", "4321")
    assert MichelangeloHook("far").get_conn()._address == "api.example:1234"
    assert MichelangeloHook("bare").get_conn()._address == "api.example:15566"
    assert MichelangeloHook().get_conn()._address == "127.0.0.1:4321"


def test_the_hook_sends_the_token_of_its_connection_and_its_own_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_FAR", "michelangelo://:far-token@api.example:1234")
    monkeypatch.setenv("AIRFLOW_CONN_BARE", "michelangelo://api.example")
    monkeypatch.setenv("MA_TOKEN", "own-token")
    assert [MichelangeloHook(name).get_conn()._token for name in ("far", "bare", "")] == ["far-token", "", "own-token"]
