"""A balance put right by hand, from the launchpad."""

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.awards import RETRY_TRANSIENT, retrying_only_what_passes
from loyalty_pipelines.resources.database import LedgerDatabase


class AdjustConfig(dg.Config):
    """What to change, for whom, and who says so."""

    merchant_id: str = Field(description="The merchant in whose programme the customer is.")
    customer_id: str = Field(description="The customer's id in the shop.")
    points: int = Field(
        ge=-2_000_000_000, le=2_000_000_000, description="Points to add, or to take: -50 takes 50. Not 0."
    )
    reason: str = Field(description="Why; the ledger keeps the words.")
    actor: str = Field(description="Who decided it; the ledger keeps the name.")
    reference: str | None = Field(
        default=None,
        description="A key of yours, such as a ticket: the same one is done once. Default: the id of the first run, so "
        "that a retry or re-execution of this run adjusts once.",
    )
    dry_run: bool = Field(default=True, description="Show the balance before and after, and write nothing.")


@dg.op(
    description="Writes one ledger entry of kind 'adjusted' and moves the balance; it counts as activity.",
    retry_policy=RETRY_TRANSIENT,
)
def adjust_points(context: dg.OpExecutionContext, config: AdjustConfig, ledger: LedgerDatabase) -> None:
    from loyalty_pipelines.db.repairs import adjust
    from loyalty_pipelines.domain.repairs import Adjustment

    with retrying_only_what_passes(), ledger.engine() as engine:
        wanted = Adjustment(
            merchant_id=config.merchant_id,
            customer_id=config.customer_id,
            points=config.points,
            reason=config.reason,
            actor=config.actor,
            reference=config.reference or context.run.root_run_id or context.run.run_id,
            run_id=context.run.run_id,
        )
        with engine.connect() as conn, conn.begin() as transaction:
            report = adjust(conn, wanted)
            if config.dry_run:
                transaction.rollback()
    done = "would change" if config.dry_run else "was changed before" if report.is_repeated else "changed"
    context.log.info(
        f"The balance of customer {report.account_customer_id} at {report.merchant_id} {done} from "
        f"{report.balance_before:,} to {report.balance_after:,} (entry {report.seq}, reference {report.reference})."
    )
    context.add_output_metadata(
        {
            "customer": report.account_customer_id,
            "balance before": report.balance_before,
            "balance after": report.balance_after,
            "entry": report.seq,
            "reference": report.reference,
            "expires": "never" if report.expires_at is None else report.expires_at.isoformat(),
            "done before": report.is_repeated,
            "dry run": config.dry_run,
        }
    )
