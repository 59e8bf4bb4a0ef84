"""Mails arrive, and in time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.notifications import SENT_NOTIFICATIONS
from loyalty_pipelines.checks.runbooks import described
from loyalty_pipelines.checks.tables import SHOWN, table
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.resources.mailer import Mailer

if TYPE_CHECKING:
    from loyalty_pipelines.domain.notifications import UnreachableMails


class MailAgeConfig(dg.Config):
    """How long a mail may wait."""

    warn_after_minutes: int = Field(
        default=60, ge=1, le=100_000, description="A mail that is older and not delivered turns the check yellow."
    )
    fail_after_hours: int = Field(default=24, ge=1, le=10_000, description="One that is older than this turns it red.")


@dg.asset_check(
    asset=SENT_NOTIFICATIONS,
    blocking=True,
    description=described(
        "No mail waits long or was given up and left at that. Yellow: 'loyalty notifications list' names them and the "
        "reasons. Correct the cause, then 'loyalty notifications retry --all', or give up on one with 'loyalty "
        "notifications park NUMBER --reason TEXT'. Red: for a day; points whose warning is among them don't expire "
        "meanwhile.",
        "notifications",
        "no_mail_waits_long is yellow or red",
    ),
)
def no_mail_waits_long(config: MailAgeConfig, ledger: LedgerDatabase, mailer: Mailer) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.notifications import undelivered
    from loyalty_pipelines.domain.mail_settings import MailNotConfiguredError, MailSettingsError

    with ledger.engine() as engine, reading(engine) as conn:
        found = undelivered(conn)
    oldest = max((one.oldest_seconds for one in found), default=0.0)
    pending, failed = sum(one.pending for one in found), sum(one.failed for one in found)
    is_red, hint = oldest > config.fail_after_hours * 3600, ""
    try:
        mailer.settings()
    except MailNotConfiguredError as nobody_sends:
        # Somebody decided to send none yet: that is no failure.
        is_red, hint = False, f" {nobody_sends}"
    except MailSettingsError as unusable:
        hint = f" {unusable}"
    return dg.AssetCheckResult(
        passed=oldest <= config.warn_after_minutes * 60,
        severity=dg.AssetCheckSeverity.ERROR if is_red else dg.AssetCheckSeverity.WARN,
        description=f"{pending} mails wait, {failed} have failed; the oldest is {oldest / 60:.1f} minutes old.{hint}",
        metadata={
            "pending": pending,
            "failed": failed,
            "oldest in seconds": oldest,
            "merchants": table(found[:SHOWN], ("merchant_id", "pending", "failed", "oldest_seconds")),
        },
    )


class MailFailureConfig(dg.Config):
    """How many mails may fail."""

    hours: int = Field(default=24, ge=1, le=720, description="How far back to look.")
    few_mails: int = Field(default=5, ge=1, le=1_000_000, description="Fewer refused mails than this are no sign.")
    max_percent: float = Field(default=5.0, ge=0, le=100, description="More than this turns the check yellow.")
    few_unreachable: int = Field(
        default=20, ge=1, le=1_000_000, description="Fewer parked mails of a merchant than this are no sign."
    )
    max_percent_unreachable: float = Field(
        default=50.0, ge=0, le=100, description="More than this of a merchant's mails parked turns the check yellow."
    )


@dg.asset_check(
    asset=SENT_NOTIFICATIONS,
    description=described(
        "Few mails are refused. Counted are those that the mail server refused for good or for too long, the mail or "
        "its recipient. Yellow: the reasons are in the table. Many with one reason have one cause: correct it "
        "(sender, rights, content), then 'loyalty notifications retry --all'. Yellow, too: most mails of a merchant "
        "were parked, as when the source mapping has lost the customers' addresses. Points of parked warnings expire.",
        "notifications",
        "few_mails_fail is yellow",
    ),
)
def few_mails_fail(config: MailFailureConfig, ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.notifications import settled, unreachable

    with ledger.engine() as engine, reading(engine) as conn:
        found = settled(conn, hours=config.hours)
        unreached = unreachable(
            conn, hours=config.hours, few=config.few_unreachable, max_percent=config.max_percent_unreachable
        )
    sent = sum(one.mails for one in found if one.status == "sent")
    refused = sum(one.mails for one in found if one.is_refused)
    percent = 100.0 * refused / (sent + refused) if refused else 0.0
    return dg.AssetCheckResult(
        passed=(refused < config.few_mails or percent <= config.max_percent) and not unreached,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{refused} of {sent + refused} mails of the last {config.hours} hours were refused "
        f"({percent:.2f} %).{_unreached(unreached)}",
        metadata={
            "percent": percent,
            "sent": sent,
            "refused": refused,
            "parked": sum(one.mails for one in found if one.status == "parked"),
            "void": sum(one.mails for one in found if one.status == "void"),
            "reasons": table([one for one in found if one.status != "sent"][:SHOWN], ("status", "reason", "mails")),
            "merchants mostly parked": table(unreached[:SHOWN], ("merchant_id", "mails", "parked", "reason")),
        },
    )


def _unreached(found: "Sequence[UnreachableMails]") -> str:
    """Return in words at which merchants mails can't be delivered, and what to look at."""
    if not found:
        return ""
    shown = "; ".join(f"{one.merchant_id}: {one.parked} of {one.mails}: {one.reason}" for one in found[:SHOWN])
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (
        f" Most mails were parked at {shown}{more}. Is customers.email of the source mapping still right, and do the "
        "shop's customers have addresses? Points of parked warnings expire: correct it, then 'loyalty notifications "
        "retry --merchant M'."
    )
