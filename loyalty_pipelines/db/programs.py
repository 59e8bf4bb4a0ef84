"""Programmes: reads their versions, and adds new ones; a version is never changed."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any

from psycopg.errors import Diagnostic
from sqlalchemy import Connection, Row
from sqlalchemy.exc import DataError, IntegrityError

from loyalty_pipelines.db.awards import lock_merchant
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.programs import (
    FirstVersionError,
    MerchantNotFoundError,
    MerchantProgram,
    NoProgramError,
    ProgramChange,
    ProgramOutOfRangeError,
    ProgramRules,
    ProgramVersion,
    RetroactiveChangeError,
)

MERCHANT_IS_KNOWN = load("programs/merchant_is_known")
MERCHANT_NAMES = load("programs/merchant_names")
MERCHANTS_WITH_PROGRAM = load("programs/merchants_with_program")
VERSIONS = load("programs/versions")
NOW = load("programs/now")
COUNT_AWARDED = load("programs/count_awarded")
ADD_VERSION = load("programs/add_version")
CONSTRAINT_TEXT = load("programs/constraint_text")

MAX_SUGGESTIONS = 3


def require_merchant(conn: Connection, merchant_id: str) -> None:
    """Raise `MerchantNotFoundError`, with ids that look like it, unless the shop or the ledger has the merchant."""
    known = conn.execute(MERCHANT_IS_KNOWN, {"merchant_id": merchant_id}).one()
    if known.is_in_shop or known.is_in_ledger:
        return
    rows = conn.execute(MERCHANT_NAMES).all()
    ids_by_word: dict[str, str] = {}
    for row in rows:
        ids_by_word.setdefault(row.merchant_id.lower(), row.merchant_id)
        ids_by_word.setdefault((row.name or "").lower(), row.merchant_id)
    words = difflib.get_close_matches(merchant_id.lower(), ids_by_word, n=2 * MAX_SUGGESTIONS)
    near = tuple(dict.fromkeys(ids_by_word[word] for word in words))[:MAX_SUGGESTIONS]
    raise MerchantNotFoundError(merchant_id=merchant_id, near=near, known=len(rows))


def merchants_with_program(conn: Connection, *, at: datetime | None = None) -> list[MerchantProgram]:
    """Return all merchants of the shop and of the programmes with the version in force at `at` (None: now)."""
    return [
        MerchantProgram(
            merchant_id=row.merchant_id,
            name=row.name,
            currency=row.currency,
            program=None if row.version is None else _version(row),
        )
        for row in conn.execute(MERCHANTS_WITH_PROGRAM, {"at": at})
    ]


def versions(conn: Connection, merchant_id: str) -> list[ProgramVersion]:
    """Return all versions of the merchant's programme in the order in which they apply."""
    return [_version(row) for row in conn.execute(VERSIONS, {"merchant_id": merchant_id})]


def find_version(
    conn: Connection, merchant_id: str, *, number: int | None = None, at: datetime | None = None
) -> ProgramVersion:
    """Return version `number`, or the one in force at `at` (None: now); raise `NoProgramError` when there is none."""
    all_versions = versions(conn, merchant_id)
    if number is not None:
        found = next((one for one in all_versions if one.version == number), None)
        wanted = f" version {number}"
    else:
        as_of = at or conn.execute(NOW).scalar_one()
        found = _in_force(all_versions, as_of)
        wanted = "" if not all_versions else f" at {as_of.isoformat(timespec='seconds')}"
    if found:
        return found
    advice = f"set one with 'loyalty programs set {merchant_id} --points-per-unit 1'."
    if all_versions:
        newest = max(one.version for one in all_versions)
        first = min(one.valid_from for one in all_versions)
        advice = f"it has versions 1 to {newest}, the first valid from {first.isoformat()}."
    raise NoProgramError(merchant_id=merchant_id, wanted=wanted, advice=advice)


def set_version(
    conn: Connection,
    merchant_id: str,
    *,
    changes: Mapping[str, Any],
    valid_from: datetime | None,
    actor: str,
    is_retroactive_allowed: bool = False,
) -> ProgramChange:
    """Add a version that differs from the one before in `changes` (fields of `ProgramRules`); the caller commits.

    The one before is the version in force at `valid_from` (None: the database's now), else the next later one.
    Waits for the merchant's award batch. Raises `MerchantNotFoundError`, `FirstVersionError`,
    `RetroactiveChangeError`, `ProgramOutOfRangeError`.
    """
    require_merchant(conn, merchant_id)
    lock_merchant(conn, merchant_id)
    starts = valid_from or conn.execute(NOW).scalar_one()
    existing = versions(conn, merchant_id)
    base = _in_force(existing, starts) or next(iter(existing), None)
    if base is None and "points_per_unit" not in changes:
        raise FirstVersionError(merchant_id=merchant_id)
    rules = replace(base.rules, **changes) if base else ProgramRules(**changes)
    ends = min((one.valid_from for one in existing if one.valid_from > starts), default=None)
    touched = conn.execute(
        COUNT_AWARDED, {"merchant_id": merchant_id, "paid_from": starts, "paid_until": ends}
    ).scalar_one()
    if touched and not is_retroactive_allowed:
        raise RetroactiveChangeError(merchant_id=merchant_id, valid_from=starts, orders=touched)
    number = _add(conn, merchant_id, rules, starts, actor)
    return ProgramChange(version=find_version(conn, merchant_id, number=number), base=base, orders_touched=touched)


def _add(conn: Connection, merchant_id: str, rules: ProgramRules, valid_from: datetime, actor: str) -> int:
    values = {"merchant_id": merchant_id, "valid_from": valid_from, "created_by": actor, **asdict(rules)}
    try:
        with conn.begin_nested():
            return conn.execute(ADD_VERSION, values).scalar_one()
    except IntegrityError as error:
        diagnostic: Diagnostic | None = getattr(error.orig, "diag", None)
        name = diagnostic and diagnostic.constraint_name
        rule = conn.execute(CONSTRAINT_TEXT, {"constraint_name": name}).scalar_one_or_none()
        if rule is None or not rule.startswith("CHECK"):
            raise
        raise ProgramOutOfRangeError(rule=rule.removeprefix("CHECK ").replace("::numeric", "")) from error
    except DataError as error:
        raise ProgramOutOfRangeError(rule=f"another value ({str(error.orig).splitlines()[0]})") from error


def _in_force(candidates: list[ProgramVersion], at: datetime) -> ProgramVersion | None:
    return next(
        (one for one in candidates if one.valid_from <= at and (one.valid_until is None or at < one.valid_until)),
        None,
    )


def _version(row: Row) -> ProgramVersion:
    return ProgramVersion(
        merchant_id=row.merchant_id,
        version=row.version,
        valid_from=row.valid_from,
        valid_until=row.valid_until,
        rules=ProgramRules(**{field.name: getattr(row, field.name) for field in fields(ProgramRules)}),
        created_at=row.created_at,
        created_by=row.created_by,
    )
