"""What payments, orders, subscriptions and points disagree on, as sentences: one check per class, all from one look."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.subscriptions import SUBSCRIPTION_MISMATCHES
from loyalty_pipelines.checks.findings import Tables, results
from loyalty_pipelines.checks.runbooks import described
from loyalty_pipelines.checks.tables import SHOWN, table
from loyalty_pipelines.domain.subscriptions import (
    CHECK_FAILED,
    CLASSES,
    NOT_CHECKED,
    NOT_MAPPED,
    SUBJECT,
    MismatchClass,
)
from loyalty_pipelines.resources.database import LedgerDatabase

if TYPE_CHECKING:
    from datetime import datetime

    from loyalty_pipelines.domain.findings import Finding

EVERY_CLASS = "every_class_was_compared"
WHAT_TO_DO = {
    "A": "the automatic fixes take what is certain, if fix_subscriptions_schedule is on, and 'loyalty subscriptions "
    "plan' shows the rest",
    "P": "'loyalty subscriptions plan' shows what would put it right, for you to approve",
    "H": "only a person can decide",
}


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A finding in the table of the worst."""

    merchant_id: str
    class_name: str
    policy: str
    object_type: str
    object_id: str
    amount_at_risk: float
    currency: str
    age: str
    first_seen_at: str
    finding_id: int


TABLES = Tables(
    columns=[one.name for one in fields(_Shown)],
    merchant_columns=("merchant_id", "class_name", "findings", "amount_at_risk", "currency", "first_seen_at"),
    has_points=False,
)


def _spec(one: MismatchClass) -> dg.AssetCheckSpec:
    is_error = one.severity == "error"
    return dg.AssetCheckSpec(
        one.sentence,
        asset=SUBSCRIPTION_MISMATCHES,
        blocking=is_error,
        description=described(
            f"{one.meaning} {'Red' if is_error else 'Yellow'}: 'loyalty subscriptions findings --class {one.code}' "
            f"names the rows and the money; {WHAT_TO_DO[one.policy]}.",
            "subscriptions",
            one.code,
        ),
    )


COMPARED = dg.AssetCheckSpec(
    EVERY_CLASS,
    asset=SUBSCRIPTION_MISMATCHES,
    blocking=True,
    description=described(
        "Every class of mismatches was looked for at every merchant. Red: a class could not be, the finding has the "
        "reason, and its sentence's green says nothing. Yellow: the source mapping lacks a relation that classes need.",
        "subscriptions",
        CHECK_FAILED,
    ),
)
CLASSES_OF = {**{one.sentence: (one.code,) for one in CLASSES}, EVERY_CLASS: (CHECK_FAILED, NOT_CHECKED)}


@dg.multi_asset_check(name="subscription_findings", specs=[*(_spec(one) for one in CLASSES), COMPARED])
def subscription_findings(ledger: LedgerDatabase) -> Iterator[dg.AssetCheckResult]:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.subscription_checks import is_mapped
    from loyalty_pipelines.db.subscriptions import now

    with ledger.engine() as engine, reading(engine, is_one_snapshot=True) as conn:
        as_of = now(conn)
        found = (
            list(
                results(
                    conn,
                    subject=SUBJECT,
                    asset=SUBSCRIPTION_MISMATCHES,
                    classes_of=CLASSES_OF,
                    tables=TABLES,
                    shown=lambda one: _shown(one, as_of),
                )
            )
            if is_mapped(conn)
            else [_off(sentence) for sentence in CLASSES_OF]
        )
    yield from found


def _shown(one: "Finding", as_of: "datetime") -> _Shown:
    from loyalty_pipelines.domain.alert_messages import span

    return _Shown(
        merchant_id=one.merchant_id,
        class_name=one.class_name,
        policy=one.policy or "-",
        object_type=one.object_type,
        object_id=one.object_id,
        amount_at_risk=float(one.amount_at_risk),
        currency=one.currency or "unknown",
        age=span(as_of - one.first_seen_at),
        first_seen_at=one.first_seen_at.isoformat(timespec="seconds"),
        finding_id=one.finding_id,
    )


def _off(sentence: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=sentence, asset_key=SUBSCRIPTION_MISMATCHES, passed=True, description=NOT_MAPPED
    )


class ComparisonAgeConfig(dg.Config):
    """How old a comparison may be."""

    max_hours: int = Field(default=26, ge=1, le=720, description="A merchant compared in full longer ago turns it red.")


# Of another name than the check of the balances: names of checks are one list for alerts.
@dg.asset_check(
    asset=SUBSCRIPTION_MISMATCHES,
    blocking=True,
    description=described(
        "Payments and subscriptions of every merchant were compared in full within the last 26 hours. Red: the "
        "schedule is off, the run fails, or the merchants in the table raise an error: silence is no proof.",
        "subscriptions",
        "every_merchant_was_compared_lately",
    ),
)
def every_merchant_was_compared_lately(config: ComparisonAgeConfig, ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.subscription_checks import is_mapped, uncompared

    with ledger.engine() as engine, reading(engine) as conn:
        if not is_mapped(conn):
            return dg.AssetCheckResult(passed=True, description=NOT_MAPPED)
        late = uncompared(conn, hours=config.max_hours)
    return dg.AssetCheckResult(
        passed=not late,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(late)} merchants were not compared in full within {config.max_hours} hours, or can't be"
        + (": " + ", ".join(one.merchant_id for one in late[:SHOWN]) if late else "")
        + ".",
        metadata={
            "merchants": len(late),
            "not compared": table(late[:SHOWN], ("merchant_id", "compared_at", "failure")),
        },
    )
