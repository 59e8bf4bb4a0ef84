"""Turns a mapped column into the SQL expression that a source view shows.

Identifiers and literals are quoted by psycopg.sql; nothing of the shop's reaches the text in any other way.
Every expression is total: whatever a row holds, it gives a value and never an exception, because one bad row
would otherwise stop the batch, and the view, for everybody.
"""

from decimal import Decimal
from typing import LiteralString

from psycopg import sql

from loyalty_pipelines.db.sources_catalog import INTEGERS, TEXTS, ColumnInfo, RelationInfo
from loyalty_pipelines.domain.source_fields import FALSE_WORDS, TRUE_WORDS
from loyalty_pipelines.domain.source_mapping import UNRECOGNIZED, FieldKind, MappedRelation, SourceField

SQL_TYPES: dict[FieldKind, LiteralString] = {
    FieldKind.ID: "text",
    FieldKind.TEXT: "text",
    FieldKind.CURRENCY: "text",
    FieldKind.STATUS: "text",
    FieldKind.AMOUNT: "numeric",
    FieldKind.POINTS: "bigint",
    FieldKind.TIMESTAMP: "timestamp with time zone",
    FieldKind.BOOLEAN: "boolean",
}
BLANKS = " \t\r\n"
NUMBER_PATTERN = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)$"
# Kept without {n,m}: a counted repetition made a look-up by UUID 1.7 microseconds slower, half of its cost.
INTEGER_PATTERN = "^(0|-?[1-9][0-9]*)$"
DECIMAL_PATTERN = "^-?[0-9]+([.][0-9]+)?$"
UUID_SHAPE = "________-____-____-____-____________"
UUID_PATTERN = "^[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+$"
# Longer numbers are garbage, and the longest would overflow numeric.
MAX_NUMBER_CHARACTERS = 60
ROW = sql.Identifier("s")
NOT_A_NUMBER = sql.SQL("CAST('NaN' AS numeric)")


def literal(value: str | Decimal) -> sql.Composable:
    """Return `value` as a quoted SQL literal."""
    return sql.Literal(value if isinstance(value, str) else format(value, "f"))


def raw(column: ColumnInfo) -> sql.Composable:
    """Return the shop's column itself, of the row called `s`."""
    return sql.SQL("{}.{}").format(ROW, sql.Identifier(column.name))


def as_text(column: ColumnInfo) -> sql.Composable:
    """Return the shop's column as a text that compares byte by byte, whatever its own collation."""
    return sql.SQL('CAST({} AS text) COLLATE "C"').format(raw(column))


def collate_c(expression: sql.Composable) -> sql.Composable:
    """Return the text expression with the collation of all our text columns."""
    return sql.SQL('({}) COLLATE "C"').format(expression)


def empty_value(field: SourceField) -> sql.Composable:
    """Return a NULL of the field's type, for views that have no rows."""
    null = sql.SQL(f"CAST(NULL AS {SQL_TYPES[field.kind]})")
    return collate_c(null) if SQL_TYPES[field.kind] == "text" else null


def value_of(field: SourceField, part: MappedRelation, relation: RelationInfo, timezone: str) -> sql.Composable:
    """Return the expression of one field: the column where the row has a value, otherwise the default."""
    default = default_value(field, part.defaults.get(field.name, field.default))
    if field.name not in part.columns:
        return default or empty_value(field)
    column = relation.known(part.columns[field.name])
    match field.kind:
        case FieldKind.STATUS:
            return status_value(column, part)
        case FieldKind.POINTS:
            return points_value(column, default)
        case FieldKind.TIMESTAMP:
            return timestamp_value(column, timezone)
        case FieldKind.AMOUNT:
            value = divided(number_value(column), part.divide_by.get(field.name))
        case FieldKind.BOOLEAN:
            value = boolean_value(column)
        case FieldKind.CURRENCY:
            value = sql.SQL("NULLIF(upper(btrim({}, {})), '')").format(as_text(column), literal(BLANKS))
        case FieldKind.ID if field.blank_is_null and column.base_type in TEXTS:
            value = sql.SQL("NULLIF({}, '')").format(as_text(column))
        case _:
            value = as_text(column)
    if field.kind is FieldKind.AMOUNT and field.required and default is None and not column.is_not_null:
        # An amount that nobody wrote down is not 0: a sum would pass over a NULL, but not over NaN.
        default = NOT_A_NUMBER
    if default is not None:
        value = sql.SQL("COALESCE({}, {})").format(value, default)
    return collate_c(value) if SQL_TYPES[field.kind] == "text" else value


def default_value(field: SourceField, default: str | None) -> sql.Composable | None:
    """Return the constant of the field's type; None when there is no default."""
    if default is None:
        return None
    match field.kind:
        case FieldKind.AMOUNT:
            return sql.SQL("CAST({} AS numeric)").format(literal(Decimal(default)))
        case FieldKind.POINTS:
            return sql.SQL("CAST({} AS bigint)").format(literal(default))
        case FieldKind.BOOLEAN:
            return sql.SQL("true" if default.lower() in TRUE_WORDS else "false")
        case FieldKind.CURRENCY:
            default = default.upper()
    return sql.SQL('CAST({} AS text) COLLATE "C"').format(literal(default))


def number_value(column: ColumnInfo) -> sql.Composable:
    """Return the column as numeric; a text that is no number becomes NaN, which no award accepts."""
    if column.base_type not in TEXTS:
        return sql.SQL("CAST({} AS numeric)").format(raw(column))
    return sql.SQL(
        "CASE WHEN {column} IS NULL THEN NULL"
        " WHEN length({column}) <= {longest} AND btrim({text}, {blanks}) ~ {pattern}"
        " THEN CAST(btrim({text}, {blanks}) AS numeric) ELSE {nan} END"
    ).format(
        column=raw(column),
        text=as_text(column),
        blanks=literal(BLANKS),
        pattern=literal(NUMBER_PATTERN),
        longest=sql.Literal(MAX_NUMBER_CHARACTERS),
        nan=NOT_A_NUMBER,
    )


def divided(value: sql.Composable, divisor: str | None) -> sql.Composable:
    """Return the amount in units. Multiplies by 0.01 where 100 is asked for: exact, and cheaper."""
    if divisor is None:
        return value
    return sql.SQL("({} * {})").format(value, sql.Literal(1 / Decimal(divisor)))


def points_value(column: ColumnInfo, default: sql.Composable | None) -> sql.Composable:
    """Return the column as bigint; NULL means that it holds something that is no number of points."""
    default = default or sql.SQL("CAST(0 AS bigint)")
    if column.base_type in INTEGERS:
        return sql.SQL("COALESCE(CAST({} AS bigint), {})").format(raw(column), default)
    number = number_value(column)
    return sql.SQL(
        "CASE WHEN {column} IS NULL THEN {default}"
        # Most orders have none, and the limits take longer than the rest of the row.
        " WHEN {number} = 0 THEN CAST(0 AS bigint)"
        " WHEN {number} BETWEEN -9223372036854775808 AND 9223372036854775807"
        " AND {number} = trunc({number}) THEN CAST({number} AS bigint) END"
    ).format(column=raw(column), default=default, number=number)


def timestamp_value(column: ColumnInfo, timezone: str) -> sql.Composable:
    """Return the column as timestamptz.

    Local times outside the years 1 to 9999 become NULL: near the ends of the range a conversion raises.
    """
    if column.base_type == "timestamptz":
        return sql.SQL("CAST({} AS timestamp with time zone)").format(raw(column))
    return sql.SQL(
        "CASE WHEN {column} >= '0001-01-01' AND {column} < '10000-01-01'"
        " THEN CAST({column} AS timestamp without time zone) AT TIME ZONE {timezone} END"
    ).format(column=raw(column), timezone=literal(timezone))


def boolean_value(column: ColumnInfo) -> sql.Composable:
    """Return the column as boolean; NULL for a text that is neither yes nor no."""
    if column.base_type == "bool":
        return raw(column)
    if column.base_type in INTEGERS:
        return sql.SQL("({} <> 0)").format(raw(column))
    return sql.SQL("CASE WHEN {word} IN ({true}) THEN true WHEN {word} IN ({false}) THEN false END").format(
        word=sql.SQL("lower(btrim({}, {}))").format(as_text(column), literal(BLANKS)),
        true=sql.SQL(", ").join(map(literal, TRUE_WORDS)),
        false=sql.SQL(", ").join(map(literal, FALSE_WORDS)),
    )


def status_value(column: ColumnInfo, part: MappedRelation) -> sql.Composable:
    """Return our word for the shop's; `unrecognized` for a word the mapping does not know, and for NULL."""
    branches = [
        sql.SQL("WHEN {} IN ({}) THEN {}").format(
            as_text(column), sql.SQL(", ").join(map(literal, theirs)), literal(ours)
        )
        for ours, theirs in part.status.items()
        if theirs
    ]
    case = sql.SQL("CASE {} ELSE {} END").format(sql.SQL(" ").join(branches), literal(UNRECOGNIZED))
    return collate_c(sql.SQL("CAST({} AS text)").format(case))


def is_wanted(part: MappedRelation, relation: RelationInfo) -> list[sql.Composable]:
    """Return the conditions of the mapping's `where`, on the row called `s`."""
    return [
        sql.SQL("{} IN ({})").format(as_text(relation.known(column)), sql.SQL(", ").join(map(literal, words)))
        for column, words in part.where.items()
    ]


# --- looking a row up by its key --------------------------------------------------------------------------


def equals_key(native: sql.Composable, column: ColumnInfo, word: sql.Composable) -> sql.Composable:
    """Return `native = word` compared in the column's own type, so that the shop's own index serves it.

    The word is one of our texts. It matches only if it is exactly the text that the view shows: `007` is
    not order 7, and a text that is no number at all matches nothing instead of raising.
    """
    exact = sql.SQL('CAST({} AS text) COLLATE "C" = {} COLLATE "C"').format(native, word)
    if column.base_type in INTEGERS:
        return sql.SQL("{} = {}").format(native, _guarded_bigint(word))
    if column.base_type == "uuid":
        return sql.SQL("{} = {}").format(native, _guarded_uuid(word))
    if column.base_type == "numeric":
        return sql.SQL("{} = {} AND {}").format(native, _guarded_numeric(word), exact)
    if column.base_type in TEXTS and column.collation_name:
        collation = sql.Identifier(column.collation_schema or "pg_catalog", column.collation_name)
        # char(n) ignores trailing blanks, and some collations ignore case: those compare twice.
        is_exact = column.base_type in ("text", "varchar") and column.is_deterministic
        cast = "bpchar" if column.base_type == "bpchar" else "text"
        same = sql.SQL(f"{{}} = CAST({{}} AS {cast}) COLLATE {{}}").format(native, word, collation)
        return same if is_exact else sql.SQL("{} AND {}").format(same, exact)
    return exact


def has_native_key(column: ColumnInfo) -> bool:
    """True when `equals_key` can use an index on the column."""
    return column.base_type in INTEGERS | TEXTS | {"uuid", "numeric"}


def _guarded_bigint(word: sql.Composable) -> sql.Composable:
    """18 digits always fit, 19 may or may not: only those are compared as numeric first."""
    return sql.SQL(
        'CASE WHEN octet_length({word}) > 20 OR {word} COLLATE "C" !~ {pattern} THEN NULL'
        " WHEN octet_length({word}) <= 18 THEN CAST({word} AS bigint)"
        " WHEN CAST({word} AS numeric) BETWEEN -9223372036854775808 AND 9223372036854775807"
        " THEN CAST({word} AS bigint) END"
    ).format(word=word, pattern=literal(INTEGER_PATTERN))


def _guarded_uuid(word: sql.Composable) -> sql.Composable:
    return sql.SQL(
        'CASE WHEN {word} COLLATE "C" LIKE {shape} AND {word} COLLATE "C" ~ {pattern} THEN CAST({word} AS uuid) END'
    ).format(word=word, shape=literal(UUID_SHAPE), pattern=literal(UUID_PATTERN))


def _guarded_numeric(word: sql.Composable) -> sql.Composable:
    return sql.SQL(
        'CASE WHEN octet_length({word}) <= {longest} AND {word} COLLATE "C" ~ {pattern}'
        " THEN CAST({word} AS numeric) END"
    ).format(word=word, pattern=literal(DECIMAL_PATTERN), longest=sql.Literal(MAX_NUMBER_CHARACTERS))
