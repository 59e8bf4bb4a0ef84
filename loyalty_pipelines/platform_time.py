"""The platform's clock: in which time zone its nights are. The merchants' own zones are in the shop's data."""

import os
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from loyalty_pipelines.domain.errors import ConfigurationError

VARIABLE = "LOYALTY_TIMEZONE"
# When points expire, every night.
EXPIRY_HOUR = 2
# When everything is proved, after it.
PROOF_HOUR = 3
# When reports are written: after expiry and the nightly proof.
REPORTS_HOUR = 5


def platform_timezone() -> ZoneInfo:
    """Return the zone that LOYALTY_TIMEZONE names, else UTC; raise `ConfigurationError` when there is no such zone."""
    name = os.environ.get(VARIABLE, "").strip() or "UTC"
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"{VARIABLE} is {name!r}: expected the IANA name of a time zone, for example Europe/Luxembourg, or nothing "
            "for UTC."
        ) from error


def next_expiry_run(now: datetime) -> datetime:
    """Return when the schedule starts expiry next, in UTC."""
    zone = platform_timezone()
    today = now.astimezone(zone).date()
    nights = (datetime.combine(today + timedelta(days=days), time(EXPIRY_HOUR), tzinfo=zone) for days in range(2))
    return next(night.astimezone(UTC) for night in nights if night > now)
