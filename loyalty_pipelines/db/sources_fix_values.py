"""Turns our values into the shop's: the way back from what `sources_expressions` does.

Each expression gives jsonb, from which `jsonb_populate_record` makes the column's own type, whatever it is: an enum, a
varchar(20), a domain. So no name of a type is ever written. What the column can't hold raises; nothing is rounded.
"""

import dataclasses
from dataclasses import dataclass

from psycopg import sql

from loyalty_pipelines.db.sources_catalog import INTEGERS, ColumnInfo, RelationInfo
from loyalty_pipelines.db.sources_expressions import literal
from loyalty_pipelines.db.sources_fix_check import CREATION_FIELDS, makes_own_ids
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS, TRUE_WORDS, SourceField
from loyalty_pipelines.domain.source_mapping import FieldKind, MappedRelation

UPDATED_FIELDS = ("status", "current_period_start", "current_period_end", "cancelled_at")
NOTHING = sql.SQL("")


@dataclass(frozen=True, kw_only=True)
class RawValue:
    """The jsonb expression of a value in the shop's terms, and statements that raise when there is none."""

    expression: sql.Composable
    check: sql.Composable = dataclasses.field(default_factory=lambda: NOTHING)


def update_values(part: MappedRelation, info: RelationInfo, timezone: str) -> dict[str, RawValue]:
    """Return the values that an update may set, by field, taken from `p_changes`."""
    return _values(UPDATED_FIELDS, sql.SQL("p_changes"), part, info, timezone)


def creation_values(part: MappedRelation, info: RelationInfo, timezone: str) -> dict[str, RawValue]:
    """Return the values that a creation may set, by field, taken from `p_values`; the id goes its own way."""
    names = tuple(name for name in CREATION_FIELDS if name != "subscription_id")
    return _values((*names, "cancelled_at"), sql.SQL("p_values"), part, info, timezone)


def updated_value(part: MappedRelation, info: RelationInfo, timezone: str) -> sql.Composable:
    """Return the present as the column of updated_at holds it."""
    return _instant(sql.SQL("now()"), info.known(part.columns["updated_at"]), timezone)


def _values(
    names: tuple[str, ...], given: sql.Composable, part: MappedRelation, info: RelationInfo, timezone: str
) -> dict[str, RawValue]:
    relation = SOURCE_RELATIONS["subscriptions"]
    return {
        name: _value(relation.field(name), sql.SQL("({} ->> {})").format(given, literal(name)), part, info, timezone)
        for name in names
        if name in part.columns
    }


def _value(
    field: SourceField, word: sql.Composable, part: MappedRelation, info: RelationInfo, timezone: str
) -> RawValue:
    column = info.known(part.columns[field.name])
    match field.kind:
        case FieldKind.STATUS:
            return _status(word, part)
        case FieldKind.TIMESTAMP:
            instant = sql.SQL("CAST({} AS timestamp with time zone)").format(word)
            return RawValue(expression=_instant(instant, column, timezone))
        case FieldKind.AMOUNT:
            return RawValue(expression=_amount(word, column, part.divide_by.get(field.name)))
        case FieldKind.BOOLEAN:
            return RawValue(expression=_flag(word, column))
        case _:
            return RawValue(expression=sql.SQL("to_jsonb({})").format(word))


def _status(word: sql.Composable, part: MappedRelation) -> RawValue:
    """Return the first of the shop's words for ours: the mapping lists the one that is written first."""
    branches = [
        sql.SQL("WHEN {} THEN {}").format(literal(ours), literal(theirs[0]))
        for ours, theirs in part.status.items()
        if theirs
    ]
    case = sql.SQL("CAST(CASE {} {} END AS text)").format(word, sql.SQL(" ").join(branches))
    check = sql.SQL(
        "        IF {case} IS NULL THEN\n"
        "            RAISE EXCEPTION 'the shop has no word for the status %: list one in subscriptions.status.%',\n"
        "                {word}, {word};\n"
        "        END IF;\n"
    ).format(case=case, word=word)
    return RawValue(expression=sql.SQL("to_jsonb({})").format(case), check=check)


def _instant(instant: sql.Composable, column: ColumnInfo, timezone: str) -> sql.Composable:
    if column.base_type == "timestamptz":
        return sql.SQL("to_jsonb({})").format(instant)
    kind = sql.SQL("date" if column.base_type == "date" else "timestamp without time zone")
    return sql.SQL("to_jsonb(CAST({} AT TIME ZONE {} AS {}))").format(instant, literal(timezone), kind)


def _amount(word: sql.Composable, column: ColumnInfo, divisor: str | None) -> sql.Composable:
    """Return the amount in the shop's units. 499.00 of whole numbers is 499; 499.50 of them raises."""
    number = sql.SQL("CAST({} AS numeric)").format(word)
    if divisor is not None:
        number = sql.SQL("{} * {}").format(number, sql.Literal(int(divisor)))
    if divisor is not None or column.base_type in INTEGERS:
        number = sql.SQL("trim_scale({})").format(number)
    return sql.SQL("to_jsonb({})").format(number)


def _flag(word: sql.Composable, column: ColumnInfo) -> sql.Composable:
    flag = sql.SQL("CAST({} AS boolean)").format(word)
    if column.base_type in INTEGERS:
        return sql.SQL("to_jsonb(CAST({} AS integer))").format(flag)
    return sql.SQL("to_jsonb({})").format(flag)


def id_value(part: MappedRelation, info: RelationInfo) -> sql.Composable:
    """Return what gives the new row its id: the shop numbers its own rows, a text or UUID may be given.

    A text that is no UUID is hashed to one: the same words make the same id.
    """
    key = info.known(part.columns["subscription_id"])
    if key.is_generated or key.base_type in INTEGERS or key.base_type == "numeric":
        return NOTHING
    word = sql.SQL("(p_values ->> 'subscription_id')")
    value = word
    if key.base_type == "uuid":
        value = sql.SQL(
            "CASE WHEN {word} ~* {shape} THEN {word} ELSE CAST(CAST(md5({word}) AS uuid) AS text) END"
        ).format(word=word, shape=literal("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))
    step = sql.SQL(
        "    IF {word} IS NOT NULL THEN\n"
        "        v_raw := v_raw || jsonb_build_object('subscription_id', {value});\n"
        "    END IF;\n"
    ).format(word=word, value=value)
    if makes_own_ids(key, info):
        return step
    missing = sql.SQL(
        "    IF {word} IS NULL THEN\n"
        "        RAISE EXCEPTION 'a new subscription needs subscription_id: its column has no default';\n"
        "    END IF;\n"
    ).format(word=word)
    return sql.Composed([missing, step])


def constant_checks(part: MappedRelation) -> sql.Composable:
    """Return what raises when a value is asked for that the mapping says is the same for all rows.

    Such a row would be shown with the constant: as another merchant's, for example.
    """
    checks: list[sql.Composable] = []
    for field in SOURCE_RELATIONS["subscriptions"].fields:
        constant = part.defaults.get(field.name, field.default)
        if field.name in part.columns:
            if field.name == "merchant_id":
                checks.append(_given_check(field))
            continue
        if constant is None or field.kind is FieldKind.AMOUNT:
            continue
        word = sql.SQL("(p_values ->> {})").format(literal(field.name))
        if field.kind is FieldKind.BOOLEAN:
            constant = "true" if constant.lower() in TRUE_WORDS else "false"
        if field.kind is FieldKind.CURRENCY:
            constant = constant.upper()
        checks.append(
            sql.SQL(
                "    IF {word} <> {constant} THEN\n"
                "        RAISE EXCEPTION 'subscriptions.defaults.% is %, so a subscription can''t have %',\n"
                "            {name}, {constant}, {word};\n"
                "    END IF;\n"
            ).format(word=word, constant=literal(constant), name=literal(field.name))
        )
    return sql.Composed(checks)


def _given_check(field: SourceField) -> sql.Composable:
    return sql.SQL(
        "    IF (p_values ->> {name}) IS NULL THEN\n"
        "        RAISE EXCEPTION 'a new subscription needs %', {name};\n"
        "    END IF;\n"
    ).format(name=literal(field.name))
