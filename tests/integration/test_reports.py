"""What merchants owe in points, month by month, against the ledger's rows; redemptions; newest entries; the command."""

import csv
import io
import re
from collections import Counter
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event

from loyalty_pipelines.db import merges, repairs, sources
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.expiry_undo_run import undo_run
from loyalty_pipelines.db.reports_run import report_activity, report_liability, report_redemptions
from loyalty_pipelines.domain.activity import RedemptionPeriod
from loyalty_pipelines.domain.expiry_undo import Undo
from loyalty_pipelines.domain.liability import COLUMN_OF_KIND, MerchantLiability
from loyalty_pipelines.domain.merges import Merge
from loyalty_pipelines.domain.repairs import Adjustment
from loyalty_pipelines.domain.source_mapping import NoMappingError
from tests.checkout import Checkout
from tests.cli import Cli, write_orders
from tests.shop import Shop
from tests.time_travel import Clock

# Restated here: each kind, its column, and whether the column counts what is added or what is taken.
EXPECTED = {
    "opening": ("imported", 1),
    "bonus": ("bonus", 1),
    "earned": ("earned", 1),
    "re-earned": ("earned", 1),
    "restored": ("restored", 1),
    "redeemed": ("spent", -1),
    "expired": ("expired", -1),
    "reversed": ("reversed", -1),
    "adjusted": ("adjusted", 1),
}
TOKYO = "Asia/Tokyo"


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def history(shop: Shop, cli: Cli, tmp_path: Path) -> Shop:
    """Five months of 'tokyo', whose clock never changes, by everything that writes; and a little of m1."""
    shop.merchant(
        "tokyo",
        timezone=TOKYO,
        currency="JPY",
        points_expiration_days=365,
        point_value_amount=Decimal("0.5"),
        welcome_bonus_points=20,
    )
    clock, checkout = Clock(shop), Checkout(shop.engine)

    def order(order_id: str, total: int, customer: str) -> None:
        shop.order(order_id, total, customer=customer, merchant="tokyo", currency="JPY")

    balances = write_orders(tmp_path / "old.csv", "customer_id,points", ["ann,500", "bob,60"])
    cli.ok("accounts", "import", balances, "--merchant", "tokyo")
    order("o1", 1000, "ann")
    shop.award()
    clock.pass_days("tokyo", 40)
    order("o2", 300, "cid")
    order("o3", 80, "dan")
    shop.award()
    shop.refund("o2", 100, merchant="tokyo")
    shop.award()
    checkout.redeem("r1", 400, "ann", merchant="tokyo")
    checkout.reserve("r2", 50, "bob", merchant="tokyo")
    checkout.capture("r2", merchant="tokyo")
    checkout.reserve("r3", 70, "ann", merchant="tokyo")
    checkout.release("r3", merchant="tokyo")
    clock.pass_days("tokyo", 35)
    shop.set_status("o2", "cancelled", merchant="tokyo")
    shop.award()
    shop.set_status("o2", "paid", merchant="tokyo")
    shop.award()
    order("r1", 900, "ann")
    shop.set_status("r1", "cancelled", merchant="tokyo")
    shop.award()
    shop.expire("dan", merchant="tokyo")
    shop.expire("bob", merchant="tokyo")
    clock.pass_days("tokyo", 62)
    run_id = shop.value(
        "SELECT run_id FROM loyalty.ledger_entries WHERE kind = 'expired' AND merchant_id = 'tokyo' "
        "ORDER BY account_id LIMIT 1"
    )
    undo_run(shop.engine, Undo(run_id=run_id, reason="was wrong", actor="eve"))
    with shop.engine.begin() as conn:
        repairs.adjust(
            conn,
            Adjustment(
                merchant_id="tokyo", customer_id="cid", points=-15, reason="ticket 7", actor="eve", reference="t7"
            ),
        )
        merges.merge_accounts(
            conn,
            Merge(merchant_id="tokyo", customer_id="cid", into_customer_id="ann", reason="one person", actor="eve"),
        )
    checkout.reserve("r4", 120, "ann", merchant="tokyo")
    shop.order("m1-1", 250)
    shop.award()
    assert shop.problems() == []
    return shop


def liability(shop: Shop, merchant: str = "m1", **options: Any) -> MerchantLiability:
    """Return what a merchant owes, which must have been computed."""
    report = report_liability(shop.engine, **options)
    assert report.failures == {}
    return next(one for one in report.merchants if one.merchant_id == merchant)


def expected_months(shop: Shop, merchant: str, timezone: str) -> dict[str, Counter[str]]:
    """Return what the rows say, added up one by one, by month and column."""
    found: dict[str, Counter[str]] = {}
    for row in shop.rows("SELECT * FROM loyalty.ledger_entries WHERE merchant_id = :merchant", merchant=merchant):
        month = found.setdefault(f"{row.recorded_at.astimezone(ZoneInfo(timezone)):%Y-%m}", Counter())
        column, sign = EXPECTED[row.kind]
        month[column] += sign * row.points
    return found


def insert(shop: Shop, customer: str, kind: str, points: int, recorded_at: str | datetime, **more: Any) -> None:
    """Write an entry with its account as they would have been written then."""
    values = {"merchant": "m1", "expires": None, **more}
    account = {"merchant": values["merchant"], "customer": customer}
    shop.run(
        "INSERT INTO loyalty.accounts (merchant_id, customer_id, expires_at) VALUES (:merchant, :customer, "
        "CAST(:expires AS timestamptz)) ON CONFLICT DO NOTHING",
        **values | account,
    )
    shop.run(
        "WITH a AS (UPDATE loyalty.accounts SET balance = balance + :points, next_seq = next_seq + 1 "
        "WHERE merchant_id = :merchant AND customer_id = :customer RETURNING *) "
        "INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, "
        "balance_after, reference_type, reference_id, reference_seq, actor, occurred_at, recorded_at) "
        "SELECT merchant_id, account_id, next_seq - 1, :kind, :points, balance - :points, balance, 'test', "
        "gen_random_uuid()::text, 1, 'test', now(), CAST(:recorded_at AS timestamptz) FROM a",
        kind=kind,
        points=points,
        recorded_at=recorded_at,
        **account,
    )


# --- liability ---


def test_every_month_of_a_history_by_all_writers_adds_up_and_the_last_is_the_sum_of_the_balances(history: Shop) -> None:
    written = {row.kind for row in history.rows("SELECT DISTINCT kind FROM loyalty.ledger_entries")}
    assert written == set(EXPECTED), "the history has to have every kind"
    one = liability(history, "tokyo")
    expected = expected_months(history, "tokyo", TOKYO)
    assert len(expected) >= 3
    balance = 0
    for month in one.months:
        here = expected.pop(f"{month.month_on:%Y-%m}", Counter())
        found = {name: getattr(month, name) for name, _ in EXPECTED.values()}
        assert found == {name: here[name] for name, _ in EXPECTED.values()}, month.month_on
        assert month.opening == balance
        balance += sum(sign * here[name] for name, sign in dict(EXPECTED.values()).items())
        assert month.closing == balance
    assert expected == {}
    in_accounts = "SELECT sum(balance) FROM loyalty.accounts WHERE merchant_id = 'tokyo'"
    assert (one.closing, one.difference) == (history.value(in_accounts), 0)
    assert [month.is_closed for month in one.months] == [True] * (len(one.months) - 1) + [False]
    assert liability(history, "m1").closing == 250


def test_what_goes_when_adds_up_to_the_balances_with_what_is_held_and_owed(history: Shop) -> None:
    history.run(
        "UPDATE loyalty.accounts SET balance = -30, is_debt_allowed = true WHERE merchant_id = 'tokyo' "
        "AND customer_id = 'dan'"
    )
    one = liability(history, "tokyo")
    assert sum(line.points for line in one.calendar) == one.balance
    assert (one.line("held").points, one.line("debt").points) == (120, -30)


def test_every_kind_of_the_ledger_has_its_own_column(shop: Shop) -> None:
    check = shop.value(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'ledger_entries_kind_is_known'"
    )
    kinds = set(re.findall(r"'([^']+)'", check))
    assert kinds == set(COLUMN_OF_KIND) == set(EXPECTED)
    assert dict(COLUMN_OF_KIND) == EXPECTED


def test_a_kind_without_a_column_is_a_failure_of_its_merchant_and_named(shop: Shop) -> None:
    shop.merchant("m2")
    shop.run("ALTER TABLE loyalty.ledger_entries DROP CONSTRAINT ledger_entries_kind_is_known")
    insert(shop, "ann", "gift", 5, "now")
    insert(shop, "ann", "earned", 7, "now", merchant="m2")
    report = report_liability(shop.engine)
    assert list(report.failures) == ["m1"] and "gift" in report.failures["m1"]
    assert [(one.merchant_id, one.closing) for one in report.merchants] == [("m2", 7)]


@pytest.mark.parametrize("zone", ["Europe/Luxembourg", "America/New_York", TOKYO, "UTC"])
def test_a_month_begins_at_midnight_of_the_merchant(shop: Shop, zone: str) -> None:
    shop.merchant("other", timezone="Pacific/Kiritimati")
    shop.merchant("m2", timezone=zone)
    this = datetime.fromisoformat(
        shop.value("SELECT to_char(now() AT TIME ZONE CAST(:zone AS text), 'YYYY-MM-01')", zone=zone)
    ).replace(tzinfo=ZoneInfo(zone))
    first = this.replace(month=3, year=this.year - 1)
    for hours, points in ((-25, 1), (-1, 2), (0, 4), (1, 8), (26, 16)):
        insert(shop, "ann", "earned", points, first + timedelta(hours=hours), merchant="m2")
    # 23:30 UTC on the last day: already the next month in Luxembourg, and a long way into it in Tokyo.
    insert(shop, "ann", "earned", 32, f"{first.year}-04-30T23:30:00Z", merchant="m2")
    months = {f"{one.month_on:%m}": one.earned for one in liability(shop, "m2").months if one.earned}
    is_next = zone in ("Europe/Luxembourg", TOKYO)
    assert months == {"02": 3, "03": 28, "05" if is_next else "04": 32}


def test_a_closed_month_is_another_one_when_its_merchant_moves_to_another_time_zone(shop: Shop) -> None:
    year = shop.value("SELECT extract(YEAR FROM now())::integer") - 1
    insert(shop, "ann", "earned", 32, f"{year}-04-30T23:30:00Z")
    shop.run("UPDATE sample_shop.merchants SET timezone = 'UTC'")
    before = liability(shop)
    shop.run(f"UPDATE sample_shop.merchants SET timezone = '{TOKYO}'")
    after = liability(shop)
    assert [f"{one.month_on:%m}" for found in (before, after) for one in found.months if one.earned] == ["04", "05"]
    assert before.closing == after.closing == 32


def test_months_before_those_shown_are_in_the_opening_and_a_quiet_month_has_its_line(shop: Shop) -> None:
    insert(shop, "ann", "earned", 100, "2001-05-05")
    insert(shop, "bob", "earned", 5, "now")
    one = liability(shop, months=3)
    assert [(month.opening, month.earned, month.closing) for month in one.months] == [
        (100, 0, 100),
        (100, 0, 100),
        (100, 0, 100),
        (100, 5, 105),
    ]


def test_a_merchant_without_entries_owes_nothing_and_has_this_month(shop: Shop) -> None:
    one = liability(shop)
    assert [(month.opening, month.closing) for month in one.months] == [(0, 0)]
    assert (one.closing, one.difference, one.amount, one.breakage) == (0, 0, Decimal("0.00"), None)
    assert {line.points for line in one.calendar} == {0}


def test_a_merchant_that_left_the_shop_still_owes_and_keeps_its_months(shop: Shop) -> None:
    shop.merchant("gone", timezone="Pacific/Kiritimati", currency="AUD", point_value_amount=Decimal(1))
    last_month = shop.value(
        "SELECT (date_trunc('month', now() AT TIME ZONE 'Pacific/Kiritimati') - interval '1 month') "
        "AT TIME ZONE 'Pacific/Kiritimati' + interval '1 minute'"
    )
    insert(shop, "ann", "earned", 40, last_month, merchant="gone")
    shop.run(
        "INSERT INTO loyalty.expiry_terms (merchant_id, timezone, is_program_active) "
        "VALUES ('gone', 'Pacific/Kiritimati', true)"
    )
    before = liability(shop, "gone")
    shop.run("DELETE FROM sample_shop.merchants WHERE id = 'gone'")
    one = liability(shop, "gone")
    assert (one.closing, one.amount, one.merchant.currency) == (40, None, None)
    assert one.months == before.months
    assert before.amount == Decimal("40.00")
    # One that neither the shop nor the programmes know.
    insert(shop, "ann", "opening", 3, "now", merchant="only in the ledger")
    assert liability(shop, "only in the ledger").closing == 3


def test_without_a_programme_points_have_no_worth(shop: Shop) -> None:
    shop.run("INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES ('m2', 'm2', 'UTC', 'EUR')")
    insert(shop, "ann", "opening", 40, "now", merchant="m2")
    one = liability(shop, "m2")
    assert (one.closing, one.amount) == (40, None)
    totals = report_liability(shop.engine).totals
    assert [(sums.currency, sums.points, sums.amount) for sums in totals] == [
        ("EUR", 0, Decimal("0.00")),
        (None, 40, None),
    ]


def test_currencies_are_never_added_and_amounts_are_rounded_by_their_currency(shop: Shop) -> None:
    for merchant, currency, value in (("e", "EUR", "0.005"), ("f", "EUR", "0.005"), ("j", "JPY", "0.5"),
                                      ("k", "KWD", "0.0005")):  # fmt: skip
        shop.merchant(merchant, currency=currency, point_value_amount=Decimal(value))
        insert(shop, "ann", "earned", 101, "now", merchant=merchant)
    report = report_liability(shop.engine, ["e", "f", "j", "k"])
    assert [(sums.currency, sums.merchants, sums.points, sums.amount) for sums in report.totals] == [
        # 0.505 is 0.51, twice: the sum of what each merchant books.
        ("EUR", 2, 202, Decimal("1.02")),
        ("JPY", 1, 101, Decimal(51)),
        ("KWD", 1, 101, Decimal("0.051")),
    ]


def test_the_value_is_that_of_the_programme_in_force_now(shop: Shop) -> None:
    insert(shop, "ann", "earned", 1000, "2020-01-01")
    shop.program(valid_from="2021-01-01", point_value_amount=Decimal("0.02"))
    shop.program(valid_from="2999-01-01", point_value_amount=Decimal("0.5"))
    assert liability(shop).amount == Decimal("20.00")


def test_the_largest_sums_are_exact(shop: Shop) -> None:
    shop.program(point_value_amount=Decimal("999999.123456789"))
    insert(shop, "ann", "earned", 2**61, "now")
    insert(shop, "bob", "earned", 2**61, "now")
    insert(shop, "cid", "earned", 2**62 + 1, "now")
    one = liability(shop)
    assert (one.closing, one.balance) == (2**63 + 1, 2**63 + 1)
    assert one.amount == Decimal("9223363952170634376704471.69")


def test_the_calendar_has_overdue_points_twelve_months_later_and_never_without_what_is_held(shop: Shop) -> None:
    shop.program(points_expiration_days=365)
    this = shop.value("SELECT CAST(date_trunc('month', now() AT TIME ZONE 'Europe/Luxembourg') AS date)")

    def month_on(later: int) -> date:
        number = this.year * 12 + this.month - 1 + later
        return date(number // 12, number % 12 + 1, 1)

    begin = {later: f"{month_on(later)} 00:00 Europe/Luxembourg" for later in (1, 12, 13, 14)}
    insert(shop, "past", "earned", 1, "now", expires="2020-01-01")
    insert(shop, "next", "earned", 2, "now", expires=begin[1])
    insert(shop, "year", "earned", 4, "now", expires=begin[12])
    insert(shop, "edge", "earned", 8, "now", expires=begin[13])
    insert(shop, "far", "earned", 16, "now", expires=begin[14])
    insert(shop, "none", "earned", 32, "now")
    insert(shop, "off", "earned", 64, "now", expires=begin[1])
    shop.run("UPDATE loyalty.accounts SET is_active = false WHERE customer_id = 'off'")
    insert(shop, "busy", "earned", 128, "now", expires=begin[1])
    shop.run("UPDATE loyalty.accounts SET held = 100 WHERE customer_id = 'busy'")
    one = liability(shop)
    assert {line.label: line.points for line in one.calendar if line.points} == {
        "overdue": 1,
        f"{month_on(1):%Y-%m}": 30,
        f"{month_on(12):%Y-%m}": 4,
        "later": 24,
        "never": 96,
        "held": 100,
    }
    assert [line.month_on for line in one.calendar if line.month_on] == [month_on(number) for number in range(13)]
    # Where expiry is off, nothing goes, whatever dates are left.
    shop.program(valid_from="2020-01-01", points_expiration_days=None)
    assert liability(shop).line("never").points == 155


def test_breakage_is_what_expired_of_what_was_earned_in_twelve_closed_months(shop: Shop) -> None:
    month = "date_trunc('month', now() AT TIME ZONE 'Europe/Luxembourg') AT TIME ZONE 'Europe/Luxembourg'"
    for months, kind, points in ((-14, "earned", 9000), (-13, "expired", -1), (-12, "earned", 300), (-1, "bonus", 200),
                                 (-1, "reversed", -100), (-2, "expired", -50), (0, "earned", 7000)):  # fmt: skip
        at = shop.value(f"SELECT {month} + make_interval(months => :months, hours => 1)", months=months)
        insert(shop, "ann", kind, points, at)
    assert liability(shop, months=2).breakage == Decimal("0.1250")
    assert liability(shop, months=24).breakage == Decimal("0.1250")


def test_what_is_awarded_between_two_statements_of_a_report_is_in_all_of_it_or_in_none(
    shop: Shop, database_url: str
) -> None:
    shop.order("o1", 100)
    shop.award()
    reader = connect(database_url)
    statements: list[str] = []

    @event.listens_for(reader, "before_cursor_execute")
    def award_meanwhile(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)
        if "loyalty.accounts AS own" in statement:
            shop.order(f"o{len(statements)}", 50, customer="bob")
            shop.award()

    report = report_liability(reader)
    reader.dispose()
    assert shop.balance("bob") == 50
    assert [(one.closing, one.difference) for one in report.merchants] == [(100, 0)]


def test_a_merchant_whose_view_is_broken_fails_alone(shop: Shop) -> None:
    shop.merchant("m2")
    shop.order("o1", 100)
    shop.order("o2", 30, merchant="m2")
    shop.award()
    view = shop.value("SELECT pg_get_viewdef('loyalty_source.merchants'::regclass)").rstrip(";")
    shop.run(
        "CREATE OR REPLACE VIEW loyalty_source.merchants AS SELECT merchant_id, name, timezone, CASE WHEN merchant_id "
        "= 'm2' THEN CAST(1 / (length(name) - length(name)) AS text) ELSE currency END COLLATE \"C\" AS currency, "
        f"locale, is_active FROM ({view}) AS m"
    )
    report = report_liability(shop.engine)
    assert [(one.merchant_id, one.closing) for one in report.merchants] == [("m1", 100)]
    assert report.failures == {"m2": "division by zero"}
    assert report_redemptions(shop.engine).failures == {"m2": "division by zero"}


def test_without_a_shop_there_is_no_report(shop: Shop) -> None:
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    with pytest.raises(NoMappingError):
        report_liability(shop.engine)


# --- redemptions and activity ---


def period(found: list[RedemptionPeriod], merchant: str) -> RedemptionPeriod:
    (one,) = [one for one in found if one.merchant_id == merchant]
    return one


def test_redemptions_are_counted_with_customers_worth_and_share(shop: Shop) -> None:
    shop.program(valid_from="2020-01-01", point_value_amount=Decimal("0.01"))
    shop.merchant("m2", currency="USD")
    checkout = Checkout(shop.engine)
    for customer, total in (("ann", 1000), ("bob", 600)):
        shop.order(f"o-{customer}", total, customer=customer)
    shop.award()
    checkout.redeem("r1", 150, "ann")
    checkout.redeem("r2", 150, "ann")
    # What a point is worth is asked at the time of the redemption.
    shop.program(valid_from=shop.value("SELECT now()"), point_value_amount=Decimal("0.03"))
    checkout.redeem("r3", 101, "bob")
    checkout.release("r2")
    for order in ("h1", "h2", "h3"):
        checkout.reserve(order, 10, "bob")
    checkout.release("h1")
    shop.run(
        "UPDATE loyalty.holds SET reserved_at = now() - interval '2 hours', expires_at = now() - interval '1 hour' "
        "WHERE order_id = 'h2'"
    )
    checkout.release("h2")
    report = report_redemptions(shop.engine)
    for found in (period(list(report.days), "m1"), period(list(report.months), "m1")):
        assert (found.redemptions, found.customers, found.spent_points) == (3, 2, 401)
        assert (found.amount, found.currency) == (Decimal("6.03"), "EUR")
        assert (found.restored_points, found.earned_points) == (150, 1600)
        assert (found.average_points, found.share_of_earned) == (Decimal("133.7"), Decimal("0.2506"))
        assert (found.holds_released, found.holds_expired) == (1, 1)
    assert sorted(report.present_months) == ["m1", "m2"]


def test_redemptions_are_of_the_merchants_day_and_end_where_they_are_asked_to(shop: Shop) -> None:
    shop.merchant("m2", timezone=TOKYO)
    midnight = shop.value("SELECT date_trunc('day', now() AT TIME ZONE 'Asia/Tokyo') AT TIME ZONE 'Asia/Tokyo'")
    insert(shop, "ann", "earned", 100, midnight - timedelta(days=9), merchant="m2")
    # Luxembourg's midnight is between the second and the third: one customer of one day all the same.
    for hours in (-73, -71, -60, -1, 0):
        insert(shop, "ann", "redeemed", -10, midnight + timedelta(hours=hours), merchant="m2")
    today = midnight.astimezone(ZoneInfo(TOKYO)).date()
    report = report_redemptions(shop.engine, days=3)
    assert {one.period_on: (one.redemptions, one.customers) for one in report.days} == {
        today - timedelta(days=3): (2, 1),
        today - timedelta(days=1): (1, 1),
        today: (1, 1),
    }
    assert sum(one.redemptions for one in report.months) == 5


def test_activity_is_the_newest_entries_of_each_merchant(shop: Shop) -> None:
    shop.merchant("m2")
    for number in range(4):
        insert(shop, "ann", "earned", 1 + number, shop.value("SELECT now() - :n * interval '1 hour'", n=number))
    insert(shop, "bob", "earned", 9, "2020-01-01")
    insert(shop, "eve", "bonus", 50, "now", merchant="m2")
    report = report_activity(shop.engine, limit=3)
    assert [(one.merchant_id, one.customer_id, one.kind, one.points) for one in report.entries] == [
        ("m1", "ann", "earned", 1),
        ("m1", "ann", "earned", 2),
        ("m1", "ann", "earned", 3),
        ("m2", "eve", "bonus", 50),
    ]
    assert [one.points for one in report_activity(shop.engine, ["m1"], days=3_700).entries][-1] == 9


# --- the command ---


def test_the_liability_is_a_table_json_or_csv(history: Shop, cli: Cli) -> None:
    shown = cli.ok("reports", "liability").out
    row = next(line.split() for line in shown.splitlines() if line.strip().startswith("tokyo"))
    one = liability(history, "tokyo")
    assert row[10] == f"{one.closing:,}" and row[-1] == "JPY"
    assert f"1 merchant: {one.closing:,} points, {one.amount} JPY" in shown
    document = cli.ok("reports", "liability", "--merchant", "tokyo", "--json").document
    (found,) = document["merchants"]
    assert (found["closing"], found["amount"]) == (one.closing, str(one.amount))
    assert len(found["months"]) == len(one.months)
    lines = list(csv.DictReader(io.StringIO(cli.ok("reports", "liability", "--csv").out)))
    assert [int(line["closing"]) for line in lines if line["merchant_id"] == "tokyo"] == [
        month.closing for month in one.months
    ]
    by_month = cli.ok("reports", "liability", "--merchant", "tokyo").out
    assert f"{one.months[0].month_on:%Y-%m}" in by_month and "held" in by_month
    assert "did you mean 'tokyo'" in cli.refused(1, "reports", "liability", "--merchant", "tokio")
    assert "Choose one of" in cli.refused(2, "reports", "liability", "--json", "--csv")


def test_a_balance_that_is_not_its_ledger_is_exit_status_one(shop: Shop, cli: Cli) -> None:
    shop.order("o1", 100)
    shop.award()
    shop.run("UPDATE loyalty.accounts SET balance = balance + 7")
    error = cli.refused(1, "reports", "liability", "--json")
    assert "merchant m1" in error and "107" in error and "+7" in error


def test_the_command_writes_the_files_and_names_them(history: Shop, cli: Cli, tmp_path: Path) -> None:
    for name, command, page in (("points_liability", "liability", "liability.html"),
                                ("redemption_stats", "redemptions", "redemptions.html"),
                                ("recent_activity", "activity", "activity.html")):  # fmt: skip
        said = cli.ok("reports", command, "--to", tmp_path / "out").out.splitlines()
        paths = [Path(line) for line in said]
        assert all(path.is_file() for path in paths)
        assert {path.parent.parent.parent for path in paths} == {tmp_path / "out" / name}
        assert page in {path.name for path in paths}


def test_redemptions_and_activity_are_shown(history: Shop, cli: Cli) -> None:
    assert "tokyo" in cli.ok("reports", "redemptions", "--by", "month").out
    assert cli.ok("reports", "redemptions", "--json", "--merchant", "tokyo").document["months"]
    assert cli.ok("reports", "redemptions", "--csv").out.startswith("merchant_id,period,redemptions")
    shown = cli.ok("reports", "activity", "--merchant", "tokyo", "--days", "365", "--limit", "3").out
    assert shown.count("tokyo") == 3 and "merge cid" in shown
    assert cli.ok("reports", "activity", "--csv").out.startswith("merchant_id,recorded_at")
    assert [one["kind"] for one in cli.ok("reports", "activity", "--merchant", "m1", "--json").document["entries"]] == [
        "earned"
    ]
