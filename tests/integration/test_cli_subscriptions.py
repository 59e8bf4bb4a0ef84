"""`loyalty subscriptions`, as an operator types it."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from tests.cli import Cli, Outcome
from tests.subscribers import Subscribers

Run = Callable[..., Outcome]


@pytest.fixture
def shop(engine: Engine) -> Subscribers:
    """m1 with a payment without a subscription and a subscription without a payment; m2 with nothing wrong."""
    made = Subscribers(engine)
    made.seller()
    made.seller("m2")
    made.bought("1")
    made.subscription("2", days_ago=5)
    made.bought("3", merchant="m2")
    made.subscription("3", merchant="m2", order_id="3")
    return made


@pytest.fixture
def cli(database_url: str) -> Run:
    """Runs a command of the group that must end with an exit status (0)."""

    def run(*arguments: str, status: int = 0) -> Outcome:
        done = Cli(database_url).run("subscriptions", *arguments)
        assert done.status == status, done
        return done

    return run


@pytest.fixture
def refused(database_url: str) -> Callable[..., str]:
    """Runs a command of the group that must be refused; returns its line."""
    return lambda *arguments, status=1: Cli(database_url).refused(status, "subscriptions", *arguments)


def number_of(cli: Run, class_name: str) -> str:
    (found,) = cli("findings", "--class", class_name, "--json").document["findings"]
    return str(found["finding_id"])


def plan_of(cli: Run, class_name: str) -> str:
    (found,) = [one for one in cli("plan", "--json").document["plans"] if one["class_name"] == class_name]
    return str(found["plan_id"])


def test_a_check_says_what_is_open_and_exits_with_1(shop: Subscribers, cli: Run) -> None:
    done = cli("check", status=1)
    assert "paid_without_subscription" in done.out
    assert "10.00 EUR" in done.out
    assert "2 merchants compared (2 in full): 2 payments, 2 subscriptions, 2 open findings, 20.00 EUR at" in done.out
    assert cli("check", "--merchant", "m2").out == (
        "1 merchant compared (0 in full): 0 payments, 0 subscriptions, 0 open findings.\n"
    )
    found = cli("check", "--full", "--json", status=1).document["merchants"]
    assert [(one["merchant_id"], one["is_full"], len(one["findings"])) for one in found] == [
        ("m1", True, 2),
        ("m2", True, 0),
    ]


def test_a_check_looks_as_of_an_instant(shop: Subscribers, cli: Run) -> None:
    assert "0 open findings" in cli("check", "--full", "--as-of", "2020-01-01T00:00:00Z").out


def test_findings_are_listed_and_one_is_shown_with_plans_and_its_past(shop: Subscribers, cli: Run) -> None:
    assert cli("findings").out == "No findings.\n"
    cli("check", status=1)
    listed = cli("findings")
    for word in ("number", "policy", "age", "payment 1", "subscription 2", "10.00 EUR", "open"):
        assert word in listed.out
    assert "subscription 2" not in cli("findings", "--class", "paid_without_subscription").out
    assert cli("findings", "--merchant", "m2").out == "No findings.\n"
    assert "payment 1" in cli("findings", "--customer", "c1").out
    assert "subscription 2" not in cli("findings", "--customer", "c1").out
    assert "There are more; --limit shows them." in cli("findings", "--limit", "1").out
    number = number_of(cli, "paid_without_subscription")
    plan = plan_of(cli, "paid_without_subscription")
    cli("apply")
    assert number not in [str(one["finding_id"]) for one in cli("findings", "--json").document["findings"]]
    cli("undo", plan)
    again = number_of(cli, "paid_without_subscription")
    shown = cli("findings", "--number", again).out
    assert shown.splitlines()[0] == f"Finding {again}: paid_without_subscription of payment 1 at m1"
    for word in (
        "Every captured payment",
        "P: a person approves its plan, because it was fixed in the last week",
        "docs/runbooks/subscriptions.md#paid_without_subscription",
        "plan_amount",
        "What else was found of it:",
    ):
        assert word in shown
    (captured,) = [line.split(maxsplit=1)[1] for line in shown.splitlines() if line.startswith("    captured_at ")]
    assert captured.endswith(" UTC") and "T" not in captured.removesuffix(" UTC") and "." not in captured
    (listed,) = [line for line in cli("findings").out.splitlines() if "paid_without_subscription" in line]
    assert " P (fixed before) " in listed
    assert cli("findings", "--json").document["fixed_before"] == [int(again)]
    assert "P (fixed before)" in cli("history", "--object", "payment", "1").out
    before = cli("findings", "--number", number).out
    assert "A: 'loyalty subscriptions apply'" in before
    assert f"plan {plan} (policy A) is undone: A subscription to gold is made" in before
    document = cli("findings", "--number", again, "--json").document
    assert [one["finding_id"] for one in document["of_the_same_object"]] == [int(number)]


def test_plans_are_made_approved_applied_and_undone(shop: Subscribers, cli: Run) -> None:
    cli("check", status=1)
    before = shop.contents()
    planned = cli("plan", "--actor", "Kim")
    assert "1 plan for the next run, 1 to be approved, 0 findings without a plan." in planned.out
    tried = cli("apply", "--dry-run")
    assert "would be applied" in tried.out
    assert tried.out.endswith("It was a dry run: nothing was written.\n")
    assert shop.contents() == before
    plan = plan_of(cli, "subscription_without_payment")
    assert f"Plan {plan} is approved: Subscription 2: it is cancelled" in cli("approve", plan, "--actor", "Kim").out
    assert (
        "1 plan for the next run, 0 to be approved, 1 approved for the next run, 0 findings without a plan."
        in cli("plan").out
    )
    done = cli("apply", "--actor", "Robin")
    assert "m1: 2 fixes applied (20.00 EUR)." in done.out
    assert cli("findings").out == "No findings.\n"
    assert cli("apply").out == "Nothing to fix: nothing is open.\n"
    automatic = [one for one in cli("history", "--json").document["plans"] if one["policy"] == "A"]
    undone = cli("undo", plan, "--actor", "Lou")
    assert undone.out.startswith(f"Plan {plan} is undone, and what it was about was compared again.")
    cli("undo", str(automatic[0]["plan_id"]))
    assert shop.contents() == before
    listed = cli("history", "--merchant", "m1")
    for word in ("undone by Lou", "paid_without_subscription", "closed"):
        assert word in listed.out
    document = cli("history", "--object", "payment", "1", "--json").document
    assert [one["status"] for one in document["plans"]] == ["undone"]
    assert {one["object_id"] for one in document["findings"]} == {"1"}
    assert [one["closed_at"] is None for one in document["findings"]] == [True, False]
    assert cli("history", "--object", "payment", "2").out == "No history.\n"
    assert cli("history", "--merchant", "m2").out == "No history.\n"


def test_findings_without_a_plan_say_why(shop: Subscribers, cli: Run) -> None:
    shop.remap("")
    cli("check", status=1)
    done = cli("plan", "--number", number_of(cli, "subscription_without_payment"))
    assert "fixes.update_subscription" in done.out
    assert "0 plans for the next run, 0 to be approved, 1 finding without a plan." in done.out
    (refusal,) = cli("plan", "--json").document["refusals"]
    assert refusal["class_name"] == "subscription_without_payment"


def test_a_limit_stops_a_run_says_so_and_exits_with_1(shop: Subscribers, cli: Run) -> None:
    shop.bought("4")
    cli("check", status=1)
    done = cli("apply", "--max-fixes", "1", status=1)
    assert "It stopped at max_fixes 1: the next run goes on, or raise the limit." in done.out
    money = cli("apply", "--max-money", "9.99", "--json", status=1).document["merchants"]
    assert [(one["stopped_by"], one["limit"], one["counts"]["applied"]) for one in money] == [("max_money", "9.99", 0)]


def test_a_fix_that_fails_exits_with_1(shop: Subscribers, cli: Run) -> None:
    shop.run("ALTER TABLE sample_shop.subscriptions ADD CHECK (customer_id <> 'c1')")
    cli("check", status=1)
    done = cli("apply", "--plan", plan_of(cli, "paid_without_subscription"), status=1)
    assert "violates check constraint" in done.out
    assert "m1: 0 fixes applied, 1 failed, 1 waiting for approval." in done.out


def test_settings_are_shown_changed_and_kept_to(shop: Subscribers, cli: Run) -> None:
    assert cli("settings", "--merchant", "m1").out.splitlines()[0] == "m1 may be fixed (the defaults)."
    changed = cli("settings", "--merchant", "m1", "--report-only", "--max-money", "50.5", "--actor", "Kim")
    assert changed.out.startswith("m1 is report only, set by Kim at ")
    cli("settings", "--merchant", "m1", "--max-fixes", "7", "--tolerance-percent", "2", "--grace-minutes", "5")
    document = cli("settings", "--merchant", "m1", "--json").document["settings"]
    assert [document[name] for name in ("is_report_only", "max_fixes", "max_money", "tolerance_percent")] == [
        True,
        7,
        "50.5",
        "2",
    ]
    cli("check", status=1)
    assert cli("apply").out == "m1 is report only: nothing was planned, nothing was changed.\n"
    cli("settings", "--merchant", "m1", "--fix")
    assert "1 fix applied" in cli("apply").out


def test_findings_are_accepted_and_then_not_fixed(shop: Subscribers, cli: Run) -> None:
    cli("check", status=1)
    number = number_of(cli, "paid_without_subscription")
    done = cli("accept", number, "--reason", "a test order", "--actor", "Kim")
    assert done.out == f"Finding {number}, paid_without_subscription of payment 1 at m1, is accepted.\n"
    many = cli("accept", "--class", "subscription_without_payment", "--merchant", "m1", "--reason", "a gift")
    assert many.out == "1 open finding of class subscription_without_payment at m1 is accepted.\n"
    assert cli("check", "--full").out.endswith("0 open findings.\n")
    assert cli("apply").out == "Nothing to fix: nothing is open.\n"
    assert "accepted by Kim" in cli("findings", "--all").out
    assert "a test order" in cli("findings", "--number", number).out


def test_what_can_not_be_done_is_said_in_a_line(shop: Subscribers, cli: Run, refused: Callable[..., str]) -> None:
    cli("check", status=1)
    plan = plan_of(cli, "subscription_without_payment")
    assert "There is no plan 4711. 'loyalty subscriptions history' lists them." in refused("approve", "4711")
    assert "There is no plan 4711." in refused("apply", "--plan", "4711")
    assert "There is no plan 4711." in refused("undo", "4711")
    assert "it is planned, and only what is applied can be" in refused("undo", plan)
    assert "There is no finding 4711. 'loyalty subscriptions findings --all'" in refused("findings", "--number", "4711")
    assert "There is no class 'nothing'" in refused("findings", "--class", "nothing")
    assert "max_fixes is -1; expected a number from 0 to 100000." in refused(
        "settings", "--merchant", "m1", "--max-fixes", "-1"
    )
    assert "no merchant" in refused("settings", "--merchant", "m7").lower()
    assert "Name the finding's NUMBER" in refused("accept", "--reason", "so", status=2)
    shop.run("UPDATE loyalty.findings SET class = 'check_failed' WHERE object_id = '2'")
    assert "could not be compared" in refused("accept", number_of(cli, "check_failed"), "--reason", "so")
    cli("approve", plan_of(cli, "paid_without_subscription"))
    cli("apply")
    shop.run("UPDATE sample_shop.subscriptions SET status = 'paused' WHERE order_id = '1'")
    made = cli("history", "--object", "payment", "1", "--json").document["plans"][0]["plan_id"]
    assert "differs in status from what the fix left" in refused("undo", str(made))


def test_without_a_mapping_nothing_is_compared_or_fixed(engine: Engine, refused: Callable[..., str]) -> None:
    for command in (["check"], ["plan"], ["apply"]):
        assert "mapping" in refused(*command)
