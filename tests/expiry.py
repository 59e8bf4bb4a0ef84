"""The nightly expiry run, in the words of a test."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from loyalty_pipelines.db.expiry_run import expire_merchants
from loyalty_pipelines.domain.expiry import ExpiryOptions, Limits, MerchantExpiry
from tests.shop import Shop

# A test's merchant has few accounts: all of them may expire in one night, where the test is not about that.
NO_LIMITS = Limits(accepted_accounts=1_000_000)


def at(text: str) -> datetime:
    """Return an instant; without a zone it is UTC."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


@dataclass
class Nights:
    """Runs nights for a shop, and says what came of them."""

    shop: Shop

    def run(self, as_of: datetime | str | None = None, *, merchant: str = "m1", **options: Any) -> MerchantExpiry:
        """Run a night for one merchant; it must not fail."""
        (done,) = self.run_all(as_of, merchants=[merchant], **options)
        assert done.failure is None, done.failure
        return done

    def run_all(
        self,
        as_of: datetime | str | None = None,
        *,
        merchants: list[str] | None = None,
        run_id: str | None = None,
        **options: Any,
    ) -> list[MerchantExpiry]:
        """Run a night for all merchants, or some."""
        options.setdefault("limits", NO_LIMITS)
        chosen = ExpiryOptions(as_of=at(as_of) if isinstance(as_of, str) else as_of, **options)
        return list(expire_merchants(self.shop.engine, merchants, options=chosen, actor="test", run_id=run_id))

    def deliver(self) -> None:
        """Deliver all mails that wait, as the mail server would."""
        self.shop.run(
            "UPDATE loyalty.notifications SET status = 'sent', settled_at = now(), attempts = attempts + 1 "
            "WHERE status = 'pending'"
        )

    def account(
        self,
        customer: str = "ann",
        *,
        active_at: datetime | str,
        points: int = 100,
        merchant: str = "m1",
    ) -> None:
        """Give a customer points by an order that was paid and awarded then."""
        moment = at(active_at) if isinstance(active_at, str) else active_at
        self.shop.order(f"o-{merchant}-{customer}-{moment.isoformat()}", points, customer=customer, merchant=merchant,
                        paid_at=moment)  # fmt: skip
        self.shop.award()

    def mails(self, template: str | None = None, *, merchant: str = "m1") -> list[tuple[str, str, dict[str, Any]]]:
        """Return customer, template and payload of every mail in the outbox, in order; of one template or of all."""
        return [
            (row.customer_id, row.template, row.payload)
            for row in self.shop.rows(
                "SELECT * FROM loyalty.notifications WHERE merchant_id = :merchant "
                "AND template = coalesce(CAST(:template AS text), template) ORDER BY notification_id",
                merchant=merchant,
                template=template,
            )
        ]
