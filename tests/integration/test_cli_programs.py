"""`loyalty programs`."""

from dataclasses import MISSING, fields
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from loyalty_pipelines.domain.programs import ProgramRules
from tests.cli import Cli
from tests.shop import Shop

SET_M2 = ("programs", "set", "m2", "--points-per-unit", "2")


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def newcomer(shop: Shop) -> Shop:
    """The shop with a second merchant, 'm2', that has no programme."""
    shop.run("INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES ('m2', 'Second', 'UTC', 'EUR')")
    return shop


def test_the_first_version_needs_its_points(cli: Cli, newcomer: Shop) -> None:
    assert "its first needs --points-per-unit" in cli.refused(2, "programs", "set", "m2", "--multiplier", "2")
    assert newcomer.value("SELECT count(*) FROM loyalty.programs WHERE merchant_id = 'm2'") == 0


def test_what_is_not_named_is_taken_from_the_version_before(cli: Cli, newcomer: Shop) -> None:
    first = cli.ok(
        *SET_M2, "--unit-amount", "5", "--multiplier", "1.5", "--rounding", "ceil", "--expiration-days", "90",
        "--point-value", "0.01", "--stamps-per-order", "1", "--stamp-min-amount", "10", "--stamp-target", "8",
        "--clawback", "allow_negative", "--redemption-block", "100", "--redemption-minimum", "500",
        "--redemption-max-percent", "33.3", "--warning-days", "30", "--welcome-bonus", "50", "--off",
        "--valid-from", "2020-01-01T00:00+01:00", "--actor", "ann", "--json",
    ).document  # fmt: skip
    assert first == {
        "merchant_id": "m2", "version": 1, "valid_from": "2019-12-31T23:00:00+00:00", "valid_until": None,
        "created_at": first["created_at"], "created_by": "ann", "is_active": False, "points_per_unit": "2",
        "unit_amount": "5", "multiplier": "1.5", "rounding": "ceil", "point_value_amount": "0.01",
        "points_expiration_days": 90, "stamps_per_order": 1, "stamp_min_amount": "10", "stamp_target": 8,
        "clawback": "allow_negative", "redemption_block_points": 100, "redemption_min_points": 500,
        "redemption_max_percent": "33.3", "warning_days": 30, "welcome_bonus_points": 50, "orders_touched": 0,
    }  # fmt: skip
    second = cli.ok("programs", "set", "m2", "--on", "--valid-from", "2021-01-01T00:00Z", "--json").document
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"version", "valid_from", "created_at", "created_by", "is_active"}
    assert second["created_by"].startswith("cli:")


def test_never_and_none_take_a_value_away(cli: Cli, newcomer: Shop) -> None:
    cli.ok(*SET_M2, "--expiration-days", "90", "--stamp-target", "8", "--redemption-max-percent", "50")
    found = cli.ok(
        "programs", "set", "m2", "--expiration-days", "never", "--stamp-target", "none", "--redemption-max-percent",
        "none", "--json",
    ).document  # fmt: skip
    assert (found["points_expiration_days"], found["stamp_target"]) == (None, None)
    assert found["redemption_max_percent"] is None


@pytest.mark.parametrize(
    ("option", "value"),
    [("--redemption-max-percent", "101"), ("--redemption-max-percent", "-1"), ("--redemption-block", "0"),
     ("--redemption-max-percent", "NaN"), ("--redemption-minimum", "-1")],
)  # fmt: skip
def test_rules_of_redeeming_that_are_out_of_range_are_refused(
    cli: Cli, newcomer: Shop, option: str, value: str
) -> None:
    cli.refused(2, *SET_M2, option, value)
    assert newcomer.value("SELECT count(*) FROM loyalty.programs WHERE merchant_id = 'm2'") == 0


def test_a_version_without_an_instant_is_valid_from_now(cli: Cli, newcomer: Shop) -> None:
    before = newcomer.value("SELECT now()")
    found = cli.ok(*SET_M2, "--json").document
    assert before <= datetime.fromisoformat(found["valid_from"]) <= newcomer.value("SELECT now()")


def test_a_version_before_all_others_takes_its_values_from_the_next(cli: Cli, newcomer: Shop) -> None:
    cli.ok(*SET_M2, "--valid-from", "2024-01-01T00:00Z")
    cli.ok("programs", "set", "m2", "--points-per-unit", "7", "--valid-from", "2030-01-01T00:00Z")
    early = cli.ok(
        "programs", "set", "m2", "--rounding", "ceil", "--valid-from", "2020-01-01T00:00Z", "--json"
    ).document
    assert (early["points_per_unit"], early["valid_until"]) == ("2", "2024-01-01T00:00:00+00:00")


def test_the_version_before_is_the_one_in_force_not_the_newest(cli: Cli, newcomer: Shop) -> None:
    for points, year in (("1", 2010), ("2", 2020), ("7", 2090)):
        cli.ok("programs", "set", "m2", "--points-per-unit", points, "--valid-from", f"{year}-01-01T00:00Z")
    assert cli.ok("programs", "set", "m2", "--rounding", "ceil", "--json").document["points_per_unit"] == "2"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("2024-01-01", "has no time zone; add one, for example 2024-01-01T00:00:00Z"),
        ("2024-01-01T10:00", "has no time zone"),
        ("yesterday", "is no instant such as"),
        ("0001-01-01T00:00+05:00", "outside the years"),
    ],
)
def test_an_instant_needs_a_zone_and_a_sense(cli: Cli, newcomer: Shop, value: str, says: str) -> None:
    assert says in cli.refused(2, *SET_M2, "--valid-from", value)
    assert says in cli.refused(2, "programs", "show", "m1", "--at", value)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--points-per-unit", "NaN", "is no number"),
        ("--points-per-unit", "many", "is no number"),
        ("--points-per-unit", "1e99", "is no number"),
        ("--points-per-unit", "-1", "points_per_unit >= 0"),
        ("--multiplier", "1001", "multiplier <= 1000"),
        ("--unit-amount", "0", "unit_amount > 0"),
        ("--stamps-per-order", "-1", "--stamps-per-order"),
        ("--stamps-per-order", "1001", "stamps_per_order <= 1000"),
        ("--stamps-per-order", "99999999999", "out of range"),
        ("--expiration-days", "0", "no whole number of at least 1, and not 'never'"),
        ("--expiration-days", "40000", "points_expiration_days <= 36500"),
        ("--warning-days", "0", "--warning-days"),
        ("--warning-days", "366", "--warning-days"),
        ("--welcome-bonus", "-1", "--welcome-bonus"),
        ("--welcome-bonus", "2000000001", "welcome_bonus_points <= 2000000000"),
        ("--stamp-target", "ten", "not 'none'"),
        ("--rounding", "up", "'up' is not one of"),
        ("--clawback", "hope", "'hope' is not one of"),
    ],
)
def test_a_value_out_of_range_is_bad_usage(cli: Cli, newcomer: Shop, option: str, value: str, says: str) -> None:
    assert says in cli.refused(2, *SET_M2, option, value)
    assert newcomer.value("SELECT count(*) FROM loyalty.programs WHERE merchant_id = 'm2'") == 0


def test_set_without_a_change_is_bad_usage(cli: Cli, shop: Shop) -> None:
    assert "Name what is to change" in cli.refused(2, "programs", "set", "m1")


def test_an_unknown_merchant_is_refused_with_names_that_look_like_it(cli: Cli, newcomer: Shop) -> None:
    newcomer.run("INSERT INTO sample_shop.merchants VALUES ('bakery-7', 'Corner Bakery', 'UTC', 'EUR')")
    assert "did you mean 'bakery-7'?" in cli.refused(1, "programs", "set", "bakry-7", "--points-per-unit", "1")
    assert "did you mean 'bakery-7'?" in cli.refused(1, "programs", "list", "corner bakry")
    assert "the shop has 3; 'loyalty programs list'" in cli.refused(1, "programs", "show", "zzzzzzzz")
    newcomer.run("DELETE FROM sample_shop.merchants")
    assert "the shop has no merchants" in cli.refused(1, "programs", "list", "zzzzzzzz")


def test_a_merchant_that_left_the_shop_keeps_its_programme(cli: Cli, shop: Shop) -> None:
    shop.run("DELETE FROM sample_shop.merchants")
    assert cli.ok("programs", "show", "m1", "--json").document["version"] == 1
    assert cli.ok("programs", "list", "--json").document[0]["merchant_id"] == "m1"


def test_awarded_orders_are_not_touched_unless_retroactive_is_said(cli: Cli, shop: Shop) -> None:
    shop.order("1", "10", paid_at="2024-01-10T00:00Z")
    shop.order("2", "10", paid_at="2024-02-10T00:00Z")
    shop.order("3", "10", paid_at="2024-03-10T00:00Z")
    shop.order("4", "10", paid_at="2024-03-11T00:00Z")
    shop.order("5", "10", paid_at="2024-03-12T00:00Z", customer=None)
    shop.award()
    shop.set_status("4", "cancelled")
    shop.award()
    command = ("programs", "set", "m1", "--multiplier", "2", "--valid-from", "2024-02-01T00:00Z")
    line = cli.refused(1, *command)
    assert "would touch 2 orders that are awarded already at merchant 'm1'" in line
    assert "--retroactive" in line
    assert shop.value("SELECT count(*) FROM loyalty.programs") == 1
    assert cli.ok(*command, "--retroactive", "--json").document["orders_touched"] == 2
    cli.ok("award", "--sweep")
    assert shop.balance() == 10 + 20 + 20
    assert shop.problems() == []


def test_only_orders_up_to_the_next_version_count_as_touched(cli: Cli, shop: Shop) -> None:
    cli.ok("programs", "set", "m1", "--multiplier", "3", "--valid-from", "2024-02-01T00:00Z")
    shop.order("1", "10", paid_at="2024-01-10T00:00Z")
    shop.order("2", "10", paid_at="2024-02-10T00:00Z")
    shop.award()
    between = ("programs", "set", "m1", "--multiplier", "2", "--valid-from")
    assert "would touch 1 order that is" in cli.refused(1, *between, "2024-01-05T00:00Z")
    assert cli.ok(*between, "2024-01-20T00:00Z", "--json").document["orders_touched"] == 0


def test_a_version_from_now_on_leaves_awarded_orders_alone(cli: Cli, shop: Shop) -> None:
    shop.order("1", "10")
    shop.award()
    assert cli.ok("programs", "set", "m1", "--multiplier", "2", "--json").document["orders_touched"] == 0
    assert "No orders wait" in cli.ok("award", "--sweep").out
    assert shop.balance() == 10


def test_list_shows_who_has_a_programme_and_all_versions_of_one(cli: Cli, newcomer: Shop) -> None:
    cli.ok("programs", "set", "m1", "--multiplier", "2")
    everyone = cli.ok("programs", "list", "--json").document
    assert [(one["merchant_id"], one["program"] and one["program"]["version"]) for one in everyone] == [
        ("m1", 2), ("m2", None),
    ]  # fmt: skip
    assert [one["version"] for one in cli.ok("programs", "list", "m1", "--json").document] == [1, 2]
    assert "m2" in cli.ok("programs", "list").out
    assert "clamp_to_zero" in cli.ok("programs", "list", "m1").out
    assert "m2 has no programme" in cli.ok("programs", "list", "m2").out
    newcomer.run("DELETE FROM sample_shop.merchants")
    newcomer.run("DELETE FROM loyalty.programs")
    assert "The shop has no merchants" in cli.ok("programs", "list").out


def test_show_finds_a_version_by_number_and_by_instant(cli: Cli, newcomer: Shop) -> None:
    cli.ok("programs", "set", "m1", "--multiplier", "2", "--valid-from", "2024-02-01T00:00Z")
    cli.ok("programs", "set", "m1", "--multiplier", "3", "--valid-from", "2024-02-01T00:00Z")
    show = ("programs", "show", "m1", "--json")
    assert cli.ok(*show).document["version"] == 3
    assert cli.ok(*show, "--version", "2").document["multiplier"] == "2"
    assert cli.ok(*show, "--at", "2024-01-31T23:59:59Z").document["version"] == 1
    assert cli.ok(*show, "--at", "2024-02-01T00:00Z").document["version"] == 3
    assert "has no programme version 9: it has versions 1 to 3" in cli.refused(1, *show, "--version", "9")
    assert "the first valid from 2000-01-01" in cli.refused(1, *show, "--at", "1999-01-01T00:00Z")
    assert "loyalty programs set m2 --points-per-unit 1" in cli.refused(1, "programs", "show", "m2")
    assert "not both" in cli.refused(2, *show, "--version", "1", "--at", "2024-01-01T00:00Z")
    text = cli.ok("programs", "show", "m1").out
    assert "points                  1 per 1" in text
    assert "points expire after     never" in text
    assert "warned before           -" in text
    assert "welcome bonus           0" in text


def test_list_and_show_say_when_customers_are_warned_and_what_new_ones_are_given(cli: Cli, shop: Shop) -> None:
    cli.ok("programs", "set", "m1", "--expiration-days", "90", "--warning-days", "30", "--welcome-bonus", "50")
    text = cli.ok("programs", "show", "m1").out
    assert "warned before           30 days, at most half of those" in text
    assert "welcome bonus           50" in text
    lines = cli.ok("programs", "list", "m1").out.splitlines()
    assert any("warning   bonus" in line for line in lines)
    assert any("90 days        30 days   50" in line for line in lines)


@pytest.mark.parametrize(
    ("before", "after", "is_told"),
    [("90", "30", True), ("never", "30", True), ("90", "never", True), ("90", "90", False), ("never", "never", False)],
)
def test_other_expiration_days_say_what_becomes_of_the_balances_that_exist(
    cli: Cli, newcomer: Shop, before: str, after: str, is_told: bool
) -> None:
    assert "expiry run" not in cli.ok(*SET_M2, "--expiration-days", before).out
    text = " ".join(cli.ok("programs", "set", "m2", "--expiration-days", after).out.split())
    told = "Its expiration days are others than before. The next expiry run in which it is in force (daily at 02:00, or"
    assert (told in text) is is_told
    assert ("nobody's points go without a new warning" in text) is is_told
    assert ("'loyalty expire m2'" in text) is is_told


def test_the_defaults_of_the_rules_are_those_of_the_table(newcomer: Shop) -> None:
    newcomer.program("m2", points_per_unit=Decimal(1), valid_from=datetime(2020, 1, 1, tzinfo=UTC))
    row = newcomer.rows("SELECT * FROM loyalty.programs WHERE merchant_id = 'm2'")[0]
    defaults = {one.name: one.default for one in fields(ProgramRules) if one.default is not MISSING}
    assert {name: getattr(row, name) for name in defaults} == defaults
