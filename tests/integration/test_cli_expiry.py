"""`loyalty expire` and `loyalty expiry` on a shop whose points expire."""

from datetime import UTC, datetime, timedelta

import pytest

from loyalty_pipelines.db import sources
from loyalty_pipelines.platform_time import next_expiry_run, platform_timezone
from tests.cli import Cli
from tests.expiry import Nights
from tests.shop import Shop

ACTIVE_AT = "2025-01-01T12:00:00+01:00"
WARNED_AT = "2025-01-18T02:00:00+01:00"
DAY_BEFORE = "2025-01-31T02:00:00+01:00"
DUE_AT = "2025-02-01T02:00:00+01:00"


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def nights(shop: Shop) -> Nights:
    """The shop's nights; points of m1 expire after 30 days."""
    shop.program(points_expiration_days=30)
    return Nights(shop)


def warn(nights: Nights, *customers: str, merchants: tuple[str, ...] = ("m1",)) -> None:
    """Give customers 100 points that are due at DUE_AT, and tell them."""
    for merchant in merchants:
        for customer in customers:
            nights.account(customer, active_at=ACTIVE_AT, merchant=merchant)
    nights.run_all(WARNED_AT, merchants=list(merchants))
    nights.deliver()


def cells(text: str, first: str) -> list[str]:
    """Return the words of the table's row that begins with `first`."""
    (row,) = [line.split() for line in text.splitlines() if line.split()[:1] == [first]]
    return row


def run_of(shop: Shop) -> str:
    """Return the run that took points last."""
    return shop.value(
        "SELECT run_id FROM loyalty.expiry_runs WHERE accounts_expired > 0 ORDER BY started_at DESC LIMIT 1"
    )


def test_expiring_a_merchant_takes_what_is_due_and_says_how_to_undo_it(cli: Cli, shop: Shop, nights: Nights) -> None:
    warn(nights, "ann", "bea")
    nights.run(DAY_BEFORE)
    nights.account("bea", active_at="2025-01-31T12:00:00+01:00")
    found = cli.ok("expire", "m1", "--as-of", DUE_AT)
    assert cells(found.out, "m1") == ["m1", "0", "0", "0", "1", "0", "1", "100", "0", "-1"]
    assert "0 accounts warned of 0 points; 1 account with 100 points expired.\n" in found.out
    assert f"'loyalty expiry undo --run {run_of(shop)} --dry-run'" in found.out
    assert (shop.balance("ann"), shop.balance("bea")) == (0, 200)
    again = cli.ok("expire", "m1", "--as-of", DUE_AT)
    assert again.out == "Nobody was to be warned, and nothing expired.\n"


def test_warnings_and_moved_dates_are_shown(cli: Cli, nights: Nights) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    nights.run("2025-01-10T02:00:00+01:00")
    found = cli.ok("expire", "m1", "--as-of", "2025-01-31T02:00:00+01:00")
    assert cells(found.out, "m1") == ["m1", "1", "100", "1", "0", "0", "0", "0", "0", "-"]
    assert "1 account warned of 100 points" in found.out
    assert "undo" not in found.out, "nothing was taken"


def test_only_the_named_merchant_expires(cli: Cli, shop: Shop, nights: Nights) -> None:
    shop.merchant("m2", points_expiration_days=30)
    warn(nights, "ann", merchants=("m1", "m2"))
    cli.ok("expire", "m1", "--as-of", DUE_AT)
    assert (shop.balance(merchant="m1"), shop.balance(merchant="m2")) == (0, 100)


def test_a_dry_run_counts_and_writes_nothing(cli: Cli, shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    runs = shop.value("SELECT count(*) FROM loyalty.expiry_runs")
    found = cli.ok("expire", "--all", "--as-of", DUE_AT, "--dry-run")
    assert "1 account with 100 points expired. It was a dry run: nothing was written." in found.out
    assert "undo" not in found.out
    document = cli.ok("expire", "--all", "--as-of", DUE_AT, "--dry-run", "--json").document
    assert (document["dry_run"], document["total"]["points_expired"]) == (True, 100)
    assert (shop.balance(), shop.value("SELECT count(*) FROM loyalty.expiry_runs")) == (100, runs)


def test_a_stopped_merchant_is_named_with_the_command_that_lets_it_through(
    cli: Cli, shop: Shop, nights: Nights
) -> None:
    shop.merchant("m2", points_expiration_days=30)
    warn(nights, *(f"c{n}" for n in range(25)))
    warn(nights, "ann", merchants=("m2",))
    found = cli.run("expire", "--all", "--as-of", DUE_AT)
    assert (found.status, shop.balance("c1"), shop.balance(merchant="m2")) == (1, 100, 0)
    assert "Stopped: merchant m1: 25 accounts with 2,500 points are due, more than the 20" in found.err
    assert "loyalty expire m1 --accept 25" in found.err
    document = cli.run("expire", "m1", "--as-of", DUE_AT, "--json").document
    assert "--accept 25" in document["stopped"]["m1"]
    assert cli.run("expire", "m1", "--as-of", DUE_AT, "--accept", "24").status == 1
    assert cells(cli.ok("expire", "m1", "--as-of", DUE_AT, "--accept", "25").out, "m1")[6] == "25"
    assert shop.balance("c1") == 0


def test_points_whose_warning_was_not_delivered_are_counted_and_kept(cli: Cli, shop: Shop, nights: Nights) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    nights.run(WARNED_AT)
    shop.run("UPDATE loyalty.notifications SET leased_until = now() + interval '1 minute'")
    found = cli.ok("expire", "m1", "--as-of", DUE_AT)
    assert "1 due account kept: the warning has not been delivered yet, or" in found.out
    assert shop.balance() == 100
    assert "1 account with 100 points expired." in cli.ok("expire", "m1", "--as-of", DUE_AT, "--without-warning").out


def test_a_chunk_is_a_transaction_of_the_size_that_was_set(cli: Cli, shop: Shop, nights: Nights) -> None:
    warn(nights, *(f"c{n}" for n in range(5)))
    cli.ok("expire", "m1", "--as-of", DUE_AT, "--chunk-size", "2")
    assert shop.value("SELECT count(DISTINCT recorded_xid) FROM loyalty.ledger_entries WHERE kind = 'expired'") == 3


def test_a_customer_whom_postgresql_refuses_is_named(cli: Cli, shop: Shop, nights: Nights) -> None:
    warn(nights, "ann", "bad\x1b[2J")
    account_id = shop.account("bad\x1b[2J").account_id
    shop.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF NEW.account_id = {account_id} THEN RAISE check_violation; END IF; RETURN NEW; END $$"
    )
    shop.run("CREATE TRIGGER refuse BEFORE INSERT ON loyalty.ledger_entries FOR EACH ROW EXECUTE FUNCTION refuse()")
    found = cli.run("expire", "m1", "--as-of", DUE_AT)
    assert found.status == 1
    assert "Error: merchant m1: PostgreSQL refused to change the account of customer bad\\x1b[2J: " in found.err
    assert (shop.balance("ann"), shop.balance("bad\x1b[2J")) == (0, 100)


def test_a_merchant_that_fails_is_an_error_and_the_others_are_done(cli: Cli, shop: Shop, nights: Nights) -> None:
    shop.merchant("m2", points_expiration_days=30)
    warn(nights, "ann", merchants=("m1", "m2"))
    shop.run(
        "CREATE FUNCTION break_m1() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.merchant_id = 'm1' THEN RAISE undefined_column; END IF; RETURN NEW; END $$"
    )
    shop.run("CREATE TRIGGER break_m1 BEFORE INSERT ON loyalty.ledger_entries FOR EACH ROW EXECUTE FUNCTION break_m1()")
    assert "merchant m1 failed" in cli.refused(1, "expire", "--all", "--as-of", DUE_AT)
    assert (shop.balance(merchant="m1"), shop.balance(merchant="m2")) == (100, 0)


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"points_expiration_days": None}, "Points of m2 never expire: its programme has no expiration days."),
        ({"points_expiration_days": 30, "is_active": False}, "The programme of m2 is off: nothing is warned of"),
    ],
)
def test_where_points_never_expire_it_is_said_why(rules: dict, text: str, cli: Cli, shop: Shop, nights: Nights) -> None:
    shop.merchant("m2", **rules)
    assert text in cli.ok("expire", "m2").out
    assert text in cli.ok("expiry", "forecast", "m2").out


def test_a_merchant_without_a_programme_is_told_how_to_get_one(cli: Cli, shop: Shop, nights: Nights) -> None:
    shop.run("INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES ('m2', 'm2', 'UTC', 'EUR')")
    assert "m2 has no programme; give it one with 'loyalty programs set m2" in cli.ok("expire", "m2").out


def test_what_cannot_be_meant_is_refused(cli: Cli, shop: Shop, nights: Nights) -> None:
    assert "did you mean 'm1'" in cli.refused(1, "expire", "m11")
    assert "Name MERCHANT, or --all" in cli.refused(2, "expire")
    assert "Name MERCHANT, or --all" in cli.refused(2, "expire", "m1", "--all")
    assert "--accept is the number of one merchant's plan" in cli.refused(2, "expire", "--all", "--accept", "3")
    assert "has no time zone" in cli.refused(2, "expire", "m1", "--as-of", "2025-02-01")
    assert "A dry run may look ahead" in cli.refused(1, "expire", "m1", "--as-of", "2999-01-01T00:00:00Z")
    assert cli.ok("expire", "m1", "--as-of", "2999-01-01T00:00:00Z", "--dry-run")
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    for command in (("expire", "m1"), ("expiry", "forecast"), ("expiry", "undo", "--run", "x")):
        assert "withdrawn" in cli.refused(1, *command)


def test_the_forecast_says_per_day_who_is_warned_and_what_goes(cli: Cli, shop: Shop, nights: Nights) -> None:
    shop.merchant("m2", timezone="UTC", points_expiration_days=30)
    shop.run("UPDATE sample_shop.merchants SET timezone = 'UTC'")
    now = datetime.now(UTC)
    for merchant, points in (("m1", 100), ("m2", 7)):
        nights.account("ann", active_at=now - timedelta(days=10), points=points, merchant=merchant)
    nights.run_all(merchants=["m1", "m2"])
    goes_on = (now + timedelta(days=21)).date()
    warned_on = goes_on - timedelta(days=14)
    found = cli.ok("expiry", "forecast").out
    assert cells(found, str(warned_on)) == [str(warned_on), "2", "107", "0", "0"]
    assert cells(found, str(goes_on)) == [str(goes_on), "0", "0", "2", "107"]
    assert f"The next nightly run is at {next_expiry_run(now):%Y-%m-%d %H:%M:%S} UTC." in found
    assert cells(cli.ok("expiry", "forecast", "m2").out, str(goes_on))[-1] == "7"
    assert str(goes_on) not in cli.ok("expiry", "forecast", "--days", "10").out
    document = cli.ok("expiry", "forecast", "--json").document
    assert [one["points_expired"] for one in document["days"]] == [0, 107]
    assert {one["merchant_id"] for one in document["merchants"]} == {"m1", "m2"}


def test_the_forecast_of_a_merchant_names_its_customers(cli: Cli, shop: Shop, nights: Nights) -> None:
    shop.run("UPDATE sample_shop.merchants SET timezone = 'UTC'")
    now = datetime.now(UTC)
    for customer, points, days in (("ann", 100, 10), ("bea", 7, 11)):
        nights.account(customer, active_at=now - timedelta(days=days), points=points)
    nights.run()
    goes_on = (now + timedelta(days=21)).date()
    found = cli.ok("expiry", "forecast", "m1", "--customers").out
    lines = [line.split() for line in found.splitlines() if "ann" in line]
    assert lines == [[str(goes_on - timedelta(days=14)), "ann", "100", "-"], [str(goes_on), "ann", "-", "100"]]
    document = cli.ok("expiry", "forecast", "m1", "--customers", "--json").document
    assert [(one["customer_id"], one["points_warned"], one["points_expired"]) for one in document["customers"]] == [
        ("bea", 7, 0),
        ("ann", 100, 0),
        ("bea", 0, 7),
        ("ann", 0, 100),
    ]
    assert "name MERCHANT, too" in cli.refused(2, "expiry", "forecast", "--customers")


def test_a_forecast_by_dates_that_are_computed_anew_says_so(cli: Cli, nights: Nights) -> None:
    nights.account("ann", active_at=datetime.now(UTC))
    assert "The next run computes all expiry dates of m1 anew" in cli.ok("expiry", "forecast").out
    nights.run()
    assert "anew" not in cli.ok("expiry", "forecast").out
    assert "nothing will go in the next 5 days." in cli.ok("expiry", "forecast", "--days", "5").out


@pytest.mark.parametrize(
    ("zone", "now", "next_run"),
    [
        ("", "2026-01-10T01:59:00+00:00", "2026-01-10T02:00:00+00:00"),
        ("", "2026-01-10T02:00:00+00:00", "2026-01-11T02:00:00+00:00"),
        ("America/Los_Angeles", "2026-01-10T02:00:00+00:00", "2026-01-10T10:00:00+00:00"),
        ("Pacific/Auckland", "2026-01-10T16:00:00+00:00", "2026-01-11T13:00:00+00:00"),
        # 02:00 does not exist on that day.
        ("Europe/Luxembourg", "2026-03-28T12:00:00+00:00", "2026-03-29T01:00:00+00:00"),
    ],
)
def test_the_next_run_is_at_two_in_the_platforms_zone(
    zone: str, now: str, next_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_TIMEZONE", zone)
    assert next_expiry_run(datetime.fromisoformat(now)) == datetime.fromisoformat(next_run)


def test_an_unknown_zone_of_the_platform_says_what_was_expected(
    cli: Cli, nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_TIMEZONE", "Mars/Olympus")
    assert "LOYALTY_TIMEZONE is 'Mars/Olympus': expected the IANA name" in cli.refused(1, "expiry", "forecast")
    monkeypatch.setenv("LOYALTY_TIMEZONE", " ")
    assert platform_timezone().key == "UTC"


def test_past_runs_are_listed_with_what_became_of_them(cli: Cli, shop: Shop, nights: Nights) -> None:
    assert cli.ok("expiry", "runs").out == "No runs yet.\n"
    shop.merchant("m2", points_expiration_days=30)
    warn(nights, *(f"c{n}" for n in range(25)), merchants=("m1", "m2"))
    assert cli.run("expire", "--all", "--as-of", DUE_AT).status == 1
    shop.run("INSERT INTO loyalty.expiry_runs (merchant_id, run_id, as_of, actor) VALUES ('m2', 'killed', now(), 'x')")
    newest, night, _first = (line for line in cli.ok("expiry", "runs").out.splitlines() if " UTC " in line)
    assert newest.split()[0] == "killed" and newest.rstrip().endswith("1 not finished")
    assert night.rstrip().endswith("2 stopped")
    (mine,) = cli.ok("expiry", "runs", "m2", "--limit", "1", "--json").document
    assert (mine["run_id"], mine["merchants_unfinished"]) == ("killed", 1)
    assert "2 stopped" not in cli.ok("expiry", "runs", "m1").out
    assert "stopped" in cli.ok("expiry", "runs", "m1").out
    assert "did you mean" in cli.refused(1, "expiry", "runs", "m11")


def test_an_undo_gives_back_what_the_run_took_once(cli: Cli, shop: Shop, nights: Nights) -> None:
    warn(nights, "ann", "bea", "cid")
    cli.ok("expire", "m1", "--as-of", DUE_AT)
    run = run_of(shop)
    found = cli.ok("expiry", "undo", "--run", run, "--dry-run")
    assert "300 points of 3 accounts would be given back. It was a dry run: nothing was written." in found.out
    assert shop.balance() == 0
    one = cli.ok("expiry", "undo", "--run", run, "--merchant", "m1", "--customer", "ann", "--mail", "--reason", "r1")
    assert "Gave back 100 points to 1 account. Customers get a mail with the new date" in one.out
    assert len(nights.mails("loyalty_points_expiring")) == 4
    rest = cli.ok("expiry", "undo", "--run", run, "--actor", "eve")
    assert cells(rest.out, "m1") == ["m1", "2", "200", "1"]
    assert "Gave back 200 points to 2 accounts. A warning comes before they expire again." in rest.out
    assert "nothing was written" in cli.ok("expiry", "undo", "--run", run).out
    assert [shop.balance(name) for name in ("ann", "bea", "cid")] == [100, 100, 100]
    assert {row.actor for row in shop.rows("SELECT actor FROM loyalty.ledger_entries WHERE kind = 'adjusted'")} >= {
        "eve"
    }
    assert shop.value("SELECT count(*) FROM loyalty.ledger_entries WHERE reason LIKE '%r1'") == 1
    assert cells(cli.ok("expiry", "runs").out, run)[-2:] == ["300", "finished"]
    document = cli.ok("expiry", "undo", "--run", run, "--json").document
    assert document["merchants"] == [{"merchant_id": "m1", "accounts": 0, "points": 0, "accounts_before": 3}]


def test_an_undo_of_one_merchant_leaves_the_others(cli: Cli, shop: Shop, nights: Nights) -> None:
    shop.merchant("m2", points_expiration_days=30)
    warn(nights, "ann", merchants=("m1", "m2"))
    cli.ok("expire", "--all", "--as-of", DUE_AT)
    cli.ok("expiry", "undo", "--run", run_of(shop), "--merchant", "m2")
    assert (shop.balance(merchant="m1"), shop.balance(merchant="m2")) == (0, 100)


def test_a_merchant_whose_undo_fails_is_an_error_and_the_others_have_their_points(
    cli: Cli, shop: Shop, nights: Nights
) -> None:
    shop.merchant("m2", points_expiration_days=30)
    warn(nights, "ann", merchants=("m1", "m2"))
    cli.ok("expire", "--all", "--as-of", DUE_AT)
    shop.run(
        "CREATE FUNCTION break_m1() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.merchant_id = 'm1' THEN RAISE undefined_column; END IF; RETURN NEW; END $$"
    )
    shop.run("CREATE TRIGGER break_m1 BEFORE INSERT ON loyalty.ledger_entries FOR EACH ROW EXECUTE FUNCTION break_m1()")
    assert "merchant m1 failed" in cli.refused(1, "expiry", "undo", "--run", run_of(shop))
    assert (shop.balance(merchant="m1"), shop.balance(merchant="m2")) == (0, 100)


def test_an_undo_of_a_run_that_took_nothing_there_says_so(cli: Cli, shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    cli.ok("expire", "m1", "--as-of", DUE_AT)
    run = run_of(shop)
    assert f"the newest that took points: {run}" in cli.refused(1, "expiry", "undo", "--run", "nope")
    assert "took no points from customer 'zoe'" in cli.refused(1, "expiry", "undo", "--run", run, "--customer", "zoe")
    assert "Missing option '--run'" in cli.refused(2, "expiry", "undo")
