"""What a proof found wrong: a row that opens when it is seen, and closes when it is gone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from loyalty_pipelines.domain.errors import LoyaltyError


class NoSuchFindingError(LoyaltyError):
    """There is no finding with this number."""

    def __init__(self, number: int, *, subject: str = "integrity") -> None:
        self.number = number
        super().__init__(f"There is no finding {number}. 'loyalty {subject} findings --all' lists them.")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, since when, and what it costs.

    `points_difference`: points that somebody has too many (positive) or too few (negative) by it; `amount_at_risk`:
    these points in the merchant's `currency`. `evidence`: ids and numbers that prove it, no personal data. `policy`:
    who may put it right (A automatically, P by an approved plan, H a person only); None: its proof says how.
    """

    finding_id: int
    merchant_id: str
    class_name: str
    severity: str
    object_type: str
    object_id: str
    points_difference: int
    amount_at_risk: Decimal
    currency: str | None
    evidence: Mapping[str, Any]
    policy: str | None = None
    times_seen: int
    first_seen_at: datetime
    last_seen_at: datetime
    closed_at: datetime | None
    accepted_at: datetime | None
    accepted_by: str | None
    accepted_because: str | None
    run_id: str | None


@dataclass(frozen=True, kw_only=True)
class OpenFindings:
    """How many findings of one class a merchant has that nobody has accepted, and what they cost together.

    Points that somebody has too many and points that somebody has too few are summed apart: neither makes up for the
    other.
    """

    merchant_id: str
    class_name: str
    severity: str
    findings: int
    points_too_many: int
    points_too_few: int
    amount_at_risk: Decimal
    currency: str | None
    first_seen_at: datetime


@dataclass(frozen=True, kw_only=True)
class AtRisk:
    """What a merchant's open findings cost in one currency (None: nobody knows which): the largest of each object."""

    merchant_id: str
    currency: str | None
    points: int
    amount: Decimal
