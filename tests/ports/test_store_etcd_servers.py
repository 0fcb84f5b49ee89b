"""API servers whose resources stand in etcd: they share them, and say what is wrong with an etcd."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from api.kinds import kinds
from tests.free_ports import free_ports
from tests.robustness.killed_server import KilledServer

KIND, PROJECT = "ModelFamily", "shop"


def test_what_one_server_was_told_another_knows_after_its_death(etcd_url: str, tmp_path: Path) -> None:
    environ = {"MA_STORE_URL": etcd_url}
    for name in "ab":
        (tmp_path / name).mkdir()
    with (
        KilledServer(tmp_path / "a", environ=environ) as first,
        KilledServer(tmp_path / "b", environ=environ) as second,
    ):
        one, two = first.connect(), second.connect()
        one.call("Project", "Create", project=kinds()["Project"].new(PROJECT, PROJECT))
        for number in range(20):
            name = f"m-{number}"
            made = (one, two)[number % 2].call(KIND, "Create", model_family=kinds()[KIND].new(PROJECT, name))
            read = (two, one)[number % 2].call(KIND, "Get", namespace=PROJECT, name=name)
            assert read.model_family == made.model_family
        first.kill()
        one.close()
        family = two.call(KIND, "Get", namespace=PROJECT, name="m-0").model_family
        family.spec.description = "changed"
        two.call(KIND, "Update", model_family=family)
        two.close()
        first.start()
        one = first.connect()
        assert one.call(KIND, "Get", namespace=PROJECT, name="m-0").model_family.spec.description == "changed"
        assert len(one.call(KIND, "List", namespace=PROJECT).model_family_list.items) == 20
        one.close()


def test_a_server_without_its_etcd_ends_with_a_line(tmp_path: Path) -> None:
    (port, *ports) = free_ports(5)
    environ = {
        **os.environ,
        "MA_HOME": str(tmp_path),
        "MA_API_PORT": str(ports[0]),
        "MA_API_HTTP_PORT": str(ports[1]),
        "MA_STORE_URL": f"etcd://127.0.0.1:{port}",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "api.server"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 78
    assert f"no member of the etcd cluster 127.0.0.1:{port} answers" in ended.stderr
    assert "Traceback" not in ended.stderr
