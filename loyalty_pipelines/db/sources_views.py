"""Renders the source views: the shop's rows in our columns."""

from collections.abc import Iterator
from typing import LiteralString

from psycopg import sql

from loyalty_pipelines.db.sources_catalog import RelationInfo, Relations
from loyalty_pipelines.db.sources_expressions import (
    ROW,
    SQL_TYPES,
    as_text,
    collate_c,
    empty_value,
    is_wanted,
    literal,
    raw,
    value_of,
)
from loyalty_pipelines.db.sources_text import lines_of
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS, SourceRelation
from loyalty_pipelines.domain.source_mapping import FixedMerchants, MappedRelation, SourceMapping

SOURCE_STATUS = "source_status"
CHANGED_AT = {
    "orders": "updated_at",
    "refunds": "refunded_at",
    "payments": "updated_at",
    "subscriptions": "updated_at",
}
"""The field that says when a row was changed last, of each relation whose rows are looked up."""
KEY_FIELDS = ("merchant_id", "order_id", "payment_id", "subscription_id", "customer_id")


def first_columns(relation: SourceRelation) -> list[tuple[str, LiteralString]]:
    """Return name and SQL type of each column of the view's first version: what its first functions return for ever."""
    columns: list[tuple[str, LiteralString]] = [(field.name, SQL_TYPES[field.kind]) for field in relation.first_fields]
    return [*columns, (SOURCE_STATUS, "text")] if relation.statuses else columns


def view_columns(relation: SourceRelation) -> list[tuple[str, LiteralString]]:
    """Return name and SQL type of each column of the view, in order."""
    return [*first_columns(relation), *((field.name, SQL_TYPES[field.kind]) for field in relation.later_fields)]


def view_statement(relation: SourceRelation, mapping: SourceMapping, relations: Relations) -> sql.Composable:
    """Return CREATE OR REPLACE VIEW for one relation.

    The columns never change, so whatever was built on the view stays.
    """
    part, info = mapping.relation(relation.name), relations.get(relation.name)
    if relation.name == "merchants" and isinstance(mapping.merchants, FixedMerchants):
        query = fixed_merchants(mapping.merchants)
    elif part is None or info is None:
        query = empty_query(relation)
    else:
        query = mapped_query(relation, part, info, mapping.timezone)
    return sql.SQL("CREATE OR REPLACE VIEW loyalty_source.{} AS\n{}").format(sql.Identifier(relation.name), query)


def mapped_query(
    relation: SourceRelation, part: MappedRelation, info: RelationInfo, timezone: str, *, keys: bool = False
) -> sql.Composable:
    """Return the SELECT of a view over the shop's relation; with `keys`, its raw columns come first."""
    outputs: list[tuple[sql.Composable, str]] = []
    if keys:
        outputs.extend(native_keys(relation, part, info))
    outputs.extend((value_of(field, part, info, timezone), field.name) for field in relation.first_fields)
    if relation.statuses:
        outputs.append((as_text(info.known(part.columns["status"])), SOURCE_STATUS))
    outputs.extend((value_of(field, part, info, timezone), field.name) for field in relation.later_fields)
    return sql.SQL("SELECT\n{}\nFROM {} AS {}{}").format(
        lines_of(sql.SQL("{} AS {}").format(value, sql.Identifier(name)) for value, name in outputs),
        sql.Identifier(info.schema_name, info.table_name),
        ROW,
        conditions(relation, part, info),
    )


def conditions(relation: SourceRelation, part: MappedRelation, info: RelationInfo) -> sql.Composable:
    """Return the WHERE of a view: rows without a key name nothing that could be awarded, and are left out."""
    wanted = is_wanted(part, info)
    for name in relation.key:
        column = info.column(part.columns.get(name, ""))
        if column is not None and not column.is_not_null and name not in part.defaults:
            wanted.append(sql.SQL("{} IS NOT NULL").format(raw(column)))
    return sql.SQL("\nWHERE {}").format(sql.SQL("\n  AND ").join(wanted)) if wanted else sql.SQL("")


def empty_query(relation: SourceRelation) -> sql.Composable:
    """Return a SELECT with the view's columns and no rows."""
    outputs = [(empty_value(field), field.name) for field in relation.first_fields]
    if relation.statuses:
        outputs.append((collate_c(sql.SQL("CAST(NULL AS text)")), SOURCE_STATUS))
    outputs.extend((empty_value(field), field.name) for field in relation.later_fields)
    columns = lines_of(sql.SQL("{} AS {}").format(value, sql.Identifier(name)) for value, name in outputs)
    return sql.SQL("SELECT\n{}\nWHERE false").format(columns)


def fixed_merchants(merchants: FixedMerchants) -> sql.Composable:
    """Return the merchants of the mapping itself as a query."""
    relation = SOURCE_RELATIONS["merchants"]
    rows = []
    for row in merchants.rows:
        words = [row.merchant_id, row.name, row.timezone, row.currency, row.locale]
        flag = sql.SQL("true" if row.is_active else "false")
        texts = [sql.SQL('CAST({} AS text) COLLATE "C"').format(literal(word)) for word in words]
        rows.append(sql.SQL("({})").format(sql.SQL(", ").join([*texts, flag])))
    names = sql.SQL(", ").join(sql.Identifier(name) for name in relation.field_names)
    return sql.SQL("SELECT {names}\nFROM (VALUES\n{rows}\n) AS {row} ({names})").format(
        names=names, rows=lines_of(rows), row=ROW
    )


def native_keys(
    relation: SourceRelation, part: MappedRelation, info: RelationInfo
) -> Iterator[tuple[sql.Composable, str]]:
    """Yield the raw columns that the key functions compare, so that the shop's own indexes serve them."""
    keys = {name: f"key_{name.removesuffix('_id')}" for name in KEY_FIELDS if name in relation.field_names}
    keys[CHANGED_AT[relation.name]] = "key_changed"
    for name, alias in keys.items():
        if name in part.columns:
            yield raw(info.known(part.columns[name])), alias
