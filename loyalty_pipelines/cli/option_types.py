"""Types of options and arguments; each says what it expected."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from loyalty_pipelines.cli.output import printable


class PlainText(click.ParamType):
    """A text that PostgreSQL can hold: not empty, valid UTF-8, no NUL."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value, or fail with what was expected."""
        text = str(value)
        if not text or "\x00" in text or any("\ud800" <= one <= "\udfff" for one in text):
            self.fail(f"{printable(text)!r} is empty or not valid UTF-8.", param, ctx)
        return text


class Number(click.ParamType):
    """A finite decimal number; PostgreSQL says which range a rule takes."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        """Return the value, or fail with what was expected."""
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            self.fail(f"{value!r} is no number such as 1 or 0.5.", param, ctx)
        if not number.is_finite() or abs(number.adjusted()) > 20:
            self.fail(f"{value!r} is no number such as 1 or 0.5.", param, ctx)
        return number


class Instant(click.ParamType):
    """An ISO 8601 instant with its zone: without one, nobody knows which version an order gets."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the value, or fail with what was expected."""
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no instant such as 2024-01-31T00:00:00+01:00.", param, ctx)
        if found.tzinfo is None:
            self.fail(f"{value!r} has no time zone; add one, for example {found.isoformat()}Z.", param, ctx)
        try:
            return found.astimezone(UTC)
        except OverflowError:
            self.fail(f"{value!r} is outside the years 1 to 9999 in UTC.", param, ctx)


class WholeOrWord(click.ParamType):
    """A whole number of at least 1, or a word that means none of it (then None)."""

    name = "whole number"

    def __init__(self, word: str) -> None:
        self.word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the value, or fail with what was expected."""
        text = str(value)
        if text.lower() == self.word:
            return None
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= 1_000_000_000):
            self.fail(f"{value!r} is no whole number of at least 1, and not {self.word!r}.", param, ctx)
        return int(text[:10])


class Zone(click.ParamType):
    """An IANA time zone name."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value, or fail with what was expected."""
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            return ZoneInfo(str(value)).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.fail(f"{value!r} is no time zone such as Europe/Luxembourg or UTC.", param, ctx)


class Currency(click.ParamType):
    """An ISO 4217 code."""

    name = "currency"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value, or fail with what was expected."""
        code = str(value).strip().upper()
        if not (len(code) == 3 and code.isascii() and code.isalpha()):
            self.fail(f"{value!r} is no currency code of three letters such as EUR.", param, ctx)
        return code


TEXT = PlainText()
NUMBER = Number()
INSTANT = Instant()
