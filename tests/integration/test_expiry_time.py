"""When points are warned of and when they go: periods, time zones, changes of the clock, nights that nobody ran."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.expiry import EXPIRED, WARNING, Nights, Told, at, midnight, night
from tests.shop import Shop

ZONE = "Europe/Luxembourg"
# Points of 1 January go at the beginning of 1 February where the period is 30 days, and are warned of 14 days before.
ACTIVE_AT = "2025-01-01T12:00:00+01:00"


@pytest.fixture
def nights(shop: Shop) -> Nights:
    """The shop's nights; points of m1 expire after 30 days."""
    shop.program(points_expiration_days=30)
    return Nights(shop)


def lead_of(days: int, warning_days: int = 14) -> int:
    """The rule of the issue, said once more."""
    return max(1, min(warning_days, days // 2))


def days_of(told: list[Told], template: str) -> dict[str, list[tuple[date, datetime]]]:
    """By merchant, when each of its mails of a template came and which instant it names."""
    found: dict[str, list[tuple[date, datetime]]] = {}
    for one in told:
        if one.template == template:
            found.setdefault(one.merchant, []).append((one.night_on, one.expires_at))
    return found


# --- periods --------------------------------------------------------------------------------------------

PERIODS = (1, 2, 3, 7, 14, 15, 20, 27, 365)


def test_each_period_brings_one_warning_in_time_and_one_expiry_on_the_right_day(shop: Shop, nights: Nights) -> None:
    """Nights from the day of the activity until after the last date, but for the quiet ones of a year."""
    active_on = date(2024, 3, 1)
    for days in PERIODS:
        shop.merchant(f"{days} days", points_expiration_days=days)
        # Late in the evening, on the merchant's clock.
        shop.order(f"o{days}", 100, merchant=f"{days} days", paid_at="2024-03-01T23:30:00+01:00")
    shop.award()
    told = [*nights.live(active_on, 35), *nights.live(active_on + timedelta(days=345), 30)]
    gone_on = {days: active_on + timedelta(days=days + 1) for days in PERIODS}
    assert days_of(told, WARNING) == {
        f"{days} days": [(gone_on[days] - timedelta(days=lead_of(days)), midnight(gone_on[days], ZONE))]
        for days in PERIODS
    }
    # 02:00 UTC is after midnight in Luxembourg: the night of that date takes them.
    assert days_of(told, EXPIRED) == {
        f"{days} days": [(gone_on[days], midnight(gone_on[days], ZONE))] for days in PERIODS
    }
    assert {one.points for one in told} == {100}
    assert shop.problems() == []


@pytest.mark.parametrize("days", [2, 7, 365])
def test_a_customer_who_was_active_yesterday_gets_no_mail(shop: Shop, days: int) -> None:
    shop.program(points_expiration_days=days)
    nights = Nights(shop)
    nights.account(active_at="2025-01-01T12:00:00Z")
    nights.account(active_at="2025-01-02T12:00:00Z", points=1)
    assert nights.live("2025-01-02", 2) == []


@pytest.mark.parametrize(
    ("warning_days", "days", "lead"), [(30, 365, 30), (30, 40, 20), (1, 365, 1), (1, 1, 1), (365, 365, 182), (30, 3, 1)]
)
def test_the_lead_is_what_the_programme_says_but_at_most_half_the_period(
    shop: Shop, warning_days: int, days: int, lead: int
) -> None:
    shop.program(points_expiration_days=days, warning_days=warning_days)
    nights = Nights(shop)
    nights.account(active_at="2024-06-01T12:00:00Z")
    gone_on = date(2024, 6, 2) + timedelta(days=days)
    told = [
        *nights.live(gone_on - timedelta(days=lead + 1), 1),
        *nights.live(gone_on - timedelta(days=lead), 1),
        *nights.live(gone_on - timedelta(days=1), 3),
    ]
    assert [(one.night_on, one.template) for one in told] == [
        (gone_on - timedelta(days=lead), WARNING),
        (gone_on, EXPIRED),
    ]
    assert {one.expires_at for one in told} == {midnight(gone_on, ZONE)}


def test_activity_after_the_warning_means_another_warning_of_another_date(shop: Shop, nights: Nights) -> None:
    nights.account(active_at=ACTIVE_AT)
    first = nights.live("2025-01-18", 1)
    nights.account(active_at="2025-01-31T12:00:00+01:00", points=50)
    told = first + nights.live("2025-01-19", 50)
    assert [(one.template, one.points, one.expires_at) for one in told] == [
        (WARNING, 100, midnight("2025-02-01")),
        (WARNING, 150, midnight("2025-03-03")),
        (EXPIRED, 150, midnight("2025-03-03")),
    ]


@pytest.mark.parametrize("days", [None, 0, -5])
def test_without_a_period_nobody_is_warned_and_nothing_expires(shop: Shop, days: int | None) -> None:
    shop.program(points_expiration_days=days)
    nights = Nights(shop)
    nights.account(active_at="2005-01-01T12:00:00Z")
    assert (nights.live("2025-01-01", 2), shop.balance(), shop.account().expires_at) == ([], 100, None)


# --- zones and clocks -----------------------------------------------------------------------------------

# Zone and local date at whose beginning the points go: on, before and after changes of the clock, leap days, year ends.
DATES = [
    ("Europe/Luxembourg", "2024-03-31"),
    ("Europe/Luxembourg", "2024-04-01"),
    ("Europe/Luxembourg", "2024-10-27"),
    ("Europe/Luxembourg", "2024-10-28"),
    ("Europe/Luxembourg", "2024-11-05"),
    ("Europe/Luxembourg", "2024-02-29"),
    ("Europe/Luxembourg", "2024-03-01"),
    ("Europe/Luxembourg", "2023-03-01"),
    ("Europe/Luxembourg", "2025-01-01"),
    ("America/Los_Angeles", "2024-03-10"),
    ("America/Los_Angeles", "2024-03-11"),
    ("America/Los_Angeles", "2024-03-20"),
    ("America/Los_Angeles", "2024-11-03"),
    ("America/Los_Angeles", "2024-11-04"),
    ("America/Los_Angeles", "2024-02-29"),
    ("America/Los_Angeles", "2025-01-01"),
    ("Etc/UTC", "2024-03-31"),
    ("Europe/London", "2024-03-31"),
    ("Pacific/Kiritimati", "2024-12-31"),
    ("Pacific/Kiritimati", "2025-01-01"),
    ("Pacific/Pago_Pago", "2025-01-01"),
    ("Asia/Kathmandu", "2024-03-01"),
    ("Australia/Lord_Howe", "2024-04-07"),
    # Days that begin at 01:00, because the clock goes on at midnight.
    ("America/Sao_Paulo", "2018-11-04"),
    ("Africa/Cairo", "2014-05-16"),
    ("Asia/Beirut", "2024-03-31"),
    # Midnight comes after an hour that there is twice.
    ("America/Sao_Paulo", "2018-02-18"),
    ("Africa/Cairo", "2014-09-26"),
    # A date that there is not.
    ("Pacific/Apia", "2011-12-30"),
]


def clock_cases(shop: Shop, *, days: int) -> dict[str, tuple[str, date, datetime]]:
    """A merchant per case, whose only customer's points go on the case's date: zone, date and instant by merchant."""
    cases: dict[str, tuple[str, date, datetime]] = {}
    for zone, day in DATES:
        merchant, gone_on = f"{zone} {day}", date.fromisoformat(day)
        shop.merchant(merchant, timezone=zone, points_expiration_days=days)
        # The last minute of the day: in UTC it is often another date.
        active_on = gone_on - timedelta(days=days + 1)
        active_at = datetime(active_on.year, active_on.month, active_on.day, 23, 59, tzinfo=ZoneInfo(zone))
        shop.order(f"o {merchant}", 100, merchant=merchant, paid_at=active_at)
        cases[merchant] = (zone, gone_on, midnight(gone_on, zone))
    shop.award()
    return cases


def test_nothing_expires_before_local_midnight_and_everything_at_it(shop: Shop) -> None:
    nights = Nights(shop)
    cases = clock_cases(shop, days=30)
    early, late = {}, {}
    for merchant, (zone, gone_on, instant) in cases.items():
        nights.run(midnight(gone_on - timedelta(days=14), zone), merchant=merchant)
        nights.deliver()
        before = nights.run(instant - timedelta(microseconds=1), merchant=merchant)
        early[merchant] = (before.accounts_expired, before.accounts_moved)
        late[merchant] = nights.run(instant, merchant=merchant).accounts_expired
    assert early == dict.fromkeys(cases, (0, 0))
    assert late == dict.fromkeys(cases, 1)
    assert {merchant: [date for _, date, _ in nights.warnings(merchant=merchant)] for merchant in cases} == {
        merchant: [instant] for merchant, (_, _, instant) in cases.items()
    }
    assert shop.problems() == []


def test_the_nights_at_two_in_utc_warn_on_the_right_local_date_and_expire_in_the_first_night_after_midnight(
    shop: Shop,
) -> None:
    nights = Nights(shop)
    cases = clock_cases(shop, days=30)
    warned, gone = {}, {}
    for merchant, (_, gone_on, _) in cases.items():
        told = [
            *nights.live(gone_on - timedelta(days=15), 3, merchants=[merchant]),
            *nights.live(gone_on - timedelta(days=1), 3, merchants=[merchant]),
        ]
        warned[merchant] = days_of(told, WARNING)[merchant]
        gone[merchant] = days_of(told, EXPIRED)[merchant]

    def local(day: date, zone: str) -> date:
        return night(day).astimezone(ZoneInfo(zone)).date()

    def first_night(since: datetime) -> date:
        return since.date() if night(since.date()) >= since else since.date() + timedelta(days=1)

    assert {name: (local(on, cases[name][0]), named) for name, ((on, named),) in warned.items()} == {
        name: (gone_on - timedelta(days=14), instant) for name, (_, gone_on, instant) in cases.items()
    }
    assert {name: (on, named) for name, ((on, named),) in gone.items()} == {
        name: (first_night(instant), instant) for name, (_, _, instant) in cases.items()
    }


def test_a_midnight_that_there_is_twice_is_not_a_day_early(shop: Shop) -> None:
    """In Havana the clock goes back from 01:00 to midnight: PostgreSQL takes the later of the two."""
    shop.merchant("m2", timezone="America/Havana", points_expiration_days=30)
    nights = Nights(shop)
    nights.account(merchant="m2", active_at="2024-10-03T12:00:00-04:00")
    nights.live("2024-10-21", 1)
    first = midnight("2024-11-03", "America/Havana")
    assert nights.run(first - timedelta(microseconds=1), merchant="m2").accounts_expired == 0
    assert nights.run(first + timedelta(hours=1), merchant="m2").accounts_expired == 1


def test_a_time_zone_that_postgresql_does_not_know_is_utc_and_said_so(shop: Shop) -> None:
    shop.merchant("m2", timezone="Moon/Tycho", points_expiration_days=30)
    nights = Nights(shop)
    nights.account(merchant="m2", active_at="2025-01-01T12:00:00Z")
    told = nights.live("2025-01-10", 30, merchants=["m2"])
    assert {one.expires_at for one in told} == {at("2025-02-01")}
    assert [one.template for one in told] == [WARNING, EXPIRED]
    assert nights.run("2025-03-01", merchant="m2", is_dry_run=True).warnings == ()
    nights.account(merchant="m2", active_at="2025-02-20T12:00:00Z")
    shown = nights.run("2025-03-20", merchant="m2")
    assert shown.warnings == ("its time zone is unknown, so expiry dates are computed in UTC",)


# --- nights that nobody ran -----------------------------------------------------------------------------


@pytest.mark.parametrize("days_down", [1, 13, 14, 15, 20, 200])
def test_after_an_outage_late_warnings_go_out_and_nobody_expires_before_the_lead_has_passed(
    shop: Shop, days_down: int
) -> None:
    """40 days of period, 14 of lead; the points of a customer go on each of 25 days."""
    shop.program(points_expiration_days=40)
    nights = Nights(shop)
    down_on = date(2024, 5, 1)
    up_on = down_on + timedelta(days=days_down)
    dates = {f"c{number}": down_on + timedelta(days=number) for number in range(-3, 22)}
    for customer, gone_on in dates.items():
        shop.order(customer, 100, customer=customer, paid_at=midnight(gone_on) - timedelta(days=40, hours=12))
    shop.award()
    told = nights.live(down_on - timedelta(days=17), 16)
    # The mails of the last night before the outage are on their way in it.
    told += nights.live(down_on - timedelta(days=1), 1, is_delivered=False)
    told += nights.live(up_on, 1, is_delivered=False)
    assert nights.live(up_on, 1) == []
    told += nights.live(up_on + timedelta(days=1), 22)
    gone = {one.customer: one for one in told if one.template == EXPIRED}
    assert len(nights.warnings()) == len(gone) == len(dates)
    assert len(told) == 2 * len(dates)
    promised, warned_on = {}, {}
    for customer, gone_on in dates.items():
        warned_on[customer] = gone_on - timedelta(days=14)
        if down_on - timedelta(days=1) <= warned_on[customer] < up_on:
            # Told too late, or not at all: the whole lead from the first night on.
            warned_on[customer] = up_on
        promised[customer] = warned_on[customer] + timedelta(days=14)
    assert {customer: instant for customer, instant, _ in nights.warnings()} == {
        customer: midnight(day) for customer, day in promised.items()
    }
    assert {customer: one.expires_at for customer, one in gone.items()} == {
        customer: midnight(day) for customer, day in promised.items()
    }
    assert {customer: one.night_on for customer, one in gone.items()} == {
        customer: day if day < down_on else max(day, up_on) for customer, day in promised.items()
    }
    assert shop.problems() == []
