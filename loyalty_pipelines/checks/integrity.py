"""What the proofs found, as sentences: one check each, all from one look at the open findings."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.integrity import BALANCE_INTEGRITY
from loyalty_pipelines.checks.runbooks import described
from loyalty_pipelines.checks.tables import SHOWN, table
from loyalty_pipelines.domain.findings import amounts_by_currency
from loyalty_pipelines.domain.integrity import PROOFS, Proof
from loyalty_pipelines.resources.database import LedgerDatabase

if TYPE_CHECKING:
    from loyalty_pipelines.domain.findings import Finding, OpenFindings

COLUMNS = ("merchant_id", "class_name", "object_type", "object_id", "points_difference", "amount_at_risk", "currency",
           "first_seen_at", "finding_id")  # fmt: skip
MERCHANT_COLUMNS = ("merchant_id", "class_name", "findings", "points_too_many", "points_too_few", "amount_at_risk",
                    "currency", "first_seen_at")  # fmt: skip


def _spec(proof: Proof) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        proof.sentence,
        asset=BALANCE_INTEGRITY,
        blocking=True,
        description=described(
            f"{proof.meaning} Red: 'loyalty integrity findings' names the rows, and what they cost.",
            "integrity",
            proof.sentence,
        ),
    )


@dg.multi_asset_check(name="integrity_findings", specs=[_spec(proof) for proof in PROOFS])
def integrity_findings(ledger: LedgerDatabase) -> Iterator[dg.AssetCheckResult]:
    from loyalty_pipelines.db import findings
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.domain.integrity import SUBJECT

    with ledger.engine() as engine, reading(engine, is_one_snapshot=True) as conn:
        summaries = findings.open_findings(conn, subject=SUBJECT)
        currencies = {one.currency for one in findings.at_risk(conn, subject=SUBJECT) if one.currency}
        worst = {
            proof.sentence: findings.findings(conn, subject=SUBJECT, classes=proof.classes, limit=SHOWN)
            for proof in PROOFS
        }
    for proof in PROOFS:
        yield _result(
            proof, [one for one in summaries if one.class_name in proof.classes], worst[proof.sentence], currencies
        )


def _result(
    proof: Proof, open_: Sequence["OpenFindings"], worst: Sequence["Finding"], currencies: Iterable[str]
) -> dg.AssetCheckResult:
    count, merchants = sum(one.findings for one in open_), len({one.merchant_id for one in open_})
    too_many, too_few = sum(one.points_too_many for one in open_), sum(one.points_too_few for one in open_)
    amounts = amounts_by_currency((one.currency, one.amount_at_risk) for one in open_)
    money = ", ".join(f"{amount:.2f} {currency}" for currency, amount in amounts.items() if amount)
    no_money = "whose value no programme says" if too_many + too_few else "no money"
    since = min((one.first_seen_at for one in open_), default=None)
    return dg.AssetCheckResult(
        check_name=proof.sentence,
        asset_key=BALANCE_INTEGRITY,
        passed=not open_,
        severity=dg.AssetCheckSeverity.ERROR
        if any(one.severity == "error" for one in open_)
        else dg.AssetCheckSeverity.WARN,
        description="Nothing is wrong."
        if since is None
        else f"{count} findings at {merchants} merchants since {since:%Y-%m-%d %H:%M} UTC, "
        f"{too_many + too_few} points, {money or no_money}.",
        metadata={
            "findings": count,
            "merchants": merchants,
            "points too many": too_many,
            "points too few": too_few,
            # A currency that was at risk before is at 0: a curve that ends says nothing.
            **{f"amount at risk {currency}": 0.0 for currency in sorted(currencies)},
            **{f"amount at risk {currency}": float(amount) for currency, amount in amounts.items()},
            "largest": table(worst, COLUMNS),
            "by merchant": table(open_[:SHOWN], MERCHANT_COLUMNS),
        },
    )


class ProofAgeConfig(dg.Config):
    """How old a proof may be."""

    max_hours: int = Field(default=26, ge=1, le=720, description="A merchant proved in full longer ago turns it red.")


@dg.asset_check(
    asset=BALANCE_INTEGRITY,
    blocking=True,
    description=described(
        "Every merchant that has accounts was proved in full within the last 26 hours. Red: the schedule is off, the "
        "run fails, or the merchants in the table raise an error: silence is no proof.",
        "integrity",
        "every_merchant_was_proved_lately",
    ),
)
def every_merchant_was_proved_lately(config: ProofAgeConfig, ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.integrity import unproved

    with ledger.engine() as engine, reading(engine) as conn:
        late = unproved(conn, hours=config.max_hours)
    return dg.AssetCheckResult(
        passed=not late,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(late)} merchants were not proved in full within {config.max_hours} hours, or can't be"
        + (": " + ", ".join(one.merchant_id for one in late[:SHOWN]) if late else "")
        + ".",
        metadata={
            "merchants": len(late),
            "not proved": table(late[:SHOWN], ("merchant_id", "fully_verified_at", "failure")),
        },
    )
