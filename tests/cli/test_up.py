"""`ma up`, `down` and `status` as processes: started twice, killed, on taken ports; nothing is ever left running."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from api.cli.platform import preflight, record, sessions
from api.config import Config, load
from tests.patience import PATIENCE_S
from tests.processes import lives

DUMMY = Path(__file__).with_name("dummy_platform.py")


class Platforms:
    """Starts `ma` with dummy components on one home; ends what is left of it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._started: list[subprocess.Popen[str]] = []

    def begin(self, *arguments: str, **programs: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(DUMMY), json.dumps(programs), *arguments],
            env={**os.environ, **self.config.environ()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def up(self, **programs: str) -> subprocess.Popen[str]:
        """Return when the platform is ready."""
        process = self.begin("up", **programs)
        deadline = time.monotonic() + PATIENCE_S
        while (known := record.read(self.config.run_path)) is None or not (
            known.phase == "ready" and known.supervisor.pid == process.pid
        ):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return process

    def run(self, *arguments: str, **programs: str) -> tuple[int, str]:
        process = self.begin(*arguments, **programs)
        out, _ = process.communicate(timeout=30)
        return process.returncode, out

    def left(self) -> list[psutil.Process]:
        return sessions.marked(self.config.home)

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        sessions.stop_all(self.config.home, (), grace_s=1)


@pytest.fixture
def platforms(config: Config) -> Iterator[Platforms]:
    made = Platforms(config)
    yield made
    made.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(platforms: Platforms, number: signal.Signals) -> None:
    process = platforms.up(a="forks", b="job", c="sleep")
    wait_for(lambda: len(platforms.left()) == 5)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert "nothing is left running" in out
    assert platforms.left() == []


def test_down_stops_everything_and_says_when_there_is_nothing(platforms: Platforms) -> None:
    process = platforms.up(a="forks", b="job")
    code, out = platforms.run("down")
    assert (code, out) == (0, "stopped\n")
    assert platforms.left() == []
    assert process.wait(5) == 0
    assert platforms.run("down") == (0, "nothing was running\n")


def test_a_second_start_says_so_and_changes_nothing(platforms: Platforms) -> None:
    platforms.up(a="sleep")
    before = {process.pid for process in platforms.left()}
    code, out = platforms.run("up", a="sleep")
    assert code == 78
    assert "runs already" in out
    assert {process.pid for process in platforms.left()} == before


@pytest.mark.parametrize("command", ["down", "up"])
def test_what_a_killed_supervisor_left_is_found_and_stopped(platforms: Platforms, command: str) -> None:
    process = platforms.up(a="forks", b="job")
    wait_for(lambda: len(platforms.left()) == 4)
    process.kill()
    process.wait()
    leftovers = platforms.left()
    assert len(leftovers) == 4
    if command == "down":
        code, out = platforms.run("down")
        assert code == 0
        assert "an earlier platform had left" in out
        assert platforms.left() == []
    else:
        platforms.up(a="sleep")
        assert len(platforms.left()) == 1
    assert not any(lives(process) for process in leftovers)


def test_status_shows_each_component_and_tells_scripts_whether_all_is_well(platforms: Platforms) -> None:
    assert platforms.run("status")[0] == 1
    platforms.up(alpha="sleep", beta="sleep")
    code, out = platforms.run("status")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["alpha", "ready"], ["beta", "ready"]]


def test_a_component_that_cannot_start_ends_the_start_with_its_reason(platforms: Platforms) -> None:
    code, out = platforms.run("up", a="sleep", b="import sys; print('model store is broken'); sys.exit(78)")
    assert code == 78
    assert "model store is broken" in out
    assert platforms.left() == []


def test_detached_returns_when_it_is_up(platforms: Platforms, monkeypatch: pytest.MonkeyPatch) -> None:
    from api.cli.platform import up

    monkeypatch.setattr(up, "COMMAND", (sys.executable, str(DUMMY), json.dumps({"a": "sleep"})))
    said: list[str] = []
    process = up.up_detached(platforms.config, owner="demo", say=said.append)
    known = record.read(platforms.config.run_path)
    assert known is not None
    assert (known.phase, known.owner) == ("ready", "demo")
    assert any("a is ready" in line for line in said)
    assert up.down(platforms.config, say=said.append)
    assert process.wait(5) == 0
    assert platforms.left() == []


def test_every_fault_is_listed_at_once(config: Config, tmp_path: Path) -> None:
    with socket.socket() as taken, socket.socket() as other:
        for one in (taken, other):
            one.bind(("127.0.0.1", 0))
            one.listen()
        broken = load(
            {
                **config.environ(),
                "MA_API_PORT": str(taken.getsockname()[1]),
                "MA_AIRFLOW_PORT": str(other.getsockname()[1]),
                "MA_SERVING_PORT": str(config.api_http_port),
                "MA_PROJECTS_ROOT": str(tmp_path / "nowhere"),
                "MA_DAGS": str(tmp_path / "no-dags"),
            }
        )
        found = "\n".join(preflight.faults(broken, {"MA_AIRFLOW_PROT": "1"}))
    assert "set MA_API_PORT" in found
    assert "set MA_AIRFLOW_PORT" in found
    assert "MA_SERVING_PORT and MA_API_HTTP_PORT are both" in found
    assert f"MA_PROJECTS_ROOT {tmp_path / 'nowhere'} is not a folder" in found
    assert f"MA_DAGS {tmp_path / 'no-dags'} is not a folder" in found
    assert "did you mean MA_AIRFLOW_PORT?" in found


def test_a_home_that_cannot_be_made_is_named(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    broken = load({**config.environ(), "MA_HOME": str(tmp_path / "file" / "home")})
    assert any("MA_HOME" in fault and "cannot be written" in fault for fault in preflight.faults(broken, {}))


def test_a_full_disk_is_named(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "NEEDED_BYTES", 10**18)
    assert any("MB are free" in fault for fault in preflight.faults(config, {}))


def test_a_port_that_is_none_ends_with_the_configuration_code(platforms: Platforms) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "api.cli.main", "up"],
        env={**os.environ, "MA_HOME": str(platforms.config.home), "MA_API_PORT": "70000", "MA_SERVING_PORT": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 78
    assert "MA_API_PORT" in process.stderr
    assert "MA_SERVING_PORT" in process.stderr
    assert "Traceback" not in process.stderr


def test_folders_and_secrets_are_open_to_their_owner_alone(platforms: Platforms) -> None:
    platforms.up(a="sleep")
    home = platforms.config.home
    assert home.stat().st_mode & 0o777 == 0o700
    for name in ("jwt_secret", "fernet_key", "token"):
        assert (home / "run" / name).stat().st_mode & 0o777 == 0o600


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
