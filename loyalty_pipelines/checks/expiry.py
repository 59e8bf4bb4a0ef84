"""Points expire every night, where they should, and nobody's who was not told."""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.expiry import EXPIRED_POINTS, EXPIRY_PLAN
from loyalty_pipelines.checks.runbooks import described
from loyalty_pipelines.checks.tables import SHOWN, table
from loyalty_pipelines.domain.expiry import LATE_AFTER
from loyalty_pipelines.resources.database import LedgerDatabase

if TYPE_CHECKING:
    from loyalty_pipelines.domain.expiry import LateMerchant

# Merchants that a person has to go to, each.
LISTED = 100


@dg.asset_check(
    asset=EXPIRY_PLAN,
    blocking=True,
    description=described(
        "No merchant is stopped because far more of its accounts are due than usual. Red: nothing of the merchants in "
        "the table expires until a person has looked: did their programme, their time zones or their orders change, "
        "or was expiry off for long? If the numbers are right, 'loyalty expire MERCHANT --accept N' lets so many "
        "accounts through. All other merchants go on meanwhile.",
        "expiration",
        "expiry_plan_looks_normal is red",
    ),
)
def expiry_plan_looks_normal(ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.expiry_checks import stopped_merchants

    with ledger.engine() as engine, reading(engine) as conn:
        stopped = stopped_merchants(conn)
    return dg.AssetCheckResult(
        passed=not stopped,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{one.merchant_id}: {one.reason}" for one in stopped[:SHOWN])
        or "No merchant is stopped.",
        metadata={
            "stopped": len(stopped),
            "accounts due": sum(one.accounts_due for one in stopped),
            "points due": sum(one.points_due for one in stopped),
            "merchants": table(
                stopped[:LISTED], ("merchant_id", "stopped_at", "accounts_due", "points_due", "reason", "run_id")
            ),
        },
    )


class LateConfig(dg.Config):
    """When a merchant's expiry is late."""

    max_hours: int = Field(
        default=int(LATE_AFTER.total_seconds() // 3600),
        ge=1,
        le=720,
        description="A merchant whose expiry has not succeeded for longer than this turns the check red.",
    )


@dg.asset_check(
    asset=EXPIRED_POINTS,
    blocking=True,
    description=described(
        "Expiry of every merchant whose points expire got to its end within the last 26 hours, by the ledger's own "
        "record. Red: is expiry_schedule on, is the daemon running, did the last expire_points_job fail for the "
        "merchants in the table, or are they stopped? 'loyalty expire MERCHANT' does it now. The delay harms nobody: "
        "who could not be warned in time is warned late and expires later.",
        "expiration",
        "expiry_succeeded_lately is red",
    ),
)
def expiry_succeeded_lately(config: LateConfig, ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.expiry_checks import late_merchants

    with ledger.engine() as engine, reading(engine) as conn:
        late = late_merchants(conn, hours=config.max_hours)
    return dg.AssetCheckResult(
        passed=not late,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"Expiry of {len(late)} merchants has not succeeded for {config.max_hours} hours"
        + (": " + ", ".join(_late_text(one) for one in late[:SHOWN]) if late else "")
        + ".",
        metadata={
            "late": len(late),
            "never": sum(one.succeeded_at is None for one in late),
            "merchants": table(late[:LISTED], ("merchant_id", "succeeded_at", "is_stopped")),
        },
    )


def _late_text(one: "LateMerchant") -> str:
    since = f"since {one.succeeded_at:%Y-%m-%d %H:%M} UTC" if one.succeeded_at else "never yet"
    return f"{one.merchant_id} ({since}{', stopped' if one.is_stopped else ''})"


class UnwarnedConfig(dg.Config):
    """How far back to look."""

    days: int = Field(default=7, ge=1, le=90, description="Points that went in so many days are looked at.")


@dg.asset_check(
    asset=EXPIRED_POINTS,
    blocking=True,
    description=described(
        "Nobody's points expired in the last 7 days without a warning that was delivered for that very date. "
        "Customers whom no mail reaches (their warning is parked) are counted apart and turn nothing red. Red: was a "
        "run started with require_warning=False or --without-warning? Then this is its record. Otherwise something "
        "changed loyalty.accounts or loyalty.notifications past the pipelines. 'loyalty expiry undo --run RUN_ID "
        "--merchant MERCHANT' gives the points back; what is given back is not counted any more.",
        "expiration",
        "nobody_expired_unwarned is red",
    ),
)
def nobody_expired_unwarned(config: UnwarnedConfig, ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.expiry_checks import expired_unwarned

    with ledger.engine() as engine, reading(engine) as conn:
        found = expired_unwarned(conn, days=config.days)
    unwarned = [one for one in found if one.accounts]
    accounts, unreachable = (sum(getattr(one, name) for one in found) for name in ("accounts", "accounts_unreachable"))
    return dg.AssetCheckResult(
        passed=not unwarned,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{accounts} accounts of {len(unwarned)} merchants expired unwarned in the last {config.days} "
        f"days; {unreachable} more could not be reached by mail.",
        metadata={
            "accounts": accounts,
            "points": sum(one.points for one in found),
            "accounts that could not be reached by mail": unreachable,
            "merchants": table(unwarned[:LISTED], ("merchant_id", "accounts", "points", "run_id")),
        },
    )
