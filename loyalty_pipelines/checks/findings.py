"""A sentence about open findings, as a check: red when there is one that nobody has accepted."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from loyalty_pipelines.checks.tables import SHOWN, table
from loyalty_pipelines.domain.money import amounts_by_currency

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from loyalty_pipelines.domain.findings import Finding, OpenFindings


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What the tables of a result show: of its worst findings, and of each merchant."""

    columns: Sequence[str]
    merchant_columns: Sequence[str]
    # Whether points are told even where there are none.
    has_points: bool = True


def results(
    conn: "Connection",
    *,
    subject: str,
    asset: dg.AssetKey,
    classes_of: Mapping[str, Sequence[str]],
    tables: Tables,
    shown: "Any" = None,
) -> Iterator[dg.AssetCheckResult]:
    """Yield a result for each sentence, all from one look; `classes_of`: the classes that make it false.

    `shown` turns a finding into what its row shows; as it is by default.
    """
    from loyalty_pipelines.db import findings

    summaries = findings.open_findings(conn, subject=subject)
    currencies = {one.currency for one in findings.at_risk(conn, subject=subject) if one.currency}
    for sentence, classes in classes_of.items():
        open_ = [one for one in summaries if one.class_name in classes]
        # Most are green: no question for each of them.
        worst = findings.findings(conn, subject=subject, classes=classes, limit=SHOWN) if open_ else []
        yield result(
            sentence, open_, [shown(one) for one in worst] if shown else worst, currencies, asset=asset, tables=tables
        )


def result(
    sentence: str,
    open_: "Sequence[OpenFindings]",
    worst: "Sequence[Finding | Any]",
    currencies: Iterable[str],
    *,
    asset: dg.AssetKey,
    tables: Tables,
) -> dg.AssetCheckResult:
    """Return the result of one sentence: how many, at how many merchants, since when, what it costs."""
    count, merchants = sum(one.findings for one in open_), len({one.merchant_id for one in open_})
    too_many, too_few = sum(one.points_too_many for one in open_), sum(one.points_too_few for one in open_)
    amounts = amounts_by_currency((one.currency, one.amount_at_risk) for one in open_)
    money = ", ".join(f"{amount:.2f} {currency}" for currency, amount in amounts.items() if amount)
    no_money = "whose value no programme says" if too_many + too_few else "no money"
    points = f"{too_many + too_few} points, " if tables.has_points or too_many + too_few else ""
    since = min((one.first_seen_at for one in open_), default=None)
    return dg.AssetCheckResult(
        check_name=sentence,
        asset_key=asset,
        passed=not open_,
        severity=dg.AssetCheckSeverity.ERROR
        if any(one.severity == "error" for one in open_)
        else dg.AssetCheckSeverity.WARN,
        description="Nothing is wrong."
        if since is None
        else f"{count} findings at {merchants} merchants since {since:%Y-%m-%d %H:%M} UTC, "
        f"{points}{money or no_money}.",
        metadata={
            "findings": count,
            "merchants": merchants,
            **({"points too many": too_many, "points too few": too_few} if tables.has_points else {}),
            # A currency that was at risk before is at 0: a curve that ends says nothing.
            **{f"amount at risk {currency}": 0.0 for currency in sorted(currencies)},
            **{f"amount at risk {currency}": float(amount) for currency, amount in amounts.items()},
            "largest": table(worst, tables.columns),
            "by merchant": table(open_[:SHOWN], tables.merchant_columns),
        },
    )
