"""What reports say is what the balances say."""

from dataclasses import dataclass

import dagster as dg

from loyalty_pipelines.assets.reports import POINTS_LIABILITY
from loyalty_pipelines.checks.runbooks import described
from loyalty_pipelines.checks.tables import SHOWN, table
from loyalty_pipelines.resources.database import LedgerDatabase


@dataclass(frozen=True, kw_only=True)
class _Difference:
    merchant_id: str
    ledger: int
    balances: int
    difference: int
    worth: str


@dg.asset_check(
    asset=POINTS_LIABILITY,
    blocking=True,
    description=described(
        "What the liability report says that a merchant owes in points is the sum of its customers' balances, to the "
        "point: of every merchant of the shop and of the ledger, with its inactive accounts, in one snapshot, so that "
        "what is awarded meanwhile makes no difference. Red: a balance was changed past the ledger, or an entry is "
        "gone; don't book the report of the merchants in the table before the integrity check has named the accounts.",
        "reports",
        "liability_equals_the_sum_of_balances is red",
    ),
)
def liability_equals_the_sum_of_balances(ledger: LedgerDatabase) -> dg.AssetCheckResult:
    from loyalty_pipelines.db.reports_run import report_liability

    with ledger.engine() as engine:
        report = report_liability(engine, months=1)
    wrong = sorted((one for one in report.merchants if one.difference), key=lambda one: -abs(one.difference))
    texts = [f"{one.merchant_id}: balances have {one.difference:+,} points" for one in wrong[:SHOWN]]
    texts += [f"{merchant_id}: {reason}" for merchant_id, reason in sorted(report.failures.items())[:SHOWN]]
    rows = [
        _Difference(
            merchant_id=one.merchant_id,
            ledger=one.closing,
            balances=one.balance,
            difference=one.difference,
            worth="unknown" if one.amount is None else f"{one.worth(one.difference)} {one.merchant.currency}",
        )
        for one in wrong[:100]
    ]
    return dg.AssetCheckResult(
        passed=not wrong and not report.failures,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(texts) or f"The balances of {len(report.merchants)} merchants are what the ledger says.",
        metadata={
            "merchants": len(report.merchants),
            "merchants that differ": len(wrong),
            "merchants that could not be computed": len(report.failures),
            "points of difference": sum(abs(one.difference) for one in wrong),
            "closing points": sum(one.closing for one in report.merchants),
            "differences": table(rows, ("merchant_id", "ledger", "balances", "difference", "worth")),
        },
    )
