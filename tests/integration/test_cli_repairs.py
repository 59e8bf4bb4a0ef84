"""`loyalty account adjust`, `restore` and `merge`."""

import pytest

from tests.checkout import Checkout
from tests.cli import Cli
from tests.shop import Shop

SAID = ("--reason", "ticket 7", "--actor", "eve")


@pytest.fixture
def cli(shop: Shop, database_url: str) -> Cli:
    """The command line on a shop where ann has earned 100 points and bob 50."""
    shop.order("a1", "100.00")
    shop.order("b1", "50.00", customer="bob")
    shop.award()
    return Cli(database_url)


def test_adjust_shows_the_balance_before_and_after(shop: Shop, cli: Cli) -> None:
    out = cli.ok("account", "adjust", "m1", "ann", "25", *SAID, "--reference", "t7").out
    assert "Customer ann at m1: +25 points" in out
    assert "  balance        100 -> 125" in out
    assert "  entry          2" in out
    assert "  reference      t7" in out
    (entry,) = shop.rows("SELECT * FROM loyalty.ledger_entries WHERE kind = 'adjusted'")
    assert (entry.reason, entry.actor, entry.points) == ("ticket 7", "eve", 25)


def test_a_negative_number_of_points_is_a_number_and_no_option(shop: Shop, cli: Cli) -> None:
    found = cli.ok("account", "adjust", "m1", "ann", "-25", *SAID, "--json").document
    assert (found["points"], found["balance_after"], found["dry_run"], found["is_repeated"]) == (-25, 75, False, False)
    assert shop.balance() == 75


def test_restore_gives_points_back(shop: Shop, cli: Cli) -> None:
    shop.expire("ann")
    assert "balance        0 -> 100" in cli.ok("account", "restore", "m1", "ann", "100", *SAID).out
    assert shop.entries() == [("earned", 100), ("expired", -100), ("adjusted", 100)]


def test_without_a_reference_one_is_made_and_said_before_it_is_used(shop: Shop, cli: Cli) -> None:
    found = cli.ok("account", "adjust", "m1", "ann", "25", *SAID)
    (entry,) = shop.rows("SELECT reference_id FROM loyalty.ledger_entries WHERE kind = 'adjusted'")
    assert f"reference: {entry.reference_id}" in found.err
    assert f"reference      {entry.reference_id}" in found.out
    again = cli.ok("account", "adjust", "m1", "ann", "25", *SAID, "--reference", entry.reference_id)
    assert "Customer ann at m1: already done, nothing was written." in again.out
    assert shop.balance() == 125


@pytest.mark.parametrize("command", ["adjust", "restore"])
def test_a_dry_run_shows_the_same_and_writes_nothing(shop: Shop, cli: Cli, command: str) -> None:
    found = cli.ok("account", command, "m1", "ann", "25", *SAID, "--dry-run")
    assert "balance        100 -> 125" in found.out
    assert "It was a dry run: nothing was written." in found.out
    assert shop.entries() == [("earned", 100)]


def test_points_that_were_due_are_said_to_be_valid_again(shop: Shop, cli: Cli) -> None:
    shop.run("UPDATE loyalty.accounts SET expires_at = now() - interval '1 day' WHERE customer_id = 'ann'")
    out = cli.ok("account", "adjust", "m1", "ann", "1", *SAID).out
    assert "The points of ann were past their expiry" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("adjust", "m1", "ann", "0", *SAID), "expected a whole number, not 0"),
        (("adjust", "m1", "ann", "1.5", *SAID), "'1.5' is not a valid integer"),
        (("adjust", "m1", "ann", "2000000001", *SAID), "2000000001 is not in the range"),
        (("restore", "m1", "ann", "-5", *SAID), "No such option"),
        (("restore", "m1", "ann", "0", *SAID), "0 is not in the range"),
        (("adjust", "m1", "ann", "5", "--actor", "eve"), "Missing option '--reason'"),
        (("adjust", "m1", "ann", "5", "--reason", "x"), "Missing option '--actor'"),
        (("adjust", "m1", "ann", "5", "--reason", " ", "--actor", "eve"), "The reason is ' '"),
        (("adjust", "m1", "ann", "5", *SAID, "--dry-rum"), "unexpected extra argument"),
        (("merge", "m1", "ann", "ann", *SAID), "expected another customer"),
        (("merge", "m1", "ann", "bob", "--reason", "x"), "Missing option '--actor'"),
        (("merge", "m1", "ann", "bob", "--reason", "x", "--actor", " "), "The actor is ' '"),
    ],
)
def test_bad_usage_is_told_and_changes_nothing(shop: Shop, cli: Cli, arguments: tuple[str, ...], says: str) -> None:
    assert says in cli.refused(2, "account", *arguments)
    assert shop.value("SELECT count(*) FROM loyalty.ledger_entries") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("adjust", "m1", "ann", "-101", *SAID), "Available: 100, requested: 101."),
        (
            ("adjust", "m1", "amn", "5", *SAID),
            "Customer 'amn' has no account at merchant 'm1', and the shop's customers",
        ),
        (("adjust", "m11", "ann", "5", *SAID), "did you mean 'm1'"),
        (("merge", "m1", "amn", "bob", *SAID), "Customer 'amn' has no account at merchant 'm1'"),
        (("merge", "m11", "ann", "bob", *SAID), "did you mean 'm1'"),
    ],
)
def test_what_the_ledger_refuses_is_one_line(shop: Shop, cli: Cli, arguments: tuple[str, ...], says: str) -> None:
    assert says in cli.refused(1, "account", *arguments)
    assert shop.value("SELECT count(*) FROM loyalty.ledger_entries") == 2


def test_a_merge_is_a_plan_until_it_is_applied(shop: Shop, cli: Cli) -> None:
    Checkout(shop.engine).redeem("r1", 30)
    planned = cli.ok("account", "merge", "m1", "ann", "bob", *SAID)
    assert "Plan: merge customer ann of m1 into bob" in planned.out
    assert "70 -> 0" in planned.out
    assert "50 -> 120" in planned.out
    assert (
        "1 order with 100 points, -30 points and +0 stamps besides orders, 1 redemption: 4 ledger entries."
        in planned.out
    )
    assert "It was a plan: nothing was written. --apply does it." in planned.out
    assert (shop.balance("ann"), shop.balance("bob")) == (70, 50)
    assert shop.rows("SELECT * FROM loyalty.merged_customers") == []
    done = cli.ok("account", "merge", "m1", "ann", "bob", *SAID, "--apply")
    assert "Merged customer ann of m1 into bob" in done.out
    assert "nothing was written" not in done.out
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 120)
    assert shop.problems() == []


def test_the_same_merge_again_says_so_and_succeeds(shop: Shop, cli: Cli) -> None:
    cli.ok("account", "merge", "m1", "ann", "bob", *SAID, "--apply")
    again = cli.ok("account", "merge", "m1", "ann", "bob", *SAID, "--apply")
    assert "Customer ann of m1 is merged into bob already: nothing was written." in again.out
    document = cli.ok("account", "merge", "m1", "ann", "bob", *SAID, "--apply", "--json").document
    assert document["is_repeated"] is True
    assert shop.balance("bob") == 150


def test_a_merge_into_a_customer_whom_nobody_knows_asks_whether_the_id_is_right(shop: Shop, cli: Cli) -> None:
    out = cli.ok("account", "merge", "m1", "ann", "bbo", *SAID).out
    assert "Customer bbo had no account yet, and the shop lists no such customer: is the id right?" in out
    shop.run("INSERT INTO sample_shop.customers (merchant_id, id) VALUES ('m1', 'cid')")
    out = cli.ok("account", "merge", "m1", "ann", "cid", *SAID).out
    assert "Customer cid had no account yet." in out


def test_points_that_were_due_are_said_to_be_valid_again_by_a_merge(shop: Shop, cli: Cli) -> None:
    merge = ("account", "merge", "m1", "ann", "bob", *SAID)
    assert "past their expiry" not in cli.ok(*merge).out
    shop.run(
        "UPDATE loyalty.accounts SET last_activity_at = '2020-01-01', expires_at = '2021-01-01' "
        "WHERE customer_id = 'ann'"
    )
    assert "The points of ann were past their expiry" in cli.ok(*merge).out


def test_a_merge_as_json_is_one_document(shop: Shop, cli: Cli) -> None:
    found = cli.ok("account", "merge", "m1", "ann", "bob", *SAID, "--json").document
    assert (found["applied"], found["orders"], found["points_of_orders"]) == (False, 1, 100)
    assert [one["balance"] for one in found["before"]] == [100, 50]
    assert [one["balance"] for one in found["after"]] == [0, 150]
    assert found["merge"]["into_customer_id"] == "bob"


def test_what_is_done_for_a_merged_customer_says_whose_the_points_are(shop: Shop, cli: Cli) -> None:
    cli.ok("account", "merge", "m1", "ann", "bob", *SAID, "--apply")
    out = cli.ok("account", "adjust", "m1", "ann", "5", *SAID).out
    assert "Customer ann was merged into bob, who has the points." in out
    assert "Customer bob at m1: +5 points" in out
    assert "Customer 'ann' was merged into 'bob' already" in cli.refused(
        1, "account", "merge", "m1", "bob", "ann", *SAID
    )
