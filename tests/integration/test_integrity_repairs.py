"""What drifted from an intact ledger is set right, by the ledger, with a reason and a name; and back again."""

from typing import Any

import pytest
from sqlalchemy import event, text

from loyalty_pipelines.db import integrity_repairs
from loyalty_pipelines.db.engine import connect, reading
from loyalty_pipelines.db.integrity_run import apply_repairs, undo_repair
from loyalty_pipelines.domain.findings import NoSuchFindingError
from loyalty_pipelines.domain.integrity import REPAIRABLE
from loyalty_pipelines.domain.integrity_repairs import (
    NoSuchRepairError,
    NotAcceptableError,
    RepairPlan,
    RepairUndoneError,
)
from tests.integrity import classes, corrupt, found, proved
from tests.shop import Shop

WHO = {"reason": "drifted", "actor": "Kim"}


@pytest.fixture
def drifted(shop: Shop) -> Shop:
    """ann's 40 points expired, then she earned 100, spent 30 and holds 20; every column has drifted."""
    shop.program(points_expiration_days=30, stamps_per_order=1)
    shop.order("gone", 40)
    shop.award()
    shop.expire("ann")
    shop.order("o1", 100)
    shop.award()
    shop.run("SELECT loyalty.redeem_points('m1', 'ann', 'r1', 30)")
    shop.run("SELECT loyalty.reserve_points('m1', 'ann', 'r2', 20)")
    proved(shop)
    assert found(shop) == []
    shop.run(
        "UPDATE loyalty.accounts SET balance = balance + 7, stamp_count = stamp_count + 1, held = held - 5, "
        "next_seq = next_seq - 1, last_expiry_seq = 0"
    )
    proved(shop)
    assert {name for name, _, _ in classes(shop)} == set(REPAIRABLE)
    return shop


def columns(shop: Shop) -> tuple[int, ...]:
    (row,) = shop.rows("SELECT balance, stamp_count, held, next_seq, last_expiry_seq FROM loyalty.accounts")
    return tuple(row)


def plans(shop: Shop, *, is_trusting: bool = False) -> list[RepairPlan]:
    with reading(shop.engine) as conn:
        return list(integrity_repairs.plans(conn, is_trusting=is_trusting))


def test_a_plan_shows_what_the_ledger_says_and_writes_nothing(drifted: Shop) -> None:
    (plan,) = plans(drifted)
    assert plan.changes == {
        "balance": (77, 70), "stamp_count": (3, 2), "held": (15, 20), "next_seq": (4, 5), "last_expiry_seq": (0, 2),
    }  # fmt: skip
    assert (plan.customer_id, plan.refusal, columns(drifted)) == ("ann", None, (77, 3, 15, 4, 0))


def test_applying_sets_the_columns_keeps_what_they_were_and_closes_the_findings(drifted: Shop) -> None:
    ((plan, number),) = apply_repairs(drifted.engine, plans(drifted), **WHO)
    assert columns(drifted) == (70, 2, 20, 5, 2)
    assert (found(drifted), drifted.problems()) == ([], [])
    with reading(drifted.engine) as conn:
        (made,) = integrity_repairs.repairs(conn)
    assert (made.repair_id, made.before, made.after) == (number, plan.before, plan.after)
    assert (made.reason, made.applied_by, made.undone_at) == ("drifted", "Kim", None)
    assert apply_repairs(drifted.engine, plans(drifted), **WHO) == []


def test_undoing_takes_back_by_how_much_and_leaves_what_came_since(drifted: Shop) -> None:
    ((_, number),) = apply_repairs(drifted.engine, plans(drifted), **WHO)
    assert number is not None
    drifted.order("o2", 1000)
    drifted.award()
    undo_repair(drifted.engine, number, actor="Lou")
    # The next number is another one by now: it stays.
    assert columns(drifted) == (1077, 4, 15, 6, 0)
    assert {name for name, _, _ in classes(drifted)} == set(REPAIRABLE) - {"next_seq_behind"}
    with pytest.raises(RepairUndoneError, match=f"Repair {number} was undone already, by Lou at "):
        undo_repair(drifted.engine, number, actor="Kim")
    with pytest.raises(NoSuchRepairError):
        undo_repair(drifted.engine, 10**9, actor="Kim")


def undone(shop: Shop) -> tuple[tuple[int, ...], list[str]]:
    """Repair, let the shop go on, undo; return the columns then, and which were left, as the repair's row has them."""
    with reading(shop.engine) as conn:
        (made,) = integrity_repairs.repairs(conn)
    said = undo_repair(shop.engine, made.repair_id, actor="Lou")
    with reading(shop.engine) as conn:
        (kept,) = integrity_repairs.repairs(conn)
    assert (kept.columns_left, kept.undone_by) == (said.columns_left, "Lou")
    return columns(shop), sorted(kept.columns_left)


def test_undoing_takes_everything_back_where_nothing_came_since(drifted: Shop) -> None:
    apply_repairs(drifted.engine, plans(drifted), **WHO)
    assert undone(drifted) == ((77, 3, 15, 4, 0), [])


def test_undoing_leaves_the_last_expiry_where_there_was_another_one_since(drifted: Shop) -> None:
    apply_repairs(drifted.engine, plans(drifted), **WHO)
    drifted.run("SELECT loyalty.release_points('m1', 'r2')")
    drifted.expire("ann")
    after, left = undone(drifted)
    assert (after[3:], left) == ((6, 5), ["held", "last_expiry_seq", "next_seq"])


def test_undoing_leaves_held_points_whose_hold_was_given_back_since(drifted: Shop) -> None:
    apply_repairs(drifted.engine, plans(drifted), **WHO)
    drifted.run("SELECT loyalty.release_points('m1', 'r2')")
    assert undone(drifted) == ((77, 3, 0, 4, 0), ["held"])


def test_undoing_leaves_a_balance_that_was_spent_since(drifted: Shop) -> None:
    drifted.run("UPDATE loyalty.accounts SET balance = balance - 20, held = 20")
    proved(drifted)
    apply_repairs(drifted.engine, plans(drifted), **WHO)
    drifted.run("SELECT loyalty.redeem_points('m1', 'ann', 'r3', 45)")
    assert undone(drifted) == ((25, 3, 20, 6, 0), ["balance", "next_seq"])


def test_what_has_changed_since_the_plan_is_decided_under_the_lock(drifted: Shop) -> None:
    planned = plans(drifted)
    drifted.run("UPDATE loyalty.accounts SET balance = balance - 3")
    ((plan, _),) = apply_repairs(drifted.engine, planned, **WHO)
    assert (plan.changes["balance"], columns(drifted)) == ((74, 70), (70, 2, 20, 5, 2))


def test_entries_that_were_written_on_a_drifted_balance_are_explained_by_its_repair(drifted: Shop) -> None:
    drifted.run("UPDATE loyalty.accounts SET next_seq = next_seq + 1")
    for order in ("r8", "r9"):
        drifted.run("SELECT loyalty.redeem_points('m1', 'ann', :order, 1)", order=order)
    proved(drifted, is_full=False)
    assert {"balance_differs", "chain_broken"} <= {name for name, _, _ in classes(drifted)}
    assert [plan.refusal for plan in plans(drifted)] == [integrity_repairs.NEEDS_TRUST]
    ((_, number),) = apply_repairs(drifted.engine, plans(drifted, is_trusting=True), **WHO)
    assert (number is not None, drifted.balance(), found(drifted)) == (True, 68, [])
    # The next entry begins with the repaired balance, not where the last one ended.
    drifted.run("SELECT loyalty.redeem_points('m1', 'ann', 'r10', 1)")
    for is_full in (False, True, True):
        proved(drifted, is_full=is_full)
        assert found(drifted) == []
    drifted.run("UPDATE loyalty.accounts SET balance = balance + 1")
    drifted.run("SELECT loyalty.redeem_points('m1', 'ann', 'r11', 1)")
    proved(drifted, is_full=False)
    assert {name for name, _, _ in classes(drifted)} == {"balance_differs", "chain_broken"}


def test_entries_whose_explanation_was_undone_after_they_were_sealed_can_be_trusted_again(drifted: Shop) -> None:
    drifted.run("UPDATE loyalty.accounts SET next_seq = next_seq + 1")
    drifted.run("SELECT loyalty.redeem_points('m1', 'ann', 'r8', 1)")
    proved(drifted)
    ((_, number),) = apply_repairs(drifted.engine, plans(drifted, is_trusting=True), **WHO)
    assert (number is not None, found(drifted)) == (True, [])
    undo_repair(drifted.engine, number or 0, actor="Lou")
    assert {"balance_differs", "chain_broken"} <= {name for name, _, _ in classes(drifted)}
    assert [plan.refusal for plan in plans(drifted)] == [integrity_repairs.NEEDS_TRUST]
    ((plan, again),) = apply_repairs(drifted.engine, plans(drifted, is_trusting=True), **WHO)
    assert (plan.refusal, again is not None, drifted.balance(), found(drifted)) == (None, True, 69, [])
    corrupt(drifted, "UPDATE loyalty.ledger_entries SET kind = 'adjusted' WHERE reference_id = 'r8'")
    drifted.run("UPDATE loyalty.accounts SET balance = balance + 1")
    proved(drifted)
    assert [plan.refusal for plan in plans(drifted, is_trusting=True)] == [integrity_repairs.NOT_INTACT]


def test_an_entry_that_was_changed_before_it_was_sealed_is_not_taken_for_a_drifted_balance(shop: Shop) -> None:
    for order in ("o1", "o2"):
        shop.order(order, 100)
        shop.award()
    corrupt(shop, "UPDATE loyalty.ledger_entries SET points = 90, balance_after = 90 WHERE reference_id = 'o1'")
    proved(shop)
    (plan,) = plans(shop)
    assert plan.refusal == integrity_repairs.NEEDS_TRUST


def test_a_repair_of_something_else_explains_no_break(drifted: Shop) -> None:
    drifted.run("UPDATE loyalty.accounts SET balance = balance - 7")
    proved(drifted)
    apply_repairs(drifted.engine, plans(drifted), **WHO)
    assert found(drifted) == []
    corrupt(
        drifted,
        "UPDATE loyalty.ledger_entries SET balance_before = 70, balance_after = 170 WHERE reference_id = 'o1'",
    )
    proved(drifted)
    assert {name for name, _, _ in classes(drifted)} == {"chain_broken"}


def test_an_account_that_is_locked_costs_nobody_else_a_repair(drifted: Shop, database_url: str) -> None:
    drifted.order("b1", 10, customer="bob")
    drifted.award()
    drifted.run("UPDATE loyalty.accounts SET balance = balance + 1 WHERE customer_id = 'bob'")
    proved(drifted)
    impatient = connect(database_url)

    def be_impatient(made: Any, _: object) -> None:
        made.execute("SET lock_timeout = '100ms'")
        made.commit()

    event.listen(impatient, "connect", be_impatient)
    with drifted.engine.connect() as other, other.begin():
        other.execute(text("SELECT FROM loyalty.accounts WHERE customer_id = 'ann' FOR UPDATE"))
        done = {plan.customer_id: plan.refusal for plan, _ in apply_repairs(impatient, plans(drifted), **WHO)}
    impatient.dispose()
    assert "lock timeout" in (done["ann"] or "")
    assert (done["bob"], drifted.balance("bob")) == (None, 10)


def test_what_is_right_by_now_is_not_repaired(drifted: Shop) -> None:
    planned = plans(drifted)
    apply_repairs(drifted.engine, planned, **WHO)
    ((plan, number),) = apply_repairs(drifted.engine, planned, **WHO)
    assert (plan.refusal, number) == (None, None)
    drifted.run("UPDATE loyalty.accounts SET balance = balance + 7")
    proved(drifted)
    drifted.run("UPDATE loyalty.accounts SET balance = balance - 7")
    ((plan, number),) = apply_repairs(drifted.engine, planned, **WHO)
    assert (plan.refusal, number) == (integrity_repairs.NOTHING_LEFT, None)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM loyalty.ledger_entries WHERE reference_id = 'r1'",
        "DELETE FROM loyalty.ledger_entries WHERE reference_id = 'o1'",
        "UPDATE loyalty.ledger_entries SET reference_id = 'else' WHERE reference_id = 'r1'",
    ],
    ids=["an entry is missing at the end", "an entry is missing before", "an entry says something else"],
)
def test_an_account_whose_ledger_is_not_intact_is_left_to_a_person(drifted: Shop, damage: str) -> None:
    drifted.run("UPDATE loyalty.accounts SET next_seq = next_seq + 1")
    corrupt(drifted, damage)
    proved(drifted)
    before = columns(drifted)
    ((plan, number),) = apply_repairs(drifted.engine, plans(drifted), **WHO)
    assert (plan.refusal, number, columns(drifted)) == (integrity_repairs.NOT_INTACT, None, before)


def test_a_repair_that_postgresql_refuses_names_the_reason_and_stops_no_other(drifted: Shop) -> None:
    drifted.order("b1", 10, customer="bob")
    drifted.award()
    drifted.run("UPDATE loyalty.accounts SET balance = balance + 1 WHERE customer_id = 'bob'")
    # A hold that is larger than the balance that the ledger gives.
    corrupt(drifted, "UPDATE loyalty.holds SET points = 75 WHERE order_id = 'r2'")
    proved(drifted)
    done = {
        plan.customer_id: (plan.refusal, number)
        for plan, number in apply_repairs(drifted.engine, plans(drifted), **WHO)
    }
    refusal, number = done["ann"]
    assert number is None
    assert "accounts_held_within_balance" in (refusal or "")
    assert done["bob"][0] is None
    assert drifted.balance("bob") == 10


def test_a_changed_history_is_accepted_by_somebody_with_a_reason_and_sealed_as_it_is(drifted: Shop) -> None:
    apply_repairs(drifted.engine, plans(drifted), **WHO)
    corrupt(drifted, "UPDATE loyalty.ledger_entries SET kind = 'adjusted' WHERE reference_id = 'r1'")
    proved(drifted)
    (changed,) = found(drifted)
    assert changed.class_name == "history_changed"
    with drifted.engine.begin() as conn:
        integrity_repairs.accept(conn, changed.finding_id, **WHO)
    proved(drifted)
    assert found(drifted) == []
    (closed,) = found(drifted, number=changed.finding_id, is_closed_too=True)
    assert (closed.accepted_by, closed.accepted_because, closed.closed_at) == ("Kim", "drifted", closed.accepted_at)
    corrupt(drifted, "UPDATE loyalty.ledger_entries SET kind = 'redeemed' WHERE reference_id = 'r1'")
    proved(drifted)
    assert {name for name, _, _ in classes(drifted)} == {"history_changed"}


def test_what_history_keeps_is_accepted_until_it_changes(shop: Shop) -> None:
    shop.order("o1", 100)
    shop.award()
    for points in (5, 6):
        corrupt(
            shop,
            "UPDATE loyalty.order_points SET target_points = target_points - :points, "
            "in_force_points = in_force_points - :points",
            points=points,
        )
        proved(shop)
        (one,) = found(shop)
        assert one.class_name == "order_points_differ"
        with shop.engine.begin() as conn:
            integrity_repairs.accept(conn, one.finding_id, **WHO)
        for is_full in (True, False):
            (done,) = proved(shop, is_full=is_full)
            assert (done.findings, found(shop)) == ((), [])
    (kept,) = found(shop, is_closed_too=True)
    assert (kept.accepted_by, kept.closed_at, kept.points_difference) == ("Kim", None, 11)


def accept(shop: Shop, *names: str) -> None:
    """Accept the open findings of these classes, or all."""
    for one in found(shop):
        if not names or one.class_name in names:
            with shop.engine.begin() as conn:
                integrity_repairs.accept(conn, one.finding_id, **WHO)


def test_what_a_missing_entry_leaves_is_accepted_because_nothing_can_put_it_right(shop: Shop) -> None:
    shop.program(stamps_per_order=1)
    for order in ("o1", "o2"):
        shop.order(order, 100)
        shop.award()
    proved(shop)
    corrupt(shop, "DELETE FROM loyalty.ledger_entries WHERE reference_id = 'o1'")
    proved(shop)
    assert {name for name, _, _ in classes(shop)} == {
        "entries_missing", "order_points_differ", "balance_differs", "stamps_differ",
    }  # fmt: skip
    accept(shop)
    # What the customer has was right all the time, and stays.
    for is_full in (True, False):
        proved(shop, is_full=is_full)
        assert (found(shop), plans(shop), shop.balance()) == ([], [], 200)
    shop.order("o3", 100)
    shop.award()
    proved(shop)
    assert (found(shop), shop.balance()) == ([], 300)
    shop.run("UPDATE loyalty.accounts SET balance = balance + 1")
    proved(shop)
    assert {name for name, _, _ in classes(shop)} >= {"balance_differs"}


def adjusted(shop: Shop, reference: str) -> None:
    """Give ann eleven points."""
    shop.run(
        "INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, "
        "balance_after, reference_type, reference_id, reference_seq, actor, occurred_at) "
        "SELECT merchant_id, account_id, next_seq, 'adjusted', 11, balance, balance + 11, 'adjustment', :reference, 1, "
        "'test', now() FROM loyalty.accounts",
        reference=reference,
    )
    shop.run("UPDATE loyalty.accounts SET balance = balance + 11, next_seq = next_seq + 1")


def test_another_entry_that_is_lost_at_the_end_is_told_though_one_was_accepted(shop: Shop) -> None:
    shop.order("o1", 100)
    shop.award()
    for reference in ("t1", "t2"):
        adjusted(shop, reference)
    proved(shop)
    corrupt(shop, "DELETE FROM loyalty.ledger_entries WHERE reference_id = 'o1'")
    proved(shop)
    accept(shop)
    assert found(shop) == []
    corrupt(
        shop,
        "DELETE FROM loyalty.ledger_entries WHERE reference_id = 't2'",
        "UPDATE loyalty.accounts SET balance = balance - 11",
    )
    proved(shop)
    assert {name for name, _, _ in classes(shop)} == {"entries_missing"}


def test_an_accepted_entry_that_was_the_last_one_stays_accepted_when_another_follows(shop: Shop) -> None:
    for order in ("o1", "o2"):
        shop.order(order, 100)
        shop.award()
    proved(shop)
    corrupt(shop, "DELETE FROM loyalty.ledger_entries WHERE reference_id = 'o2'")
    proved(shop)
    accept(shop)
    shop.order("o3", 10)
    shop.award()
    for is_full in (False, True):
        proved(shop, is_full=is_full)
        assert found(shop) == []


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ("UPDATE loyalty.order_points SET stamps_in_force = 3",
         "UPDATE loyalty.order_points SET stamps_in_force = 300 WHERE order_id = 'o1'", "order_points_differ"),
        ("UPDATE loyalty.holds SET last_reference_seq = 3", "UPDATE loyalty.holds SET last_reference_seq = 4",
         "redemption_differs"),
        ("DELETE FROM loyalty.ledger_entries WHERE reference_id = 'o1'",
         "UPDATE loyalty.accounts SET stamp_count = stamp_count + 5", "stamps_differ"),
    ],
    ids=["stamps of an order", "entries of a redemption", "stamps of an account"],
)  # fmt: skip
def test_what_was_accepted_without_points_is_told_when_it_becomes_something_else(
    shop: Shop, first: str, second: str, name: str
) -> None:
    shop.program(stamps_per_order=1)
    shop.order("o1", 100)
    shop.award()
    shop.run("SELECT loyalty.redeem_points('m1', 'ann', 'r1', 40)")
    proved(shop)
    corrupt(shop, first)
    proved(shop)
    accept(shop)
    # What happens to the account beside it changes nothing.
    shop.order("o2", 10)
    shop.award()
    proved(shop)
    assert found(shop) == []
    corrupt(shop, second)
    proved(shop)
    assert {name for name, _, _ in classes(shop)} == {name}


def test_what_can_be_repaired_is_not_accepted(drifted: Shop) -> None:
    (first, *_) = found(drifted)
    with drifted.engine.begin() as conn:
        with pytest.raises(NotAcceptableError, match="which can be put right: accepting is for what can't be"):
            integrity_repairs.accept(conn, first.finding_id, **WHO)
        with pytest.raises(NoSuchFindingError):
            integrity_repairs.accept(conn, 10**9, **WHO)
