"""What drifted from an intact ledger is set right, by the ledger, with a reason and a name; and back again."""

import pytest

from loyalty_pipelines.db import integrity_repairs
from loyalty_pipelines.db.engine import reading
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


def plans(shop: Shop) -> list[RepairPlan]:
    with reading(shop.engine) as conn:
        return list(integrity_repairs.plans(conn))


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
    assert columns(drifted) == (1077, 4, 15, 5, 0)
    assert {name for name, _, _ in classes(drifted)} == set(REPAIRABLE)
    with pytest.raises(RepairUndoneError, match=f"Repair {number} was undone already, by Lou at "):
        undo_repair(drifted.engine, number, actor="Kim")
    with pytest.raises(NoSuchRepairError):
        undo_repair(drifted.engine, 10**9, actor="Kim")


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
    ((_, number),) = apply_repairs(drifted.engine, plans(drifted), **WHO)
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


def test_an_entry_that_was_changed_before_it_was_sealed_is_not_taken_for_a_drifted_balance(shop: Shop) -> None:
    for order in ("o1", "o2"):
        shop.order(order, 100)
        shop.award()
    corrupt(shop, "UPDATE loyalty.ledger_entries SET points = 90, balance_after = 90 WHERE reference_id = 'o1'")
    proved(shop)
    (plan,) = plans(shop)
    assert plan.refusal == integrity_repairs.NOT_INTACT


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
        integrity_repairs.accept_history(conn, changed.finding_id, **WHO)
    proved(drifted)
    assert found(drifted) == []
    (closed,) = found(drifted, number=changed.finding_id, is_closed_too=True)
    assert (closed.evidence["accepted_by"], closed.evidence["accepted_because"]) == ("Kim", "drifted")
    corrupt(drifted, "UPDATE loyalty.ledger_entries SET kind = 'redeemed' WHERE reference_id = 'r1'")
    proved(drifted)
    assert {name for name, _, _ in classes(drifted)} == {"history_changed"}


def test_only_an_open_changed_history_can_be_accepted(drifted: Shop) -> None:
    (first, *_) = found(drifted)
    with drifted.engine.begin() as conn:
        with pytest.raises(NotAcceptableError, match="only an open history_changed can be accepted"):
            integrity_repairs.accept_history(conn, first.finding_id, **WHO)
        with pytest.raises(NoSuchFindingError):
            integrity_repairs.accept_history(conn, 10**9, **WHO)
