"""`loyalty account explain`: what it says of real histories."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.cli.explain import MANY_LOTS
from loyalty_pipelines.db import sources
from loyalty_pipelines.db.engine import reading
from loyalty_pipelines.db.explain import explain_account
from loyalty_pipelines.domain.explain import Explanation
from tests.checkout import Checkout
from tests.cli import Cli
from tests.shop import Shop


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def checkout(shop: Shop) -> Checkout:
    """A checkout at 'm1', where a point is worth 0.10 by version 2 of the programme."""
    shop.program(point_value_amount=Decimal("0.10"))
    return Checkout(shop.engine)


def explained(shop: Shop, customer: str = "ann", *, at: datetime | None = None) -> Explanation:
    """Explain an account now or at an instant, and check that every point of it is accounted for."""
    with reading(shop.engine, is_one_snapshot=True) as conn:
        found = explain_account(conn, "m1", customer, at=at).explanation
    owed = sum(debt.points for debt in found.debts)
    assert sum(lot.left for lot in found.lots) - owed == found.balance
    uses = [use for lot in found.lots for use in lot.uses]
    credited = sum(lot.entry.points for lot in found.lots)
    assert sum(use.points for use in uses) + owed == credited - found.balance
    if at is None:
        assert found.balance == shop.balance(customer)
    return found


def lots(document: Any) -> list[tuple[str, int, int, dict[str, int]]]:
    """Return of each lot its cause, points, points left, and what they went for."""
    return [
        (
            lot["cause"],
            lot["points"],
            lot["left"],
            {f"{'debt ' * use['is_debt']}{use['cause']} {use['reference_id']}": use["points"] for use in lot["uses"]},
        )
        for lot in document["lots"]
    ]


def lines(text: str) -> str:
    """Return the text with its white space folded, so that a sentence is found in a table's cell, too."""
    return " ".join(text.split())


# --- what became of points ---


def test_points_are_followed_from_their_order_to_the_order_that_spent_them(
    cli: Cli, shop: Shop, checkout: Checkout
) -> None:
    shop.order("a", "30.00")
    shop.award()
    shop.order("b", "50.00")
    shop.award()
    checkout.redeem("c", 40)
    shop.order("c", "20.00", points_redeemed=40)
    shop.award()
    document = cli.ok("account", "explain", "m1", "ann", "--json").document
    assert lots(document) == [
        ("earned", 30, 0, {"redeemed c": 30}),
        ("earned", 50, 40, {"redeemed c": 10}),
        ("earned", 16, 16, {}),
    ]
    assert (document["balance"], document["spendable"], document["entries"]) == (56, 56, 4)
    assert document["totals"] == {
        "earned": {"entries": 3, "points": 96},
        "redeemed": {"entries": 1, "points": -40},
    }
    written = {lot["reference_id"]: (lot["actor"], lot["run_id"]) for lot in document["lots"]}
    assert written == dict.fromkeys("abc", ("test", "test-run"))
    order = {one["order_id"]: one for one in document["orders"]}["c"]
    facts = (
        "total_amount",
        "points_redeemed",
        "redeemed_amount",
        "net_amount",
        "program_version",
        "rule",
        "rule_points",
    )
    assert [order[name] for name in facts] == ["20", 40, "4", "16", 2, "1 point per 1.00", "16"]
    text = cli.ok("account", "explain", "m1", "ann").out
    assert "10 redeemed on order c (entry 3," in text
    assert "by test, run test-run" in text
    assert "Left of all credits 56, less open debts 0: the balance is 56." in text


def test_an_order_is_shown_with_its_basis_and_its_rule_in_words(cli: Cli, shop: Shop, checkout: Checkout) -> None:
    shop.program(point_value_amount=Decimal("0.10"), multiplier=Decimal("1.5"))
    shop.order("first", "100.00")
    shop.award()
    checkout.redeem("a", 50)
    shop.order("a", "28.50", points_redeemed=50, paid_at="2026-01-03T10:00:00Z")
    shop.refund("a", "4.51")
    shop.award()
    text = lines(cli.ok("account", "explain", "m1", "ann").out)
    assert "2026-01-03 10:00:00 UTC total 28.50 version 3: 1 point per 1.00, x 1.5, floor -> 27 27 0" in text
    assert "refunded -4.51 50 points redeemed -5.00 net 18.99 EUR" in text


@pytest.mark.parametrize(("clawback", "debt", "waived"), [("clamp_to_zero", 0, 100), ("allow_negative", 100, 0)])
def test_a_refund_after_spending_is_a_debt_or_could_not_be_taken_back(
    cli: Cli, shop: Shop, checkout: Checkout, clawback: str, debt: int, waived: int
) -> None:
    """150 earned, 100 spent, order refunded in full; then 130 earned."""
    shop.program(clawback=clawback)
    shop.order("a", "150.00")
    shop.award()
    checkout.redeem("b", 100)
    shop.set_status("a", "refunded")
    shop.award()
    document = cli.ok("account", "explain", "m1", "ann", "--json").document
    assert lots(document) == [("earned", 150, 0, {"redeemed b": 100, "reversed a": 50})]
    assert [one["points"] for one in document["debts"]] == [debt] * (debt > 0)
    assert [(one["deserved_points"], one["waived_points"]) for one in document["orders"]] == [(0, waived)]
    text = cli.ok("account", "explain", "m1", "ann").out
    assert ("Order a: 100 could not be taken back." in text) == (waived > 0)
    assert ("Open debt of entry 3 (taken back: order a): 100 points" in text) == (debt > 0)
    shop.order("c", "130.00")
    shop.award()
    document = cli.ok("account", "explain", "m1", "ann", "--json").document
    paid = {"debt reversed a": 100} if debt else {}
    assert lots(document)[1:] == [("earned", 130, 130 - debt, paid)]
    assert document["debts"] == []
    assert ("100 paid the debt of entry 3 (taken back: order a)" in cli.ok("account", "explain", "m1", "ann").out) == (
        debt > 0
    )


def test_points_that_expired_and_were_given_back_say_so(cli: Cli, shop: Shop, checkout: Checkout) -> None:
    shop.order("a", "100.00")
    shop.award()
    checkout.redeem("b", 30)
    shop.expire("ann")
    checkout.release("b")
    shop.set_status("a", "refunded")
    shop.award()
    document = cli.ok("account", "explain", "m1", "ann", "--json").document
    (_, _, _, spent), (_, _, left, _) = lots(document)
    assert list(spent.values()) == [30, 70]
    assert (document["balance"], left) == (30, 30)
    assert document["orders"][0]["waived_points"] == 100
    text = cli.ok("account", "explain", "m1", "ann").out
    assert "70 expired (entry 3," in text
    assert "given back: redeemed on order b" in text
    assert "Order a: 100 could not be taken back." in text


def test_an_order_that_moved_is_explained_with_both_customers(cli: Cli, shop: Shop) -> None:
    shop.order("a", "60.00")
    shop.award()
    shop.change("a", customer_id="bob")
    before = lines(cli.ok("account", "explain", "m1", "ann").out)
    assert "Order a: it belongs to customer bob by now." in before
    assert "Order a: it deserves 0 here now, and the ledger says 60." in before
    shop.award()
    document = cli.ok("account", "explain", "m1", "ann", "--json").document
    assert lots(document) == [("earned", 60, 0, {"reversed a": 60})]
    assert document["orders"][0]["is_different"] is False
    document = cli.ok("account", "explain", "m1", "bob", "--json").document
    assert [lot[1:3] for lot in lots(document)] == [(60, 60)]
    assert document["orders"][0]["holder_customer_id"] == "bob"


def test_a_welcome_bonus_says_what_it_is_and_is_spent_first(cli: Cli, shop: Shop) -> None:
    shop.program(welcome_bonus_points=50)
    shop.order("a", "10.00")
    shop.award()
    shop.spend("ann", 55)
    text = lines(cli.ok("account", "explain", "m1", "ann").out)
    assert "welcome bonus" in text
    assert explained(shop).points == {"bonus": 50, "earned": 10, "redeemed": -55}
    document = cli.ok("account", "explain", "m1", "ann", "--json").document
    assert document["totals"]["bonus"] == {"entries": 1, "points": 50}
    assert [(lot["kind"], lot["left"]) for lot in document["lots"]] == [("bonus", 0), ("earned", 5)]


def test_adjustments_openings_and_debits_by_hand_say_why(cli: Cli, shop: Shop) -> None:
    shop.order("a", "0.50")
    shop.award()
    for kind, points, reference in (("opening", 40, "opening"), ("adjusted", -15, "adjustment")):
        shop.run(
            "SELECT loyalty.post_entry('m1', account_id, :kind, :points, 0, 0, :reference, 'r', 1, 'a wrong card', "
            "'anna', NULL) FROM loyalty.accounts",
            kind=kind,
            points=points,
            reference=reference,
        )
    text = lines(cli.ok("account", "explain", "m1", "ann").out)
    assert "opening balance" in text
    assert "15 adjusted: a wrong card (entry 2," in text
    assert "by anna" in text


# --- what changed in the shop since ---


def test_what_the_shop_no_longer_shows_or_shows_otherwise_is_said(cli: Cli, shop: Shop) -> None:
    for order in ("gone", "grown", "cancelled", "anonymous", "strange"):
        shop.order(order, "10.00")
    shop.award()
    shop.delete("gone")
    shop.change("grown", total=Decimal("25.00"))
    shop.set_status("cancelled", "cancelled")
    shop.change("anonymous", customer_id=None)
    shop.change("strange", currency="USD")
    text = lines(cli.ok("account", "explain", "m1", "ann").out)
    assert "the shop doesn't show it: its points stay 10 0" in text
    assert "Order grown: it deserves 25 here now, and the ledger says 10." in text
    assert "the order is cancelled -> 0" in text
    assert "Order cancelled: it deserves 0 here now, and the ledger says 10." in text
    assert "without a customer by now: its points stay" in text
    assert "not decided: order in USD, merchant in EUR" in text
    assert "if it doesn't: loyalty award --sweep --merchant m1" in text
    assert text.count("it deserves") == 2
    shop.award()
    assert "it deserves" not in cli.ok("account", "explain", "m1", "ann").out


def test_another_version_that_applies_by_now_is_named(cli: Cli, shop: Shop) -> None:
    shop.order("a", "10.00", paid_at="2026-01-03T10:00:00Z")
    shop.award()
    shop.program(points_per_unit=3, valid_from="2026-01-01T00:00:00Z")
    text = lines(cli.ok("account", "explain", "m1", "ann").out)
    assert "version 1: 1 point per 1.00 -> 10 10 0" in text
    assert "Order a: it deserves 30 here now by version 2, and the ledger says 10." in text


def test_the_points_by_the_rule_are_what_the_ledger_awards(shop: Shop, checkout: Checkout) -> None:
    """The basis that is shown is the one that orders are awarded by."""
    shop.program(
        points_per_unit=Decimal("1.7"), unit_amount=Decimal("1.3"), multiplier=Decimal("1.1"), rounding="ceil",
        point_value_amount=Decimal("0.07"),
    )  # fmt: skip
    shop.order("first", "1000.00")
    shop.award()
    chance = random.Random(1)
    for number in range(30):
        order, redeemed = str(number), chance.choice([0, 0, 5, 10])
        shop.order(order, Decimal(chance.randrange(1, 3000)) / 100, points_redeemed=redeemed)
        if chance.random() < 0.5:
            shop.refund(order, Decimal(chance.randrange(1, 1000)) / 100)
    shop.award()
    with reading(shop.engine, is_one_snapshot=True) as conn:
        orders = explain_account(conn, "m1", "ann").orders or ()
    assert len(orders) > 20
    assert [one.rule_points for one in orders] == [one.target_points for one in orders]
    assert [one.deserved_points for one in orders] == [one.target_points for one in orders]


def test_an_order_that_the_shop_shows_twice_is_not_taken_for_one(cli: Cli, shop: Shop) -> None:
    shop.order("a", "10.00")
    shop.award()
    shop.run("ALTER TABLE sample_shop.orders DROP CONSTRAINT orders_pkey")
    shop.run("INSERT INTO sample_shop.orders SELECT * FROM sample_shop.orders")
    shop.run("UPDATE sample_shop.orders SET total = 25")
    text = lines(cli.ok("account", "explain", "m1", "ann").out)
    assert text.count("the shop shows it 2 times: it is not decided") == 1
    assert "it deserves" not in text


def test_behind_a_withdrawn_mapping_nothing_is_said_of_orders(cli: Cli, shop: Shop) -> None:
    shop.order("a", "10.00")
    shop.award()
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    found = cli.ok("account", "explain", "m1", "ann")
    assert "The mapping of the shop is withdrawn" in found.out
    assert "the balance is 10." in found.out
    assert cli.ok("account", "explain", "m1", "ann", "--json").document["orders"] is None


# --- now and then ---


def test_at_an_instant_the_ledger_is_explained_as_it_was(cli: Cli, shop: Shop, checkout: Checkout) -> None:
    shop.order("a", "100.00")
    shop.award()
    checkout.redeem("b", 60)
    shop.order("c", "5.00")
    shop.award()
    times = [row.recorded_at for row in shop.rows("SELECT recorded_at FROM loyalty.ledger_entries ORDER BY seq")]
    found = [cli.ok("account", "explain", "m1", "ann", "--at", one.isoformat(), "--json").document for one in times]
    assert [one["balance"] for one in found] == [100, 40, 45]
    assert [one["entries"] for one in found] == [1, 2, 3]
    assert [lot["left"] for lot in found[0]["lots"]] == [100]
    assert (found[0]["held"], found[0]["spendable"], found[0]["expires_at"], found[0]["holds"]) == (None,) * 4
    assert {order["order_id"] for order in found[0]["orders"]} == {"a"}
    text = cli.ok("account", "explain", "m1", "ann", "--at", times[1].isoformat()).out
    assert "spendable and when it expired are known for now only" in text
    assert "the balance is 40." in text


def test_an_entry_of_a_transaction_that_began_earlier_counts_with_those_before_it(shop: Shop) -> None:
    """recorded_at is when the transaction began: an entry that waited for the account has an earlier one."""
    shop.order("a", "100.00")
    shop.award()
    with shop.engine.connect() as waiting, waiting.begin():
        waiting.exec_driver_sql("SELECT now()")
        shop.order("b", "10.00")
        shop.award()
        waiting.exec_driver_sql("SELECT loyalty.redeem_points('m1', 'ann', 'c', 5)")
    second, third = shop.rows("SELECT recorded_at FROM loyalty.ledger_entries WHERE seq > 1 ORDER BY seq")
    assert third.recorded_at < second.recorded_at
    assert explained(shop, at=third.recorded_at).balance == 105
    assert explained(shop, at=third.recorded_at - timedelta(microseconds=1)).balance == 100


def test_before_the_first_entry_the_balance_is_zero(cli: Cli, shop: Shop) -> None:
    shop.order("a", "100.00")
    shop.award()
    text = cli.ok("account", "explain", "m1", "ann", "--at", "2026-01-01T00:00:00+01:00").out
    assert "Nothing was recorded by then: the first entry is of " in text
    assert "the balance is 0." in text


def test_an_account_without_entries_is_explained(cli: Cli, shop: Shop) -> None:
    shop.order("a", "0.50")
    shop.award()
    text = cli.ok("account", "explain", "m1", "ann").out
    assert "The ledger has no entry of this account." in text
    assert "the balance is 0." in text


def test_a_future_instant_and_one_without_a_zone_are_refused(cli: Cli, shop: Shop) -> None:
    shop.order("a", "100.00")
    shop.award()
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert "is in the future: it is " in cli.refused(2, "account", "explain", "m1", "ann", "--at", later)
    assert "has no time zone" in cli.refused(2, "account", "explain", "m1", "ann", "--at", "2026-01-01T00:00:00")


# --- holds, expiry, who ---


def test_open_holds_and_what_is_spendable_are_shown(cli: Cli, shop: Shop, checkout: Checkout) -> None:
    shop.program(points_expiration_days=30)
    shop.order("a", "100.00")
    shop.award()
    checkout.reserve("b", 30)
    checkout.reserve("c", 20)
    checkout.redeem("d", 5)
    shop.run("UPDATE loyalty.holds SET expires_at = now() - interval '1 minute' WHERE order_id = 'c'")
    found = cli.ok("account", "explain", "m1", "ann").out
    assert "Held for order b: 30 points until " in found
    assert "Held for order c: 20 points until " in found
    assert found.count("which is over") == 1
    assert "order d:" not in found
    document = cli.ok("account", "explain", "m1", "ann", "--json").document
    assert (document["balance"], document["held"], document["spendable"]) == (95, 50, 45)
    assert document["expires_at"] is not None
    shop.run("UPDATE loyalty.accounts SET expires_at = now() - interval '1 minute'")
    assert "The points have expired: they can't be spent any more" in cli.ok("account", "explain", "m1", "ann").out


def test_a_merged_customer_is_explained_by_its_own_ledger(cli: Cli, shop: Shop, checkout: Checkout) -> None:
    """Of bob's 50 points 20 are spent before the merge: nothing of that is ann's own doing."""
    shop.order("a", "50.00", customer="bob")
    shop.order("b", "20.00")
    shop.award()
    checkout.redeem("c", 20, "bob")
    merged_at = shop.value("SELECT now()")
    cli.ok("account", "merge", "m1", "bob", "ann", "--reason", "same person", "--actor", "anna", "--apply")
    text = lines(cli.ok("account", "explain", "m1", "bob").out)
    assert "Customer bob was merged into ann at " in text
    assert "by anna (same person). This is the ledger of bob alone, closed since; what it had is with ann" in text
    assert "loyalty account explain m1 ann" in text
    assert "30 merged into ann (entry 3," in text
    assert "Order a: it belongs to customer ann by now." in text
    document = cli.ok("account", "explain", "m1", "bob", "--json").document
    assert (document["balance"], document["is_active"]) == (0, False)
    assert document["merged_into"]["into_customer_id"] == "ann"
    assert lots(document) == [
        ("earned", 50, 0, {"redeemed c": 20, "merged a": 30}),
        ("merged", 20, 0, {"debt merged a": 20}),
    ]
    text = lines(cli.ok("account", "explain", "m1", "ann").out)
    assert "Customer bob was merged into ann at " in text
    assert "merged from bob: order a" in text
    assert "20 gone before they were merged from bob: same person" in text
    assert "it belongs to" not in text
    document = cli.ok("account", "explain", "m1", "ann", "--json").document
    assert lots(document) == [("earned", 20, 20, {}), ("merged", 50, 30, {"merged bob": 20})]
    assert [one["customer_id"] for one in document["merged_from"]] == ["bob"]
    assert [one["is_different"] for one in document["orders"]] == [False, False]
    assert cli.ok("account", "explain", "m1", "bob", "--at", merged_at.isoformat(), "--json").document["balance"] == 30


def test_who_is_unknown_is_said(cli: Cli, shop: Shop) -> None:
    shop.order("a", "100.00")
    shop.award()
    assert "Customer 'bob' has no account at merchant 'm1'" in cli.refused(1, "account", "explain", "m1", "bob")
    assert "did you mean 'm1'" in cli.refused(1, "account", "explain", "m11", "ann")


def test_a_balance_that_its_entries_don_t_make_is_refused(cli: Cli, shop: Shop) -> None:
    shop.order("a", "100.00")
    shop.award()
    shop.run("UPDATE loyalty.accounts SET balance = 130")
    line = cli.refused(1, "account", "explain", "m1", "ann")
    assert "its balance is not the sum of its entries (130 is not 100)" in line
    assert cli.ok("account", "explain", "m1", "ann", "--at", datetime.now(UTC).isoformat())


# --- many lots ---


def test_of_many_lots_those_with_nothing_left_are_summed_up(cli: Cli, shop: Shop, checkout: Checkout) -> None:
    for number in range(MANY_LOTS):
        shop.order(f"old {number}", "10.00", paid_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number))
    shop.award()
    checkout.redeem("r", 10 * MANY_LOTS - 25)
    shop.set_status("old 0", "refunded")
    shop.award()
    shop.order("new", "7.00")
    shop.award()
    shop.delete("old 1")
    text = cli.ok("account", "explain", "m1", "ann").out
    assert lines(text).count("earned with order") == 3
    assert f"Of {MANY_LOTS - 2} other credits nothing is left; --all lists them:" in text
    points = 10 * (MANY_LOTS - 2)
    assert f"earned {MANY_LOTS - 2} {points} {points - 5} 5" in lines(text)
    assert "Not listed here: 1 order that the shop doesn't show; --all lists them." in text
    everything = cli.ok("account", "explain", "m1", "ann", "--all").out
    assert lines(everything).count("earned with order") == MANY_LOTS + 1
    assert "the balance is 22." in text
    assert "the balance is 22." in everything
    assert len(cli.ok("account", "explain", "m1", "ann", "--json").document["lots"]) == MANY_LOTS + 1


# --- any history ---


@pytest.mark.parametrize("clawback", ["clamp_to_zero", "allow_negative"])
@pytest.mark.parametrize("seed", range(4))
def test_every_balance_of_a_random_history_is_explained_at_every_instant(
    cli: Cli, shop: Shop, checkout: Checkout, clawback: str, seed: int
) -> None:
    shop.program(clawback=clawback, point_value_amount=Decimal("0.10"))
    chance = random.Random(seed)
    orders: list[str] = []
    redeemed: list[str] = []

    def pay() -> None:
        orders.append(f"o{len(orders)}")
        shop.order(orders[-1], Decimal(chance.randrange(1, 100)), customer=chance.choice(["ann", "bob"]))

    def redeem() -> None:
        customer, order = chance.choice(["ann", "bob"]), f"r{len(redeemed)}"
        points = checkout.spendable(customer)
        if points:
            checkout.redeem(order, chance.randrange(1, points + 1), customer)
            redeemed.append(order)

    def adjust() -> None:
        points = chance.randrange(1, 30)
        shop.run(
            "SELECT loyalty.post_entry('m1', account_id, 'adjusted', :points, 0, 0, 'adjustment', "
            "gen_random_uuid()::text, 1, 'why', 'test', NULL) FROM loyalty.accounts WHERE customer_id = 'ann'",
            points=points if checkout.spendable() < points else -points,
        )

    changes = [
        pay,
        pay,
        redeem,
        redeem,
        adjust,
        lambda: shop.refund(chance.choice(orders), chance.randrange(1, 50)),
        lambda: shop.set_status(chance.choice(orders), chance.choice(["cancelled", "refunded", "paid"])),
        lambda: shop.change(chance.choice(orders), customer_id=chance.choice(["ann", "bob"])),
        lambda: redeemed and checkout.release(chance.choice(redeemed)),
        lambda: shop.expire(chance.choice(["ann", "bob"])),
    ]
    pay()
    for _ in range(60):
        chance.choice(changes)()
        shop.award()
        for customer in ("ann", "bob"):
            if shop.rows("SELECT FROM loyalty.accounts WHERE customer_id = :customer", customer=customer):
                explained(shop, customer)
    cli.ok("account", "merge", "m1", "bob", "ann", "--reason", "same person", "--actor", "anna", "--apply")
    shop.award()
    assert shop.problems() == []
    kinds = shop.rows("SELECT DISTINCT kind FROM loyalty.ledger_entries")
    assert {"earned", "reversed", "re-earned", "redeemed", "restored", "expired", "adjusted"} == {
        one.kind for one in kinds
    }
    # A transaction may write several entries.
    for one in shop.rows(
        "SELECT DISTINCT ON (account_id, recorded_at) customer_id, recorded_at, balance_after "
        "FROM loyalty.ledger_entries JOIN loyalty.accounts USING (merchant_id, account_id) "
        "ORDER BY account_id, recorded_at, seq DESC"
    ):
        assert explained(shop, one.customer_id, at=one.recorded_at).balance == one.balance_after
    assert (shop.balance("bob"), explained(shop, "bob").balance) == (0, 0)
    assert explained(shop).balance == shop.balance()


# --- who may ---


def test_the_pipeline_s_role_may_explain_and_writes_nothing(shop: Shop) -> None:
    shop.order("a", "10.00")
    shop.award()
    with reading(shop.engine, is_one_snapshot=True) as conn:
        conn.exec_driver_sql("SET LOCAL ROLE loyalty_pipeline")
        assert explain_account(conn, "m1", "ann").explanation.balance == 10
        with pytest.raises(DBAPIError, match="read-only transaction"):
            conn.exec_driver_sql("UPDATE loyalty.accounts SET held = 0")


def test_an_account_that_changes_while_it_is_explained_is_explained_as_of_one_instant(
    cli: Cli, shop: Shop, checkout: Checkout
) -> None:
    """The holds are read after the orders, for which the command waits here."""
    shop.order("a", "100.00")
    shop.award()
    with ThreadPoolExecutor(1) as pool, shop.engine.connect() as conn, conn.begin() as locked:
        conn.exec_driver_sql("LOCK TABLE sample_shop.orders")
        running = pool.submit(cli.ok, "account", "explain", "m1", "ann", "--json")
        while not shop.value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ):
            assert not running.done()
        checkout.reserve("b", 30)
        locked.rollback()
        document = running.result().document
    assert (document["held"], document["holds"]) == (0, [])


def test_one_snapshot_does_not_see_what_is_written_meanwhile(shop: Shop, checkout: Checkout) -> None:
    shop.order("a", "100.00")
    shop.award()
    with reading(shop.engine, is_one_snapshot=True) as conn:
        assert explain_account(conn, "m1", "ann").explanation.balance == 100
        checkout.redeem("b", 10)
        assert explain_account(conn, "m1", "ann").explanation.balance == 100
    assert explained(shop).balance == 90
