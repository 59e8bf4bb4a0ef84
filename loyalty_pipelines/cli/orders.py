"""`loyalty orders`: order files."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.csv_file import CsvFile, reading_progress
from loyalty_pipelines.cli.option_types import NUMBER, TEXT, Currency, Zone
from loyalty_pipelines.cli.output import counted, print_json, say, shown
from loyalty_pipelines.cli.programs import current_user
from loyalty_pipelines.domain.csv_files import FileRefusedError, choose_columns
from loyalty_pipelines.domain.order_files import (
    COLUMN_GUESSES,
    ORDER_STATUSES,
    REQUIRED_COLUMNS,
    STATUS_WORDS,
    ImportReport,
    OrderFormat,
)
from loyalty_pipelines.domain.programs import ProgramOutOfRangeError

COLUMN_WORDS = {
    "order": "order's id",
    "customer": "customer's id, empty for guests",
    "amount": "amount paid, before refunds",
    "status": "status",
    "paid_at": "time of payment",
    "currency": "currency",
    "refunded": "refunded amount",
}


class StatusMap(click.ParamType):
    """WORD=STATUS pairs, separated by commas."""

    name = "status map"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        """Return the pairs, the words in small letters."""
        if isinstance(value, dict):
            return value
        found = {}
        for pair in str(value).split(","):
            word, sign, status = pair.rpartition("=")
            if not sign or status.strip() not in ORDER_STATUSES:
                self.fail(f"{pair!r} is no WORD=STATUS with one of {', '.join(ORDER_STATUSES)}.", param, ctx)
            found[word.strip().lower()] = status.strip()
        return found


def _column_options(command: Callable[..., None]) -> Callable[..., None]:
    for what, guesses in reversed(list(COLUMN_GUESSES.items())):
        option = click.option(
            f"--{what.replace('_', '-')}-column",
            f"{what}_column",
            metavar="NAME",
            help=f"Column of the {COLUMN_WORDS[what]} (guessed: {', '.join(guesses)}).",
        )
        command = option(command)
    return command


@click.group()
def orders() -> None:
    """Try the product on an order file."""


@orders.command("import")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--merchant", type=TEXT, required=True, help="The merchant in the sample shop that gets the orders.")
@click.option("--create-merchant/--no-create-merchant", default=True, help="Make the merchant if missing (yes).")
@click.option("--currency", type=Currency(), help="Of lines without one, and of a new merchant.")
@click.option("--timezone", type=Zone(), help="Of times without one, and of a new merchant (the merchant's, or UTC).")
@click.option("--points-per-unit", type=NUMBER, help="Also give the merchant a programme if it has none.")
@_column_options
@click.option("--status", type=click.Choice(ORDER_STATUSES), help="Of all orders, where the file has no status.")
@click.option("--status-map", "status_maps", type=StatusMap(), multiple=True, metavar="WORD=STATUS,...",
              help="What the file's words mean; common ones are known.")  # fmt: skip
@json_option
def import_(  # noqa: PLR0913, PLR0917 - one per option
    path: Path,
    merchant: str,
    create_merchant: bool,
    currency: str | None,
    timezone: str | None,
    points_per_unit: Decimal | None,
    status: str | None,
    status_maps: tuple[dict[str, str], ...],
    as_json: bool,
    **columns: str | None,
) -> None:
    """Load FILE (.csv or .csv.gz, one line per order) into a shop of its own, schema sample_shop.

    All of it or nothing: with bad lines, they are listed and nothing is loaded. Importing a file again changes only
    what is different in it.
    """
    from loyalty_pipelines.db import order_files

    named = {name.removesuffix("_column"): value for name, value in columns.items() if value is not None}
    statuses = {**STATUS_WORDS, **{word: ours for one in status_maps for word, ours in one.items()}}
    with database(as_json=as_json) as engine, path.open("rb") as raw:
        file = CsvFile(path, raw)
        with engine.begin() as conn:
            require_ready(conn, is_mapping_needed=False)
            order_files.prepare(conn)
            zone = timezone or order_files.merchant_timezone(conn, merchant) or "UTC"
            form = _format(file, named, statuses, zone, currency, status)
            options = order_files.ImportOptions(
                merchant_id=merchant,
                path=str(path),
                actor=current_user(),
                is_merchant_creatable=create_merchant,
                currency=currency,
                timezone=zone,
                points_per_unit=points_per_unit,
            )
            with reading_progress(file, as_json=as_json) as on_line:
                try:
                    report = order_files.load_file(conn, file.rows(), form, options, on_line=on_line)
                except ProgramOutOfRangeError as error:
                    raise click.UsageError(str(error)) from error
    if as_json:
        words = [{"word": word, "status": ours, "lines": n} for (word, ours), n in report.statuses.items()]
        print_json({**{one.name: getattr(report, one.name) for one in fields(report)}, "statuses": words})
    else:
        _print(report, path, is_program_wanted=points_per_unit is not None)


def _format(
    file: CsvFile,
    named: Mapping[str, str],
    statuses: Mapping[str, str],
    zone: str,
    currency: str | None,
    status: str | None,
) -> OrderFormat:
    required = REQUIRED_COLUMNS if status else (*REQUIRED_COLUMNS, "status")
    columns, problems = choose_columns(file.header, COLUMN_GUESSES, required=required, named=named)
    if problems:
        raise FileRefusedError(
            path=str(file.path),
            problems=problems,
            count=len(problems),
            advice="name its columns, or correct its first line.",
        )
    return OrderFormat(columns=columns, statuses=statuses, timezone=ZoneInfo(zone), currency=currency, status=status)


def _print(report: ImportReport, path: Path, *, is_program_wanted: bool) -> None:
    merchant = report.merchant_id
    new = "new merchant" if report.is_merchant_new else "merchant"
    say(f"{path}: {counted(report.lines, 'order')} for {new} {merchant} ({report.currency}, {report.timezone})")
    for what, name in report.columns.items():
        say(f"  {what.replace('_', ' '):<10}is column {name}")
    for (word, status), lines in sorted(report.statuses.items(), key=lambda one: -one[1]):
        say(f"  status    {word} is {status}: {lines:,}")
    say(
        f"{report.orders_new:,} new, {report.orders_changed:,} changed, {report.orders_unchanged:,} as they were; "
        f"{counted(report.customers_new, 'new customer')}, {counted(report.refunds_changed, 'changed refund')}."
    )
    if report.first_paid_at:
        say(f"Paid between {shown(report.first_paid_at)} and {shown(report.last_paid_at)}.")
    if report.is_program_new:
        say("The merchant has a programme now, for orders of any time.")
    elif is_program_wanted:
        say("The merchant has a programme already; it stays as it is.")
    if report.has_program:
        say(f"Next: loyalty award --merchant {merchant}")
    else:
        say(
            f"Next: loyalty programs set {merchant} --points-per-unit 1 --valid-from 1970-01-01T00:00Z, then loyalty "
            f"award --merchant {merchant}"
        )
