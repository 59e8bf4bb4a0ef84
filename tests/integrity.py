"""Proofs, and rows that are corrupted behind PostgreSQL's back, in the words of a test."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from loyalty_pipelines.db import findings
from loyalty_pipelines.db.engine import reading
from loyalty_pipelines.db.integrity_run import prove
from loyalty_pipelines.domain.findings import Finding
from loyalty_pipelines.domain.integrity import SUBJECT, MerchantProof
from tests.shop import Shop


def corrupt(shop: Shop, *statements: str, **values: Any) -> None:
    """Run statements as the owner of the tables, with triggers and foreign keys off and these constraints dropped."""
    with shop.engine.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            conn.execute(text(statement), values)


def proved(shop: Shop, *merchants: str, is_full: bool = True, run_id: str = "proof") -> Sequence[MerchantProof]:
    """Prove merchants, or everybody; none may fail."""
    done = list(prove(shop.engine, list(merchants) or None, is_full=is_full, run_id=run_id))
    assert [one.failure for one in done if one.failure] == []
    return done


def found(shop: Shop, *, is_closed_too: bool = False, **choice: Any) -> Sequence[Finding]:
    """Return the findings of all proofs so far."""
    with reading(shop.engine) as conn:
        return findings.findings(conn, subject=SUBJECT, is_closed_too=is_closed_too, limit=10_000, **choice)


def classes(shop: Shop) -> set[tuple[str, str, str]]:
    """Return class, object and id of each open finding."""
    return {(one.class_name, one.object_type, one.object_id) for one in found(shop)}
