"""The outbox in the words of a test: what is put into it, what a sender makes of it."""

import json
from dataclasses import dataclass
from typing import Any

from loyalty_pipelines.db import notifications
from loyalty_pipelines.db.notifications_run import DeliveryOptions, deliver
from loyalty_pipelines.domain.mail_settings import mail_settings
from loyalty_pipelines.domain.notifications import DeliveryReport, MailRetries, Notification
from loyalty_pipelines.resources.mail_transports import transport_for
from tests.mail_server import MailServer
from tests.shop import Shop

SENDER = "loyalty@shops.example.com"
COUNTERS = ("sent", "put_off", "failed", "parked", "void")


@dataclass
class Outbox:
    """Puts mails into the outbox, for customer 'ann' of merchant 'm1' unless named, and sends them."""

    shop: Shop

    def customer(self, customer: str = "ann", *, merchant: str = "m1", **more: Any) -> None:
        """Let the shop have a customer with an address of its own, or change it."""
        values = {"email": f"{customer}@example.com", "name": None, "locale": None, **more}
        self.shop.run(
            "INSERT INTO sample_shop.customers (merchant_id, id, email, name, locale) "
            "VALUES (:merchant, :id, :email, :name, :locale) ON CONFLICT (merchant_id, id) "
            "DO UPDATE SET email = :email, name = :name, locale = :locale",
            merchant=merchant,
            id=customer,
            **values,
        )

    def account(self, customer: str = "ann", *, merchant: str = "m1") -> int:
        """Return the number of the customer's account, made if need be."""
        self.shop.run(
            "INSERT INTO loyalty.accounts (merchant_id, customer_id) VALUES (:merchant, :id) ON CONFLICT DO NOTHING",
            merchant=merchant,
            id=customer,
        )
        return self.shop.account(customer, merchant=merchant).account_id

    def add(
        self,
        customer: str = "ann",
        template: str = "loyalty_welcome_bonus",
        *,
        merchant: str = "m1",
        key: str | None = None,
        is_known: bool = True,
        **payload: Any,
    ) -> int:
        """Put a mail into the outbox, of a customer whom the shop and the ledger know; return its number."""
        if is_known:
            self.customer(customer, merchant=merchant)
        account = self.account(customer, merchant=merchant)
        return self._insert(customer, template, merchant, key or f"{template}/{account}", payload or {"points": 50})

    def warn(self, customer: str = "ann", *, merchant: str = "m1", expires: str = "10 days", points: int = 70) -> int:
        """Put a warning into the outbox and into the account, as the night's warnings do; return its number."""
        self.customer(customer, merchant=merchant)
        account = self.account(customer, merchant=merchant)
        terms = "SELECT points_expiration_days FROM loyalty.merchant_terms(:merchant)"
        if self.shop.value(terms, merchant=merchant) is None:
            self.shop.program(merchant, points_expiration_days=365)
        self.shop.run(
            "UPDATE loyalty.accounts SET expires_at = date_trunc('day', now() + CAST(:expires AS interval)), "
            "warned_for = date_trunc('day', now() + CAST(:expires AS interval)) "
            "WHERE merchant_id = :merchant AND account_id = :account",
            merchant=merchant,
            account=account,
            expires=expires,
        )
        found = self.shop.account(customer, merchant=merchant)
        payload = {"points": points, "expires_at": found.expires_at.isoformat()}
        key = self.shop.value(
            "SELECT loyalty.warning_key(:account, CAST(:at AS timestamptz), 'Europe/Luxembourg')",
            account=account,
            at=found.expires_at,
        )
        return self._insert(customer, "loyalty_points_expiring", merchant, key, payload)

    def many(self, number: int, *, merchant: str = "m1") -> None:
        """Put mails of as many customers, c1, c2 ..., into the outbox."""
        self.shop.run(
            "INSERT INTO sample_shop.customers (merchant_id, id, email) SELECT :merchant, 'c' || n, "
            "'c' || n || '@example.com' FROM generate_series(1, CAST(:number AS integer)) AS n",
            merchant=merchant,
            number=number,
        )
        self.shop.run(
            "INSERT INTO loyalty.accounts (merchant_id, customer_id) SELECT :merchant, 'c' || n "
            "FROM generate_series(1, CAST(:number AS integer)) AS n",
            merchant=merchant,
            number=number,
        )
        self.shop.run(
            "INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id) "
            "SELECT merchant_id, 'enrollment/' || account_id, 'loyalty_enrollment', customer_id FROM loyalty.accounts "
            "WHERE merchant_id = :merchant ORDER BY account_id",
            merchant=merchant,
        )

    def _insert(self, customer: str, template: str, merchant: str, key: str, payload: dict[str, Any]) -> int:
        self.shop.run(
            "INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, payload) "
            "VALUES (:merchant, :key, :template, :customer, CAST(:payload AS jsonb))",
            merchant=merchant,
            key=key,
            template=template,
            customer=customer,
            payload=json.dumps(payload),
        )
        return self.shop.value(
            "SELECT notification_id FROM loyalty.notifications WHERE merchant_id = :merchant AND dedupe_key = :key",
            merchant=merchant,
            key=key,
        )

    def send(
        self,
        to: MailServer | str,
        *,
        timeout: float = 30,
        per_minute: int = 1_000_000,
        max_retries: int = 3,
        **more: Any,
    ) -> DeliveryReport:
        """Send what is due, to a server or as a URL says."""
        url = to if isinstance(to, str) else to.url()
        settings = mail_settings(
            {"LOYALTY_MAIL_URL": url, "LOYALTY_MAIL_FROM": SENDER, "LOYALTY_MAIL_PER_MINUTE": str(per_minute)}
        )
        transport = transport_for(settings, timeout_seconds=timeout)
        try:
            return deliver(
                self.shop.engine,
                transport,
                settings=settings,
                options=DeliveryOptions(retries=MailRetries(max_retries=max_retries), **more),
            )
        finally:
            transport.close()

    def sent(self, to: MailServer | str, **options: Any) -> dict[str, int]:
        """Send what is due; return what became of it, without zeros; fail the test when the server can't be used."""
        report = self.send(to, **options)
        assert (report.server_problem, report.failures) == (None, {})
        return {name: report.total(name) for name in COUNTERS if report.total(name)}

    def wait(self) -> None:
        """Let the time of all next tries, and the end of all leases, come."""
        self.shop.run("UPDATE loyalty.notifications SET next_attempt_at = now() WHERE status = 'pending'")

    def mail(self, number: int) -> Notification:
        """Return a mail."""
        with self.shop.engine.connect() as conn:
            return notifications.find_mail(conn, number)

    def states(self, *, merchant: str = "m1") -> dict[str, str]:
        """Return the status of each customer's mail."""
        return {
            row.customer_id: row.status
            for row in self.shop.rows(
                "SELECT customer_id, status FROM loyalty.notifications WHERE merchant_id = :merchant", merchant=merchant
            )
        }

    def leased(self) -> int:
        """Return how many mails are leased."""
        return self.shop.value("SELECT count(*) FROM loyalty.notifications WHERE leased_until IS NOT NULL")
