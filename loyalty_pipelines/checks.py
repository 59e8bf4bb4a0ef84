"""What is proved about the assets: each check is a sentence, its description says what to do when it is red.

Those that are errors are blocking, so that the run of award_checks_job fails with them: it holds nothing else up.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.awards import AWARDED_POINTS, LIVE_AWARDS
from loyalty_pipelines.assets.reconciliation_queue import RECONCILIATION_QUEUE
from loyalty_pipelines.resources.database import LedgerDatabase

SHOWN = 10


@dg.asset_check(
    asset=AWARDED_POINTS,
    blocking=True,
    description="The entries of every order add up to what the order is accounted for, on one account, and it was "
    "earned once. Red: points were given twice or past the pipelines. Look at the orders in the table with "
    "'loyalty account show MERCHANT CUSTOMER'; nothing is corrected by itself.",
)
def no_order_is_awarded_twice(ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.award_checks import orders_awarded_twice
    from loyalty_pipelines.db.engine import reading

    with ledger.engine() as engine, reading(engine) as conn:
        count, worst = orders_awarded_twice(conn, limit=SHOWN)
    columns = ("merchant_id", "order_id", "points_in_ledger", "points_accounted_for")
    return dg.AssetCheckResult(
        passed=count == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{count} orders have other points in the ledger than they are accounted for.",
        metadata={"orders": count, "worst": table(worst, columns)},
    )


class LatenessConfig(dg.Config):
    """When an order is late."""

    late_after_minutes: int = Field(
        default=15, ge=1, le=10_080, description="Orders touched more recently than this are not looked at."
    )


@dg.asset_check(
    asset=AWARDED_POINTS,
    blocking=True,
    description="Every order that was paid some time ago has its points, and no unpaid one has any. Red: the sensor, "
    "the sweep or the run failed, or a programme was changed backwards. Run sweep_points_job for the merchants in the "
    "table (or 'loyalty award --sweep --merchant M'), then look at its log.",
)
def every_paid_order_has_its_points(config: LatenessConfig, ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.sweep_run import late_orders

    with ledger.engine() as engine:
        late, failures = late_orders(engine, untouched_for=timedelta(minutes=config.late_after_minutes))
    columns = ("merchant_id", "orders_paid", "points_paid", "orders_unpaid", "points_unpaid", "orders_undecided")
    orders = sum(found.orders for found in late)
    return dg.AssetCheckResult(
        passed=not late and not failures,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{orders} orders of {len(late)} merchants don't have the points they deserve"
        + (f"; {len(failures)} merchants could not be read." if failures else "."),
        metadata={
            "orders": orders,
            "points missing": sum(found.points_paid for found in late),
            "points too many": -sum(found.points_unpaid for found in late),
            "merchants": table(late[:SHOWN], columns),
            "merchants that could not be read": dg.MetadataValue.json(failures),
        },
    )


class LagConfig(dg.Config):
    """How long an order may wait."""

    max_minutes: int = Field(
        default=10, ge=1, le=10_080, description="An order that waits longer than this turns the check yellow."
    )


@dg.asset_check(
    asset=LIVE_AWARDS,
    description="No order waits long in the inbox. Yellow: is paid_orders_sensor on, is the daemon running, does "
    "award_points_job fail? 'loyalty award' drains the inbox by hand.",
)
def no_order_waits_long(config: LagConfig, ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.award_checks import waiting_orders
    from loyalty_pipelines.db.engine import reading

    with ledger.engine() as engine, reading(engine) as conn:
        waiting = waiting_orders(conn)
    oldest = max((found.oldest_seconds for found in waiting), default=0.0)
    return dg.AssetCheckResult(
        passed=oldest <= config.max_minutes * 60,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{sum(found.orders for found in waiting)} orders wait, the oldest for {oldest / 60:.1f} minutes.",
        metadata={
            "oldest in seconds": oldest,
            "orders": sum(found.orders for found in waiting),
            "merchants": table(waiting[:SHOWN], ("merchant_id", "orders", "oldest_seconds")),
        },
    )


class MissingConfig(dg.Config):
    """How many orders may be gone."""

    hours: int = Field(default=24, ge=1, le=720, description="How far back to look.")
    max_percent: float = Field(default=1.0, ge=0, le=100, description="More than this turns the check yellow.")


@dg.asset_check(
    asset=LIVE_AWARDS,
    description="Few orders are gone from the shop before they are awarded. Yellow: the shop deletes orders, or the "
    "mapping leaves some out ('loyalty sources show'). An order that comes back is found by the sweep.",
)
def few_orders_are_missing(config: MissingConfig, ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.award_checks import missing_orders
    from loyalty_pipelines.db.engine import reading

    with ledger.engine() as engine, reading(engine) as conn:
        found = missing_orders(conn, hours=config.hours)
    orders, missing = sum(m.orders for m in found), sum(m.orders_missing for m in found)
    percent = 100.0 * missing / orders if orders else 0.0
    return dg.AssetCheckResult(
        passed=percent <= config.max_percent,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{missing} of {orders} orders of the last {config.hours} hours were gone ({percent:.2f} %).",
        metadata={
            "percent": percent,
            "orders missing": missing,
            "merchants": table(
                [m for m in found if m.orders_missing][:SHOWN], ("merchant_id", "orders", "orders_missing")
            ),
        },
    )


class QueueAgeConfig(dg.Config):
    """How long a point update may wait in the queue."""

    warn_after_minutes: int = Field(
        default=60,
        ge=1,
        le=100_000,
        description="An item older than this turns the check yellow; so does a parked one.",
    )
    fail_after_hours: int = Field(default=24, ge=1, le=10_000, description="An item older than this turns it red.")


@dg.asset_check(
    asset=RECONCILIATION_QUEUE,
    blocking=True,
    description="No point update waits long in the reconciliation queue, and none is parked. Yellow: 'loyalty queue "
    "list' names the items and reasons; correct their cause, then 'loyalty queue retry NUMBER', or settle one with "
    "'loyalty queue resolve NUMBER --reason TEXT'. Red: customers have waited for their points for a day. What each "
    "reason asks for is in docs/runbooks/reconciliation-queue.md.",
)
def few_updates_wait_in_the_queue(config: QueueAgeConfig, ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.queue import queue_summary

    with ledger.engine() as engine, reading(engine) as conn:
        waiting = queue_summary(conn)
    oldest = max((found.oldest_seconds for found in waiting), default=0.0)
    items, parked = sum(found.items for found in waiting), sum(found.parked for found in waiting)
    is_red = oldest > config.fail_after_hours * 3600
    return dg.AssetCheckResult(
        passed=not is_red and not parked and oldest <= config.warn_after_minutes * 60,
        severity=dg.AssetCheckSeverity.ERROR if is_red else dg.AssetCheckSeverity.WARN,
        description=f"{items} point updates wait, the oldest for {oldest / 60:.1f} minutes; {parked} are parked.",
        metadata={
            "unresolved": items,
            "oldest in seconds": oldest,
            "points at stake": sum(found.points_at_stake for found in waiting),
            "parked": parked,
            "merchants": table(
                waiting[:SHOWN], ("merchant_id", "items", "oldest_seconds", "points_at_stake", "parked")
            ),
        },
    )


def table(rows: Sequence[Any], columns: Sequence[str]) -> dg.TableMetadataValue:
    """Return domain objects as a metadata table with the named attributes as columns."""
    kinds = {int: "int", float: "float"}
    return dg.MetadataValue.table(
        records=[dg.TableRecord({name: getattr(row, name) for name in columns}) for row in rows],
        schema=dg.TableSchema(
            columns=[
                dg.TableColumn(name, kinds.get(type(getattr(rows[0], name)), "string") if rows else "string")
                for name in columns
            ]
        ),
    )


CHECKS = [
    no_order_is_awarded_twice,
    every_paid_order_has_its_points,
    no_order_waits_long,
    few_orders_are_missing,
    few_updates_wait_in_the_queue,
]
