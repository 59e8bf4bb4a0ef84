"""The loop around the outbox: claim, commit, look up, send, mark. No transaction is open while a server is asked."""

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from shlex import quote

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import notifications, sources
from loyalty_pipelines.db.drain import short_text
from loyalty_pipelines.db.engine import is_connection_loss, reading, with_retries
from loyalty_pipelines.db.mail_templates import overrides_of
from loyalty_pipelines.db.merchant_jobs_run import note_merchants
from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.mail_settings import MailSettings
from loyalty_pipelines.domain.mails import MailFacts, MailFactsError, Overrides, render
from loyalty_pipelines.domain.notifications import (
    REFUSED_IN_A_ROW,
    Addressee,
    ClaimedMail,
    DeliveryReport,
    MailNotTakenError,
    MailRetries,
    MailServerError,
    MailTransport,
    MerchantMails,
    Result,
    Status,
    compose,
    mailbox,
    reason_not_to_send,
    without_addresses,
)

# A page may use a third of it. The longest mail, with 30 seconds for each of its answers, takes about seven and a half
# minutes with its wait for its turn in the minute, and fits in the rest. So nobody else gets a mail that is on its way.
LEASE = timedelta(minutes=15)
USABLE_PART = 1 / 3
MAX_TEMPLATE_PROBLEMS = 10
# About 40 seconds.
MARK_ATTEMPTS = 12
# The name of a delivery in loyalty.merchant_jobs.
MAIL_JOB = "sent_notifications"


@dataclass(frozen=True, kw_only=True)
class DeliveryOptions:
    """How to send: `page_size` mails of a merchant at once, until there are none, or one of the limits is reached."""

    page_size: int = 200
    max_mails: int = 100_000
    max_seconds: float = 540
    retries: MailRetries = field(default_factory=MailRetries)
    lease: timedelta = LEASE


class Pace:
    """Keeps mails apart so that no minute has more than it may."""

    def __init__(
        self,
        per_minute: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next = clock()

    def wait(self) -> None:
        """Return when the next mail may go."""
        if not self._gap:
            return
        now = self._clock()
        if now < self._next:
            self._sleep(self._next - now)
        self._next = max(now, self._next) + self._gap


def is_something_due(engine: Engine) -> bool:
    """Return whether a mail is to be sent now; raise `NoMappingError` when there is no shop to ask for addresses."""
    with reading(engine) as conn:
        sources.require_shop(conn)
        return bool(notifications.due_merchants(conn))


def deliver(
    engine: Engine,
    transport: MailTransport,
    *,
    settings: MailSettings,
    options: DeliveryOptions | None = None,
    run_id: str | None = None,
) -> DeliveryReport:
    """Send what is due, of all merchants; running it twice or two at once sends nothing twice.

    Merchants take turns, a page each. Each mail is marked right after the server's answer, in a transaction of its own.
    What is claimed and not come to is given back at the end, however that comes about. When the server can't be used at
    all, the report's `server_problem` says why, and mails wait; what fails for one merchant is in `failures` and stops
    no other: a merchant of whom the server takes none of ten mails in a row is left for this run. Ten such merchants in
    a row, or nothing taken of anybody, are the server's problem. A lost database is raised (and is transient). Raises
    `NoMappingError` when there is no shop.
    """
    with reading(engine) as conn:
        sources.require_shop(conn)
        merchants = notifications.due_merchants(conn)
    run = _Run(engine, transport, settings=settings, options=options or DeliveryOptions())
    server_problem = None
    try:
        run.deliver(merchants)
    except MailServerError as error:
        server_problem = str(error)
    finally:
        run.close()
    failures = {**run.failures, **run.set_aside}
    # Of a server that can't be used nobody was served but those whose mails it took.
    served = [merchant_id for merchant_id, mails in run.done.items() if mails.sent or not server_problem]
    note_merchants(engine, job=MAIL_JOB, served=served, failures=failures, run_id=run_id)
    return DeliveryReport(
        merchants=run.done,
        server_problem=server_problem,
        failures=failures,
        template_problems=tuple(run.template_problems)[:MAX_TEMPLATE_PROBLEMS],
    )


class _Run:
    """One run of a sender."""

    def __init__(
        self, engine: Engine, transport: MailTransport, *, settings: MailSettings, options: DeliveryOptions
    ) -> None:
        self.done: dict[str, MerchantMails] = {}
        self.failures: dict[str, str] = {}
        # Merchants that were left because their mails are refused, and what to do about it.
        self.set_aside: dict[str, str] = {}
        self.template_problems: dict[str, None] = {}
        self._engine = engine
        self._transport = transport
        self._settings = settings
        self._options = options
        self._pace = Pace(settings.per_minute)
        # At a low rate, a minute's worth: a page must be over before its lease is.
        self._page_size = min(options.page_size, settings.per_minute or options.page_size)
        self._ends_at = time.monotonic() + options.max_seconds
        self._mails_left = options.max_mails
        # Of each merchant since its last mail that was taken, and since the last one of anybody.
        self._refused: Counter[str] = Counter()
        self._refused_since: Counter[str] = Counter()
        self._last_refusal = ""
        self._marking: Connection | None = None

    def deliver(self, merchants: Sequence[str]) -> None:
        """Send what is due of these merchants, in turns."""
        # In any order: a run that the server's refusals end must not end in front of the same merchants each time.
        waiting = deque(random.sample(merchants, len(merchants)))
        while waiting and not self._is_over():
            merchant_id = waiting.popleft()
            with self._keeping_failure(merchant_id):
                if self._deliver_page(merchant_id):
                    waiting.append(merchant_id)
            if len(self._refused_since) >= REFUSED_IN_A_ROW:
                raise self._server_takes_nothing()
        if self.set_aside and not any(mails.sent for mails in self.done.values()):
            raise self._server_takes_nothing()

    def _is_over(self) -> bool:
        return self._mails_left <= 0 or time.monotonic() >= self._ends_at

    def _deliver_page(self, merchant_id: str) -> bool:
        """Send one page; return whether there may be another."""
        size = min(self._page_size, self._mails_left)
        # Before the claim: what that takes is a part of the lease.
        usable_until = time.monotonic() + self._options.lease.total_seconds() * USABLE_PART
        page = with_retries(partial(self._claim, merchant_id, size))
        unsent = {mail.notification_id: mail for mail in page}
        try:
            found, overrides = with_retries(partial(self._look_up, page)) if page else ({}, Overrides())
            for mail in page:
                if self._is_over() or merchant_id in self.set_aside or time.monotonic() >= usable_until:
                    break
                # From here on it may be on its way: whatever happens, its lease must end before anybody tries again.
                del unsent[mail.notification_id]
                if addressee := found.get(mail.notification_id):
                    try:
                        result = reason_not_to_send(mail, addressee) or self._send(mail, addressee, overrides)
                    except MailServerError:
                        unsent[mail.notification_id] = mail
                        raise
                    self._settle(mail, result)
        finally:
            if unsent:
                self._give_back(list(unsent.values()))
        return len(page) == size and merchant_id not in self.set_aside

    def _claim(self, merchant_id: str, size: int) -> list[ClaimedMail]:
        with self._engine.begin() as conn:
            return notifications.claim_page(conn, merchant_id, page_size=size, lease=self._options.lease)

    def _look_up(self, page: Sequence[ClaimedMail]) -> tuple[Mapping[int, Addressee], Overrides]:
        with reading(self._engine) as conn:
            return notifications.addressees(conn, page), overrides_of(conn, [page[0].merchant_id])

    def _send(self, mail: ClaimedMail, addressee: Addressee, overrides: Overrides) -> Result:
        """Write and send one mail; raise `MailServerError` when it was not even tried, and no other can be."""
        recipient = mailbox(addressee.customer_email or "")
        if recipient is None:
            return Result(status=Status.PARKED, error="the customer's address is not valid")
        facts = MailFacts(
            template=mail.template,
            payload=mail.payload,
            merchant_id=mail.merchant_id,
            merchant_name=addressee.merchant_name or "",
            merchant_locale=addressee.merchant_locale,
            merchant_timezone=addressee.merchant_timezone,
            customer_name=addressee.customer_name,
            customer_locale=addressee.customer_locale,
            store_id=addressee.store_id,
        )
        try:
            content = render(facts, overrides)
        except MailFactsError as error:
            return Result(status=Status.FAILED, error=without_addresses(str(error)))
        self.template_problems.update(dict.fromkeys(content.problems))
        outgoing = compose(
            mail, content, recipient, merchant_name=facts.merchant_name, settings=self._settings, at=addressee.as_of
        )
        self._pace.wait()
        try:
            self._transport.send(outgoing)
        except MailNotTakenError as refusal:
            if not refusal.is_recipients:
                self._count_refusal(mail.merchant_id, str(refusal))
            is_last_try = mail.attempts >= self._options.retries.max_retries
            status = Status.FAILED if refusal.status is Status.PENDING and is_last_try else refusal.status
            return Result(status=status, error=str(refusal), is_tried=True)
        del self._refused[mail.merchant_id]
        self._refused_since.clear()
        return Result(status=Status.SENT, sent_as=f"{content.locale} {content.origin}", is_tried=True)

    def _settle(self, mail: ClaimedMail, result: Result) -> None:
        # The mail is out: rather wait for a database that restarts than send it again.
        with_retries(partial(self._mark, mail, result), attempts=MARK_ATTEMPTS)
        self._mails_left -= 1
        before = self.done.get(mail.merchant_id, MerchantMails(merchant_id=mail.merchant_id))
        self.done[mail.merchant_id] = before.plus(result.status)

    def _count_refusal(self, merchant_id: str, reason: str) -> None:
        """Note a refusal that may be about more than one recipient; after ten in a row the merchant is set aside."""
        self._last_refusal = reason
        self._refused[merchant_id] += 1
        self._refused_since[merchant_id] += 1
        if self._refused[merchant_id] >= REFUSED_IN_A_ROW:
            name = quote(merchant_id)
            self.set_aside[merchant_id] = (
                f"The mail server {self._settings.place} took none of {REFUSED_IN_A_ROW} mails of this merchant in a "
                f"row, the last because: {reason}. Its others wait for the next run. 'loyalty notifications list "
                f"--merchant {name}' has the reasons: correct the cause, then 'loyalty notifications retry "
                f"--merchant {name}'."
            )

    def _server_takes_nothing(self) -> MailServerError:
        """Return what to say when the server is the cause; it is said once and not for each merchant."""
        for merchant_id in self._refused_since:
            self.set_aside.pop(merchant_id, None)
        merchants = len(self._refused_since)
        whose = f", of {merchants} merchants" if merchants > 1 else ""
        return MailServerError(
            f"The mail server {self._settings.place} took none of {self._refused_since.total()} mails in a row{whose}, "
            f"the last because: {self._last_refusal}. The others wait."
        )

    def _mark(self, mail: ClaimedMail, result: Result) -> None:
        # One connection for all marks, and each statement a transaction: checking out a connection, BEGIN and COMMIT
        # would be four more round trips for every mail. A connection that failed is not used again.
        if self._marking is None:
            self._marking = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            notifications.mark(self._marking, mail, result, retries=self._options.retries)
        except DBAPIError:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection back."""
        if self._marking is not None:
            self._marking.close()
        self._marking = None

    def _give_back(self, mails: Sequence[ClaimedMail]) -> None:
        """End the lease of what was not come to; a database that is gone must not hide why that was."""
        with suppress(DBAPIError), self._engine.begin() as conn:
            notifications.give_back(conn, mails)

    @contextmanager
    def _keeping_failure(self, merchant_id: str) -> Iterator[None]:
        try:
            yield
        except MailServerError:
            raise
        except (LoyaltyError, DBAPIError) as error:
            if is_connection_loss(error):
                raise
            self.failures[merchant_id] = short_text(error)
