"""How a merchant's payments and subscriptions are compared and put right. Nothing here commits."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from sqlalchemy import Connection

from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.fix_errors import SettingOutOfRangeError
from loyalty_pipelines.domain.subscriptions import SubscriptionSettings

SETTINGS = load("subscription_settings/settings")
SAVE = load("subscription_settings/save")
# As the table checks them; saying it before it does names the setting.
RANGES = {
    "max_fixes": (0, 100_000),
    "max_money": (0, 1_000_000_000),
    "tolerance_percent": (0, 50),
    "grace_minutes": (0, 43_200),
}


def get(conn: Connection, merchant_id: str) -> SubscriptionSettings:
    """Return a merchant's settings; the defaults where nobody has set any."""
    return get_all(conn, [merchant_id])[merchant_id]


def get_all(conn: Connection, merchant_ids: Sequence[str]) -> Mapping[str, SubscriptionSettings]:
    """Return the settings of each of these merchants."""
    rows = conn.execute(SETTINGS, {"merchant_ids": list(merchant_ids)}).mappings()
    known = {row["merchant_id"]: SubscriptionSettings(**row) for row in rows}
    return {one: known.get(one) or SubscriptionSettings(merchant_id=one) for one in merchant_ids}


def save(conn: Connection, settings: SubscriptionSettings, *, actor: str) -> SubscriptionSettings:
    """Keep a merchant's settings and return them; raise `SettingOutOfRangeError` for what can't be."""
    for name, (low, high) in RANGES.items():
        value = Decimal(getattr(settings, name))
        if not (value.is_finite() and low <= value <= high):
            raise SettingOutOfRangeError(name, getattr(settings, name), low, high)
    values = {name: getattr(settings, name) for name in ("merchant_id", "is_report_only", *RANGES)}
    conn.execute(SAVE, {**values, "actor": actor})
    return get(conn, settings.merchant_id)
