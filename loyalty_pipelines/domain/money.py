"""Amounts of money: whole numbers of a currency's smallest unit, kept apart by currency."""

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal, localcontext

from babel.numbers import get_currency_precision

# Points times value can have more digits than Python's default of 28.
DIGITS = 60


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
    names = sorted({name for one in listed for name in one})
    sums = {name: total(one.get(name, Decimal(0)) for one in listed) for name in names}
    return {name: amount for name, amount in sums.items() if amount}
