"""`loyalty integrity`, as an operator types it."""

import json
from collections.abc import Callable

import pytest

from tests.cli import Cli, Outcome
from tests.integrity import corrupt
from tests.shop import Shop

Run = Callable[..., Outcome]


@pytest.fixture
def cli(database_url: str) -> Run:
    """Runs a command that must end with an exit status (0)."""

    def run(*arguments: str, status: int = 0) -> Outcome:
        done = Cli(database_url).run(*arguments)
        assert done.status == status, done
        return done

    return run


@pytest.fixture
def wrong(shop: Shop) -> Shop:
    """m1 with two customers, of whom ann's balance is 5 too high; m2 in order."""
    shop.program(point_value_amount="0.25")
    shop.merchant("m2")
    shop.order("1", 10)
    shop.order("2", 20, customer="bob")
    shop.order("1", 10, merchant="m2")
    shop.award()
    return shop


def drift(shop: Shop, points: int = 5) -> None:
    shop.run("UPDATE loyalty.accounts SET balance = balance + :points WHERE customer_id = 'ann' AND merchant_id = 'm1'",
             points=points)  # fmt: skip


def ann(shop: Shop) -> str:
    """What messages call ann's account: numbers are given in no order."""
    return f"account {shop.account().account_id}"


def test_a_right_ledger_is_said_to_be_right_and_exits_with_0(wrong: Shop, cli: Run) -> None:
    first = cli("integrity", "check")
    assert first.out == "2 merchants proved (2 in full): 3 accounts with entries, 3 entries, 0 open findings.\n"
    again = cli("integrity", "check")
    # Another transaction of the server, older than the first proof, makes them new entries once more.
    assert again.out.startswith("2 merchants proved (0 in full): ")
    assert again.out.endswith(" entries, 0 open findings.\n")
    assert cli("integrity", "findings").out == "No findings.\n"
    assert cli("integrity", "repair").out.startswith("Nothing to repair: ")
    assert cli("integrity", "repairs").out == "No repairs.\n"


def test_what_is_wrong_is_listed_priced_and_exits_with_1(wrong: Shop, cli: Run) -> None:
    drift(wrong)
    done = cli("integrity", "check", "--full", status=1)
    assert "balance_differs" in done.out
    assert "1.25 EUR" in done.out
    assert "1 open finding" in done.out
    assert cli("integrity", "check", "--merchant", "m2").status == 0
    listed = cli("integrity", "findings")
    assert ann(wrong) in listed.out
    one = cli("integrity", "findings", "--number", "1")
    assert one.out.splitlines()[0] == f"Finding 1: balance_differs of {ann(wrong)} at m1"
    assert "sum_of_entries" in one.out
    assert cli("integrity", "findings", "--class", "chain_broken").out == "No findings.\n"
    (found,) = json.loads(cli("integrity", "findings", "--json").out)["findings"]
    assert (found["class_name"], found["points_difference"], found["amount_at_risk"]) == ("balance_differs", 5, "1.25")
    merchants = json.loads(cli("integrity", "check", "--json", status=1).out)["merchants"]
    assert [(one["merchant_id"], len(one["findings"])) for one in merchants] == [("m1", 1), ("m2", 0)]


def test_a_repair_is_planned_applied_and_undone(wrong: Shop, cli: Run) -> None:
    drift(wrong)
    cli("integrity", "check", "--full", status=1)
    plan = cli("integrity", "repair", "--plan")
    assert "balance 15 -> 10" in plan.out
    assert "It was a plan: nothing was written." in plan.out
    assert wrong.balance() == 15
    done = cli("integrity", "repair", "--apply", "--reason", "drift", "--actor", "Kim")
    assert "balance 15 -> 10" in done.out
    assert (wrong.balance(), cli("integrity", "findings").out) == (10, "No findings.\n")
    assert "drift" in cli("integrity", "repairs").out
    assert "closed" in cli("integrity", "findings", "--all").out
    undone = cli("integrity", "repair", "--undo", "1", "--actor", "Lou")
    assert undone.out == f"Repair 1 of {ann(wrong)} at m1 is undone, and was proved again.\n"
    assert wrong.balance() == 15
    assert "balance_differs" in cli("integrity", "findings").out
    assert "by Lou" in cli("integrity", "repairs").out
    (made,) = json.loads(cli("integrity", "repairs", "--json").out)["repairs"]
    assert (made["applied_by"], made["undone_by"]) == ("Kim", "Lou")


def test_what_is_not_repaired_says_why_and_exits_with_1(wrong: Shop, cli: Run) -> None:
    drift(wrong)
    corrupt(
        wrong,
        "UPDATE loyalty.ledger_entries SET points = 9, balance_after = 9 WHERE merchant_id = 'm1' AND points = 10",
    )
    cli("integrity", "check", "--full", status=1)
    corrupt(wrong, "DELETE FROM loyalty.ledger_entries WHERE merchant_id = 'm1' AND points = 9")
    done = cli("integrity", "repair", "--apply", "--reason", "drift", status=1)
    assert "not repaired: its entries don't continue each other" in done.out
    assert wrong.balance() == 15


def test_a_changed_history_is_accepted(wrong: Shop, cli: Run) -> None:
    cli("integrity", "check")
    corrupt(wrong, "UPDATE loyalty.ledger_entries SET kind = 're-earned' WHERE merchant_id = 'm1' AND points = 10")
    cli("integrity", "check", "--full", status=1)
    done = cli("integrity", "accept", "1", "--reason", "import was renamed")
    assert done.out == f"Finding 1, history_changed of {ann(wrong)} at m1, is accepted.\n"
    cli("integrity", "check", "--full")


def test_what_is_too_much_and_what_is_too_little_are_shown_beside_each_other(wrong: Shop, cli: Run) -> None:
    drift(wrong)
    wrong.run("UPDATE loyalty.accounts SET balance = balance - 5 WHERE customer_id = 'bob'")
    done = cli("integrity", "check", "--full", status=1)
    assert "points too many" in done.out
    (line,) = [line for line in done.out.splitlines() if "balance_differs" in line]
    assert line.split()[2:7] == ["2", "5", "5", "2.5", "EUR"]
    (found,) = json.loads(cli("integrity", "check", "--json", status=1).out)["merchants"][0]["findings"]
    assert (found["points_too_many"], found["points_too_few"]) == (5, 5)


def test_what_an_undo_has_left_is_said(wrong: Shop, cli: Run) -> None:
    wrong.run("SELECT loyalty.reserve_points('m1', 'ann', 'r1', 5)")
    wrong.run("UPDATE loyalty.accounts SET held = 1, next_seq = next_seq - 1 WHERE held = 5")
    cli("integrity", "check", "--full", status=1)
    cli("integrity", "repair", "--apply", "--reason", "drift")
    wrong.run("SELECT loyalty.release_points('m1', 'r1')")
    undone = cli("integrity", "repair", "--undo", "1", "--actor", "Lou")
    assert undone.out == (
        f"Repair 1 of {ann(wrong)} at m1 is undone, and was proved again. Left as it is by now: held.\n"
    )
    assert "by Lou, but for held" in cli("integrity", "repairs").out
    (made,) = json.loads(cli("integrity", "repairs", "--json").out)["repairs"]
    assert made["columns_left"] == ["held"]


def lower_orders(shop: Shop) -> None:
    corrupt(shop, "UPDATE loyalty.order_points SET target_points = target_points - 1, "
            "in_force_points = in_force_points - 1 WHERE merchant_id = 'm1'")  # fmt: skip


def test_all_findings_of_a_class_are_accepted_at_once(wrong: Shop, cli: Run) -> None:
    lower_orders(wrong)
    cli("integrity", "check", "--full", status=1)
    of_class = ("--class", "order_points_differ", "--merchant", "m1", "--reason", "import")
    done = cli("integrity", "accept", *of_class, "--actor", "Kim")
    assert done.out == "2 findings of class order_points_differ at m1 are accepted.\n"
    assert cli("integrity", "findings").out == "No findings.\n"
    assert "by Kim" in cli("integrity", "findings", "--all").out
    assert cli("integrity", "accept", *of_class).out == "There is no open finding of class order_points_differ at m1.\n"


def test_of_many_findings_those_that_can_be_put_right_are_not_accepted(wrong: Shop, cli: Run) -> None:
    wrong.run("UPDATE loyalty.accounts SET balance = balance + 1 WHERE merchant_id = 'm1'")
    corrupt(wrong, "DELETE FROM loyalty.ledger_entries WHERE merchant_id = 'm1' AND points = 20")
    cli("integrity", "check", "--full", status=1)
    of_class = ("--class", "balance_differs", "--merchant", "m1", "--reason", "gone")
    done = cli("integrity", "accept", *of_class, status=1)
    assert done.out == (
        "1 finding of class balance_differs at m1 is accepted.\n"
        "1 can be put right, and is not accepted: see 'loyalty integrity repair'.\n"
    )
    listed = cli("integrity", "findings", "--class", "balance_differs")
    assert ann(wrong) in listed.out


@pytest.mark.parametrize(
    "arguments",
    [("findings",), ("repair",), ("repairs",), ("accept", "--class", "balance_differs", "--reason", "x")],
)
def test_a_merchant_that_nobody_knows_is_no_all_clear(wrong: Shop, cli: Run, arguments: tuple[str, ...]) -> None:
    assert "n1" in cli("integrity", *arguments, "--merchant", "n1", status=1).err


def test_a_merchant_of_whom_only_findings_and_repairs_are_left_is_known(wrong: Shop, cli: Run) -> None:
    drift(wrong)
    cli("integrity", "check", "--full", status=1)
    for table in ("ledger_entries", "accounts", "order_points", "programs"):
        corrupt(wrong, f"DELETE FROM loyalty.{table} WHERE merchant_id = 'm1'")
    corrupt(wrong, "DELETE FROM sample_shop.merchants WHERE id = 'm1'")
    assert "balance_differs" in cli("integrity", "findings", "--merchant", "m1").out
    assert cli("integrity", "repairs", "--merchant", "m1").out == "No repairs.\n"
    assert "account_missing" in cli("integrity", "check", "--merchant", "m1", "--full", status=1).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("findings", "--class", "nonsense"), "There is no class of findings 'nonsense'. There are: balance_differs, "),
        (("findings", "--number", "99"), "There is no finding 99. 'loyalty integrity findings --all' lists them."),
        (("check", "--merchant", "nobody"), "nobody"),
        (("repair", "--undo", "99"), "There is no repair 99. 'loyalty integrity repairs' lists them."),
        (("accept", "99", "--reason", "x"), "There is no finding 99."),
    ],
)
def test_what_there_is_not_is_said_in_a_line(wrong: Shop, cli: Run, arguments: tuple[str, ...], said: str) -> None:
    assert said in cli("integrity", *arguments, status=1).err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("repair", "--apply"), "--apply needs --reason TEXT"),
        (("accept", "--reason", "x"), "Name the finding's NUMBER, or --class and --merchant for many."),
        (("accept", "1", "--class", "balance_differs", "--reason", "x"), "Name the finding's NUMBER"),
        (("accept", "--class", "balance_differs", "--reason", "x"), "Name the finding's NUMBER"),
        (("repair", "--apply", "--plan", "--reason", "x"), "Name one of --plan, --apply and --undo REPAIR."),
    ],
)
def test_bad_usage_is_said_in_a_line(cli: Run, arguments: tuple[str, ...], said: str) -> None:
    assert said in cli("integrity", *arguments, status=2).err


def test_a_merchant_that_cannot_be_proved_is_named_on_stderr(wrong: Shop, cli: Run) -> None:
    corrupt(
        wrong,
        "ALTER TABLE loyalty.accounts DROP CONSTRAINT accounts_seq_starts_at_one",
        "UPDATE loyalty.accounts SET next_seq = -9223372036854775808 WHERE merchant_id = 'm1'",
    )
    done = cli("integrity", "check", status=1)
    assert "Error: merchant m1 could not be proved: " in done.err
