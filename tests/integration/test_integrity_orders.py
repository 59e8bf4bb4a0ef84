"""Orders and redemptions that are wrong get the right name and price, in time that grows with their number."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event

from loyalty_pipelines.db import integrity, merges
from loyalty_pipelines.domain.merges import Merge
from tests.integrity import corrupt, found, proved
from tests.shop import Shop


def named(shop: Shop) -> set[tuple[str, str, int]]:
    """Prove everything; return class, object and points of what is wrong with orders and redemptions."""
    proved(shop)
    return {
        (one.class_name, one.object_id, one.points_difference) for one in found(shop) if one.object_type != "account"
    }


def merge(shop: Shop, customer: str, into: str) -> None:
    with shop.engine.begin() as conn:
        merges.merge_accounts(
            conn, Merge(merchant_id="m1", customer_id=customer, into_customer_id=into, reason="same", actor="test")
        )


def lower(shop: Shop, points: int, *, order: str = "o1") -> None:
    """Let an order be accounted for with so many points less."""
    corrupt(
        shop,
        "UPDATE loyalty.order_points SET target_points = target_points - :points, "
        "in_force_points = in_force_points - :points WHERE order_id = :order AND in_force_points > 0",
        points=points,
        order=order,
    )


def plant(shop: Shop, points: int, *, order: str = "o1") -> None:
    """Write another credit of ann for an order, with the balance that goes with it and nothing that accounts for it."""
    corrupt(
        shop,
        "INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, "
        "balance_after, reference_type, reference_id, reference_seq, actor, occurred_at) SELECT 'm1', account_id, "
        "next_seq, 're-earned', :points, balance, balance + :points, 'order', :order, 1 + (SELECT max(reference_seq) "
        "FROM loyalty.ledger_entries WHERE reference_id = :order), 'somebody', now() FROM loyalty.accounts "
        "WHERE customer_id = 'ann'",
        "UPDATE loyalty.accounts SET balance = balance + :points, next_seq = next_seq + 1 WHERE customer_id = 'ann'",
        points=points,
        order=order,
    )


@pytest.fixture
def ordered(shop: Shop) -> Shop:
    """Three customers; ann's order o1 was paid and is worth 100 points."""
    for customer in ("ann", "bob", "cat"):
        shop.run("INSERT INTO sample_shop.customers (merchant_id, id) VALUES ('m1', :id)", id=customer)
    shop.order("o1", 100)
    shop.award()
    return shop


# --- awarded twice, or accounted for with other points ---


def test_a_lowered_account_of_an_order_that_was_cancelled_and_paid_again_is_no_second_award(ordered: Shop) -> None:
    for status in ("cancelled", "paid"):
        ordered.set_status("o1", status)
        ordered.award()
    lower(ordered, 40)
    assert named(ordered) == {("order_points_differ", "o1", 40)}


def test_a_lowered_account_of_an_order_that_was_merged_is_no_second_award(ordered: Shop) -> None:
    ordered.order("o2", 10, customer="bob")
    ordered.award()
    merge(ordered, "ann", "bob")
    merge(ordered, "bob", "cat")
    lower(ordered, 40)
    assert named(ordered) == {("order_points_differ", "o1", 40)}


def test_a_lowered_account_of_an_order_that_has_grown_is_no_second_award(ordered: Shop) -> None:
    ordered.order("o1", 250)
    ordered.award()
    lower(ordered, 150)
    assert named(ordered) == {("order_points_differ", "o1", 150)}


def test_a_second_credit_of_another_kind_is_a_second_award_where_nothing_accounts_for_it(ordered: Shop) -> None:
    plant(ordered, 100)
    assert named(ordered) == {("order_awarded_twice", "o1", 100)}


def test_a_credit_that_gives_back_what_was_reversed_is_no_second_award(ordered: Shop) -> None:
    ordered.refund("o1", 60)
    ordered.award()
    plant(ordered, 60)
    assert named(ordered) == {("order_points_differ", "o1", 60)}


def test_an_order_accounted_for_on_another_account_costs_what_it_moves(ordered: Shop) -> None:
    ordered.order("o2", 10, customer="cat")
    ordered.award()
    corrupt(ordered, "UPDATE loyalty.order_points SET account_id = (SELECT account_id FROM loyalty.accounts "
            "WHERE customer_id = 'cat') WHERE order_id = 'o1'")  # fmt: skip
    assert named(ordered) == {("order_points_differ", "o1", 100)}


# --- whose redemption it is ---


def move_hold(shop: Shop, customer: str) -> None:
    corrupt(
        shop,
        "UPDATE loyalty.holds SET account_id = (SELECT account_id FROM loyalty.accounts WHERE customer_id = :customer)",
        customer=customer,
    )


def test_an_open_hold_on_the_account_of_another_customer_is_found_by_what_both_hold(ordered: Shop) -> None:
    ordered.order("o2", 10, customer="bob")
    ordered.award()
    ordered.run("SELECT loyalty.reserve_points('m1', 'ann', 'r1', 40)")
    move_hold(ordered, "bob")
    proved(ordered)
    ann, bob = (str(ordered.account(name).account_id) for name in ("ann", "bob"))
    assert {(one.class_name, one.object_id, one.points_difference) for one in found(ordered)} == {
        ("held_differs", ann, -40), ("held_differs", bob, 40),
    }  # fmt: skip


@pytest.mark.parametrize("is_given_back", [False, True])
def test_a_redemption_on_the_account_of_another_customer_is_found(ordered: Shop, is_given_back: bool) -> None:
    ordered.order("o2", 10, customer="bob")
    ordered.award()
    ordered.run("SELECT loyalty.redeem_points('m1', 'ann', 'r1', 40)")
    if is_given_back:
        ordered.run("SELECT loyalty.release_points('m1', 'r1')")
    assert named(ordered) == set()
    move_hold(ordered, "bob")
    assert named(ordered) == {("redemption_differs", "r1", 40)}
    (one,) = found(ordered)
    ann, bob = (ordered.account(name).account_id for name in ("ann", "bob"))
    assert (one.evidence["account_of_entries"], one.evidence["account_of_hold"]) == (ann, bob)
    move_hold(ordered, "ann")
    assert named(ordered) == set()


def test_a_redemption_goes_along_with_a_chain_of_merges_and_is_missed_elsewhere(ordered: Shop) -> None:
    ordered.run("SELECT loyalty.redeem_points('m1', 'ann', 'r1', 40)")
    ordered.order("o2", 10, customer="bob")
    ordered.order("o3", 10, customer="cat")
    ordered.award()
    for customer, into in (("ann", "bob"), ("bob", "cat")):
        merge(ordered, customer, into)
        assert named(ordered) == set()
    move_hold(ordered, "bob")
    assert named(ordered) == {("redemption_differs", "r1", 40)}


def test_a_redemption_stays_where_a_merge_that_was_parted_by_hand_has_left_it(ordered: Shop) -> None:
    """As docs/accounts.md says: redemptions stay with the one who was merged into."""
    ordered.run("SELECT loyalty.redeem_points('m1', 'ann', 'r1', 40)")
    merge(ordered, "ann", "bob")
    ordered.run("DELETE FROM loyalty.merged_customers")
    ordered.run("UPDATE loyalty.accounts SET is_active = true")
    assert named(ordered) == set()


def test_an_order_that_another_customer_redeems_for_after_it_was_given_back_is_that_ones(ordered: Shop) -> None:
    ordered.order("o2", 100, customer="bob")
    ordered.award()
    ordered.run("SELECT loyalty.redeem_points('m1', 'ann', 'r1', 40)")
    ordered.run("SELECT loyalty.release_points('m1', 'r1')")
    ordered.run("SELECT loyalty.reserve_points('m1', 'bob', 'r1', 40)")
    assert named(ordered) == set()
    ordered.run("SELECT loyalty.release_points('m1', 'r1')")
    assert named(ordered) == set()


# --- what a damaged merchant costs ---

MANY = 400


def work(plan: dict[str, Any]) -> Iterator[int]:
    """Yield how many rows each step of an executed plan has looked at, over all its loops."""
    removed = sum(value for name, value in plan.items() if name.startswith("Rows Removed"))
    yield plan["Actual Loops"] * (plan["Actual Rows"] + removed)
    for step in plan.get("Plans", ()):
        yield from work(step)


def explained(conn: Connection) -> dict[str, int]:
    """Have what writes explained while it is executed; return, as it comes, the most rows that a step has looked at."""
    seen: dict[str, int] = {}

    def before(_: Any, __: Any, statement: str, values: Any, *___: Any) -> tuple[str, Any]:
        code = "\n".join(line for line in statement.splitlines() if not line.startswith("--"))
        is_writing = code.startswith(("INSERT", "WITH"))
        return (f"EXPLAIN (ANALYZE, FORMAT JSON) {code}" if is_writing else statement), values

    def after(_: Any, cursor: Any, statement: str, *__: Any) -> None:
        if statement.startswith("EXPLAIN"):
            (row,) = cursor.fetchall()
            plan = json.loads(row[0]) if isinstance(row[0], str) else row[0]
            seen[f"{len(seen)} {' '.join(statement.split()[4:8])}"] = max(work(plan[0]["Plan"]))

    event.listen(conn, "before_cursor_execute", before, retval=True)
    event.listen(conn, "after_cursor_execute", after)
    return seen


@pytest.mark.parametrize("seen_before", [0, 1])
def test_what_a_proof_looks_at_grows_with_how_much_is_wrong_and_not_with_its_square(
    ordered: Shop, seen_before: int
) -> None:
    corrupt(
        ordered,
        "INSERT INTO loyalty.accounts (merchant_id, customer_id, balance, next_seq) "
        "SELECT 'm1', 'c' || n, 2, 2 FROM generate_series(1, :many) AS n",
        "INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, "
        "balance_after, reference_type, reference_id, reference_seq, actor, occurred_at) "
        "SELECT 'm1', account_id, 1, 'earned', 1, 0, 1, 'order', customer_id, 1, 'test', now() "
        "FROM loyalty.accounts WHERE customer_id LIKE 'c%' AND balance = 2",
        many=MANY,
    )
    ordered.run("ANALYZE loyalty.accounts, loyalty.ledger_entries, loyalty.order_points")
    for _ in range(seen_before):
        proved(ordered)
    with ordered.engine.connect() as conn, conn.begin():
        seen = explained(conn)
        integrity.find_everything(conn, None)
        integrity.seal(conn, is_full=True)
        integrity.record(conn, None, is_full=True, run_id="many")
        assert conn.exec_driver_sql("SELECT count(*) FROM found").scalar_one() == 2 * MANY
    assert len(seen) >= 10
    assert {name: rows for name, rows in seen.items() if rows > 10 * MANY} == {}
