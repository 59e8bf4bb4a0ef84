"""What the proofs found, as sentences: one check each, all from one look at the open findings."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from loyalty_pipelines.assets.integrity import BALANCE_INTEGRITY
from loyalty_pipelines.checks.findings import Tables, results
from loyalty_pipelines.checks.runbooks import described
from loyalty_pipelines.checks.tables import SHOWN, table
from loyalty_pipelines.domain.integrity import PROOFS, Proof
from loyalty_pipelines.resources.database import LedgerDatabase

TABLES = Tables(
    columns=("merchant_id", "class_name", "object_type", "object_id", "points_difference", "amount_at_risk", "currency",
           "first_seen_at", "finding_id"),
    merchant_columns=("merchant_id", "class_name", "findings", "points_too_many", "points_too_few", "amount_at_risk",
                    "currency", "first_seen_at"),
)  # fmt: skip


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
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.domain.integrity import SUBJECT

    with ledger.engine() as engine, reading(engine, is_one_snapshot=True) as conn:
        found = list(
            results(
                conn,
                subject=SUBJECT,
                asset=BALANCE_INTEGRITY,
                classes_of={proof.sentence: proof.classes for proof in PROOFS},
                tables=TABLES,
            )
        )
    yield from found


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
