"""Fix plans: from a finding to the shop's row and back, and nothing when the shop says something else by now."""

from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Engine, make_url, text

from loyalty_pipelines.db import subscription_settings, subscriptions
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.fix_plans_run import apply_fixes, approve_plans, plan_fixes, undo_plan
from loyalty_pipelines.domain.fix_errors import (
    ChangedSinceError,
    NoSuchPlanError,
    NotApprovableError,
    NotUndoableError,
    SettingOutOfRangeError,
)
from loyalty_pipelines.domain.fix_plans import FixPlan, PlanRefusal
from loyalty_pipelines.domain.subscriptions import SubscriptionSettings
from tests.subscribers import BILLING, Subscribers, euros, outcomes


@pytest.fixture
def shop(engine: Engine) -> Subscribers:
    """The sample shop with a plan to subscribe to."""
    made = Subscribers(engine)
    made.seller()
    return made


def duplicate(shop: Subscribers) -> None:
    shop.subscription("paid", customer="ann", days_ago=5)
    shop.payment("20", customer="ann", subscription_id="paid", days_ago=5)
    shop.subscription("unpaid", customer="ann", days_ago=2)


def refunded(shop: Subscribers) -> None:
    shop.subscription("1")
    shop.payment("1", subscription_id="1", status="refunded", refunded=10)


def disputed(shop: Subscribers) -> None:
    shop.subscription("1")
    shop.payment("1", subscription_id="1", status="disputed")


def partly(shop: Subscribers) -> None:
    shop.subscription("1")
    shop.payment("1", subscription_id="1", refunded=5)


def partly_and_over(shop: Subscribers) -> None:
    shop.subscription("1", days_ago=20)
    shop.payment("1", subscription_id="1", refunded=8, days_ago=20)


def gap(shop: Subscribers) -> None:
    shop.subscription("1", lasts="10 days")
    shop.payment("1", subscription_id="1")


def expired(shop: Subscribers) -> None:
    shop.subscription("1", lasts="1 day", status="expired")
    shop.payment("1", subscription_id="1")


def incomplete(shop: Subscribers) -> None:
    shop.bought("1")
    shop.subscription("1", order_id="1", status="incomplete", lasts="0 days")


def over(shop: Subscribers) -> None:
    shop.bought("1", days_ago=40)


def unpaid(shop: Subscribers) -> None:
    shop.subscription("1", days_ago=5)


FIXABLE = {
    "paid_without_subscription": (lambda shop: shop.bought("1"), "1", "create_subscription", {"status": "active"}),
    "paid_without_subscription, incomplete": (incomplete, "1", "update_subscription", {"status": "active"}),
    "paid_without_subscription, over": (
        over,
        "1",
        "create_subscription",
        {"current_period_start": "time of applying", "current_period_end": "time of applying + 2592000.000000 seconds"},
    ),
    "subscription_without_payment": (unpaid, "1", "update_subscription", {"status": "cancelled"}),
    "duplicate_same_plan": (duplicate, "unpaid", "update_subscription", {"status": "cancelled"}),
    "refunded_but_active": (refunded, "1", "update_subscription", {"status": "cancelled"}),
    "disputed_but_active": (disputed, "1", "update_subscription", {"status": "paused"}),
    "partly_refunded": (partly, "1", "update_subscription", {}),
    "partly_refunded, over": (partly_and_over, "1", "update_subscription", {"status": "cancelled"}),
    "period_gap": (gap, "1", "update_subscription", {}),
    "period_gap, expired": (expired, "1", "update_subscription", {"status": "active"}),
}


@pytest.mark.parametrize("case", FIXABLE)
def test_a_fix_closes_its_finding_and_undoing_it_leaves_no_trace(shop: Subscribers, case: str) -> None:
    make, object_id, action, after = FIXABLE[case]
    make(shop)
    finding = (case.split(",", maxsplit=1)[0], object_id)
    assert finding in shop.check()
    before = shop.contents()
    (plan,) = [one for one in shop.plan() if isinstance(one, FixPlan) and one.class_name == finding[0]]
    assert (plan.action, plan.object_id, plan.status, plan.explanation[-1]) == (action, object_id, "planned", ".")
    assert {**plan.after, **after} == dict(plan.after)
    assert shop.contents() == before
    shop.approve(plan.plan_id)
    assert outcomes(shop.apply(plan_ids=[plan.plan_id])) == ["applied"]
    assert shop.contents() != before
    assert shop.open() == []
    assert shop.check() == []
    assert shop.undo(plan.plan_id).status == "undone"
    assert shop.contents() == before
    assert finding in shop.open()


def test_a_new_subscription_has_what_was_paid_for(shop: Subscribers) -> None:
    shop.bought("1", customer="ann")
    shop.check()
    shop.apply()
    ((merchant, customer, plan, price, currency, is_same),) = shop.rows(
        "SELECT s.merchant_id, s.customer_id, s.plan_id, s.price, s.currency, (s.period_start, s.period_end) ="
        " (p.period_start, p.period_end) AND NOT s.is_complimentary"
        " FROM sample_shop.subscriptions AS s, sample_shop.payments AS p"
    )
    assert (merchant, customer, plan, price, currency, is_same) == ("m1", "ann", "gold", 10, "EUR", True)


def test_a_partly_refunded_period_ends_with_the_part_that_was_kept(shop: Subscribers) -> None:
    partly(shop)
    shop.check()
    shop.approve(shop.one_plan().plan_id)
    shop.apply()
    kept = "SELECT s.period_end - p.period_start FROM sample_shop.subscriptions AS s, sample_shop.payments AS p"
    assert shop.value(kept) == timedelta(days=15)


def test_a_period_that_is_over_begins_when_the_fix_is_applied(shop: Subscribers) -> None:
    over(shop)
    shop.check()
    plan = shop.one_plan()
    assert plan.policy == "P"
    shop.approve(plan.plan_id)
    shop.apply()
    ((lasts, age),) = shop.rows("SELECT period_end - period_start, now() - period_start FROM sample_shop.subscriptions")
    assert lasts == timedelta(days=30)
    assert age < timedelta(hours=1)


def test_a_disputed_subscription_is_cancelled_where_the_shop_has_no_word_for_paused(shop: Subscribers) -> None:
    shop.remap("", old="    paused: [paused]\n")
    disputed(shop)
    shop.check()
    assert shop.one_plan().after == {"status": "cancelled", "cancelled_at": "time of applying"}


def test_only_automatic_plans_and_approved_ones_are_applied(shop: Subscribers) -> None:
    shop.bought("1")
    refunded_before = shop.contents()["sample_shop.subscriptions"]
    shop.subscription("2", days_ago=5)
    shop.check()
    done = shop.apply()
    assert ([one.plan.class_name for one in done.outcomes], done.planned, done.waiting) == (
        ["paid_without_subscription"],
        2,
        1,
    )
    assert (refunded_before, shop.open()) == ([], [("subscription_without_payment", "2")])
    (waiting,) = [one for one in shop.plan() if isinstance(one, FixPlan)]
    skipped = shop.apply(plan_ids=[waiting.plan_id])
    assert [(one.outcome, one.text) for one in skipped.outcomes] == [("skipped", "it waits for approval")]
    shop.approve(waiting.plan_id)
    assert outcomes(shop.apply()) == ["applied"]
    assert shop.saved(waiting.plan_id).approved_by == "kim"


def test_what_only_a_person_can_decide_has_no_plan_and_says_so(shop: Subscribers) -> None:
    shop.subscription("1")
    shop.payment("1", subscription_id="1", currency="USD")
    assert ("currency_differs", "1") in shop.check()
    refusals = [one for one in shop.plan() if isinstance(one, PlanRefusal) and one.class_name == "currency_differs"]
    assert ["no one right answer" in one.reason for one in refusals] == [True]


def test_an_action_that_the_mapping_does_not_give_has_no_plan_and_says_which_key_to_set(shop: Subscribers) -> None:
    shop.remap("")
    shop.subscription("1", days_ago=5)
    twice(shop)
    shop.check()
    found = shop.plan()
    assert all(isinstance(one, PlanRefusal) for one in found)
    reasons = {one.class_name: one.reason for one in found if isinstance(one, PlanRefusal)}
    assert "fixes.update_subscription" in reasons["subscription_without_payment"]
    assert "fixes.refund_payment" in reasons["captured_twice"]
    assert "at the payment provider" in reasons["captured_twice"]
    assert shop.apply().outcomes == ()


# --- asked again ------------------------------------------------------------------------------------------


def test_a_plan_whose_mismatch_is_gone_is_stale_and_nothing_is_written(shop: Subscribers) -> None:
    shop.bought("1")
    shop.check()
    plan = shop.one_plan()
    shop.subscription("late webhook", customer="c1", order_id="1")
    before = shop.contents()
    done = shop.apply()
    assert [(one.outcome, one.text) for one in done.outcomes] == [("stale", "nothing is wrong with it any more")]
    assert (shop.contents(), shop.saved(plan.plan_id).status) == (before, "stale")


def test_a_plan_whose_evidence_changed_is_stale_and_planned_anew(shop: Subscribers) -> None:
    partly(shop)
    shop.check()
    plan = shop.one_plan()
    shop.approve(plan.plan_id)
    shop.run("UPDATE sample_shop.payments SET refunded = 6")
    before = shop.contents()
    done = shop.apply(plan_ids=[plan.plan_id])
    assert outcomes(done) == ["stale"]
    assert "current_period_end" in done.outcomes[0].text
    assert shop.contents() == before
    shop.check(is_full=False)
    again = shop.one_plan()
    assert (again.plan_id != plan.plan_id, again.status) == (True, "planned")


def test_a_subscription_that_somebody_changed_makes_its_plan_stale(shop: Subscribers) -> None:
    shop.subscription("1", days_ago=5)
    shop.check()
    plan = shop.one_plan()
    shop.approve(plan.plan_id)
    shop.run("UPDATE sample_shop.subscriptions SET status = 'past_due', created_at = now() - interval '60 days',"
             " period_start = now() - interval '20 days'")  # fmt: skip
    done = shop.apply(plan_ids=[plan.plan_id])
    assert ["status" in one.text for one in done.outcomes] == [True]
    assert shop.sold() == [(None, "past_due")]


def test_planning_again_keeps_what_fits_and_replaces_what_does_not(shop: Subscribers) -> None:
    partly(shop)
    shop.check()
    first = shop.one_plan()
    assert shop.one_plan() == first
    shop.run("UPDATE sample_shop.payments SET refunded = 6")
    shop.check()
    second = shop.one_plan()
    assert second.plan_id != first.plan_id
    assert shop.saved(first.plan_id).status == "stale"


def test_an_automatic_plan_that_needs_a_person_by_now_is_not_applied(shop: Subscribers) -> None:
    shop.bought("1")
    shop.check()
    plan = shop.one_plan()
    # One payment of one order is automatic: of this one, nobody knows the order any more.
    shop.run("DELETE FROM sample_shop.orders")
    done = shop.apply(plan_ids=[plan.plan_id])
    assert [(one.outcome, one.text) for one in done.outcomes] == [("stale", "it needs approval by now")]
    assert shop.sold() == []


def test_an_expired_plan_is_neither_approved_nor_applied_and_is_planned_anew(shop: Subscribers) -> None:
    shop.subscription("1", days_ago=5)
    shop.check()
    plan = shop.one_plan()
    shop.run("UPDATE loyalty.fix_plans SET expires_at = now()")
    with pytest.raises(NotApprovableError, match="is expired"):
        shop.approve(plan.plan_id)
    shop.run("UPDATE loyalty.fix_plans SET status = 'approved', approved_by = 'kim'")
    assert [one.text for one in shop.apply(plan_ids=[plan.plan_id]).outcomes] == ["it is expired"]
    assert shop.saved(plan.plan_id).status == "expired"
    assert shop.one_plan().plan_id != plan.plan_id


def test_plans_that_are_no_more_are_not_approved_and_none_of_the_others_either(shop: Subscribers) -> None:
    shop.subscription("1", days_ago=5)
    shop.subscription("2", days_ago=5)
    shop.check()
    first, second = (one for one in shop.plan() if isinstance(one, FixPlan))
    shop.approve(first.plan_id)
    shop.apply()
    with pytest.raises(NotApprovableError, match=f"plan {first.plan_id} is applied"):
        shop.approve(first.plan_id, second.plan_id)
    with pytest.raises(NoSuchPlanError):
        shop.approve(second.plan_id, 4711)
    assert shop.saved(second.plan_id).status == "planned"


def test_an_accepted_finding_is_not_fixed(shop: Subscribers) -> None:
    shop.bought("1")
    shop.check()
    shop.one_plan()
    shop.run("UPDATE loyalty.findings SET accepted_at = now(), accepted_by = 'kim', accepted_because = 'so'")
    assert shop.apply().outcomes == ()
    assert shop.sold() == []


def test_what_belongs_together_is_asked_about_one_after_the_other(shop: Subscribers) -> None:
    # Two payments of one customer for a plan: one subscription settles both.
    shop.bought("1", customer="ann")
    shop.bought("2", customer="ann")
    shop.check()
    plans = [one.plan_id for one in shop.plan() if isinstance(one, FixPlan)]
    assert len(plans) == 2
    shop.approve(*plans)
    assert outcomes(shop.apply()) == ["applied", "stale"]
    assert shop.sold() == [("1", "active")]


def test_automation_does_not_fight_a_person(shop: Subscribers) -> None:
    shop.bought("1")
    shop.check()
    plan = shop.one_plan()
    shop.apply()
    shop.undo(plan.plan_id)
    again = shop.one_plan()
    assert (plan.policy, again.policy, again.plan_id != plan.plan_id) == ("A", "P", True)
    assert shop.apply().outcomes == ()
    assert shop.sold() == []


def test_automation_does_not_repeat_itself_within_a_week(shop: Subscribers) -> None:
    shop.bought("1")
    shop.check()
    shop.apply()
    shop.run("DELETE FROM sample_shop.subscriptions")
    shop.check()
    assert shop.one_plan().policy == "P"
    shop.run("UPDATE loyalty.fix_plans SET applied_at = now() - interval '8 days' WHERE status = 'applied'")
    assert shop.one_plan().policy == "P"
    shop.run("UPDATE loyalty.fix_plans SET status = 'stale' WHERE status = 'planned'")
    assert shop.one_plan().policy == "A"


def test_a_class_that_can_not_be_looked_for_leaves_its_plans_and_no_others(
    shop: Subscribers, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.bought("1")
    duplicate(shop)
    shop.check()
    shop.plan()
    broken = {**subscriptions.FIND, "duplicate_same_plan": [text("SELECT 1 / 0")]}
    monkeypatch.setattr(subscriptions, "FIND", broken)
    done = {one.plan.class_name: (one.outcome, one.text) for one in shop.apply(is_dry_run=True).outcomes}
    assert done["paid_without_subscription"][0] == "applied"
    assert done["duplicate_same_plan"] == ("skipped", "nobody knows whether it fits: division by zero")


def test_a_merchant_that_the_database_refuses_stops_no_other(shop: Subscribers) -> None:
    shop.seller("m2")
    for merchant in ("m1", "m2"):
        shop.bought("1", merchant=merchant)
    shop.check()
    shop.run("ALTER TABLE loyalty.fix_plans ADD CHECK (merchant_id <> 'm1')")
    for is_dry_run in (True, False):
        first, second = shop.apply_all(is_dry_run=is_dry_run)
        assert ("violates check constraint" in str(first.failure), second.applied) == (True, 1)
        assert "could not go on" in first.sentence


def test_only_columns_that_are_mapped_are_set(shop: Subscribers) -> None:
    shop.remap("", old="    cancelled_at: cancelled_at\n")
    shop.subscription("1", days_ago=5)
    shop.check()
    plan = shop.one_plan()
    assert plan.after == {"status": "cancelled"}
    shop.approve(plan.plan_id)
    assert outcomes(shop.apply()) == ["applied"]


def test_a_status_that_the_shop_has_no_word_for_is_not_planned(shop: Subscribers) -> None:
    shop.remap("    expired", old="    cancelled: [cancelled]\n    expired")
    shop.subscription("1", days_ago=5)
    shop.check()
    (refusal,) = shop.plan()
    assert isinstance(refusal, PlanRefusal)
    assert "subscriptions.status.cancelled" in refusal.reason


# --- limits, dry runs -------------------------------------------------------------------------------------


def test_a_run_stops_at_max_fixes_and_says_so(shop: Subscribers) -> None:
    for number in range(5):
        shop.bought(str(number))
    shop.check()
    done = shop.apply(max_fixes=3)
    assert (done.applied, done.skipped, done.stopped_by, len(shop.sold())) == (3, 2, "max_fixes", 3)
    assert "stopped at max_fixes 3" in done.sentence
    exact = shop.apply(max_fixes=2)
    assert (exact.applied, exact.skipped, exact.stopped_by) == (2, 0, None)


def test_a_run_stops_at_max_money_and_says_so(shop: Subscribers) -> None:
    for number in range(5):
        shop.bought(str(number))
    shop.check()
    done = shop.apply(max_money=Decimal("29.99"))
    assert (done.applied, done.stopped_by, done.money, len(shop.sold())) == (2, "max_money", euros(20), 2)
    assert shop.apply(max_money=Decimal(30)).stopped_by is None


def test_arguments_only_lower_the_limits_of_the_merchant(shop: Subscribers) -> None:
    for number in range(4):
        shop.bought(str(number))
    shop.check()
    settings(shop, max_fixes=1)
    assert shop.apply(max_fixes=3).applied == 1
    settings(shop, max_money=Decimal(20))
    assert shop.apply(max_money=Decimal(1000)).applied == 2
    settings(shop, max_fixes=0)
    assert (shop.apply().stopped_by, len(shop.sold())) == ("max_fixes", 3)


def test_nothing_is_written_for_a_merchant_that_is_report_only(shop: Subscribers) -> None:
    shop.seller("m2")
    shop.bought("1")
    shop.bought("1", merchant="m2")
    shop.subscription("9", days_ago=5)
    shop.check()
    shop.approve(*[one.plan_id for one in shop.plan() if isinstance(one, FixPlan) and one.policy == "P"])
    settings(shop, is_report_only=True)
    before = shop.contents()["sample_shop.subscriptions"]
    first, second = shop.apply_all()
    assert (first.stopped_by, first.outcomes, second.applied) == ("report_only", (), 1)
    assert "report only" in first.sentence
    assert len(shop.contents()["sample_shop.subscriptions"]) == len(before) + 1
    assert shop.sold("m1") == [(None, "active")]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(shop: Subscribers) -> None:
    shop.bought("1")
    twice(shop)
    duplicate(shop)
    shop.remap(BILLING)
    shop.check()
    shop.approve(
        *[one.plan_id for one in shop.plan() if isinstance(one, FixPlan) and one.class_name == "captured_twice"]
    )
    before = shop.contents(is_ledger_too=True)
    done = shop.apply(is_dry_run=True)
    assert outcomes(done) == ["applied"] * 3
    assert "3 fixes would be applied" in done.sentence
    assert shop.contents(is_ledger_too=True) == before
    # A number that was drawn stays drawn when the call is rolled back.
    assert shop.value("SELECT last_value FROM pg_sequences WHERE schemaname = 'billing'") is None
    assert shop.apply(is_dry_run=True, max_fixes=1).stopped_by == "max_fixes"


def test_a_dry_run_of_several_batches_sees_all_plans(shop: Subscribers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loyalty_pipelines.db.fix_plans_run.BATCH", 2)
    for number in range(5):
        shop.bought(str(number))
    shop.check()
    before = shop.contents(is_ledger_too=True)
    done = shop.apply(is_dry_run=True)
    assert (outcomes(done), done.money) == (["applied"] * 5, euros(50))
    assert shop.contents(is_ledger_too=True) == before


def test_a_dry_run_makes_no_plans(shop: Subscribers) -> None:
    shop.bought("1")
    shop.check()
    before = shop.contents(is_ledger_too=True)
    done = shop.apply(is_dry_run=True)
    assert (done.planned, done.applied, shop.contents(is_ledger_too=True)) == (1, 1, before)


def test_settings_that_can_not_be_are_refused(shop: Subscribers) -> None:
    for wrong in (
        {"max_fixes": -1},
        {"max_money": Decimal("NaN")},
        {"tolerance_percent": Decimal(51)},
        {"grace_minutes": 43_201},
    ):
        with pytest.raises(SettingOutOfRangeError, match=next(iter(wrong))):
            settings(shop, **wrong)
    assert shop.rows("SELECT * FROM loyalty.subscription_settings") == []


def settings(shop: Subscribers, **changes: object) -> None:
    with shop.engine.begin() as conn:
        subscription_settings.save(conn, SubscriptionSettings(merchant_id="m1", **changes), actor="kim")  # type: ignore[arg-type]


# --- functions of the shop, refunds, points ---------------------------------------------------------------


def twice(shop: Subscribers) -> None:
    shop.bought("10", customer="bob")
    shop.subscription("10", customer="bob", order_id="10")
    shop.payment("11", customer="bob", order_id="10", days_ago=1)


def test_refunds_are_made_by_the_shops_function_and_undone_by_it(shop: Subscribers) -> None:
    twice(shop)
    shop.remap(BILLING)
    assert ("captured_twice", "11") in shop.check()
    before = shop.contents()
    plan = next(one for one in shop.plan() if isinstance(one, FixPlan) and one.class_name == "captured_twice")
    assert (plan.action, plan.target_id, plan.amount, plan.policy) == ("refund_payment", "11", 10, "P")
    shop.approve(plan.plan_id)
    assert shop.apply(plan_ids=[plan.plan_id]).money == euros(10)
    assert shop.value("SELECT refunded FROM sample_shop.payments WHERE id = '11'") == 10
    assert ("captured_twice", "11") not in shop.open()
    shop.undo(plan.plan_id)
    calls = [row[0] for row in shop.rows("SELECT plan FROM billing.calls ORDER BY id")]
    assert [(one["is_undo"], one["before"], one["after"]) for one in calls] == [
        (False, {"refunded_amount": "0"}, {"refunded_amount": "10"}),
        (True, {"refunded_amount": "10"}, {"refunded_amount": "0"}),
    ]
    assert (calls[0]["key"], calls[0]["payment_id"], calls[0]["order_id"], calls[0]["amount"]) == (
        plan.fix_key,
        "11",
        "10",
        "10",
    )
    assert shop.contents() == before


@pytest.mark.parametrize("class_name", ["charged_after_cancel", "amount_differs"])
def test_what_was_taken_too_much_is_refunded(shop: Subscribers, class_name: str) -> None:
    shop.remap(BILLING)
    if class_name == "amount_differs":
        shop.subscription("1")
        shop.payment("1", subscription_id="1", amount="12.50")
    else:
        shop.subscription("1", status="cancelled", days_ago=40)
        shop.run("UPDATE sample_shop.subscriptions SET cancelled_at = now() - interval '20 days'")
        shop.payment("1", subscription_id="1")
    assert (class_name, "1") in shop.check()
    plan = next(one for one in shop.plan() if isinstance(one, FixPlan) and one.class_name == class_name)
    assert plan.amount == (Decimal("2.5") if class_name == "amount_differs" else 10)
    shop.approve(plan.plan_id)
    assert outcomes(shop.apply(plan_ids=[plan.plan_id])) == ["applied"]
    assert (class_name, "1") not in shop.open()


def test_a_shop_keeps_its_own_rules_by_functions_for_subscriptions(shop: Subscribers) -> None:
    shop.remap(BILLING)
    shop.bought("1")
    duplicate(shop)
    shop.check()
    before = shop.contents()
    done = shop.apply()
    assert outcomes(done) == ["applied", "applied"]
    assert shop.sold() == [("1", "active"), (None, "active"), (None, "cancelled")]
    made = next(one.plan for one in done.outcomes if one.plan.action == "create_subscription")
    assert shop.saved(made.plan_id).target_id == "made-1"
    assert shop.saved(made.plan_id).function == "billing.create_subscription"
    assert shop.open() == []
    for one in done.outcomes:
        shop.undo(one.plan.plan_id)
    after = shop.contents()
    assert len(after["sample_shop.subscriptions"]) == 2
    assert after["sample_shop.payments"] == before["sample_shop.payments"]
    assert shop.sold() == [(None, "active"), (None, "active")]


def test_a_function_that_fails_fails_its_plan_alone_and_three_times(shop: Subscribers) -> None:
    shop.remap(BILLING)
    shop.bought("bad")
    shop.bought("good")
    shop.check()
    for number in (1, 2, 3):
        done = shop.apply()
        assert [(one.plan.object_id, one.text) for one in done.outcomes if one.outcome == "failed"] == [
            ("bad", "no bad ones")
        ]
        saved = shop.saved(done.outcomes[0].plan.plan_id)
        assert (saved.failures, saved.failure) == (number, "no bad ones")
    assert (saved.status, shop.sold()) == ("failed", [("good", "active")])
    assert shop.apply().outcomes == ()
    shop.approve(saved.plan_id)
    assert outcomes(shop.apply()) == ["failed"]
    again = shop.saved(saved.plan_id)
    assert (again.status, again.failures) == ("approved", 1)


def test_a_row_that_the_shop_refuses_fails_alone(shop: Subscribers) -> None:
    shop.run("ALTER TABLE sample_shop.subscriptions ADD CHECK (customer_id <> 'cbad')")
    for number in ("1", "bad", "2"):
        shop.bought(number)
    shop.check()
    done = shop.apply()
    assert sorted(outcomes(done)) == ["applied", "applied", "failed"]
    assert shop.sold() == [("1", "active"), ("2", "active")]
    (failed,) = [one for one in done.outcomes if one.outcome == "failed"]
    assert "violates check constraint" in failed.text
    assert done.money == euros(20)


def test_a_pending_payment_is_asked_about_once_per_stage_and_can_not_be_undone(shop: Subscribers) -> None:
    shop.remap(BILLING)
    shop.payment("1", status="pending", days_ago=0.01)
    assert ("pending_too_long", "1") in shop.check()
    done = shop.apply()
    assert [one.plan.action for one in done.outcomes] == ["ask_payment"]
    shop.check()
    assert shop.apply().outcomes == ()
    shop.run("UPDATE sample_shop.payments SET created_at = now() - interval '2 hours'")
    shop.check()
    again = shop.apply()
    assert [(one.plan.policy, one.plan.after) for one in again.outcomes] == [("A", {"stage": 2})]
    assert shop.value("SELECT count(*) FROM billing.calls") == 2
    with pytest.raises(NotUndoableError, match="nothing takes back ask_payment"):
        shop.undo(again.outcomes[0].plan.plan_id)


def test_an_order_without_points_goes_to_the_award_engine_once(shop: Subscribers) -> None:
    shop.seller("m2", valid_from="2000-01-01T00:00:00Z")
    shop.bought("1", merchant="m2", customer="ann")
    shop.subscription("1", merchant="m2", customer="ann", order_id="1")
    shop.run("DELETE FROM loyalty.order_inbox")
    assert shop.check() == [("paid_order_without_points", "1")]
    (done,) = shop.apply_all()
    assert [one.plan.action for one in done.outcomes] == ["award_order"]
    assert shop.inbox(merchant="m2") == 1
    (again,) = shop.apply_all()
    assert (again.outcomes, shop.inbox(merchant="m2")) == ((), 1)
    shop.award()
    assert shop.balance("ann", merchant="m2") == 10
    assert shop.check() == []
    with pytest.raises(NotUndoableError):
        shop.undo(done.outcomes[0].plan.plan_id)


# --- undo -------------------------------------------------------------------------------------------------


def test_a_row_that_was_changed_since_is_not_undone(shop: Subscribers) -> None:
    shop.bought("1")
    shop.check()
    plan = shop.one_plan()
    shop.apply()
    shop.run("UPDATE sample_shop.subscriptions SET status = 'paused', price = 10.00")
    before = shop.contents()
    with pytest.raises(ChangedSinceError, match="differs in amount, status from"):
        shop.undo(plan.plan_id)
    assert (shop.contents(), shop.saved(plan.plan_id).status) == (before, "applied")
    shop.run("DELETE FROM sample_shop.subscriptions")
    with pytest.raises(ChangedSinceError, match="is gone"):
        shop.undo(plan.plan_id)


def test_only_what_is_applied_is_undone_and_only_once(shop: Subscribers) -> None:
    shop.bought("1")
    shop.check()
    plan = shop.one_plan()
    with pytest.raises(NotUndoableError, match="it is planned"):
        shop.undo(plan.plan_id)
    shop.apply()
    shop.undo(plan.plan_id)
    with pytest.raises(NotUndoableError, match="it is undone"):
        shop.undo(plan.plan_id)
    with pytest.raises(NoSuchPlanError):
        shop.undo(4711)


def test_what_the_mapping_does_not_give_any_more_is_not_undone(shop: Subscribers) -> None:
    shop.bought("1")
    shop.check()
    plan = shop.one_plan()
    shop.apply()
    shop.remap("", old="  create_subscription: write\n")
    with pytest.raises(NotUndoableError, match=r"set fixes\.create_subscription to write"):
        shop.undo(plan.plan_id)


@pytest.mark.parametrize("is_by_function", [False, True])
def test_the_pipeline_role_is_enough_to_fix_and_undo(
    shop: Subscribers, database_url: str, is_by_function: bool
) -> None:
    if is_by_function:
        shop.remap(BILLING)
        for name in ("create", "update"):
            shop.run(f"ALTER FUNCTION billing.{name}_subscription SECURITY DEFINER")
    shop.bought("1")
    duplicate(shop)
    shop.check()
    before = shop.contents()
    url = make_url(database_url)
    role = f"fixer_{url.database}"
    shop.run(f'CREATE ROLE "{role}" LOGIN IN ROLE loyalty_pipeline')
    engine = connect(url.set(username=role).render_as_string())
    try:
        plans = [one for one in plan_fixes(engine, actor="kim") if isinstance(one, FixPlan)]
        approve_plans(engine, [one.plan_id for one in plans], actor="kim")
        (done,) = apply_fixes(engine, is_dry_run=False, actor="kim")
        assert (done.failure, outcomes(done)) == (None, ["applied"] * 2)
        for one in plans:
            undo_plan(engine, one.plan_id, actor="kim")
    finally:
        engine.dispose()
        shop.run(f'DROP OWNED BY "{role}"')
        shop.run(f'DROP ROLE "{role}"')
    if not is_by_function:
        assert shop.contents() == before


def test_a_subscription_that_payments_name_by_now_is_not_removed(shop: Subscribers) -> None:
    shop.bought("1")
    shop.check()
    shop.apply()
    (made,) = [row.id for row in shop.rows("SELECT id FROM sample_shop.subscriptions")]
    shop.payment("2", customer="c1", subscription_id=made)
    with pytest.raises(NotUndoableError, match=f"payments name subscription {made} by now"):
        shop.undo(shop.value("SELECT plan_id FROM loyalty.fix_plans"))
    assert shop.sold() == [("1", "active")]


def test_nothing_is_made_automatically_beside_an_incomplete_subscription_of_today(shop: Subscribers) -> None:
    shop.bought("1")
    shop.subscription("s1", customer="c1", days_ago=0.5, status="incomplete")
    shop.bought("2")
    shop.subscription("s2", customer="c2", days_ago=3, status="incomplete")
    shop.check()
    policies = shop.rows(
        "SELECT object_id, policy FROM loyalty.findings WHERE class = 'paid_without_subscription' ORDER BY 1"
    )
    assert [tuple(row) for row in policies] == [("1", "P"), ("2", "A")]
