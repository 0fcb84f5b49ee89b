"""Real receivers on this machine, a mail server and a webhook: they accept, refuse, hang or hang up as told."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tests.patience import soon

FINE = "250 OK"
HANG = "hang"
# The message is kept, and the connection ends before the answer is there.
HANG_UP = "hang up"


@dataclass
class Mailbox:
    """What a mail server got, and what it says next.  `says_to`: its answer to an address, FINE unless named."""

    mails: list[EmailMessage] = field(default_factory=list)
    says_to: dict[str, str] = field(default_factory=dict)
    # Answers to the next messages, then FINE.
    next_answers: list[str] = field(default_factory=list)
    tries: int = 0
    port: int = 0
    answer_after_s: float = 0.0
    # What it was logged in with.
    logins: list[tuple[str, str]] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Accept or refuse a receiver."""
        self.tries += 1
        answer = self.says_to.get(address, FINE)
        if answer == FINE:
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a message."""
        answer = self.next_answers.pop(0) if self.next_answers else FINE
        if answer == HANG:
            await asyncio.sleep(600)
        await asyncio.sleep(self.answer_after_s)
        if answer in (FINE, HANG_UP):
            assert isinstance(envelope.content, bytes)
            parsed = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(parsed, EmailMessage)
            self.mails.append(parsed)
        if answer == HANG_UP:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return answer if answer != HANG_UP else FINE

    @property
    def ids(self) -> Counter[str]:
        """How often each message came."""
        return Counter(str(mail["Message-ID"]) for mail in self.mails)


@contextmanager
def mail_server(*, tls: ssl.SSLContext | None = None, login: bool = False, port: int = 0) -> Iterator[Mailbox]:
    """Serve mail on a free port.  tls: offers STARTTLS, and demands it."""
    box, loop, ready = Mailbox(), asyncio.new_event_loop(), threading.Event()

    def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        box.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=data.password == b"right-password", handled=True)

    def made() -> SMTP:
        return SMTP(
            box,
            hostname="inbox",
            tls_context=tls,
            require_starttls=tls is not None,
            authenticator=authenticate if login else None,
            auth_required=login and tls is not None,
            auth_require_tls=tls is not None,
            enable_SMTPUTF8=False,
            loop=loop,
        )

    async def serve() -> None:
        server = await loop.create_server(made, "127.0.0.1", port)
        box.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await asyncio.sleep(0.01)

    def run() -> None:
        loop.run_until_complete(serve())
        loop.close()

    stop = asyncio.Event()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(soon(2.0))
    try:
        yield box
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(soon(2.0))


@dataclass
class Hook:
    """What a webhook got, and what it says next: a status, or HANG, or HANG_UP."""

    url: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    next_answers: list[int | str] = field(default_factory=list)
    tries: int = 0
    retry_after: str = ""


@contextmanager
def webhook() -> Iterator[Hook]:
    """Serve a webhook on a free port; its path is a secret."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.tries += 1
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = hook.next_answers.pop(0) if hook.next_answers else 200
            if answer == HANG:
                time.sleep(5)
                return
            if answer in (200, HANG_UP):
                hook.messages.append(body)
                hook.keys.append(self.headers["Idempotency-Key"])
            if answer == HANG_UP:
                self.close_connection = True
                return
            assert isinstance(answer, int)
            self.send_response(answer)
            if hook.retry_after:
                self.send_header("Retry-After", hook.retry_after)
            text = b"ok" if answer == 200 else b"channel_not_found"
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that gives up is none of a receiver's errors."""

    with Server(("127.0.0.1", 0), Handler) as server:
        hook.url = f"http://127.0.0.1:{server.server_address[1]}/services/T0/B0/s3cr3t-of-the-hook"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hook
        finally:
            server.shutdown()
            thread.join(soon(2.0))


def until(holds: Callable[[], object], what: Callable[[], object], limit_s: float) -> None:
    """Wait until something holds; tell what there is when it does not."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)
