"""Components that crash, hang or give up, kept by the real supervisor."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from api.cli import airflow_env, keys
from api.cli.exits import CONFIGURATION, Failure
from api.cli.platform import components, record, sessions, supervisor
from api.cli.platform.components import Component
from api.cli.platform.supervisor import Supervisor
from api.config import AuthConfig, Config, TlsConfig, load
from tests.patience import PATIENCE_S
from tests.processes import lives

SLEEP = "import time; time.sleep(600)"


@dataclass
class Stage:
    """A supervisor with what it said."""

    keeper: Supervisor
    folder: Path
    said: list[str] = field(default_factory=list)

    def pid(self, name: str) -> int:
        known = record.read(self.folder)
        assert known is not None
        return known.components[name].pid

    async def until_said(self, text: str, times: int = 1) -> None:
        await until(lambda: sum(text in line for line in self.said) >= times)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A supervisor that looks and restarts quickly."""
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_S", 0.05)
    monkeypatch.setattr(supervisor, "STARTING_LOOK_S", 0.02)
    monkeypatch.setattr(supervisor, "STEADY_LOOK_S", 0.05)
    monkeypatch.setattr(supervisor, "GRACE_S", 1.0)
    said: list[str] = []
    keeper = Supervisor(
        home=tmp_path, run_folder=tmp_path, logs=tmp_path, environ=dict(os.environ), owner="up", say=said.append
    )
    yield Stage(keeper, tmp_path, said)
    await keeper.close()
    assert sessions.marked(tmp_path) == [], "nothing is left"


def program(name: str, text: str, *, healthy: bool = True) -> Component:
    return Component(name, (sys.executable, "-c", text), lambda _: healthy)


async def test_ready_means_that_every_component_answered(stage: Stage) -> None:
    stage.keeper.start([program("a", SLEEP), program("b", SLEEP)])
    await stage.keeper.until_ready(10)
    known = record.read(stage.folder)
    assert known is not None
    assert known.phase == "ready"
    assert {name: part.state for name, part in known.components.items()} == {"a": "ready", "b": "ready"}


async def test_a_component_leads_a_session_of_its_own(stage: Stage) -> None:
    stage.keeper.start([program("a", SLEEP)])
    await stage.keeper.until_ready(10)
    assert os.getsid(stage.pid("a")) == stage.pid("a")
    assert os.getsid(0) != stage.pid("a")


async def test_one_that_is_killed_is_started_again(stage: Stage) -> None:
    stage.keeper.start([program("a", SLEEP)])
    await stage.keeper.until_ready(10)
    first = stage.pid("a")
    os.kill(first, signal.SIGKILL)
    await stage.until_said("a is ready again")
    assert stage.pid("a") != first
    assert any("ended by signal 9" in line for line in stage.said)


async def test_what_a_crashed_component_left_is_ended_before_it_starts_again(stage: Stage) -> None:
    forks = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);" + SLEEP
    stage.keeper.start([program("a", forks)])
    await stage.keeper.until_ready(10)
    await until(lambda: len(sessions.members([stage.pid("a")])) == 2)
    before = sessions.members([stage.pid("a")])
    os.kill(stage.pid("a"), signal.SIGKILL)
    await stage.until_said("a is ready again")
    assert not any(lives(process) for process in before)


async def test_crashes_are_put_off_longer_and_longer_and_the_log_is_shown(stage: Stage) -> None:
    stage.keeper.start([program("a", "import sys; print('the reason', flush=True); sys.exit(3)", healthy=False)])
    await stage.until_said("crashes again and again")
    pauses = [float(line.rsplit(" ", 2)[1]) for line in stage.said if "starting it again in" in line]
    assert pauses == [0.05, 0.1, 0.2]
    await stage.until_said("the reason")


async def test_a_fault_of_configuration_is_not_tried_again(stage: Stage) -> None:
    stage.keeper.start([program("a", "import sys; print('port taken'); sys.exit(78)", healthy=False)])
    with pytest.raises(Failure, match="port taken") as failed:
        await stage.keeper.until_ready(10)
    assert failed.value.code == CONFIGURATION


async def test_one_that_is_never_healthy_is_named_with_its_log(stage: Stage) -> None:
    stage.keeper.start([program("a", "print('half way', flush=True);" + SLEEP, healthy=False), program("b", SLEEP)])
    with pytest.raises(Failure, match="not healthy after 1 s: a") as failed:
        await stage.keeper.until_ready(1)
    assert "half way" in failed.value.lines


async def test_one_that_stops_answering_is_ended_and_started_again(stage: Stage) -> None:
    answers = True
    stage.keeper.start([Component("a", (sys.executable, "-c", SLEEP), lambda _: answers)])
    await stage.keeper.until_ready(10)
    first, answers = stage.pid("a"), False
    await stage.until_said("a does not answer any more")
    answers = True
    await stage.until_said("a is ready again")
    assert stage.pid("a") != first


async def test_a_component_that_ignores_the_request_is_killed(stage: Stage) -> None:
    ignores = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);" + SLEEP
    stage.keeper.start([program("a", ignores)])
    await stage.keeper.until_ready(10)
    process = psutil.Process(stage.pid("a"))
    await until(lambda: "deaf" in (stage.folder / "a.log").read_text())
    await stage.keeper.close()
    assert not process.is_running()


async def test_a_stranger_with_a_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    stranger = await asyncio.create_subprocess_exec(sys.executable, "-c", SLEEP, start_new_session=True)
    with contextlib.suppress(psutil.Error):
        earlier = sessions.ProcessRef(stranger.pid, psutil.Process(stranger.pid).create_time() - 3600)
        assert sessions.stop_all(tmp_path, [earlier], grace_s=1) == 0
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


SECRET = "a-password-of-the-store"
SERVER_ONLY = ("MA_STORE_URL", "MA_BLOBS", "MA_TOKENS_FILE", "MA_AUTH_JWKS", "MA_TLS_KEY", "MA_AUDIT_ANCHOR")


async def test_each_process_has_what_it_needs_and_no_secret_of_another(stage: Stage, tmp_path: Path) -> None:
    config = Config(
        home=tmp_path,
        projects_root=tmp_path,
        token="t" * 40,
        store_url=f"postgresql://ma:{SECRET}@db/ma",
        blobs=f"s3://key:{SECRET}@bucket/x",
        audit_anchor=tmp_path / "anchor",
        auth=AuthConfig(True, tmp_path / "tokens.json", "issuer", "audience", f"https://id/{SECRET}"),
        tls=TlsConfig(tmp_path / "cert.pem", tmp_path / "key.pem"),
    )
    made = keys.ensure(config)
    # A shell that has them too, and the settings of an Airflow of its own.
    inherited = {
        **os.environ,
        "MA_STORE_URL": config.store_url,
        "AIRFLOW__CORE__FERNET_KEY": SECRET,
        "AWS_PROFILE": "ml",
    }
    whole = airflow_env.environment(config, made, inherited=inherited)
    keeper = Supervisor(
        home=tmp_path, run_folder=tmp_path, logs=tmp_path, environ=whole, owner="up", say=stage.said.append
    )
    # Their probes would read the certificate.
    wanted = components.all_of(replace(config, tls=TlsConfig()))
    keeper.start(replace(one, argv=(sys.executable, "-c", SLEEP), probe=lambda _: True) for one in wanted)
    try:
        await keeper.until_ready(15)
        seen = {one.name: psutil.Process(stage.pid(one.name)).environ() for one in wanted}
    finally:
        await keeper.close()
    assert {"api", "serving", "scheduler", "triggerer", "dag-processor", "airflow-api"} == seen.keys()
    for name, environ in seen.items():
        assert environ["MA_HOME"] == str(tmp_path), name
        assert environ["MA_TOKEN"], "all of them call the API"
        assert environ["AWS_PROFILE"] == "ml"
        has_airflow = {"AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"} <= environ.keys()
        assert has_airflow == (name not in ("api", "serving")), name
        if name == "api":
            assert load(environ) == replace(config, token=made.token)
        else:
            assert not [variable for variable in SERVER_ONLY if variable in environ], name
            assert not [variable for variable, value in environ.items() if SECRET in value], name
            # They find the API server as before, and trust it.
            assert load(environ).api_http_url == config.api_http_url
            assert load(environ).tls.trusted == config.tls.trusted
    assert "AIRFLOW__CORE__FERNET_KEY" not in seen["api"]
