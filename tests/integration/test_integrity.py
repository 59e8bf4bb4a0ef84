"""The proof finds every kind of corruption, names the row and its price, and finds nothing in a right ledger."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from loyalty_pipelines.db import merges, opening_balances, repairs
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.domain.integrity import CHECK_FAILED, CLASSES, PROOFS
from loyalty_pipelines.domain.merges import Merge
from loyalty_pipelines.domain.repairs import Adjustment
from tests.expiry import Nights
from tests.integrity import classes, corrupt, found, proved
from tests.shop import Shop

PROGRAM = {
    "points_expiration_days": 30,
    "stamps_per_order": 1,
    "stamp_target": 10,
    "point_value_amount": Decimal("0.01"),
}


@pytest.fixture
def history(shop: Shop) -> Shop:
    """A shop whose ledger has something of everything: made by what makes it in production."""
    shop.program(**PROGRAM, welcome_bonus_points=7)
    for customer in ("cat", "dan", "old", "older"):
        shop.run("INSERT INTO sample_shop.customers (merchant_id, id) VALUES ('m1', :id)", id=customer)
    for number in range(3):
        shop.order(f"o{number}", 100 + number)
    shop.order("b1", 500, customer="bob")
    shop.award()
    shop.refund("o1", 50)
    shop.set_status("o2", "cancelled")
    shop.award()
    shop.run("SELECT loyalty.redeem_points('m1', 'ann', 'r1', 40)")
    shop.run("SELECT loyalty.redeem_points('m1', 'bob', 'r2', 30)")
    shop.run("SELECT loyalty.release_points('m1', 'r2')")
    shop.run("SELECT loyalty.reserve_points('m1', 'ann', 'r3', 20)")
    with shop.engine.begin() as conn:
        repairs.adjust(
            conn,
            Adjustment(merchant_id="m1", customer_id="cat", points=11, reason="sorry", actor="test", reference="t1"),
        )
        merges.merge_accounts(
            conn, Merge(merchant_id="m1", customer_id="bob", into_customer_id="dan", reason="same", actor="test")
        )
    nights = Nights(shop)
    nights.account("old", active_at=ago(shop, 45), points=60)
    nights.account("older", active_at=ago(shop, 45), points=70)
    nights.run(ago(shop, 28))
    nights.deliver()
    nights.run(ago(shop, 1), run_id="night")
    assert shop.problems() == []
    return shop


def ago(shop: Shop, days: int) -> datetime:
    return shop.value("SELECT now() - make_interval(days => :days)", days=days)


def account_id(shop: Shop, customer: str = "ann") -> int:
    return shop.account(customer).account_id


def test_a_right_ledger_yields_nothing_however_it_is_proved(history: Shop) -> None:
    for is_full in (False, True, False, True):
        (done,) = proved(history, is_full=is_full)
        assert done.findings == ()
    assert found(history, is_closed_too=True) == []
    assert (done.accounts, done.entries) == tuple(
        history.rows("SELECT count(DISTINCT account_id), count(*) FROM loyalty.ledger_entries")[0]
    )


@dataclass(frozen=True)
class Damage:
    """What somebody does behind PostgreSQL's back, and what the proof must say: class, object, points of difference."""

    name: str
    statements: Sequence[str]
    expected: set[tuple[str, str, int]]


ANN = "merchant_id = 'm1' AND account_id = :ann"
# ann: bonus 7, o0 100, o1 101, o2 102, o1 -50, o2 -102, redeemed -40; in this order.
DAMAGES = (
    Damage("balance one up", [f"UPDATE loyalty.accounts SET balance = balance + 1 WHERE {ANN}"],
           {("balance_differs", "{ann}", 1)}),
    Damage("balance one down", [f"UPDATE loyalty.accounts SET balance = balance - 1 WHERE {ANN}"],
           {("balance_differs", "{ann}", -1)}),
    Damage("entry removed", [f"DELETE FROM loyalty.ledger_entries WHERE {ANN} AND seq = 2"],
           {("balance_differs", "{ann}", 100), ("entries_missing", "{ann}", 100), ("order_points_differ", "o0", -100),
            ("stamps_differ", "{ann}", 0)}),
    Damage("newest entry removed", [f"DELETE FROM loyalty.ledger_entries WHERE {ANN} AND seq = 7"],
           {("balance_differs", "{ann}", -40), ("entries_missing", "{ann}", -40), ("redemption_differs", "r1", 40)}),
    Damage("all entries removed", [f"DELETE FROM loyalty.ledger_entries WHERE {ANN}"],
           {("balance_differs", "{ann}", 118), ("entries_missing", "{ann}", 118), ("redemption_differs", "r1", 40),
            ("order_points_differ", "o0", -100), ("order_points_differ", "o1", -51), ("stamps_differ", "{ann}", 0)}),
    Damage("gap in the numbers", [f"UPDATE loyalty.ledger_entries SET seq = 70 WHERE {ANN} AND seq = 7"],
           {("entries_missing", "{ann}", 0), ("next_seq_behind", "{ann}", 0)}),
    Damage("entry of another merchant", [f"UPDATE loyalty.ledger_entries SET merchant_id = 'm2' WHERE {ANN} AND seq = 2"],
           {("balance_differs", "{ann}", 100), ("entries_missing", "{ann}", 100), ("order_points_differ", "o0", -100),
            ("account_missing", "{ann}", 100), ("stamps_differ", "{ann}", 0), ("order_points_differ", "o0", 100),
            ("entries_missing", "{ann}", 7)}),
    Damage("points of one entry changed",
           [f"UPDATE loyalty.ledger_entries SET points = points + 5, balance_after = balance_after + 5 WHERE {ANN} AND seq = 2"],
           {("balance_differs", "{ann}", -5), ("chain_broken", "{ann}", -5), ("order_points_differ", "o0", 5)}),
    Damage("an entry that doesn't add up",
           ["ALTER TABLE loyalty.ledger_entries DROP CONSTRAINT ledger_entries_add_up",
            f"UPDATE loyalty.ledger_entries SET points = points + 5 WHERE {ANN} AND seq = 2"],
           {("balance_differs", "{ann}", -5), ("chain_broken", "{ann}", -5), ("order_points_differ", "o0", 5)}),
    Damage("a history rewritten in itself",
           [f"UPDATE loyalty.ledger_entries SET points = points + 5, balance_after = balance_after + 5 WHERE {ANN} AND seq = 7",
            f"UPDATE loyalty.accounts SET balance = balance + 5 WHERE {ANN}",
            "UPDATE loyalty.holds SET points = points - 5 WHERE order_id = 'r1'"],
           {("history_changed", "{ann}", 0)}),
    Damage("an entry that says something else",
           [f"UPDATE loyalty.ledger_entries SET reference_id = 'else' WHERE {ANN} AND seq = 1"],
           {("history_changed", "{ann}", 0)}),
    Damage("stamps changed", [f"UPDATE loyalty.accounts SET stamp_count = stamp_count + 1 WHERE {ANN}"],
           {("stamps_differ", "{ann}", 0)}),
    Damage("held too much", [f"UPDATE loyalty.accounts SET held = held + 9 WHERE {ANN}"], {("held_differs", "{ann}", 9)}),
    Damage("hold removed", ["DELETE FROM loyalty.holds WHERE order_id = 'r3'"], {("held_differs", "{ann}", 20)}),
    Damage("the next number behind", [f"UPDATE loyalty.accounts SET next_seq = next_seq - 1 WHERE {ANN}"],
           {("next_seq_behind", "{ann}", 0)}),
    Damage("account removed", [f"DELETE FROM loyalty.accounts WHERE {ANN}"], {("account_missing", "{ann}", 118)}),
    Damage("debt that nobody allowed",
           ["ALTER TABLE loyalty.accounts DROP CONSTRAINT accounts_balance_is_no_debt, "
            "DROP CONSTRAINT accounts_held_within_balance",
            f"UPDATE loyalty.accounts SET balance = -3 WHERE {ANN}"],
           {("balance_differs", "{ann}", -121), ("debt_not_allowed", "{ann}", -23)}),
    Damage("an order accounted for with other points",
           ["UPDATE loyalty.order_points SET target_points = 90, in_force_points = 90 WHERE order_id = 'o0'"],
           {("order_points_differ", "o0", 10)}),
    Damage("an order accounted for with other stamps",
           ["UPDATE loyalty.order_points SET stamps_in_force = 3 WHERE order_id = 'o0'"],
           {("order_points_differ", "o0", 0)}),
    Damage("an order that is not accounted for", ["DELETE FROM loyalty.order_points WHERE order_id = 'o0'"],
           {("order_points_differ", "o0", 100)}),
    Damage("an order without points accounted for with none", ["DELETE FROM loyalty.order_points WHERE order_id = 'o2'"],
           set()),
    Damage("an order awarded twice past the pipelines",
           ["INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, balance_after, "
            "reference_type, reference_id, reference_seq, actor, occurred_at) SELECT 'm1', :ann, next_seq, 'earned', 100, "
            "balance, balance + 100, 'order', 'o0', 2, 'somebody', now() FROM loyalty.accounts WHERE account_id = :ann",
            f"UPDATE loyalty.accounts SET balance = balance + 100, next_seq = next_seq + 1 WHERE {ANN}"],
           {("order_awarded_twice", "o0", 100)}),
    Damage("an order awarded twice and accounted for twice",
           ["INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, balance_after, "
            "reference_type, reference_id, reference_seq, actor, occurred_at) SELECT 'm1', :ann, next_seq, 'earned', 100, "
            "balance, balance + 100, 'order', 'o0', 2, 'somebody', now() FROM loyalty.accounts WHERE account_id = :ann",
            f"UPDATE loyalty.accounts SET balance = balance + 100, next_seq = next_seq + 1 WHERE {ANN}",
            "UPDATE loyalty.order_points SET target_points = 200, in_force_points = 200 WHERE order_id = 'o0'"],
           {("order_awarded_twice", "o0", 0)}),
    Damage("an order that two accounts deserve",
           ["INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, balance_after, "
            "reference_type, reference_id, reference_seq, actor, occurred_at) SELECT 'm1', account_id, next_seq, "
            "'re-earned', 100, balance, balance + 100, 'order', 'o0', 2, 'somebody', now() FROM loyalty.accounts "
            "WHERE customer_id = 'cat'",
            "UPDATE loyalty.accounts SET balance = balance + 100, next_seq = next_seq + 1 WHERE customer_id = 'cat'",
            "INSERT INTO loyalty.order_points (merchant_id, order_id, account_id, target_points, in_force_points, "
            "program_version) SELECT 'm1', 'o0', account_id, 100, 100, 1 FROM loyalty.accounts WHERE customer_id = 'cat'"],
           {("order_awarded_twice", "o0", 100)}),
    Damage("a redemption whose hold was given back",
           ["UPDATE loyalty.holds SET status = 'released' WHERE order_id = 'r1'"], {("redemption_differs", "r1", -40)}),
    Damage("a redemption without a hold", ["DELETE FROM loyalty.holds WHERE order_id = 'r1'"],
           {("redemption_differs", "r1", -40)}),
    Damage("a redemption of other points", ["UPDATE loyalty.holds SET points = 45 WHERE order_id = 'r1'"],
           {("redemption_differs", "r1", 5)}),
    Damage("no date", [f"UPDATE loyalty.accounts SET expires_at = NULL WHERE {ANN}"], {("date_missing", "{ann}", 0)}),
    Damage("a date too early", [f"UPDATE loyalty.accounts SET expires_at = expires_at - interval '1 day' WHERE {ANN}"],
           {("date_too_early", "{ann}", 0)}),
    Damage("a date too late", [f"UPDATE loyalty.accounts SET expires_at = expires_at + interval '1 day' WHERE {ANN}"],
           {("date_too_late", "{ann}", 0)}),
    Damage("the last expiry forgotten", ["UPDATE loyalty.accounts SET last_expiry_seq = 0 WHERE customer_id = 'old'"],
           {("last_expiry_differs", "{old}", 0)}),
    Damage("the mail of an expiry removed",
           ["DELETE FROM loyalty.notifications WHERE template = 'loyalty_points_expired' AND customer_id = 'old'"],
           {("mail_missing", "{old}/3", 0)}),
    Damage("the mail of a welcome bonus removed",
           ["DELETE FROM loyalty.notifications WHERE template = 'loyalty_welcome_bonus' AND customer_id = 'ann'"],
           {("mail_missing", "{ann}/1", 0)}),
    Damage("a warning that nobody got",
           ["UPDATE loyalty.accounts SET warned_for = expires_at WHERE customer_id = 'cat'"],
           {("mail_missing", "{cat}", 0)}),
)  # fmt: skip


TABLES = ("accounts", "ledger_entries", "order_points", "holds", "notifications", "account_seals")


def test_every_corruption_is_found_named_and_priced_and_closed_when_it_is_gone(history: Shop) -> None:
    ids = {name: account_id(history, name) for name in ("ann", "old", "cat")}
    constraints = history.rows(
        "SELECT conrelid::regclass AS name, conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint "
        "WHERE contype = 'c' AND connamespace = 'loyalty'::regnamespace"
    )
    proved(history)
    history.run("CREATE SCHEMA saved")
    for table in TABLES:
        history.run(f"CREATE TABLE saved.{table} AS SELECT * FROM loyalty.{table}")
    for damage in DAMAGES:
        expected = {(name, what.format(**ids), points) for name, what, points in damage.expected}
        corrupt(history, *damage.statements, ann=ids["ann"])
        proved(history, run_id=damage.name)
        seen = found(history)
        assert {(one.class_name, one.object_id, one.points_difference) for one in seen} == expected, damage.name
        for one in seen:
            assert one.amount_at_risk == abs(one.points_difference) * (
                Decimal("0.01") if one.merchant_id == "m1" else 0
            )
            assert (one.currency, one.run_id) == ("EUR" if one.merchant_id == "m1" else None, damage.name)
            assert one.evidence
        # As it was.
        for table in TABLES:
            columns = "" if table in ("ledger_entries", "account_seals") else " OVERRIDING SYSTEM VALUE"
            corrupt(
                history,
                f"DELETE FROM loyalty.{table}",
                f"INSERT INTO loyalty.{table}{columns} SELECT * FROM saved.{table}",
            )
        for one in constraints:
            history.run(f"ALTER TABLE {one.name} DROP CONSTRAINT IF EXISTS {one.conname}")
            history.run(f"ALTER TABLE {one.name} ADD CONSTRAINT {one.conname} {one.definition}")
        proved(history, run_id=f"after {damage.name}")
        assert found(history) == [], damage.name
        closed = {
            (one.class_name, one.object_id)
            for one in found(history, is_closed_too=True)
            if one.run_id == damage.name and one.closed_at
        }
        assert closed == {(name, what) for name, what, _ in expected}, damage.name


def test_every_class_has_a_corruption_that_it_finds() -> None:
    assert {name for damage in DAMAGES for name, _, _ in damage.expected} == set(CLASSES)
    assert len({proof.sentence for proof in PROOFS}) == len(PROOFS)
