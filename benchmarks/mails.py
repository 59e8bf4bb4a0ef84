"""10,000 mails from the outbox to a mail server on loopback, against a bare smtplib loop on one connection.

The outbox is in a PostgreSQL that flushes its log to disk; ours is all that a run does: claim, look up addresses,
render, compose, send, mark each mail. The bare loop builds a message for each mail with EmailMessage, from texts that
are finished, and sends it. A second one only sends bytes that are finished: it shows what the protocol itself costs,
and is no target, because nobody has mails before they are written. The server is a process of its own; the sides take
turns, so that a noisy neighbour meets all.
"""

import json
import smtplib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

import click
import psycopg
from sqlalchemy import Engine

from benchmarks.report import Figure, publish
from loyalty_pipelines.db import sample_shop
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.db.notifications_run import deliver
from loyalty_pipelines.domain.mail_settings import MailSettings, Transport
from loyalty_pipelines.domain.notifications import OutgoingMail
from loyalty_pipelines.embedded import start_server
from loyalty_pipelines.resources.mail_transports import SmtpTransport

SQL = Path(__file__).parent / "sql"
SENDER = "loyalty@shops.example.com"
FINISHED = "finished bytes"
BUILT = "EmailMessage per mail"


class Keeping:
    """Keeps what ours would send: the same bytes for the bare loops."""

    def __init__(self) -> None:
        self.mails: list[OutgoingMail] = []

    def send(self, mail: OutgoingMail) -> None:
        """Keep a mail."""
        self.mails.append(mail)

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def sink() -> Iterator[int]:
    """A mail server; its port."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.mail_sink"], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        print(f"the server took {process.stdout.readline().strip()} mails", flush=True)
        process.wait()


def settings_for(port: int) -> MailSettings:
    """Return settings without encryption and without a rate."""
    return MailSettings(transport=Transport.SMTP, sender=SENDER, host="127.0.0.1", port=port, is_encrypted=False)


def ours(engine: Engine, port: int, number: int) -> None:
    """Send the outbox as a run does."""
    settings = settings_for(port)
    transport = SmtpTransport(settings)
    report = deliver(engine, transport, settings=settings)
    transport.close()
    assert (report.total("sent"), report.server_problem, report.failures) == (number, None, {}), report


def finished_bytes(mails: Sequence[OutgoingMail], port: int) -> None:
    """Send finished mails, one after the other, on one connection."""
    with smtplib.SMTP("127.0.0.1", port) as smtp:
        for mail in mails:
            smtp.sendmail(mail.sender, [mail.recipient.address], mail.content)


def built_per_mail(mails: Sequence[OutgoingMail], html: Sequence[str], port: int) -> None:
    """The same with a message that is built for each mail, from finished texts."""
    with smtplib.SMTP("127.0.0.1", port) as smtp:
        for mail, body in zip(mails, html, strict=True):
            message = EmailMessage()
            message["From"] = Address(display_name=mail.merchant_id, addr_spec=mail.sender)
            message["To"] = mail.recipient.address
            message["Subject"] = mail.subject
            message["Date"] = format_datetime(datetime.now(UTC))
            message["Message-ID"] = f"<{mail.notification_id}@example.com>"
            message.set_content(mail.text)
            message.add_alternative(body, subtype="html")
            smtp.send_message(message)


def prepare(engine: Engine, url: str, number: int) -> tuple[list[OutgoingMail], list[str]]:
    """Make shop, accounts and outbox; return what a run would send, and its HTML."""
    from email import message_from_bytes, policy

    upgrade(engine)
    with engine.begin() as conn:
        sample_shop.create(conn)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute((SQL / "mails_base.sql").read_bytes().replace(b":mails", str(number).encode()))
        conn.execute("VACUUM ANALYZE")
    keeping = Keeping()
    deliver(engine, keeping, settings=settings_for(0))
    html = []
    for mail in keeping.mails:
        part = message_from_bytes(mail.content, policy=policy.default).get_body(("html",))  # type: ignore[attr-defined]
        assert part is not None
        html.append(part.get_content())
    return keeping.mails, html


def reset(url: str) -> None:
    """Let everything wait again."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "UPDATE loyalty.notifications SET status = 'pending', attempts = 0, next_attempt_at = now(), "
            "settled_at = NULL, leased_until = NULL, sent_as = NULL"
        )
        conn.execute("VACUUM ANALYZE loyalty.notifications")
        conn.execute("CHECKPOINT")


@click.command()
@click.option("--runs", default=5, show_default=True, help="Turns; the median of their ratios counts.")
@click.option("--mails", default=10_000, show_default=True, help="Mails of each side in a turn.")
def main(runs: int, mails: int) -> None:
    """Measure delivery."""
    turns: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="lp-bench-") as folder:
        server = start_server(Path(folder) / "pg")
        server.ensure_database("mails")
        engine = connect(server.url("mails"))
        url = server.url("mails").replace("postgresql+psycopg://", "postgresql://")
        made, html = prepare(engine, url, mails)
        with sink() as port:
            sides: dict[str, Callable[[], None]] = {
                "ours": lambda: ours(engine, port, mails),
                FINISHED: lambda: finished_bytes(made, port),
                BUILT: lambda: built_per_mail(made, html, port),
            }
            for run in range(runs):
                turn: dict[str, float] = {}
                for name in list(sides) if run % 2 else reversed(sides):
                    reset(url)
                    started = time.perf_counter()
                    sides[name]()
                    turn[name] = mails / (time.perf_counter() - started)
                print(json.dumps({name: round(rate) for name, rate in turn.items()}), flush=True)
                turns.append(turn)
        engine.dispose()
        server.stop()
    publish("mails", figures(turns), extra={"turns": turns, "mails": mails})


def figures(turns: list[dict[str, float]]) -> list[Figure]:
    """Return the figures as medians over the turns."""
    found = []
    for side, target in ((BUILT, ">= 0.7"), (FINISHED, None)):
        ratios = [turn["ours"] / turn[side] for turn in turns]
        us, bare = (statistics.median(turn[name] for turn in turns) for name in ("ours", side))
        found.append(
            Figure(
                name=f"mails from the outbox / a bare smtplib loop, {side}",
                value=statistics.median(ratios),
                target=target,
                detail=f"{us:,.0f}/s against {bare:,.0f}/s",
                samples=ratios,
            )
        )
    return found


if __name__ == "__main__":
    main()
