"""`loyalty accounts`: many accounts at once."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.csv_file import CsvFile, reading_progress
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import counted, print_json, print_table, say
from loyalty_pipelines.cli.programs import current_user
from loyalty_pipelines.domain.csv_files import FileRefusedError, choose_columns
from loyalty_pipelines.domain.opening_balances import COLUMN_GUESSES, OpeningFormat, OpeningReport


@click.group()
def accounts() -> None:
    """Bring accounts from elsewhere."""


@accounts.command("import")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--merchant", type=TEXT, help="The merchant of all lines, where the file has no merchant_id.")
@click.option("--dry-run", is_flag=True, help="Check the file, show what would happen, and write nothing.")
@json_option
def import_(path: Path, merchant: str | None, dry_run: bool, as_json: bool) -> None:
    """Give customers the opening balances in FILE (.csv or .csv.gz): customer_id, points, and what else there is.

    merchant_id says whose programme, last_activity_at (now) from when on points expire. All of it or nothing: with bad
    lines, they are listed and nothing is written. Importing a file again adds nothing.
    """
    from loyalty_pipelines.db import opening_balances, programs

    with database(as_json=as_json) as engine, path.open("rb") as raw:
        file = CsvFile(path, raw)
        form = _format(file, merchant)
        with engine.connect() as conn, conn.begin() as transaction:
            require_ready(conn)
            if merchant is not None:
                programs.require_merchant(conn, merchant)
            with reading_progress(file, as_json=as_json) as on_line:
                report = opening_balances.import_balances(
                    conn, file.rows(), form, path=str(path), actor=current_user(), on_line=on_line
                )
            if dry_run:
                transaction.rollback()
    if as_json:
        print_json({**asdict(report), "dry_run": dry_run})
    else:
        _print(report, path, is_dry_run=dry_run)


def _format(file: CsvFile, merchant: str | None) -> OpeningFormat:
    required = ("customer", "points") if merchant is not None else ("customer", "points", "merchant")
    columns, problems = choose_columns(file.header, COLUMN_GUESSES, required=required)
    if problems:
        raise FileRefusedError(
            path=str(file.path),
            problems=problems,
            count=len(problems),
            advice="correct its first line; --merchant stands for the merchants' column.",
        )
    return OpeningFormat(columns=columns, merchant_id=merchant)


def _print(report: OpeningReport, path: Path, *, is_dry_run: bool) -> None:
    say(f"{path}: {counted(report.lines, 'line')}")
    _print_columns(report.columns)
    print_table(
        ("merchant", "lines", "there already", "new accounts", "opening entries", "points"),
        [(one.merchant_id, one.lines, one.lines_done, one.accounts_new, one.entries, one.points)
         for one in report.merchants],
        numbers=("lines", "there already", "new accounts", "opening entries", "points"),
    )  # fmt: skip
    if not any(one.entries or one.accounts_new for one in report.merchants):
        say("Every line was there already: nothing was added.")
    elif is_dry_run:
        say("It was a dry run: nothing was written.")


def _print_columns(columns: Mapping[str, str]) -> None:
    for what, words in (("customer", "customer"), ("points", "points"), ("merchant", "merchant")):
        if what in columns:
            say(f"  {words:<15}is column {columns[what]}")
    activity = f"is column {columns['active_at']}" if "active_at" in columns else "is now: the file has no such column"
    say(f"  last activity  {activity}")
