"""`loyalty account explain`: every point of a balance from where it came to where it went."""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.option_types import INSTANT, TEXT
from loyalty_pipelines.cli.output import counted, plain, print_json, print_table, say, shown
from loyalty_pipelines.domain.explain import (
    InstantInFutureError,
    amount_in_words,
    number_in_words,
    rule_in_words,
)

if TYPE_CHECKING:
    from loyalty_pipelines.domain.explain import (
        Entry,
        ExplainedAccount,
        ExplainedOrder,
        Lot,
        MergedCustomer,
        Use,
    )

# More than a person reads to another one.
MANY_LOTS = 50
CREDITS = {
    "opening": "opening balance",
    "bonus": "welcome bonus",
    "earned": "earned with order {reference}",
    "re-earned": "earned again with order {reference}",
    "restored": "given back: redeemed on order {reference}",
    "adjusted": "adjusted: {reason}",
    "merged": "{reason}",
}
DEBITS = {
    "redeemed": "redeemed on order {reference}",
    "reversed": "taken back: order {reference}",
    "expired": "expired",
    "adjusted": "adjusted: {reason}",
    "merged": "{reason}",
}
# Every kind once, in the order in which points come and go.
CAUSES = tuple(dict.fromkeys([*CREDITS, *DEBITS]))
FATES = {**{name: name for name in DEBITS}, "reversed": "taken back", "debt": "paid a debt"}


@click.command("explain")
@click.argument("merchant", type=TEXT)
@click.argument("customer", type=TEXT)
@click.option("--at", type=INSTANT, help="As the ledger knew it at an instant, with a zone (now).")
@click.option("--all", "is_all", is_flag=True, help="Also print what nothing is left of, however much it is.")
@json_option
def explain_(merchant: str, customer: str, at: datetime | None, is_all: bool, as_json: bool) -> None:
    """Explain the balance of CUSTOMER (its id) at MERCHANT: where every point came from and where it went.

    Debits take from the oldest points first; what an order loses again is taken from its own points before. Of a
    customer who was merged into another one, its own closed ledger is explained.
    """
    from loyalty_pipelines.db import explain, programs, sources
    from loyalty_pipelines.db.engine import reading

    with database(as_json=as_json) as engine, reading(engine, is_one_snapshot=True) as conn:
        require_ready(conn, is_mapping_needed=False)
        sources.require_mapping(conn, even_withdrawn=True)
        programs.require_merchant(conn, merchant)
        try:
            found = explain.explain_account(conn, merchant, customer, at=at)
        except InstantInFutureError as error:
            raise click.UsageError(str(error)) from error
    if as_json:
        print_json(as_plain(found))
        return
    _print_account(found)
    lots = found.explanation.lots
    listed = lots if is_all or len(lots) <= MANY_LOTS else [one for one in lots if one.left]
    _print_lots(found, listed)
    _print_orders(found, listed)
    _print_end(found)


def as_plain(found: "ExplainedAccount") -> dict[str, Any]:
    """Return the explanation as one JSON object: lots with their uses, orders with their rule in words."""
    traced = found.explanation
    names = ("merchant_id", "customer_id", "is_active", "held", "spendable", "expires_at", "holds", "merged_into",
             "merged_from")  # fmt: skip
    return {
        **{name: plain(getattr(found, name)) for name in names},
        "at": plain(found.at or found.read_at),
        "balance": traced.balance,
        "entries": sum(traced.entries.values()),
        "totals": {name: {"entries": traced.entries[name], "points": traced.points[name]} for name in _causes(found)},
        "lots": [
            {
                **_plain_entry(lot.entry),
                "left": lot.left,
                "uses": [{**_plain_entry(use.entry), "points": use.points, "is_debt": use.is_debt} for use in lot.uses],
            }
            for lot in traced.lots
        ],
        "debts": [{**_plain_entry(debt.entry), "points": debt.points} for debt in traced.debts],
        "orders": None
        if found.orders is None
        else [{**plain(one), "rule": _rule(found, one.program_version)} for one in found.orders],
    }


def _plain_entry(entry: "Entry") -> dict[str, Any]:
    names = ("seq", "kind", "cause", "points", "reference_type", "reference_id", "reason", "actor", "run_id",
             "occurred_at", "recorded_at")  # fmt: skip
    return {name: plain(getattr(entry, name)) for name in names}


def _causes(found: "ExplainedAccount") -> list[str]:
    return [name for name in CAUSES if found.explanation.entries.get(name)]


def _rule(found: "ExplainedAccount", version: int | None) -> str | None:
    rules = None if version is None else found.rules.get(version)
    return None if rules is None else rule_in_words(rules)


# --- the account ---


def _print_account(found: "ExplainedAccount") -> None:
    traced = found.explanation
    instant = "now" if found.at is None else f"as the ledger knew it at {shown(found.at)}"
    say(f"Customer {found.customer_id} at {found.merchant_id}, {instant}")
    figures: list[tuple[str, object]] = [("balance", traced.balance)]
    if found.at is None:
        figures += [("held", found.held), ("spendable", found.spendable), ("expires", found.expires_at)]
    for name, value in figures:
        say(f"  {name:<15}{shown(value)}")
    if found.at is not None:
        say("What was held, what was spendable and when it expired are known for now only.")
    elif found.expires_at is not None and found.expires_at <= found.read_at and traced.balance > 0:
        say("The points have expired: they can't be spent any more, and the next expiry takes them.")
    if found.merged_into:
        survivor = found.merged_into.into_customer_id
        command = shlex.join(["loyalty", "account", "explain", found.merchant_id, survivor])
        say(
            f"{_merge(found.merged_into)}. This is the ledger of {found.customer_id} alone, closed since; what it had "
            f"is with {survivor}: {command}"
        )
    for one in found.merged_from:
        say(f"{_merge(one)}.")
    if not traced.entries:
        first = found.first_recorded_at
        say(
            "The ledger has no entry of this account."
            if first is None
            else f"Nothing was recorded by then: the first entry is of {shown(first)}."
        )
        return
    print_table(
        ("kind", "entries", "points"),
        [(name, traced.entries[name], f"{traced.points[name]:+,}") for name in _causes(found)]
        + [("balance", sum(traced.entries.values()), traced.balance)],
        numbers=("entries", "points"),
    )


def _merge(one: "MergedCustomer") -> str:
    return (
        f"Customer {one.customer_id} was merged into {one.into_customer_id} at {shown(one.merged_at)} by {one.actor} "
        f"({one.reason})"
    )


# --- lots ---


def _print_lots(found: "ExplainedAccount", listed: Sequence["Lot"]) -> None:
    lots = found.explanation.lots
    if listed:
        print_table(
            ("entry", "points", "left", "where they came from", "where they went"),
            [
                (
                    lot.entry.seq,
                    f"{lot.entry.points:+,}",
                    lot.left,
                    f"{_source(lot.entry)}\n{shown(lot.entry.recorded_at)}\n{_writer(lot.entry)}",
                    "\n".join(_fate(use) for use in lot.uses),
                )
                for lot in listed
            ],
            numbers=("entry", "points", "left"),
        )
    if len(listed) == len(lots):
        return
    say(f"Of {counted(len(lots) - len(listed), 'other credit')} nothing is left; --all lists them:")
    _print_spent(lot for lot in lots if not lot.left)


def _print_spent(lots: Iterable["Lot"]) -> None:
    count: Counter[str] = Counter()
    went: dict[str, Counter[str]] = {}
    for lot in lots:
        count[lot.entry.cause] += 1
        fates = went.setdefault(lot.entry.cause, Counter())
        for use in lot.uses:
            fates[use.cause] += use.points
    fates = [name for name in FATES if any(one[name] for one in went.values())]
    columns = ("credits", "number", "points", *(FATES[name] for name in fates))
    print_table(
        columns,
        [
            (name, count[name], went[name].total(), *(went[name][fate] for fate in fates))
            for name in CAUSES
            if name in went
        ],
        numbers=columns[1:],
    )


def _source(entry: "Entry") -> str:
    words = CREDITS.get(entry.cause, entry.cause).format(reference=entry.reference_id, reason=entry.reason or "-")
    return f"{words}: order {entry.order_id}" if entry.cause == "merged" and entry.order_id is not None else words


def _writer(entry: "Entry") -> str:
    return f"by {entry.actor}" if entry.run_id is None else f"by {entry.actor}, run {entry.run_id}"


def _fate(use: "Use") -> str:
    entry = use.entry
    if use.is_debt:
        return f"{use.points:,} paid the debt of entry {entry.seq} ({_debit(entry)})"
    return f"{use.points:,} {_debit(entry)} (entry {entry.seq}, {_day(entry.recorded_at)})"


def _debit(entry: "Entry") -> str:
    words = DEBITS.get(entry.cause, entry.cause).format(reference=entry.reference_id, reason=entry.reason or "-")
    # The other customer had spent them, or was in debt.
    return f"gone before they were {words}" if words.startswith("merged from ") else words


def _day(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%d")


# --- orders ---


def _print_orders(found: "ExplainedAccount", listed: Sequence["Lot"]) -> None:
    if found.orders is None:
        say("The mapping of the shop is withdrawn: nothing can be said about its orders now.")
        return
    wanted = {lot.entry.order_id for lot in listed}
    if len(listed) == len(found.explanation.lots):
        wanted.update(one.order_id for one in found.orders)
    orders = [one for one in found.orders if one.order_id in wanted]
    if orders:
        say("The orders, as the shop and the ledger show them now:")
        print_table(
            ("order", "paid", "amount", "points", "in force", "waived"),
            [
                (one.order_id, one.paid_at, _basis(one), _points(found, one), one.in_force_points, one.waived_points)
                for one in orders
            ],
            numbers=("in force", "waived"),
        )
    for one in orders:
        for remark in _remarks(one, found.customer_id):
            say(f"Order {one.order_id}: {remark}")
    others = [one for one in found.orders if one.order_id not in wanted]
    remarkable = (
        (sum(one.waived_points > 0 for one in others), "with points that could not be taken back"),
        (sum(one.is_different for one in others), "that would earn other points now"),
        (sum(not one.shown for one in others), "that the shop doesn't show"),
    )
    if any(number for number, _ in remarkable):
        parts = ", ".join(f"{counted(number, 'order')} {what}" for number, what in remarkable if number)
        say(f"Not listed here: {parts}; --all lists them.")
    if any(one.is_different for one in found.orders):
        command = shlex.join(["loyalty", "award", "--sweep", "--merchant", found.merchant_id])
        say(f"The next award makes the ledger say what orders deserve; if it doesn't: {command}")


def _basis(order: "ExplainedOrder") -> str:
    if order.total_amount is None:
        return "-"
    lines = [f"total {amount_in_words(order.total_amount)}"]
    if order.refunded_amount:
        lines.append(f"refunded {amount_in_words(-order.refunded_amount)}")
    if order.points_redeemed:
        worth = "" if order.redeemed_amount is None else f" {amount_in_words(-order.redeemed_amount)}"
        lines.append(f"{counted(order.points_redeemed, 'point')} redeemed{worth}")
    if order.net_amount is not None:
        lines.append(f"net {amount_in_words(order.net_amount)} {order.currency or ''}".rstrip())
    return "\n".join(lines)


def _points(found: "ExplainedAccount", order: "ExplainedOrder") -> str:
    reason = _why_not_by_the_rule(order)
    if reason is not None:
        return reason
    rule = _rule(found, order.program_version) or "its rules are gone"
    return f"version {order.program_version}: {rule} -> {_whole(order.rule_points)}"


def _why_not_by_the_rule(order: "ExplainedOrder") -> str | None:
    if not order.shown:
        return "the shop doesn't show it: its points stay"
    if order.shown > 1:
        return f"the shop shows it {order.shown} times: it is not decided"
    return {
        "earning": None,
        "unpaid": f"the order is {order.status} -> 0",
        "no_customer": "without a customer by now: its points stay",
        "no_programme": "no programme in force when it was paid -> 0",
    }.get(order.outcome, f"not decided: {order.detail or order.outcome}")


def _whole(points: Decimal | None) -> str:
    return "-" if points is None else number_in_words(points)


def _remarks(order: "ExplainedOrder", customer_id: str) -> Iterator[str]:
    if order.waived_points:
        yield f"{order.waived_points:,} could not be taken back."
    if order.shown == 1 and order.holder_customer_id not in (None, customer_id):
        yield f"it belongs to customer {order.holder_customer_id} by now."
    if order.is_different:
        version = "" if order.version_now == order.program_version else f" by version {order.version_now}"
        yield f"it deserves {order.deserved_points:,} here now{version}, and the ledger says {order.target_points:,}."


# --- the end ---


def _print_end(found: "ExplainedAccount") -> None:
    traced = found.explanation
    for hold in found.holds or ():
        over = "" if hold.expires_at > found.read_at else ", which is over: the next sweep of holds releases them"
        say(f"Held for order {hold.order_id}: {counted(hold.points, 'point')} until {shown(hold.expires_at)}{over}.")
    for debt in traced.debts:
        say(
            f"Open debt of entry {debt.entry.seq} ({_debit(debt.entry)}): {counted(debt.points, 'point')}, paid by the "
            "next credits."
        )
    left, owed = sum(one.left for one in traced.lots), sum(one.points for one in traced.debts)
    say(f"Left of all credits {left:,}, less open debts {owed:,}: the balance is {traced.balance:,}.")
