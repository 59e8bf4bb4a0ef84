"""Findings: opened, seen again, closed, listed. Their subject says which proof they are of."""

from collections.abc import Sequence

from sqlalchemy import Connection

from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.findings import AtRisk, Finding, OpenFindings

CREATE_FOUND = load("findings/create_found")
CREATE_SCOPE = load("findings/create_scope")
RECORD_FAILURE = load("findings/record_failure")
RECORD = load("findings/record")
SUMMARY = load("findings/summary")
AT_RISK = load("findings/at_risk")
FINDINGS = load("findings/findings")


def create_found(conn: Connection) -> None:
    """Make the temporary tables into which a proof writes what is wrong, and what it has looked at."""
    conn.execute(CREATE_FOUND)
    conn.execute(CREATE_SCOPE)


def record_failure(
    conn: Connection, merchant_id: str, *, subject: str, class_name: str, why: str, run_id: str | None
) -> None:
    """Open a finding of a merchant that could not be proved, or see it again; reads nothing but findings."""
    conn.execute(
        RECORD_FAILURE,
        {"merchant_id": merchant_id, "subject": subject, "class": class_name, "why": why, "run_id": run_id},
    )


def record(
    conn: Connection,
    *,
    subject: str,
    closing: Sequence[str],
    warnings: Sequence[str],
    merchant_ids: Sequence[str] | None,
    run_id: str | None,
    is_scoped: bool = False,
) -> None:
    """Turn what was found into findings; close those of the `closing` classes that are gone at these merchants.

    `is_scoped`: only of the objects that the proof wrote into the temporary table `found_scope`.
    """
    conn.execute(
        RECORD,
        {
            "subject": subject,
            "closing": list(closing),
            "warnings": list(warnings),
            "merchant_ids": None if merchant_ids is None else list(merchant_ids),
            "run_id": run_id,
            "is_scoped": is_scoped,
        },
    )


def open_findings(
    conn: Connection, *, subject: str, merchant_ids: Sequence[str] | None = None
) -> Sequence[OpenFindings]:
    """Return the open findings by merchant and class, the costliest first."""
    values = {"subject": subject, "merchant_ids": None if merchant_ids is None else list(merchant_ids)}
    return [
        OpenFindings(
            merchant_id=row.merchant_id,
            class_name=row.class_name,
            severity=row.severity,
            findings=row.findings,
            points_too_many=int(row.points_too_many),
            points_too_few=int(row.points_too_few),
            amount_at_risk=row.amount_at_risk,
            currency=row.currency,
            first_seen_at=row.first_seen_at,
        )
        for row in conn.execute(SUMMARY, values)
    ]


def at_risk(conn: Connection, *, subject: str, merchant_ids: Sequence[str] | None = None) -> Sequence[AtRisk]:
    """Return what the open findings cost by merchant and currency; nothing, where there were findings before."""
    values = {"subject": subject, "merchant_ids": None if merchant_ids is None else list(merchant_ids)}
    return [
        AtRisk(merchant_id=row.merchant_id, currency=row.currency, points=int(row.points), amount=row.amount)
        for row in conn.execute(AT_RISK, values)
    ]


def findings(
    conn: Connection,
    *,
    subject: str,
    merchant_id: str | None = None,
    classes: Sequence[str] | None = None,
    customer_id: str | None = None,
    number: int | None = None,
    is_closed_too: bool = False,
    limit: int = 100,
) -> Sequence[Finding]:
    """Return findings, the ones with most points first; `customer_id`: those whose evidence names this customer."""
    values = {
        "subject": subject,
        "merchant_id": merchant_id,
        "classes": None if classes is None else list(classes),
        "customer_id": customer_id,
        "finding_id": number,
        "is_closed_too": is_closed_too,
        "row_limit": limit,
    }
    return [Finding(**row) for row in conn.execute(FINDINGS, values).mappings()]
