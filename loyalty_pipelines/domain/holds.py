"""Points that a checkout reserved and nobody captured in time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class StaleHold:
    """An open hold past its time; in the order in which they are released."""

    expires_at: datetime
    merchant_id: str
    order_id: str
    account_id: int


@dataclass(frozen=True, kw_only=True)
class MerchantReleases:
    """What was given back to a merchant's customers."""

    merchant_id: str
    holds: int = 0
    points: int = 0


@dataclass(frozen=True, kw_only=True)
class ReleaseReport:
    """What one pass did: per merchant, the holds whose account was locked both times, and failures by merchant."""

    merchants: Mapping[str, MerchantReleases] = field(default_factory=dict)
    skipped: Sequence[StaleHold] = ()
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> int:
        """All holds that were released."""
        return sum(one.holds for one in self.merchants.values())

    @property
    def points(self) -> int:
        """All points that are spendable again."""
        return sum(one.points for one in self.merchants.values())
