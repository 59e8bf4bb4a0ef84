"""HTML pages that stand alone: style and charts are in the file, nothing is loaded, everything is escaped."""

from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from loyalty_pipelines.report_files.tables import ReportFile


def page(name: str, template: str, **values: Any) -> ReportFile:
    """Return a page; `values` named `*_svg` hold charts, which are markup already."""
    return ReportFile(name=name, content=_environment().get_template(template).render(**values).encode())


def chart(svg: str) -> Markup:
    """Mark a chart as what it is: its texts were escaped when it was drawn."""
    return Markup(svg)  # noqa: S704


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("loyalty_pipelines.report_files"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=number, month=month, instant=instant, percent=percent, printable=printable)
    return made


def number(value: int | Decimal | None) -> str:
    """Return a number with thousands separated; a dash for None."""
    return "–" if value is None else f"{value:,}".replace("-", "−")


def percent(value: Decimal | None) -> str:
    """Return a share as per cent."""
    return "–" if value is None else f"{100 * value:,.1f} %"


def month(value: date) -> str:
    """Return a month as 2026-11."""
    return f"{value:%Y-%m}"


def instant(value: datetime) -> str:
    """Return an instant in UTC."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def printable(text: str) -> str:
    """Return text with what can't be printed escaped: an id must not turn the page's direction around."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in text)
