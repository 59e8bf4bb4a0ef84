"""A real mail server on loopback that does what a test wants of it."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "loyalty", "s3cret-word"
# What a rule may answer instead of a line of SMTP.
DROP = "drop the connection"
TAKE_AND_DROP = "take the mail and drop the connection"

Rule = Callable[[str], "str | Awaitable[str | None] | None"]


@dataclass(frozen=True, kw_only=True)
class Received:
    """A mail that the server took."""

    sender: str
    recipient: str
    content: bytes

    @property
    def message(self) -> EmailMessage:
        """The mail as its reader's program parses it."""
        return cast("EmailMessage", message_from_bytes(self.content, policy=policy.default))

    def body(self, subtype: str) -> str:
        """Its text ('plain') or HTML ('html')."""
        part = self.message.get_body((subtype,))
        assert part is not None
        return part.get_content().replace("\r\n", "\n")


@dataclass
class MailServer:
    """A server that takes mails, but for what its rules say of a stage: rset, mail, rcpt, data (given the address)."""

    port: int = 0
    mails: list[Received] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    rules: dict[str, Rule] = field(default_factory=dict)

    @property
    def recipients(self) -> list[str]:
        """Whom mails were taken for, in order."""
        return [one.recipient for one in self.mails]

    def url(self, options: str = "?tls=none", *, scheme: str = "smtp", login: str = "") -> str:
        """What LOYALTY_MAIL_URL is for this server."""
        return f"{scheme}://{login}localhost:{self.port}{options}"

    def refuse(self, stage: str, answer: str, *, only: str | None = None, times: int | None = None) -> None:
        """Give an answer at a stage: for one address or all, so many times or always."""
        left = [times]

        def rule(address: str) -> str | None:
            if (only is not None and address != only) or left[0] == 0:
                return None
            left[0] = left[0] and left[0] - 1
            return answer

        self.rules[stage] = rule


class _Handler:
    """Answers as the server's rules say."""

    def __init__(self, server: MailServer) -> None:
        self._server = server

    async def _said(self, smtp: SMTP, stage: str, address: str) -> str | None:
        self._server.commands.append(stage)
        rule = self._server.rules.get(stage)
        said = rule(address) if rule else None
        if said is not None and not isinstance(said, str):
            said = await said
        if said == DROP:
            _hang_up(smtp)
        return said

    # The names are aiosmtpd's.
    async def handle_MAIL(  # noqa: N802
        self, smtp: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        said = await self._said(smtp, "mail", address)
        if said is None:
            envelope.mail_from = address
        return said or "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, smtp: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        said = await self._said(smtp, "rcpt", address)
        if said is None:
            envelope.rcpt_tos.append(address)
        return said or "250 OK"

    async def handle_DATA(self, smtp: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        (recipient,) = envelope.rcpt_tos
        said = await self._said(smtp, "data", recipient)
        if said in (None, TAKE_AND_DROP):
            content = envelope.original_content
            assert content is not None
            assert envelope.mail_from
            self._server.mails.append(Received(sender=envelope.mail_from, recipient=recipient, content=content))
        if said == TAKE_AND_DROP:
            _hang_up(smtp)
        return said or "250 OK"


def _hang_up(smtp: SMTP) -> None:
    assert isinstance(smtp.transport, asyncio.Transport)
    smtp.transport.abort()


class _Counting(SMTP):
    """Notes each connection."""

    def __init__(self, owner: MailServer, handler: _Handler, **options: Any) -> None:
        self._owner = owner
        super().__init__(handler, hostname="localhost", **options)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.transport is None:  # the same protocol goes on after STARTTLS
            self._owner.connections += 1
        super().connection_made(transport)


@contextmanager
def mail_server(*, is_login_needed: bool = False, tls: ssl.SSLContext | None = None, is_tls_from_start: bool = False,
                **options: Any) -> Iterator[MailServer]:  # fmt: skip
    """A running server; `tls`: it offers STARTTLS, or speaks nothing else from the start."""
    server = MailServer()
    is_starttls = tls is not None and not is_tls_from_start
    if is_login_needed:
        options |= {"auth_required": True, "auth_require_tls": is_starttls, "authenticator": _is_user}
    if is_starttls:
        options |= {"tls_context": tls, "require_starttls": True}
    loop = asyncio.new_event_loop()

    async def listen() -> asyncio.Server:
        return await loop.create_server(
            lambda: _Counting(server, _Handler(server), loop=loop, timeout=300, **options),
            "localhost",
            0,
            family=socket.AF_INET,
            ssl=tls if is_tls_from_start else None,
        )

    listening = loop.run_until_complete(listen())
    server.port = listening.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(_end(listening), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _end(listening: asyncio.Server) -> None:
    """Close the server and what it was still doing."""
    listening.close()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _is_user(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, login: Any) -> AuthResult:
    is_known = isinstance(login, LoginPassword) and (login.login, login.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=is_known, handled=is_known)


def closed_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def certificate(folder: Path, *, name: str = "localhost") -> tuple[ssl.SSLContext, Path]:
    """Make a self-signed certificate; return a server's context with it, and its file as an authority for clients."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority, private = folder / f"{name}.pem", folder / f"{name}.key"
    authority.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, private)
    return context, authority
