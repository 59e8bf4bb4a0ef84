"""The proof finds every kind of corruption, names the row and its price, and finds nothing in a right ledger."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from loyalty_pipelines.db import integrity, merges, repairs
from loyalty_pipelines.db.engine import connect, is_transient, reading
from loyalty_pipelines.db.integrity import unproved
from loyalty_pipelines.db.integrity_run import prove
from loyalty_pipelines.domain.integrity import CHECK_FAILED, CLASSES, PROOFS
from loyalty_pipelines.domain.merges import Merge
from loyalty_pipelines.domain.repairs import Adjustment
from tests.expiry import Nights, ago
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
MORE = "points = points + 5, balance_after = balance_after + 5"


def another_entry(customer: str, kind: str) -> Sequence[str]:
    """Return the statements of 100 points more for order o0, with the balance that goes with them."""
    return (
        "INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, "
        "balance_after, reference_type, reference_id, reference_seq, actor, occurred_at) SELECT 'm1', account_id, "
        f"next_seq, '{kind}', 100, balance, balance + 100, 'order', 'o0', 2, 'somebody', now() FROM loyalty.accounts "
        f"WHERE customer_id = '{customer}'",
        f"UPDATE loyalty.accounts SET balance = balance + 100, next_seq = next_seq + 1 "
        f"WHERE customer_id = '{customer}'",
    )


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
    Damage("entry of another merchant",
           [f"UPDATE loyalty.ledger_entries SET merchant_id = 'm2' WHERE {ANN} AND seq = 2"],
           {("balance_differs", "{ann}", 100), ("entries_missing", "{ann}", 100), ("order_points_differ", "o0", -100),
            ("account_missing", "{ann}", -100), ("stamps_differ", "{ann}", 0), ("order_points_differ", "o0", 100),
            ("entries_missing", "{ann}", 7)}),
    Damage("points of one entry changed",
           [f"UPDATE loyalty.ledger_entries SET {MORE} WHERE {ANN} AND seq = 2"],
           {("balance_differs", "{ann}", -5), ("chain_broken", "{ann}", -5), ("order_points_differ", "o0", 5)}),
    Damage("an entry that doesn't add up",
           ["ALTER TABLE loyalty.ledger_entries DROP CONSTRAINT ledger_entries_add_up",
            f"UPDATE loyalty.ledger_entries SET points = points + 5 WHERE {ANN} AND seq = 2"],
           {("balance_differs", "{ann}", -5), ("chain_broken", "{ann}", -5), ("order_points_differ", "o0", 5)}),
    Damage("a history rewritten in itself",
           [f"UPDATE loyalty.ledger_entries SET {MORE} WHERE {ANN} AND seq = 7",
            f"UPDATE loyalty.accounts SET balance = balance + 5 WHERE {ANN}",
            "UPDATE loyalty.holds SET points = points - 5 WHERE order_id = 'r1'"],
           {("history_changed", "{ann}", 5)}),
    Damage("an entry that says something else",
           [f"UPDATE loyalty.ledger_entries SET reference_id = 'else' WHERE {ANN} AND seq = 1"],
           {("history_changed", "{ann}", 0)}),
    Damage("an entry of another day",
           [f"UPDATE loyalty.ledger_entries SET recorded_at = now() - interval '40 days' WHERE {ANN} AND seq = 2"],
           {("history_changed", "{ann}", 0)}),
    Damage("an entry of another kind of reference",
           [f"UPDATE loyalty.ledger_entries SET reference_type = 'gift' WHERE {ANN} AND seq = 1"],
           {("history_changed", "{ann}", 0)}),
    Damage("an entry with another number of its reference",
           [f"UPDATE loyalty.ledger_entries SET reference_seq = 70 WHERE {ANN} AND seq = 1"],
           {("history_changed", "{ann}", 0)}),
    Damage("an account removed with all that it had",
           ["DELETE FROM loyalty.ledger_entries WHERE account_id IN (SELECT account_id FROM loyalty.accounts "
            "WHERE customer_id = 'cat')", "DELETE FROM loyalty.accounts WHERE customer_id = 'cat'"],
           {("account_missing", "{cat}", -11)}),
    Damage("a redemption with another number of entries",
           ["UPDATE loyalty.holds SET last_reference_seq = 3 WHERE order_id = 'r1'"],
           {("redemption_differs", "r1", 0)}),
    Damage("stamps changed", [f"UPDATE loyalty.accounts SET stamp_count = stamp_count + 1 WHERE {ANN}"],
           {("stamps_differ", "{ann}", 0)}),
    Damage("held too much", [f"UPDATE loyalty.accounts SET held = held + 9 WHERE {ANN}"],
           {("held_differs", "{ann}", -9)}),
    Damage("hold removed", ["DELETE FROM loyalty.holds WHERE order_id = 'r3'"], {("held_differs", "{ann}", -20)}),
    Damage("the next number behind", [f"UPDATE loyalty.accounts SET next_seq = next_seq - 1 WHERE {ANN}"],
           {("next_seq_behind", "{ann}", 0)}),
    Damage("account removed", [f"DELETE FROM loyalty.accounts WHERE {ANN}"], {("account_missing", "{ann}", -118)}),
    Damage("debt that nobody allowed",
           ["ALTER TABLE loyalty.accounts DROP CONSTRAINT accounts_balance_is_no_debt, "
            "DROP CONSTRAINT accounts_held_within_balance",
            f"UPDATE loyalty.accounts SET balance = -3 WHERE {ANN}"],
           {("balance_differs", "{ann}", -121), ("debt_not_allowed", "{ann}", 23)}),
    Damage("an order accounted for with other points",
           ["UPDATE loyalty.order_points SET target_points = 90, in_force_points = 90 WHERE order_id = 'o0'"],
           {("order_points_differ", "o0", 10)}),
    Damage("an order accounted for with other stamps",
           ["UPDATE loyalty.order_points SET stamps_in_force = 3 WHERE order_id = 'o0'"],
           {("order_points_differ", "o0", 0)}),
    Damage("an order that is not accounted for", ["DELETE FROM loyalty.order_points WHERE order_id = 'o0'"],
           {("order_points_differ", "o0", 100)}),
    Damage("an order without points accounted for with none",
           ["DELETE FROM loyalty.order_points WHERE order_id = 'o2'"],
           set()),
    Damage("an order awarded twice past the pipelines",
           [*another_entry("ann", "earned")],
           {("order_awarded_twice", "o0", 100)}),
    Damage("an order awarded twice and accounted for twice",
           [*another_entry("ann", "earned"),
            "UPDATE loyalty.order_points SET target_points = 200, in_force_points = 200 WHERE order_id = 'o0'"],
           {("order_awarded_twice", "o0", 100)}),
    Damage("an order that two accounts deserve",
           [*another_entry("cat", "re-earned"),
            "INSERT INTO loyalty.order_points (merchant_id, order_id, account_id, target_points, in_force_points, "
            "program_version) SELECT 'm1', 'o0', account_id, 100, 100, 1 FROM loyalty.accounts "
            "WHERE customer_id = 'cat'"],
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


# --- what is new since the last proof ---


def test_new_entries_are_proved_and_only_they_are_read(history: Shop) -> None:
    proved(history)
    begin_anew(history)
    (idle,) = proved(history, is_full=False)
    assert (idle.is_full, idle.accounts, idle.entries) == (False, 0, 0)
    begin_anew(history)
    history.order("o9", 10)
    history.order("o10", 10)
    history.award()
    history.run("SELECT loyalty.redeem_points('m1', 'dan', 'r9', 1)")
    (done,) = proved(history, is_full=False)
    assert (done.accounts, done.entries, done.findings) == (2, 3, ())


def begin_anew(shop: Shop) -> None:
    """Let no transaction be older than the proof: one of another test's database would make its entries new again."""
    shop.run("UPDATE loyalty.integrity_marks SET verified_until = pg_current_xact_id()")


def test_an_entry_that_commits_late_is_still_proved(history: Shop) -> None:
    proved(history)
    with history.engine.connect() as late, late.begin():
        # It has its number now, and becomes visible after two proofs and another transaction.
        late.execute(text("SET LOCAL session_replication_role = replica"))
        late.execute(
            text(
                "INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, "
                "balance_after, reference_type, reference_id, reference_seq, actor, occurred_at) "
                "SELECT 'm1', account_id, next_seq, 'adjusted', 5, balance, balance + 5, 'adjustment', 'late', 1, "
                "'somebody', now() FROM loyalty.accounts WHERE customer_id = 'cat'"
            )
        )
        history.order("o9", 10)
        history.award()
        for _ in range(2):
            (before,) = proved(history, is_full=False)
            assert before.findings == ()
        late.commit()
    proved(history, is_full=False)
    assert classes(history) == {
        (name, "account", str(account_id(history, "cat"))) for name in ("balance_differs", "next_seq_behind")
    }


def test_a_proof_of_new_entries_finds_what_touches_them_and_closes_what_was_put_right(history: Shop) -> None:
    ann = str(account_id(history))
    proved(history)
    history.run("UPDATE loyalty.accounts SET balance = balance + 1 WHERE customer_id IN ('ann', 'cat')")
    history.run("UPDATE loyalty.order_points SET target_points = 9, in_force_points = 9 WHERE target_points = 500")
    history.order("o9", 10)
    history.award()
    proved(history, is_full=False)
    # cat and the order of long ago are the night's.
    assert classes(history) == {("balance_differs", "account", ann), ("chain_broken", "account", ann)}
    proved(history)
    assert {what for _, _, what in classes(history)} == {ann, str(account_id(history, "cat")), "b1"}
    history.run("UPDATE loyalty.accounts SET balance = balance - 1 WHERE customer_id = 'cat'")
    history.run("UPDATE loyalty.order_points SET target_points = 500, in_force_points = 500 WHERE target_points = 9")
    proved(history, is_full=False)
    assert {what for _, _, what in classes(history)} == {ann}


def test_a_proof_of_new_entries_closes_nothing_that_it_did_not_look_at(history: Shop) -> None:
    corrupt(history, "DELETE FROM loyalty.notifications WHERE template = 'loyalty_points_expired'")
    history.run("UPDATE loyalty.accounts SET expires_at = NULL WHERE customer_id = 'ann'")
    proved(history)
    before = classes(history)
    assert {name for name, _, _ in before} == {"mail_missing", "date_missing"}
    proved(history, is_full=False)
    assert classes(history) == before


@pytest.mark.parametrize("before", ["date_too_late", "history_changed"])
def test_a_changed_history_is_not_sealed_over_by_what_comes_after_it(history: Shop, before: str) -> None:
    if before == "date_too_late":
        history.run("UPDATE loyalty.accounts SET expires_at = expires_at + interval '1 day' WHERE customer_id = 'cat'")
    proved(history)
    corrupt(
        history,
        "UPDATE loyalty.ledger_entries SET points = points + 1000, balance_after = balance_after + 1000 "
        "WHERE account_id = (SELECT account_id FROM loyalty.accounts WHERE customer_id = 'cat')",
        "UPDATE loyalty.accounts SET balance = balance + 1000 WHERE customer_id = 'cat'",
    )
    if before == "history_changed":
        proved(history)
    history.run("SELECT loyalty.redeem_points('m1', 'cat', 'r9', 1)")
    for is_full in (False, True, False, True):
        proved(history, is_full=is_full)
    (changed,) = found(history, classes=["history_changed"])
    assert (changed.object_id, changed.points_difference) == (str(account_id(history, "cat")), 1000)
    assert changed.times_seen >= 2


def test_a_merchant_of_whom_nothing_is_left_is_missed(history: Shop) -> None:
    proved(history)
    for table in ("ledger_entries", "accounts", "order_points", "holds", "notifications"):
        corrupt(history, f"DELETE FROM loyalty.{table}")
    proved(history)
    assert {name for name, _, _ in classes(history)} == {"account_missing"}
    assert sum(one.points_difference for one in found(history)) < 0


def test_an_account_that_is_gone_costs_its_balance_whichever_proof_misses_it(shop: Shop) -> None:
    shop.order("o1", 100)
    shop.award()
    proved(shop)
    shop.run("SELECT loyalty.redeem_points('m1', 'ann', 'r1', 40)")
    corrupt(shop, "DELETE FROM loyalty.accounts")
    for is_full in (False, False, True):
        proved(shop, is_full=is_full)
        (missing,) = found(shop, classes=["account_missing"])
        assert missing.points_difference == -60


def test_dates_that_wait_for_their_next_night_stay_as_they_were_found(history: Shop) -> None:
    history.run("UPDATE loyalty.accounts SET expires_at = NULL WHERE customer_id = 'ann'")
    proved(history)
    history.run("UPDATE loyalty.expiry_terms SET is_complete = false")
    proved(history)
    assert {name for name, _, _ in classes(history)} == {"date_missing"}
    history.run("UPDATE loyalty.expiry_terms SET is_complete = true")
    proved(history)
    (one,) = found(history, is_closed_too=True)
    assert (one.times_seen, one.closed_at) == (3, None)


def test_a_merchant_that_was_never_proved_is_proved_in_full(history: Shop) -> None:
    history.run("UPDATE loyalty.accounts SET balance = balance + 1 WHERE customer_id = 'ann'")
    (done,) = proved(history, is_full=False)
    assert (done.is_full, done.open_findings) == (True, 1)


def test_marks_of_another_server_count_for_nothing(history: Shop) -> None:
    """A restored dump brings the transaction numbers of the server that it was taken from."""
    proved(history)
    corrupt(
        history,
        "UPDATE loyalty.integrity_marks SET verified_until = '900000000'",
        "UPDATE loyalty.ledger_entries SET recorded_xid = '800000000'",
    )
    (restored,) = proved(history, is_full=False)
    assert (restored.is_full, restored.findings) == (True, ())
    history.order("o9", 10)
    history.award()
    (done,) = proved(history, is_full=False)
    assert (done.is_full, done.entries, done.findings) == (False, 1, ())


# --- findings have a history ---


def test_a_finding_is_seen_again_closes_and_comes_back_as_another_one(history: Shop) -> None:
    for change in ("+ 1", "+ 1", "- 2", "+ 3"):
        history.run(f"UPDATE loyalty.accounts SET balance = balance {change} WHERE customer_id = 'ann'")
        proved(history)
    back, first = sorted(found(history, is_closed_too=True), key=lambda one: one.closed_at is not None)
    assert (back.points_difference, back.times_seen, back.closed_at) == (3, 1, None)
    assert (first.points_difference, first.times_seen) == (2, 2)
    assert first.closed_at
    assert first.first_seen_at < first.last_seen_at < first.closed_at <= back.first_seen_at


def test_a_history_that_is_broken_is_not_sealed(history: Shop) -> None:
    proved(history)
    history.order("o9", 10)
    history.award()
    corrupt(history, "UPDATE loyalty.ledger_entries SET points = 11, balance_after = balance_after + 1 "
            "WHERE reference_id = 'o9'")  # fmt: skip
    for is_full in (False, True, False):
        proved(history, is_full=is_full)
        assert {name for name, _, _ in classes(history)} == {"balance_differs", "order_points_differ"}
        assert history.value("SELECT max(entries) FROM loyalty.account_seals") == 7


# --- merchants ---


def test_every_account_is_proved_whoever_has_left(history: Shop) -> None:
    history.run("UPDATE loyalty.accounts SET is_active = false WHERE customer_id = 'ann'")
    history.run("DELETE FROM sample_shop.merchants")
    history.run("UPDATE loyalty.accounts SET balance = balance - 1 WHERE customer_id = 'ann'")
    (done,) = proved(history)
    assert (done.merchant_id, done.open_findings, done.points_at_risk) == ("m1", 1, 1)


def test_a_merchant_that_cannot_be_proved_is_a_finding_and_the_others_are_proved(history: Shop) -> None:
    for merchant in ("m0", "m2"):
        history.merchant(merchant, **PROGRAM)
        history.order("x", 10, merchant=merchant)
    history.award()
    history.run("UPDATE loyalty.accounts SET balance = balance + 1 WHERE merchant_id = 'm2'")
    proved(history)
    # What no arithmetic takes: PostgreSQL refuses the statement, for all merchants at once.
    corrupt(
        history,
        "ALTER TABLE loyalty.accounts DROP CONSTRAINT accounts_seq_starts_at_one",
        "UPDATE loyalty.accounts SET next_seq = -9223372036854775808 WHERE merchant_id = 'm0'",
    )
    history.run("UPDATE loyalty.accounts SET balance = balance + 1 WHERE customer_id = 'ann' AND merchant_id = 'm1'")
    done = {one.merchant_id: one for one in prove(history.engine, is_full=True, run_id="night")}
    assert "out of range" in (done["m0"].failure or "")
    assert [(name, done[name].failure, done[name].open_findings) for name in ("m1", "m2")] == [
        ("m1", None, 1), ("m2", None, 1),
    ]  # fmt: skip
    (failed,) = found(history, classes=[CHECK_FAILED])
    assert (failed.merchant_id, failed.object_type, failed.run_id) == ("m0", "merchant", "night")
    assert "out of range" in failed.evidence["why"]
    with reading(history.engine) as conn:
        assert [one.merchant_id for one in unproved(conn, hours=26)] == ["m0"]
    history.run("UPDATE loyalty.accounts SET next_seq = 2 WHERE merchant_id = 'm0'")
    proved(history, is_full=False)
    assert found(history, classes=[CHECK_FAILED]) == []
    with reading(history.engine) as conn:
        assert unproved(conn, hours=26) == []


def test_a_merchant_that_cannot_be_proved_is_tried_in_full_each_hour_until_that_succeeds(history: Shop) -> None:
    proved(history)
    begin_anew(history)
    next_seq = history.account("cat").next_seq
    # An account without new entries: the hour's proof has no reason to look at it.
    corrupt(
        history,
        "ALTER TABLE loyalty.accounts DROP CONSTRAINT accounts_seq_starts_at_one",
        "UPDATE loyalty.accounts SET next_seq = -9223372036854775808 WHERE customer_id = 'cat'",
    )
    for is_full in (True, False, False):
        (failed,) = prove(history.engine, is_full=is_full, run_id="proof")
        assert (failed.is_full, "out of range" in (failed.failure or "")) == (True, True)
    (one,) = found(history, classes=[CHECK_FAILED])
    assert (one.times_seen, one.closed_at) == (3, None)
    history.run("UPDATE loyalty.accounts SET next_seq = :next_seq WHERE customer_id = 'cat'", next_seq=next_seq)
    for is_full in (True, False):
        (done,) = proved(history, is_full=False)
        assert (done.is_full, found(history)) == (is_full, [])


def test_a_merchant_is_late_when_its_full_proof_is_and_never_before_it_had_accounts_for_so_long(history: Shop) -> None:
    def late() -> list[str]:
        with reading(history.engine) as conn:
            return [one.merchant_id for one in unproved(conn, hours=26)]

    history.merchant("empty")
    assert late() == []
    history.run("UPDATE loyalty.accounts SET created_at = now() - interval '27 hours'")
    assert late() == ["m1"]
    proved(history)
    assert late() == []
    history.run("UPDATE loyalty.integrity_marks SET fully_verified_at = now() - interval '27 hours'")
    proved(history, is_full=False)
    assert late() == ["m1"]


def test_a_second_proof_waits_for_the_first(history: Shop) -> None:
    with history.engine.connect() as first:
        integrity.lock(first)
        first.commit()
        with ThreadPoolExecutor(1) as second:
            waiting = second.submit(proved, history)
            until_somebody_waits_for_a_lock(history)
            assert not waiting.done()
            integrity.unlock(first)
            first.commit()
            assert len(waiting.result(timeout=60)) == 1


def until_somebody_waits_for_a_lock(shop: Shop) -> None:
    for _ in range(600):
        if shop.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            return
        time.sleep(0.05)
    raise AssertionError("nobody waits")


def test_a_lost_connection_is_no_finding_and_may_be_tried_again(history: Shop) -> None:
    with pytest.raises(OperationalError) as lost:
        list(prove(connect("postgresql://nobody@127.0.0.1:1/nowhere"), is_full=True))
    assert is_transient(lost.value)
    assert found(history) == []
