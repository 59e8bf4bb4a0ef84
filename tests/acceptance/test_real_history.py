"""A year of real orders, and what a night's run takes of their points, against results that two programs agree on."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from loyalty_pipelines.db.expiry_checks import expired_unwarned
from loyalty_pipelines.domain.expiry import MerchantExpiry
from tests.cli import Cli
from tests.conftest import TEMPLATE
from tests.expiry import Nights
from tests.shop import LONG_AGO, Shop

DATA = Path(__file__).parents[3] / "shared" / "data"
ORDERS = DATA / "online_retail_2010_2011.csv.gz"
# A merchant for each period, with the same orders: a night and a drain are for both.
PERIODS = {"retail-365": 365, "retail-90": 90}
LEAD = timedelta(days=14)

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")


@pytest.fixture
def expected() -> dict:
    return json.loads((DATA / "expected_results.json").read_text(encoding="utf-8"))["online_retail_2010_2011"]


@pytest.fixture
def database_template() -> str:
    """The import makes the shop."""
    return TEMPLATE


@pytest.fixture
def shop(engine: Engine, database_url: str) -> Shop:
    """A merchant for each period, in UTC, with all orders of the file."""
    cli, shop = Cli(database_url), Shop(engine)
    for merchant, days in PERIODS.items():
        cli.ok("orders", "import", ORDERS, "--merchant", merchant, "--timezone", "UTC")
        shop.program(merchant, valid_from=LONG_AGO, points_expiration_days=days)
    return shop


@dataclass
class Year:
    """Lives through the file day by day: at 00:00 the night's run, then its mails, then the day's orders."""

    shop: Shop
    warned: dict[tuple[str, str, date], date] = field(default_factory=dict)
    expired: Counter[tuple[str, str]] = field(default_factory=Counter)
    done: list[MerchantExpiry] = field(default_factory=list)
    last_mail: int = 0

    def __post_init__(self) -> None:
        # The shop has no order yet; each comes on its day.
        self.shop.run("CREATE TABLE sample_shop.orders_to_come AS SELECT * FROM sample_shop.orders")
        self.shop.run("CREATE INDEX ON sample_shop.orders_to_come (paid_at)")
        self.shop.run("DELETE FROM sample_shop.orders")
        self.shop.run("DELETE FROM loyalty.order_inbox")

    def live(self, day: date) -> None:
        """One day."""
        nights = Nights(self.shop)
        self.done += nights.run_all(midnight(day))
        for merchant, customer, template, expires_on in self._new_mails():
            if template == "loyalty_points_expiring":
                assert (merchant, customer, expires_on) not in self.warned
                self.warned[merchant, customer, expires_on] = day
            else:
                assert template == "loyalty_points_expired"
                assert expires_on == day
                assert self.warned[merchant, customer, day] == day - LEAD
                self.expired[merchant, customer] += 1
        # As if somebody wrote to them: delivery itself asks the real clock, on which all these dates are over.
        nights.deliver()
        self.shop.run(
            "INSERT INTO sample_shop.orders SELECT * FROM sample_shop.orders_to_come "
            "WHERE paid_at >= :day AND paid_at < :next_day",
            day=midnight(day),
            next_day=midnight(day + timedelta(days=1)),
        )
        self.shop.award()

    def _new_mails(self) -> Iterator[tuple[str, str, str, date]]:
        rows = self.shop.rows(
            "SELECT notification_id, merchant_id, customer_id, template, "
            "CAST(CAST(payload ->> 'expires_at' AS timestamptz) AT TIME ZONE 'UTC' AS date) AS expires_on "
            "FROM loyalty.notifications WHERE notification_id > :last_mail ORDER BY notification_id",
            last_mail=self.last_mail,
        )
        for row in rows:
            self.last_mail = row.notification_id
            yield row.merchant_id, row.customer_id, row.template, row.expires_on


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def points(shop: Shop, merchant: str) -> int:
    return shop.value("SELECT sum(balance) FROM loyalty.accounts WHERE merchant_id = :merchant", merchant=merchant)


def test_every_night_of_a_year_takes_exactly_the_expected_points_and_warns_14_days_ahead(
    shop: Shop, expected: dict
) -> None:
    first, last = (date.fromisoformat(expected[name]) for name in ("first_date", "as_of"))
    year = Year(shop)
    for n in range((last - first).days + 1):
        year.live(first + timedelta(days=n))

    assert not any(one.failure or one.refused or one.accounts_locked or one.accounts_moved for one in year.done)
    for merchant, days in PERIODS.items():
        nights = [one for one in year.done if one.merchant_id == merchant]
        found = {
            "expiry_events": sum(one.accounts_expired for one in nights),
            "accounts_ever_expired": sum(1 for owner, _ in year.expired if owner == merchant),
            "points_expired": sum(one.points_expired for one in nights),
            "points_outstanding_on_as_of": points(shop, merchant),
        }
        assert found == expected["expiry"][str(days)]["rolling_daily"]
        assert sum(events for (owner, _), events in year.expired.items() if owner == merchant) == found["expiry_events"]
        warned = [on for owner, _, on in year.warned if owner == merchant]
        assert sum(one.accounts_warned for one in nights) == len(warned)
        # Nobody is told whose date is farther away.
        assert all(day == on - LEAD for (_, _, on), day in year.warned.items())
        # An order of the day between may save an account, but nothing else goes than what the night before expected.
        assert all(one.forecast.accounts >= one.accounts_expired for one in nights if one.forecast)
    with shop.engine.connect() as conn:
        assert not expired_unwarned(conn, days=1)
    assert shop.problems() == []


def test_one_night_at_the_end_of_the_year_finds_exactly_the_expected_accounts(shop: Shop, expected: dict) -> None:
    nights = Nights(shop)
    shop.award()
    # The first night of a merchant computes all dates anew; nothing was due then.
    assert not any(one.accounts_warned for one in nights.run_all(midnight(date.fromisoformat(expected["first_date"]))))
    last = f"{expected['as_of']}T00:00Z"
    for merchant, days in PERIODS.items():
        wanted = expected["expiry"][str(days)]["snapshot"]

        # Whoever is due after a year without a night is told first, and keeps the points until then.
        late = nights.run(last, merchant=merchant, is_dry_run=True)
        assert late.accounts_expired == 0
        assert late.accounts_warned == wanted["accounts_expired"] + wanted["accounts_in_14_day_warning"]

        def seen(done: MerchantExpiry) -> dict[str, int]:
            assert done.plan
            return {
                "accounts_expired": done.accounts_expired,
                "points_expired": done.points_expired,
                "accounts_in_14_day_warning": done.accounts_warned,
                "points_in_14_day_warning": done.points_warned,
                "accounts_active": done.plan.accounts_with_points - done.accounts_expired - done.accounts_warned,
                "points_remaining": expected["total_points"] - done.points_expired,
            }

        wanted = {name: wanted[name] for name in wanted if not name.startswith("boundary")}
        assert seen(nights.run(last, merchant=merchant, is_dry_run=True, is_warning_required=False)) == wanted
        assert points(shop, merchant) == expected["total_points"]

        assert seen(nights.run(last, merchant=merchant, is_warning_required=False)) == wanted
        assert points(shop, merchant) == wanted["points_remaining"]
        assert shop.rows(
            "SELECT count(warned_for), sum(balance) FILTER (WHERE warned_for = expires_at), "
            "count(*) - count(warned_for) FROM loyalty.accounts WHERE merchant_id = :merchant AND balance > 0",
            merchant=merchant,
        ) == [(wanted["accounts_in_14_day_warning"], wanted["points_in_14_day_warning"], wanted["accounts_active"])]
        # The days on the edge of each range.
        last_on = date.fromisoformat(expected["as_of"])
        edges = expected["expiry"][str(days)]["snapshot"]
        for name, days_since in (("equal_N", days), ("equal_N_minus_14", days - LEAD.days)):
            assert (
                shop.value(
                    "SELECT count(*) FROM loyalty.accounts WHERE merchant_id = :merchant AND balance > 0 "
                    "AND CAST(last_activity_at AT TIME ZONE 'UTC' AS date) = :day AND expires_at = :expires_at",
                    merchant=merchant,
                    day=last_on - timedelta(days=days_since),
                    expires_at=midnight(last_on + timedelta(days=days - days_since + 1)),
                )
                == edges[f"boundary_accounts_days_since_{name}"]
            )
    assert shop.problems() == []
