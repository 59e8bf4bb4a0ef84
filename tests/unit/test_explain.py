"""What becomes of points: the lots of an account, without a database."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty_pipelines.domain.explain import (
    Entry,
    Explanation,
    LedgerContradictsItselfError,
    amount_in_words,
    explain,
    rule_in_words,
)
from loyalty_pipelines.domain.programs import ProgramRules

START = datetime(2026, 1, 1, tzinfo=UTC)
ORDER_KINDS = ("earned", "re-earned", "reversed")
Step = tuple[str, int, str]  # cause, points and reference


def entry(seq: int, step: Step, before: int) -> Entry:
    cause, points, reference = step
    kind, reference_type, reason = cause, "redemption" if cause in ("redeemed", "restored") else cause, None
    if cause in ORDER_KINDS:
        reference_type = "order"
    elif cause == "merged order":
        kind, reference_type, reason = "re-earned" if points > 0 else "reversed", "order", "merged from bob"
    elif cause == "merged":
        kind, reference_type, reason = "adjusted", "merge", "same person"
    return Entry(
        seq=seq,
        kind=kind,
        points=points,
        balance_before=before,
        balance_after=before + points,
        reference_type=reference_type,
        reference_id=reference,
        reason=reason,
        actor="test",
        run_id=None,
        occurred_at=START,
        # Some of them in one transaction.
        recorded_at=START + timedelta(hours=seq // 3),
    )


def ledger(steps: Iterable[Step]) -> list[Entry]:
    entries: list[Entry] = []
    for seq, step in enumerate(steps, start=1):
        entries.append(entry(seq, step, entries[-1].balance_after if entries else 0))
    return entries


def traced(*steps: Step) -> Explanation:
    return explain(ledger(steps), merchant_id="m1", customer_id="ann")


def fates(explanation: Explanation) -> list[tuple[int, dict[str, int], int]]:
    """Return what became of each lot: entry, points by what they went for, and what is left."""
    found = []
    for lot in explanation.lots:
        went: Counter[str] = Counter()
        for use in lot.uses:
            went[f"{use.cause} {use.entry.reference_id}"] += use.points
        found.append((lot.entry.seq, dict(went), lot.left))
    return found


# --- examples ---


def test_points_are_spent_oldest_first() -> None:
    found = traced(("earned", 100, "a"), ("earned", 50, "b"), ("redeemed", -120, "x"), ("earned", 10, "c"))
    assert fates(found) == [(1, {"redeemed x": 100}, 0), (2, {"redeemed x": 20}, 30), (4, {}, 10)]
    assert (found.balance, found.debts) == (40, ())


def test_a_reversal_takes_the_points_of_its_own_order_the_newest_first() -> None:
    found = traced(
        ("earned", 30, "b"),
        ("earned", 100, "a"),
        ("reversed", -60, "a"),
        ("re-earned", 20, "a"),
        ("reversed", -50, "a"),
    )
    assert fates(found) == [(1, {}, 30), (2, {"reversed a": 90}, 10), (4, {"reversed a": 20}, 0)]


def test_what_a_reversal_does_not_find_in_its_own_order_it_takes_from_the_oldest_others() -> None:
    found = traced(
        ("earned", 100, "a"), ("redeemed", -100, "x"), ("earned", 30, "b"), ("earned", 90, "c"), ("reversed", -100, "a")
    )  # fmt: skip
    assert fates(found)[1:] == [(3, {"reversed a": 30}, 0), (4, {"reversed a": 70}, 20)]


def test_points_given_back_are_a_lot_of_their_own() -> None:
    found = traced(("earned", 50, "a"), ("redeemed", -50, "x"), ("restored", 50, "x"), ("reversed", -20, "a"))
    assert fates(found) == [(1, {"redeemed x": 50}, 0), (3, {"reversed a": 20}, 30)]


def test_a_debt_is_paid_by_the_next_credits() -> None:
    """150 earned, 100 spent, refunded in full where debt is allowed."""
    steps: list[Step] = [("earned", 150, "a"), ("redeemed", -100, "x"), ("reversed", -150, "a")]
    found = traced(*steps)
    assert found.balance == -100
    assert [(one.entry.seq, one.points) for one in found.debts] == [(3, 100)]
    steps += [("earned", 60, "b"), ("expired", -5, "e"), ("opening", 70, "ann")]
    found = traced(*steps)
    assert fates(found)[1:] == [(4, {"debt a": 60}, 0), (6, {"debt a": 40, "debt e": 5}, 25)]
    assert (found.balance, found.debts) == (25, ())


def test_expired_adjusted_and_merged_points_say_so() -> None:
    found = traced(
        ("opening", 30, "o"),
        ("expired", -10, "e"),
        ("adjusted", -10, "r"),
        ("merged", -10, "ann"),
        ("adjusted", 5, "s"),
    )
    assert fates(found) == [(1, {"expired e": 10, "adjusted r": 10, "merged ann": 10}, 0), (5, {}, 5)]
    assert found.points == {"opening": 30, "expired": -10, "adjusted": -5, "merged": -10}
    assert found.entries == {"opening": 1, "expired": 1, "adjusted": 2, "merged": 1}


def test_what_was_spent_before_a_merge_is_not_taken_from_who_was_there_before() -> None:
    """Bob had earned 100 and spent 60; ann had 80. Entries 3 and 4 are one transaction."""
    found = traced(("earned", 70, "a"), ("earned", 10, "b"), ("merged order", 100, "z"), ("merged", -60, "bob"))
    assert fates(found) == [(1, {}, 70), (2, {}, 10), (3, {"merged bob": 60}, 40)]


def test_entries_of_stamps_alone_move_no_points() -> None:
    found = traced(("earned", 0, "a"), ("reversed", 0, "a"))
    assert (found.lots, found.balance, found.entries["earned"]) == ((), 0, 1)


def test_an_account_without_entries_has_nothing() -> None:
    found = explain([], merchant_id="m1", customer_id="ann", balance=0)
    assert (found.balance, found.lots, found.debts) == (0, (), ())


# --- a ledger that contradicts itself ---


@pytest.mark.parametrize(
    ("changes", "balance", "says"),
    [
        ({"seq": 3}, 40, "entry 2 is missing, the next one has another number (3 is not 2)"),
        ({"balance_before": 90}, 40, "entry 2 begins at another balance than the one before ended (90 is not 100)"),
        ({"balance_after": 41}, 40, "entry 2 ends at another balance than its points make (41 is not 40)"),
        ({}, 4_100, "its balance is not the sum of its entries (4,100 is not 40)"),
    ],
)
def test_a_broken_ledger_is_refused_with_both_figures(changes: dict[str, int], balance: int, says: str) -> None:
    first, second = ledger([("earned", 100, "a"), ("redeemed", -60, "x")])
    with pytest.raises(LedgerContradictsItselfError, match="customer 'ann' at merchant 'm1'") as caught:
        explain([first, replace(second, **changes)], merchant_id="m1", customer_id="ann", balance=balance)
    assert says in str(caught.value)


# --- any sequence ---

points = st.integers(1, 30)
references = st.sampled_from("abc")
credit = st.tuples(
    st.sampled_from(["earned", "re-earned", "restored", "adjusted", "opening", "bonus", "merged", "merged order"]),
    points,
    references,
)
debit = st.tuples(
    st.sampled_from(["redeemed", "reversed", "expired", "adjusted", "merged", "merged order"]),
    points.map(lambda number: -number),
    references,
)
stamps = st.tuples(st.sampled_from(["earned", "reversed"]), st.just(0), references)


@given(st.lists(st.one_of(credit, debit, stamps), max_size=40))
def test_every_point_is_accounted_for(steps: list[Step]) -> None:
    entries = ledger(steps)
    found = traced(*steps)
    balance = sum(one.points for one in entries)
    assert found.balance == balance
    assert sum(lot.left for lot in found.lots) - sum(debt.points for debt in found.debts) == balance
    assert not (found.debts and any(lot.left for lot in found.lots))
    # Every credit became a lot, and its points are where they went or are left.
    assert [lot.entry for lot in found.lots] == [one for one in entries if one.points > 0]
    assert all(
        lot.left >= 0 and lot.left + sum(use.points for use in lot.uses) == lot.entry.points for lot in found.lots
    )
    # Every debit took all its points from lots, or is open.
    attributed = defaultdict(int, {debt.entry.seq: debt.points for debt in found.debts})
    for lot in found.lots:
        for use in lot.uses:
            assert use.points > 0
            assert use.is_debt == (use.entry.seq < lot.entry.seq)
            attributed[use.entry.seq] += use.points
    assert attributed == {one.seq: -one.points for one in entries if one.points < 0}


@given(st.lists(st.one_of(credit, debit), max_size=40))
def test_every_debit_takes_from_the_lots_it_should(steps: list[Step]) -> None:
    """Replays what the explanation says, and looks at each debit what was there when it came."""
    found = traced(*steps)
    taken: defaultdict[int, dict[int, int]] = defaultdict(dict)
    left: dict[int, int] = {}
    lots = {lot.entry.seq: lot.entry for lot in found.lots}
    for lot in found.lots:
        for use in lot.uses:
            if not use.is_debt:
                taken[use.entry.seq][lot.entry.seq] = use.points
    for one in ledger(steps):
        if one.points > 0:
            lot = next(lot for lot in found.lots if lot.entry.seq == one.seq)
            left[one.seq] = one.points - sum(use.points for use in lot.uses if use.is_debt)
            continue
        had = dict(left)
        for seq, number in taken[one.seq].items():
            left[seq] -= number
        if sum(taken[one.seq].values()) < -one.points:
            assert not any(left.values()), "a debt while there are points"
        own = [seq for seq in had if _is_own(one, lots[seq])]
        if one.order_id is not None:
            own.reverse()
        order = [*own, *(seq for seq in had if seq not in own)]
        touched = [seq for seq in order if seq in taken[one.seq]]
        if touched:
            assert not any(left[seq] for seq in order[: order.index(touched[-1])]), "a lot was passed over"


def _is_own(debit: Entry, lot: Entry) -> bool:
    if debit.order_id is not None:
        return lot.order_id == debit.order_id
    return debit.cause == lot.cause == "merged" and debit.recorded_at == lot.recorded_at


def test_a_hundred_thousand_entries_are_explained() -> None:
    """Lots emptied from both ends and from the middle: were each debit to look at all of them, this would not end."""
    number = 25_000
    steps: list[Step] = [("earned", 10, str(one)) for one in range(number)]
    steps += [("reversed", -10, str(one)) for one in range(number - 1, number // 2, -1)]
    steps += [("redeemed", -1, str(one)) for one in range(number)]
    steps += [("re-earned", 1, "0") for _ in range(number)]
    steps += [("reversed", -3, "0") for _ in range(number // 2)]
    found = traced(*steps)
    assert len(steps) > 95_000
    assert sum(len(lot.uses) for lot in found.lots) <= len(steps) + len(found.lots)
    assert sum(lot.left for lot in found.lots) == found.balance > 0


# --- words ---


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"points_per_unit": "1", "multiplier": "1.5"}, "1 point per 1.00, x 1.5, floor"),
        ({"points_per_unit": "1.50", "multiplier": "2", "rounding": "ceil"}, "1.5 points per 1.00, x 2"),
        ({"points_per_unit": "1", "unit_amount": "1000"}, "1 point per 1,000.00"),
        ({"points_per_unit": "10", "unit_amount": "0.125"}, "10 points per 0.125"),
    ],
)
def test_a_rule_in_words(rules: dict[str, str], words: str) -> None:
    values = {name: value if name == "rounding" else Decimal(value) for name, value in rules.items()}
    assert rule_in_words(ProgramRules(**values)) == words  # pyright: ignore[reportArgumentType]


def test_an_amount_that_is_no_number_is_shown_as_it_is() -> None:
    assert [amount_in_words(Decimal(text)) for text in ("NaN", "-Infinity", "1E+3", "-0.5")] == [
        "NaN",
        "-Infinity",
        "1,000.00",
        "-0.50",
    ]
