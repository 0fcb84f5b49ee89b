"""Mail by SMTP: one message a receiver, the same bytes in every try.  Keeps no connection."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC
from email.message import EmailMessage
from email.policy import SMTP as CRLF
from email.utils import format_datetime, formataddr
from functools import cached_property
from typing import Any

import aiosmtplib

from api.notifications.texts import line
from api.notifications.ways import Undelivered
from api.notify_settings import NotifySettings

SENDER = "Michelangelo"
LONGEST_SUBJECT = 150
NOT_SET = "mail is not set up: set MA_NOTIFY_SMTP_HOST and MA_NOTIFY_FROM for the API server"


def message(notice: Any, sender: str, address: str, message_id: str) -> EmailMessage:
    """Return the mail of a notice.  Its Message-ID and its date are those of the event, whenever it is sent."""
    spec = notice.spec
    made = EmailMessage(policy=CRLF)
    made["Subject"] = line(spec.title, LONGEST_SUBJECT)
    made["From"] = formataddr((SENDER, sender))
    made["To"] = address
    made["Date"] = format_datetime(spec.time.ToDatetime(UTC))
    made["Message-ID"] = f"<{message_id}>"
    # So that nobody's absence is told to us.  Source: RFC 3834.
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(body(notice), cte="quoted-printable")
    return made


def body(notice: Any) -> str:
    """Return the text of a mail."""
    spec = notice.spec
    width = max((len(fact.label) for fact in spec.facts), default=0) + 2
    parts = [spec.title + ".", "\n".join(f"{fact.label + ':':<{width}}{fact.value}" for fact in spec.facts)]
    return "\n\n".join(part for part in [*parts, spec.detail, spec.link] if part) + "\n"


class Mail:
    """The mail server of the settings."""

    name = "email"

    def __init__(self, settings: NotifySettings) -> None:
        self._settings = settings

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def server(self, address: str) -> str:
        """All mail goes by one server."""
        return f"smtp:{self._settings.smtp_host}:{self._settings.port}"

    async def send(self, notice: Any, address: str, message_id: str) -> None:
        """Send one mail.  Raises Undelivered."""
        settings = self._settings
        if not settings.smtp_host:
            raise Undelivered("NotSetUp", NOT_SET, all_of_them=True)
        encrypted = settings.smtp_tls != "off"
        client = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.port,
            username=settings.smtp_user or None,
            password=settings.smtp_password or None,
            # Its own default asks the name server, and waits.
            local_hostname=socket.gethostname(),
            timeout=settings.step_s,
            use_tls=settings.smtp_tls == "tls",
            start_tls=settings.smtp_tls == "starttls",
            tls_context=self._tls if encrypted else None,
        )
        try:
            await client.connect()
            # The acceptance may take as long as the try as a whole.  Source: RFC 5321, 4.5.3.2.6.
            text = message(notice, settings.mail_from, address, message_id).as_bytes()
            await client.mail(settings.mail_from, encoding="ascii")
            await client.rcpt(address, encoding="ascii")
            await client.data(text, timeout=None)
        except aiosmtplib.SMTPRecipientRefused as error:
            raise _refused("ReceiverRefused", error, all_of_them=False) from None
        except aiosmtplib.SMTPDataError as error:
            raise _refused("MessageRefused", error, all_of_them=error.code < 500) from None
        except aiosmtplib.SMTPAuthenticationError as error:
            raise Undelivered(
                "LoginRefused", f"the mail server refuses the login: {error.code}", all_of_them=True
            ) from None
        except aiosmtplib.SMTPResponseException as error:
            told = f"the mail server says {error.code} {line(str(error.message))}"
            raise Undelivered("ServerRefused", told, all_of_them=True) from None
        except aiosmtplib.SMTPNotSupported:
            told = "the mail server offers no STARTTLS or no login: see MA_NOTIFY_SMTP_TLS"
            raise Undelivered("NotOffered", told, all_of_them=True) from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            told = f"the mail server does not answer as it should: {type(error).__name__}"
            raise Undelivered("ServerUnreachable", told, all_of_them=True) from None
        finally:
            client.close()


def _refused(reason: str, error: aiosmtplib.SMTPResponseException | Any, *, all_of_them: bool) -> Undelivered:
    """Return a refusal of this one message: 5xx is for good.  Source: RFC 5321, 4.2.1."""
    told = f"the mail server says {error.code} {line(str(error.message))}"
    return Undelivered(reason, told, for_good=error.code >= 500, all_of_them=all_of_them)
