"""Mails to customers: what waits in the outbox, sent."""

from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.awards import (
    OWNERS,
    RETRY_TRANSIENT,
    failed_merchants,
    merchants_table,
    retrying_only_what_passes,
)
from loyalty_pipelines.assets.shop import MERCHANTS_TABLE
from loyalty_pipelines.resources.database import LedgerDatabase
from loyalty_pipelines.resources.mailer import Mailer

if TYPE_CHECKING:
    from loyalty_pipelines.domain.notifications import DeliveryReport

SENT_NOTIFICATIONS = dg.AssetKey(["loyalty", "sent_notifications"])
# Of its own, and with one slot it would keep to the rate per minute; the sensor starts one run at a time anyway.
MAIL_POOL = "notifications"
SHOWN_MERCHANTS = 100


class DeliveryConfig(dg.Config):
    """How to send."""

    max_mails: int = Field(default=100_000, ge=1, le=10_000_000, description="The run ends after so many mails.")
    max_seconds: int = Field(
        default=540, ge=1, le=600, description="The run ends after so long, and the next one goes on."
    )
    page_size: int = Field(
        default=200,
        ge=1,
        le=1_000,
        description="Mails of a merchant that are claimed at once; then others have a turn.",
    )
    max_retries: int = Field(
        default=3, ge=0, le=100, description="How often a mail is tried again that the server puts off."
    )
    first_wait_seconds: int = Field(
        default=60, ge=1, le=86_400, description="How long a mail waits after its first try; doubles with every try."
    )


@dg.asset(
    key=SENT_NOTIFICATIONS,
    group_name="notifications",
    deps=[MERCHANTS_TABLE],
    description="Mails that waited in the outbox, sent; merchants take turns. pending_notifications_sensor starts it "
    "when some are due. Each mail is marked right after the server took it: running it twice, or two at once, sends "
    "nothing twice; a worker that is killed sends at most one mail again, with the same Message-ID.",
    kinds={"postgres", "smtp"},
    owners=OWNERS,
    retry_policy=RETRY_TRANSIENT,
    pool=MAIL_POOL,
)
def sent_notifications(
    context: dg.AssetExecutionContext, config: DeliveryConfig, ledger: LedgerDatabase, mailer: Mailer
) -> None:
    from loyalty_pipelines.db.notifications_run import DeliveryOptions, deliver
    from loyalty_pipelines.domain.notifications import MailRetries

    retries = MailRetries(max_retries=config.max_retries, first_wait=timedelta(seconds=config.first_wait_seconds))
    with retrying_only_what_passes(), ledger.engine() as engine, mailer.open() as (settings, transport):
        options = DeliveryOptions(
            page_size=config.page_size, max_mails=config.max_mails, max_seconds=config.max_seconds, retries=retries
        )
        report = deliver(engine, transport, settings=settings, options=options, run_id=context.run.run_id)
    for problem in report.template_problems:
        context.log.warning(f"A template was passed over, customers got the next one in the chain: {problem}")
    context.add_output_metadata(report_metadata(report))
    if report.server_problem or report.failures:
        # What was sent is shown all the same: a Failure alone would hide it.
        context.log_event(dg.AssetMaterialization(SENT_NOTIFICATIONS, metadata=report_metadata(report)))
    if report.server_problem:
        raise dg.Failure(report.server_problem, allow_retries=False)
    if report.failures:
        raise failed_merchants(report.failures)


TABLE_COLUMNS = ("sent", "put_off", "failed", "parked", "void")


def report_metadata(report: "DeliveryReport") -> dict[str, dg.MetadataValue]:
    """Return what a run did: totals that the UI plots over time, and a table of the merchants it touched."""
    touched = sorted(report.merchants.values(), key=lambda mails: -mails.handled)
    return {
        **{name.replace("_", " "): dg.MetadataValue.int(report.total(name)) for name in TABLE_COLUMNS},
        "merchants": dg.MetadataValue.int(len(report.merchants)),
        "by merchant": merchants_table(touched[:SHOWN_MERCHANTS], TABLE_COLUMNS),
    }
