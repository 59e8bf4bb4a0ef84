"""Renders a source mapping as the SQL script that puts it into force: views, key functions, rights."""

from collections.abc import Iterator
from typing import LiteralString

from psycopg import sql

from loyalty_pipelines.db.sources_capture import capture_statements
from loyalty_pipelines.db.sources_catalog import InstalledTrigger, RelationInfo, Relations, Rights
from loyalty_pipelines.db.sources_expressions import (
    ROW,
    SQL_TYPES,
    as_text,
    collate_c,
    default_value,
    empty_value,
    equals_key,
    has_native_key,
    is_wanted,
    literal,
    raw,
    value_of,
)
from loyalty_pipelines.db.sources_text import Block, lines_of
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS, SourceRelation
from loyalty_pipelines.domain.source_mapping import (
    FixedMerchants,
    MappedRelation,
    SourceMapping,
)

SOURCE_STATUS = "source_status"
KEYED = {"orders": "keyed_orders", "refunds": "keyed_refunds"}
# CREATE TRIGGER waits for every transaction that writes the shop's table, and the shop's next writes wait for
# it: better to give up and be run again than to hold up a checkout.
LOCK_TIMEOUT = "5s"


def render_script(
    mapping: SourceMapping, relations: Relations, rights: Rights, installed: list[InstalledTrigger]
) -> list[sql.Composable]:
    """Return the statements, in order, that put `mapping` into force, all in one transaction."""
    statements: list[sql.Composable] = [sql.SQL("SET LOCAL lock_timeout = {}").format(literal(LOCK_TIMEOUT))]
    for relation in SOURCE_RELATIONS.values():
        statements.append(view_statement(relation, mapping, relations))
    for name in KEYED:
        statements.extend(keyed_statements(SOURCE_RELATIONS[name], mapping, relations))
    statements.extend(grant_statements())
    statements.extend(capture_statements(mapping, relations, rights, installed))
    return statements


# --- views ------------------------------------------------------------------------------------------------


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


# --- functions that find rows by the shop's own keys ------------------------------------------------------


def native_keys(
    relation: SourceRelation, part: MappedRelation, info: RelationInfo
) -> Iterator[tuple[sql.Composable, str]]:
    """Yield the raw columns that the key functions compare, so that the shop's own indexes serve them."""
    changed_at = "updated_at" if relation.name == "orders" else "refunded_at"
    for name, alias in (
        ("merchant_id", "key_merchant"),
        ("order_id", "key_order"),
        (changed_at, "key_changed"),
    ):
        if name in part.columns:
            yield raw(info.known(part.columns[name])), alias


def keyed_statements(
    relation: SourceRelation, mapping: SourceMapping, relations: Relations
) -> Iterator[sql.Composable]:
    """Yield the helper view and the functions over it.

    The functions read a view, not the table: so they run with the rights of the view's owner on the shop's
    table (and through its row security), and the pipeline needs no right on any table of the shop. A plain
    SQL function without SET, STRICT and SECURITY DEFINER is inlined into the caller's plan.
    """
    part, info = mapping.relation(relation.name), relations.get(relation.name)
    helper = sql.Identifier("loyalty_source", KEYED[relation.name])
    yield sql.SQL("DROP VIEW IF EXISTS {}").format(helper)
    if part is None or info is None:
        yield sql.SQL("CREATE VIEW {} AS\n{}").format(helper, empty_query(relation))
    else:
        query = mapped_query(relation, part, info, mapping.timezone, keys=True)
        yield sql.SQL("CREATE VIEW {} AS\n{}").format(helper, query)
    for function, parameters, condition in functions_of(relation, part, info, mapping.timezone):
        yield function_statement(relation, helper, function, parameters, condition)
        signature = sql.SQL(", ").join(sql.SQL(kind) for _, kind in parameters)
        name = sql.Identifier("loyalty_source", function)
        yield sql.SQL("REVOKE ALL ON FUNCTION {}({}) FROM PUBLIC").format(name, signature)
        # The owner: the checkout functions run with its rights.
        yield sql.SQL("GRANT EXECUTE ON FUNCTION {}({}) TO loyalty_owner, loyalty_pipeline").format(name, signature)


Parameters = tuple[tuple[LiteralString, LiteralString], ...]
MERCHANT_PARAMETER: tuple[LiteralString, LiteralString] = ("p_merchant_id", "text")
ORDER_PARAMETER: tuple[LiteralString, LiteralString] = ("p_order_id", "text")
SINCE_PARAMETER: tuple[LiteralString, LiteralString] = ("p_since", "timestamp with time zone")


def functions_of(
    relation: SourceRelation, part: MappedRelation | None, info: RelationInfo | None, timezone: str
) -> Iterator[tuple[str, Parameters, sql.Composable]]:
    """Yield name, parameters and condition of each function over the helper view."""
    nothing = sql.SQL("false")
    of_merchant = merchant_condition(part, info) if part and info else nothing
    of_order, since = nothing, nothing
    if part and info:
        order = equals_key(sql.SQL("k.key_order"), info.known(part.columns["order_id"]), ORDER_PARAMETER[0])
        of_order = sql.SQL("{} AND {}").format(of_merchant, order)
        since = since_condition(relation, part, info, timezone)
    by_order = "order_by_id" if relation.name == "orders" else "refunds_of_order"
    yield by_order, (MERCHANT_PARAMETER, ORDER_PARAMETER), of_order
    yield f"{relation.name}_of_merchant", (MERCHANT_PARAMETER,), of_merchant
    yield f"{relation.name}_changed_since", (SINCE_PARAMETER,), since


def merchant_condition(part: MappedRelation, info: RelationInfo) -> sql.Composable:
    """Return the comparison of the merchant: by its own column, the constant, or either."""
    parameter = MERCHANT_PARAMETER[0]
    field = SOURCE_RELATIONS["orders"].field("merchant_id")
    constant = default_value(field, part.defaults.get("merchant_id"))
    is_constant = sql.SQL('{} COLLATE "C" = {}').format(sql.SQL(parameter), constant or sql.SQL("NULL"))
    if "merchant_id" not in part.columns:
        return is_constant
    native = sql.SQL("k.key_merchant")
    is_equal = equals_key(native, info.known(part.columns["merchant_id"]), parameter)
    if constant is None:
        return is_equal
    return sql.SQL("({} OR ({} IS NULL AND {}))").format(is_equal, native, is_constant)


def since_condition(
    relation: SourceRelation, part: MappedRelation, info: RelationInfo, timezone: str
) -> sql.Composable:
    """Return `changed at or after p_since`, on the raw column for its index and exactly on ours.

    The hour that a local clock repeats in autumn makes local times run backwards, hence the margin of a day.
    """
    changed_at = "updated_at" if relation.name == "orders" else "refunded_at"
    column = info.known(part.columns[changed_at])
    exact = sql.SQL("k.{} >= p_since").format(sql.Identifier(changed_at))
    if column.base_type == "timestamptz":
        return sql.SQL("k.key_changed >= p_since")
    local = sql.SQL("CAST(p_since AT TIME ZONE {} - interval '1 day' AS {})").format(
        literal(timezone), sql.SQL("date" if column.base_type == "date" else "timestamp without time zone")
    )
    return sql.SQL("k.key_changed >= {} AND {}").format(local, exact)


def function_statement(
    relation: SourceRelation,
    helper: sql.Composable,
    function: str,
    parameters: Parameters,
    condition: sql.Composable,
) -> sql.Composable:
    columns = first_columns(relation)
    outputs = lines_of(sql.SQL("k.{}").format(sql.Identifier(name)) for name, _ in columns)
    body = sql.SQL("\nSELECT\n{}\nFROM {} AS k\nWHERE {}\n").format(outputs, helper, condition)
    return sql.SQL(
        "CREATE OR REPLACE FUNCTION {name}({parameters})\nRETURNS TABLE (\n{columns}\n)\n"
        "LANGUAGE sql STABLE ROWS {rows}\nAS {body}"
    ).format(
        name=sql.Identifier("loyalty_source", function),
        parameters=sql.SQL(", ").join(sql.SQL(f"{name} {kind}") for name, kind in parameters),
        columns=lines_of(sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns),
        rows=sql.SQL("1" if function == "order_by_id" else "100"),
        body=Block(body),
    )


# --- rights -----------------------------------------------------------------------------------------------


def grant_statements() -> Iterator[sql.Composable]:
    """Yield the grants: all views to the pipeline, those without personal data to dashboards."""
    names = [*SOURCE_RELATIONS, *KEYED.values()]
    views = sql.SQL(", ").join(sql.Identifier("loyalty_source", name) for name in names)
    yield sql.SQL("GRANT SELECT ON {} TO loyalty_owner, loyalty_pipeline").format(views)
    yield sql.SQL("GRANT SELECT ON loyalty_source.merchants, loyalty_source.orders TO loyalty_reader")


def uncertain_keys(mapping: SourceMapping, relations: Relations) -> list[str]:
    """Return a note for each relation that may show one merchant or order more than once."""
    notes = []
    for name, fields in (("merchants", ("merchant_id",)), ("orders", ("merchant_id", "order_id"))):
        part, info = mapping.relation(name), relations.get(name)
        if part is None or info is None:
            continue
        key = {part.columns[field] for field in fields if field in part.columns}
        if not any(key.issuperset(unique) for unique in info.unique_keys):
            notes.append(
                f"{name}: no unique index on {part.relation} keeps it from showing one of its {name} more than once"
                + (" (an order that it shows twice is not decided and goes to the queue)." if name == "orders" else ".")
            )
    return notes


def unindexed_keys(mapping: SourceMapping, relations: Relations) -> list[str]:
    """Return a note for each key column whose type no index can serve."""
    notes = []
    for name in KEYED:
        part, info = mapping.relation(name), relations.get(name)
        column = info.column(part.columns["order_id"]) if part and info else None
        if column is not None and not has_native_key(column):
            notes.append(
                f"{name}.columns.order_id: {column.name} is of type {column.shown_type}, which is compared as"
                " text without an index. Award batches will read the whole table: map a view that gives it"
                " as text over an indexed expression, or change its type."
            )
    return notes
