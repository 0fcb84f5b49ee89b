"""Settings of the ways: read whole or refused by name, secret, and given to the API server alone."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from api.cli.airflow_env import environment, of_airflow, of_api, of_serving
from api.cli.keys import Keys
from api.config import load
from api.gen.michelangelo.api.v2 import pipeline_run_pb2
from api.notify_settings import NotifySettings, read
from tests.api.inboxes import mail_server
from tests.api.telling import Telling, Wire, mail_to
from tests.security.certificates import Authority

FAILED = Wire.EVENT_TYPE_PIPELINE_RUN_STATE_FAILED
RUN_FAILED = pipeline_run_pb2.PIPELINE_RUN_STATE_FAILED
WEBHOOKS = "#ml-alerts=https://hooks.example.org/s3cr3t-a?x=1 @ada=https://hooks.example.org/s3cr3t-b"
GIVEN = {
    "MA_NOTIFY_SMTP_HOST": "mail.example.org",
    "MA_NOTIFY_SMTP_USER": "ma",
    "MA_NOTIFY_SMTP_PASSWORD": "s3cr3t-password",
    "MA_NOTIFY_FROM": "ma@example.org",
    "MA_NOTIFY_SLACK_URL": "https://hooks.example.org/s3cr3t-default",
    "MA_NOTIFY_SLACK_WEBHOOKS": WEBHOOKS,
    "MA_NOTIFY_LINK_URL": "https://airflow.example.org",
    "MA_NOTIFY_STEP_S": "3",
    "MA_NOTIFY_GIVE_UP_S": "60",
}
BAD = {
    "MA_NOTIFY_SMTP_TLS": "maybe",
    "MA_NOTIFY_SMTP_PORT": "0",
    "MA_NOTIFY_FROM": "Ada <ada@example.org>",
    "MA_NOTIFY_SMTP_PASSWORD": "",
    "MA_NOTIFY_SLACK_URL": "hooks.example.org/s3cr3t",
    "MA_NOTIFY_SLACK_WEBHOOKS": "https://hooks.example.org/s3cr3t",
    "MA_NOTIFY_LINK_URL": "javascript:alert(1)",
    "MA_NOTIFY_STEP_S": "nan",
    "MA_NOTIFY_GIVE_UP_S": "0",
}


def test_what_is_given_is_read_and_handed_on() -> None:
    faults: list[str] = []

    settings = read(GIVEN, faults)

    assert not faults
    assert settings.slack_webhooks["#ml-alerts"] == "https://hooks.example.org/s3cr3t-a?x=1"
    assert (settings.port, settings.step_s) == (587, 3.0)
    assert read(settings.environ(), faults) == settings
    assert read({}, faults) == NotifySettings()


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_setting_is_named_and_no_secret_is_told(name: str) -> None:
    faults: list[str] = []

    read({**GIVEN, name: BAD[name]}, faults)

    assert len(faults) == 1
    assert name in faults[0]
    assert "s3cr3t" not in faults[0]


def test_a_password_goes_to_no_other_machine_in_the_clear() -> None:
    faults: list[str] = []

    read({**GIVEN, "MA_NOTIFY_SMTP_TLS": "off"}, faults)

    assert faults == ["MA_NOTIFY_SMTP_TLS is off: a password is not sent to another machine without TLS"]


def test_no_secret_is_shown_with_a_configuration(tmp_path: Path) -> None:
    config = load({**GIVEN, "MA_HOME": str(tmp_path)})

    assert "s3cr3t" not in repr(config)


def test_the_api_server_alone_gets_the_secrets(tmp_path: Path) -> None:
    config = load({**GIVEN, "MA_HOME": str(tmp_path)})

    whole = environment(config, Keys("token", "secret", "key"), inherited=GIVEN)

    assert of_api(whole)["MA_NOTIFY_SMTP_PASSWORD"] == "s3cr3t-password"
    assert "s3cr3t" not in f"{of_airflow(whole)} {of_serving(whole)}"


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_password_is_sent_by_tls_to_a_server_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.server("mail")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
    with mail_server(tls=context, login=True) as box:
        settings = NotifySettings(
            smtp_host="127.0.0.1",
            smtp_port=box.port,
            smtp_user="ma",
            smtp_password="right-password",
            mail_from="ma@example.org",
            give_up_s=1,
        )
        telling = Telling(tmp_path, settings)
        await telling.begin()
        await telling.pipeline()
        run = await telling.made("PipelineRun", "nightly", mail_to("ada@example.org", events=(FAILED,)))
        await telling.becomes(run, RUN_FAILED)
        (notice,) = await telling.ended(1)
        await telling.end()
        await telling.store.close()

    assert len(box.mails) == trusted
    assert box.logins == ([("ma", "right-password")] if trusted else [])
    assert notice.status.deliveries[0].reason == ("" if trusted else "ServerUnreachable")
    assert "right-password" not in str(notice)
