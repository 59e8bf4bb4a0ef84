"""Every order has its points, once, and in time."""

from datetime import timedelta

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.awards import AWARDED_POINTS, LIVE_AWARDS
from loyalty_pipelines.checks.runbooks import described
from loyalty_pipelines.checks.tables import SHOWN, table
from loyalty_pipelines.resources.database import LedgerDatabase


class LatenessConfig(dg.Config):
    """When an order is late."""

    late_after_minutes: int = Field(
        default=15, ge=1, le=10_080, description="Orders touched more recently than this are not looked at."
    )


@dg.asset_check(
    asset=AWARDED_POINTS,
    blocking=True,
    description=described(
        "Every order that was paid some time ago has its points, and no unpaid one has any. Red: the sensor, the "
        "sweep or the run failed, or a programme was changed backwards. Run sweep_points_job for the merchants in the "
        "table (or 'loyalty award --sweep --merchant M'), then look at its log.",
        "awards",
        "every_paid_order_has_its_points is red",
    ),
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
    description=described(
        "No order waits long in the inbox. Yellow: is paid_orders_sensor on, is the daemon running, does "
        "award_points_job fail? 'loyalty award' drains the inbox by hand.",
        "awards",
        "no_order_waits_long is yellow",
    ),
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
    description=described(
        "Few orders are gone from the shop before they are awarded. Yellow: the shop deletes orders, or the mapping "
        "leaves some out ('loyalty sources show'). An order that comes back is found by the sweep.",
        "awards",
        "few_orders_are_missing is yellow",
    ),
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
