"""`loyalty programs`: what orders earn."""

import getpass
from datetime import datetime
from decimal import Decimal
from typing import Any

import click

from loyalty_pipelines.cli.base import database, json_option, require_ready
from loyalty_pipelines.cli.option_types import INSTANT, NUMBER, TEXT, WholeOrWord
from loyalty_pipelines.cli.output import plain, print_json, print_table, say, shown
from loyalty_pipelines.domain.programs import (
    FirstVersionError,
    ProgramOutOfRangeError,
    ProgramRules,
    ProgramVersion,
)

# Where "no value" is a value: an option that was not given has to differ from --expiration-days never.
NOT_GIVEN = "\0not given"
OPTIONAL_RULES = ("points_expiration_days", "stamp_target", "redemption_max_percent")
TABLE_COLUMNS = (
    "merchant", "version", "valid from", "valid until", "active", "points", "multiplier", "rounding", "expire after",
    "warning", "bonus", "clawback",
)  # fmt: skip


class _Given(WholeOrWord):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value in (NOT_GIVEN, None) else super().convert(value, param, ctx)


class _GivenPercent(click.ParamType):
    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in (NOT_GIVEN, None) or isinstance(value, Decimal):
            return value
        return None if value == "none" else NUMBER.convert(value, param, ctx)


@click.group()
def programs() -> None:
    """Set and show merchants' programmes: what orders earn and when points expire."""


def current_user() -> str:
    """Return the name of the operator, as the ledger's actor."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError, ImportError):
        return "cli"


@programs.command("set")
@click.argument("merchant", type=TEXT)
@click.option("--points-per-unit", type=NUMBER, help="Points for each unit of the merchant's currency.")
@click.option("--unit-amount", type=NUMBER, help="How much money a unit is (1).")
@click.option("--multiplier", type=NUMBER, help="Multiplies the points, before rounding (1).")
@click.option("--rounding", type=click.Choice(["floor", "half_up", "ceil"]), help="How points are rounded (floor).")
@click.option("--expiration-days", "points_expiration_days", type=_Given("never"), default=NOT_GIVEN,
              metavar="N|never", show_default=False, help="Idle days after which points expire (never).")  # fmt: skip
@click.option("--warning-days", type=click.IntRange(1, 365),
              help="Days between the warning and the expiry, at most half the idle days (14).")  # fmt: skip
@click.option("--welcome-bonus", "welcome_bonus_points", type=click.IntRange(min=0),
              help="Points that a new customer is given (0).")  # fmt: skip
@click.option("--point-value", "point_value_amount", type=NUMBER, help="Money that a redeemed point is worth (0).")
@click.option("--stamps-per-order", type=click.IntRange(min=0), help="Stamps that an order earns (0).")
@click.option("--stamp-min-amount", type=NUMBER, help="Least net amount that earns stamps (0).")
@click.option("--stamp-target", type=_Given("none"), default=NOT_GIVEN, show_default=False,
              metavar="N|none", help="Stamps on a full card (none).")  # fmt: skip
@click.option("--clawback", type=click.Choice(["clamp_to_zero", "allow_negative"]),
              help="What happens when points to take back are spent (clamp_to_zero).")  # fmt: skip
@click.option("--redemption-block", "redemption_block_points", type=click.IntRange(min=1),
              help="Points are redeemed in whole blocks of so many (1).")  # fmt: skip
@click.option("--redemption-minimum", "redemption_min_points", type=click.IntRange(min=0),
              help="Fewest points that can be redeemed (0).")  # fmt: skip
@click.option("--redemption-max-percent", type=_GivenPercent(), default=NOT_GIVEN, metavar="PERCENT|none",
              show_default=False, help="Most of an order that points may pay (none: all).")  # fmt: skip
@click.option("--on/--off", "is_active", default=None, help="Whether orders earn at all (on).")
@click.option("--valid-from", type=INSTANT, help="From which payment on, with a zone (now).")
@click.option("--retroactive", is_flag=True, help="Also for orders that have their points already.")
@click.option("--actor", type=TEXT, help="Who sets it, for the record (your user name).")
@json_option
def set_(
    merchant: str,
    valid_from: datetime | None,
    retroactive: bool,
    actor: str | None,
    as_json: bool,
    **rules: Any,
) -> None:
    """Give MERCHANT a new version of its programme.

    What is not named stays as in the version before. Versions are never changed: an order earns by the one that was
    in force when it was paid.
    """
    from loyalty_pipelines.db import programs as program_db

    changes = {
        name: value
        for name, value in rules.items()
        if value != NOT_GIVEN and (value is not None or name in OPTIONAL_RULES)
    }
    if not changes:
        raise click.UsageError("Name what is to change, for example --points-per-unit 1.")
    with database(as_json=as_json) as engine, engine.begin() as conn:
        require_ready(conn)
        try:
            change = program_db.set_version(
                conn,
                merchant,
                changes=changes,
                valid_from=valid_from,
                actor=actor or current_user(),
                is_retroactive_allowed=retroactive,
            )
        except (FirstVersionError, ProgramOutOfRangeError) as error:
            raise click.UsageError(str(error)) from error
    version = change.version
    if as_json:
        print_json({**as_plain(version), "orders_touched": change.orders_touched})
        return
    say(f"Version {version.version} of the programme of {merchant} is valid from {shown(version.valid_from)}:")
    _print_rules(version)
    if change.orders_touched:
        say(f"It applies to {change.orders_touched} orders that are awarded already.")
    if change.is_expiration_changed:
        say(
            "Its expiration days are others than before. The next expiry run in which it is in force (daily at 02:00, "
            f"or 'loyalty expire {merchant}') computes anew when the balances that exist expire; nobody's points go "
            "without a new warning."
        )
    if valid_from is not None:
        say(f"Orders paid before now are compared with it by: loyalty award --sweep --merchant {merchant}")


@programs.command("list")
@click.argument("merchant", type=TEXT, required=False)
@json_option
def list_(merchant: str | None, as_json: bool) -> None:
    """List all merchants with the version in force, or all versions of MERCHANT."""
    from loyalty_pipelines.db import programs as program_db
    from loyalty_pipelines.db.engine import reading

    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn)
        if merchant is not None:
            program_db.require_merchant(conn, merchant)
            found = program_db.versions(conn, merchant)
            rows = [(merchant, version) for version in found]
            document: object = [as_plain(version) for version in found]
        else:
            everyone = program_db.merchants_with_program(conn)
            rows = [(one.merchant_id, one.program) for one in everyone]
            document = [
                {
                    "merchant_id": one.merchant_id,
                    "name": one.name,
                    "currency": one.currency,
                    "program": one.program and as_plain(one.program),
                }
                for one in everyone
            ]
    if as_json:
        print_json(document)
    elif rows:
        print_table(TABLE_COLUMNS, [_row(name, version) for name, version in rows], numbers=("version",))
    elif merchant:
        say(f"{merchant} has no programme; give it one with 'loyalty programs set {merchant} --points-per-unit 1'.")
    else:
        say("The shop has no merchants; look at 'merchants' in the source mapping.")


@programs.command()
@click.argument("merchant", type=TEXT)
@click.option("--version", "number", type=click.IntRange(min=1), help="A version by its number.")
@click.option("--at", type=INSTANT, help="The version in force at an instant, with a zone (now).")
@json_option
def show(merchant: str, number: int | None, at: datetime | None, as_json: bool) -> None:
    """Show the programme of MERCHANT: the version in force, or another one."""
    from loyalty_pipelines.db import programs as program_db
    from loyalty_pipelines.db.engine import reading

    if number is not None and at is not None:
        raise click.UsageError("Name a version with --version or with --at, not both.")
    with database(as_json=as_json) as engine, reading(engine) as conn:
        require_ready(conn)
        program_db.require_merchant(conn, merchant)
        version = program_db.find_version(conn, merchant, number=number, at=at)
    if as_json:
        print_json(as_plain(version))
        return
    say(f"{merchant}, version {version.version}, set by {version.created_by} at {shown(version.created_at)}")
    say(f"  valid from              {shown(version.valid_from)}")
    say(f"  valid until             {shown(version.valid_until)}")
    _print_rules(version)


def as_plain(version: ProgramVersion) -> dict[str, Any]:
    """Return a version as one flat JSON object."""
    document = plain(version)
    rules = document.pop("rules")
    return {**document, **rules}


def _print_rules(version: ProgramVersion) -> None:
    for name, value in _rule_lines(version.rules):
        say(f"  {name:<24}{value}")


def _rule_lines(rules: ProgramRules) -> list[tuple[str, str]]:
    return [
        ("active", shown(rules.is_active)),
        ("points", _points(rules)),
        ("multiplier", shown(rules.multiplier)),
        ("rounding", rules.rounding),
        ("a point is worth", shown(rules.point_value_amount)),
        ("points expire after", _expiry(rules)),
        ("warned before", _warning(rules)),
        ("welcome bonus", shown(rules.welcome_bonus_points)),
        ("stamps per order", f"{rules.stamps_per_order} from {shown(rules.stamp_min_amount)} on"),
        ("stamps on a full card", shown(rules.stamp_target)),
        ("clawback", rules.clawback),
        ("redeemed", _redemption(rules)),
    ]


def _points(rules: ProgramRules) -> str:
    return f"{shown(rules.points_per_unit)} per {shown(rules.unit_amount)}"


def _expiry(rules: ProgramRules) -> str:
    return f"{rules.points_expiration_days} days" if rules.is_expiring else "never"


def _warning(rules: ProgramRules) -> str:
    return f"{rules.warning_days} days, at most half of those" if rules.is_expiring else "-"


def _redemption(rules: ProgramRules) -> str:
    most = "all" if rules.redemption_max_percent is None else f"{shown(rules.redemption_max_percent)} %"
    return (
        f"in blocks of {shown(rules.redemption_block_points)}, from {shown(rules.redemption_min_points)} on, "
        f"for up to {most} of an order"
    )


def _row(merchant: str, version: ProgramVersion | None) -> list[object]:
    if version is None:
        return [merchant, *[None] * (len(TABLE_COLUMNS) - 1)]
    rules = version.rules
    return [
        merchant, version.version, version.valid_from, version.valid_until, rules.is_active, _points(rules),
        rules.multiplier, rules.rounding, _expiry(rules),
        f"{rules.warning_days} days" if rules.is_expiring else None, rules.welcome_bonus_points, rules.clawback,
    ]  # fmt: skip
