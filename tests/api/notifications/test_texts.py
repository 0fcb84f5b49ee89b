"""What users write stands in messages as text and does nothing else: headers, mentions, links, directions."""

from __future__ import annotations

from email import message_from_bytes, policy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.gen.michelangelo.api.v2 import pipeline_run_pb2
from api.gen.michelangelo.platform.v1 import notice_pb2
from api.kinds import kinds
from api.notifications.mail import message
from api.notifications.slack import text_of
from api.notifications.texts import LONGEST_DETAIL, LONGEST_LINE, VERDICT, block, line, verdict_of
from api.workflows import typed
from tests.api.inboxes import Hook, Mailbox
from tests.api.telling import Telling, Wire, mail_to, slack_to

FAILED = Wire.EVENT_TYPE_PIPELINE_RUN_STATE_FAILED
RUN_FAILED = pipeline_run_pb2.PIPELINE_RUN_STATE_FAILED
NASTY = (
    "x\r\nBcc: all@example.org\r\n\r\n<!channel> <https://evil.example|log in> & *b* ``` `c` \u202egnp.exe\x00\x1b[31m"
)


def notice(title: str, value: str, detail: str) -> Any:
    made = notice_pb2.Notice()
    made.spec.title, made.spec.detail, made.spec.link = title, detail, "https://airflow.example.org/dags/a"
    made.spec.facts.add(label="Started by", value=value)
    made.spec.time.FromSeconds(1_700_000_000)
    return made


async def test_an_error_that_looks_like_headers_and_mentions_is_told_as_text(
    telling: Telling, box: Mailbox, hook: Hook
) -> None:
    await telling.pipeline()
    asked = [mail_to("ada@example.org", events=(FAILED,)), slack_to("#ml-alerts", events=(FAILED,))]
    run = await telling.made("PipelineRun", "nightly", *asked)
    run.spec.actor.name = NASTY
    run = await telling.resources.update(run)

    await telling.becomes(run, RUN_FAILED, NASTY)
    await telling.ended(1)

    (mail,), (shown,) = box.mails, hook.messages
    assert set(mail.keys()) <= {
        *("Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "X-Peer"),
        *("Content-Type", "Content-Transfer-Encoding", "X-MailFrom", "X-RcptTo"),
    }
    assert "<!channel>" in mail.get_content()
    assert "Started by: x Bcc: all@example.org <!channel>" in mail.get_content()
    for text in (shown["text"], mail.get_content()):
        assert not {"\x00", "\x1b", "\u202e"} & set(text)
    assert "<" not in shown["text"]
    assert "&lt;!channel&gt; &lt;https://evil.example|log in&gt; &amp;" in shown["text"]
    assert shown["text"].count("```") == 2


@given(st.text(), st.text(), st.text())
def test_any_text_makes_a_message_of_known_headers(title: str, value: str, detail: str) -> None:
    made = notice(line(title), line(value), block(detail))

    sent = message(made, "ma@example.org", "ada@example.org", "id@notice.michelangelo").as_bytes()

    mail = message_from_bytes(sent, policy=policy.default)
    assert mail.keys() == [
        *("Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted"),
        *("Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
    ]
    assert not mail.defects
    assert (str(mail["To"]), str(mail["Message-ID"])) == ("ada@example.org", "<id@notice.michelangelo>")
    assert max(map(len, sent.split(b"\r\n"))) <= 998
    assert "<" not in text_of(made)


@given(st.text())
def test_texts_are_bounded_and_of_one_line_where_they_stand_in_one(text: str) -> None:
    assert len(line(text)) <= LONGEST_LINE
    assert len(line(text).splitlines()) <= 1
    assert len(block(text * 50)) <= LONGEST_DETAIL
    assert line(line(text)) == line(text)


def test_a_verdict_is_told_with_its_class_and_what_to_do() -> None:
    run: Any = kinds()["PipelineRun"].new("flights", "nightly")
    assert verdict_of(run) == ("", "")

    run.status.details.add().Pack(typed(VERDICT, {"class": "OUT_OF_MEMORY", "next": "ma pipeline-run explain nightly"}))

    assert verdict_of(run) == ("out of memory", "ma pipeline-run explain nightly")


@pytest.mark.parametrize("value", [None, 7, [], {"a": 1}])
def test_a_verdict_of_another_form_is_none(value: object) -> None:
    run: Any = kinds()["PipelineRun"].new("flights", "nightly")
    run.status.details.add().Pack(typed(VERDICT, {"class": value}))
    run.status.details.add().Pack(typed("another", {"class": "DATA"}))

    assert "\n" not in verdict_of(run)[0]
