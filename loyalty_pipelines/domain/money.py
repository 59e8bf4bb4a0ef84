"""Amounts of money: whole numbers of a currency's smallest unit, kept apart by currency."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal, localcontext

from babel.numbers import get_currency_precision

# Points times value can have more digits than Python's default of 28.
DIGITS = 60
# Of a merchant that the shop does not list, at least not now.
UNKNOWN_CURRENCY = "of unknown currency"


def rounded(amount: Decimal, currency: str | None) -> Decimal:
    """Return `amount` in the currency's smallest unit, half away from zero; two decimals where it is not known."""
    decimals = get_currency_precision(currency) if currency else 2
    with localcontext() as context:
        context.prec = DIGITS
        return amount.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP)


def worth(points: int, value: Decimal | None, currency: str | None) -> Decimal | None:
    """Return what points are worth, rounded; None where the value of a point or its currency is not known."""
    if value is None or currency is None:
        return None
    with localcontext() as context:
        context.prec = DIGITS
        return rounded(points * value, currency)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Return the sum of amounts of one currency, exactly."""
    with localcontext() as context:
        context.prec = DIGITS
        return sum(amounts, Decimal(0))


def total_money(amounts: Iterable[Mapping[str, Decimal]]) -> dict[str, Decimal]:
    """Return the sums of amounts by currency, exactly; none of a currency whose sum is 0."""
    listed = list(amounts)
    names = sorted({name for one in listed for name in one}, key=currency_order)
    sums = {name: total(one.get(name, Decimal(0)) for one in listed) for name in names}
    return {name: amount for name, amount in sums.items() if amount}


def amounts_by_currency(amounts: Iterable[tuple[str | None, Decimal]]) -> dict[str, Decimal]:
    """Return the sum per currency, in their order: amounts of two currencies are never added."""
    sums: defaultdict[str, Decimal] = defaultdict(Decimal)
    for currency, amount in amounts:
        if currency is not None or amount:
            sums[currency or UNKNOWN_CURRENCY] += amount
    return {name: sums[name] for name in sorted(sums, key=currency_order)}


def currency_order(currency: str | None) -> tuple[bool, str]:
    """Return what currencies are sorted by, wherever they are listed: their name, the unknown one last."""
    return currency in (None, UNKNOWN_CURRENCY), currency or ""


def amount_text(amount: Decimal, currency: str | None) -> str:
    """Return an amount as people read it, everywhere: rounded, with its currency."""
    if currency is None and not amount:
        return "0"
    return f"{rounded(amount, currency):,} {currency or UNKNOWN_CURRENCY}"


def money_text(money: Mapping[str, Decimal]) -> str:
    """Return amounts in words; amounts of two currencies are never added."""
    return " and ".join(amount_text(amount, currency) for currency, amount in money.items()) or "no money"
