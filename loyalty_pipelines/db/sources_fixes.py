"""Renders what a fix needs of the shop's tables: raw rows to look at, and functions that write subscriptions.

A raw row is the shop's own values under our names of the columns, so that undoing a fix can put back exactly what was
there. The functions find it by the shop's own index, as all look-ups do. They run with the rights of their caller on
views, and the views with those of their owner on the table.
"""

from collections.abc import Iterable, Iterator
from typing import LiteralString

from psycopg import sql

from loyalty_pipelines.db.sources_catalog import RelationInfo, Relations
from loyalty_pipelines.db.sources_expressions import ROW, equals_key, literal, raw
from loyalty_pipelines.db.sources_fix_values import (
    constant_checks,
    creation_values,
    id_value,
    update_values,
    updated_value,
)
from loyalty_pipelines.db.sources_lookups import merchant_condition
from loyalty_pipelines.db.sources_text import Block, lines_of
from loyalty_pipelines.db.sources_views import conditions
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS
from loyalty_pipelines.domain.source_mapping import Fixes, MappedRelation, SourceMapping

ROW_FUNCTIONS: dict[str, tuple[str, str, LiteralString]] = {
    "payments": ("raw_payments", "payment_row", "p_payment_id"),
    "subscriptions": ("raw_subscriptions", "subscription_row", "p_subscription_id"),
}
"""The view of raw rows, the function that reads one, and what its second parameter is called."""
# The same row is the same text in every session: undoing a fix asks whether a row is still what it was.
SAME_TEXT = sql.SQL("SET TimeZone = 'UTC'\nSET extra_float_digits = 1")
WRITABLE = sql.Identifier("loyalty_source", "writable_subscriptions")
WRITERS: dict[str, tuple[LiteralString, LiteralString, tuple[str, ...]]] = {
    "lock_subscription": ("p_merchant_id text, p_subscription_id text", "jsonb", WRITES := ("create", "update")),
    "create_subscription": ("p_values jsonb", "text", ("create",)),
    "remove_subscription": ("p_merchant_id text, p_subscription_id text", "boolean", ("create",)),
    "update_subscription": ("p_merchant_id text, p_subscription_id text, p_changes jsonb", "boolean", ("update",)),
    "restore_subscription": ("p_merchant_id text, p_subscription_id text, p_row jsonb", "boolean", ("update",)),
}
"""Parameters and result of each function, and the actions that need it."""


def fix_statements(mapping: SourceMapping, relations: Relations) -> Iterator[sql.Composable]:
    """Yield the raw rows, and what writes subscriptions as far as the mapping allows it; the rest is removed."""
    for name in ROW_FUNCTIONS:
        yield from row_statements(name, mapping, relations)
    part, info = mapping.subscriptions, relations.get("subscriptions")
    fixes = mapping.fixes or Fixes()
    wanted = {
        word for word in WRITES if part is not None and info is not None and fixes.is_written(f"{word}_subscription")
    }
    for function, (parameters, _, actions) in WRITERS.items():
        if not wanted.intersection(actions):
            yield sql.SQL("DROP FUNCTION IF EXISTS {}({})").format(
                sql.Identifier("loyalty_source", function), sql.SQL(parameters)
            )
    yield sql.SQL("DROP VIEW IF EXISTS {}").format(WRITABLE)
    if part is None or info is None or not wanted:
        return
    yield from writable_view(part, info)
    if "create" in wanted:
        yield from sequence_grants(info)
    for function, (parameters, result, actions) in WRITERS.items():
        if wanted.intersection(actions):
            yield from writer(function, parameters, result, writer_body(function, part, info, mapping.timezone))


# --- raw rows ---------------------------------------------------------------------------------------------


def row_statements(name: str, mapping: SourceMapping, relations: Relations) -> Iterator[sql.Composable]:
    """Yield the view of the raw rows of one relation, and the function that reads one; NULL where it isn't mapped."""
    view_name, function, key_parameter = ROW_FUNCTIONS[name]
    part, info = mapping.relation(name), relations.get(name)
    view = sql.Identifier("loyalty_source", view_name)
    yield sql.SQL("DROP VIEW IF EXISTS {}").format(view)
    if part is None or info is None:
        body = sql.SQL("\nSELECT CAST(NULL AS jsonb)\n")
    else:
        yield sql.SQL("CREATE VIEW {} AS\n{}").format(view, raw_query(name, part, info))
        yield sql.SQL("GRANT SELECT ON {} TO loyalty_pipeline").format(view)
        body = sql.SQL("\nSELECT to_jsonb(k)\nFROM {} AS k\nWHERE {}\nLIMIT 1\n").format(
            view, is_row(name, part, info, key_parameter)
        )
    parameters = sql.SQL("p_merchant_id text, {} text").format(sql.SQL(key_parameter))
    language = sql.SQL("LANGUAGE sql STABLE\n{}").format(SAME_TEXT)
    yield from function_statements(function, parameters, sql.SQL("jsonb"), language, body)


def raw_query(
    name: str, part: MappedRelation, info: RelationInfo, more: tuple[tuple[str, str], ...] = ()
) -> sql.Composable:
    """Return the SELECT of the shop's own values under our names; `more`: other columns and their names."""
    named = [(field, part.columns[field]) for field in SOURCE_RELATIONS[name].field_names if field in part.columns]
    return sql.SQL("SELECT\n{}\nFROM {} AS {}{}").format(
        lines_of(
            sql.SQL("{} AS {}").format(raw(info.known(column)), sql.Identifier(alias))
            for alias, column in (*named, *more)
        ),
        sql.Identifier(info.schema_name, info.table_name),
        ROW,
        conditions(SOURCE_RELATIONS[name], part, info),
    )


def is_row(name: str, part: MappedRelation, info: RelationInfo, key_parameter: LiteralString) -> sql.Composable:
    """Return the condition that picks one row of a view of raw rows called `k`."""
    key = SOURCE_RELATIONS[name].key[1]
    native = sql.SQL("k.{}").format(sql.Identifier(key))
    of_merchant = merchant_condition(part, info, sql.SQL("p_merchant_id"), sql.SQL("k.merchant_id"))
    is_key = equals_key(native, info.known(part.columns[key]), sql.SQL(key_parameter))
    return sql.SQL("{}\n    AND {}").format(of_merchant, is_key)


# --- writing subscriptions --------------------------------------------------------------------------------


def picked_columns(part: MappedRelation) -> tuple[tuple[str, str], ...]:
    """Return name and column of what `where` looks at and no field shows: a new row needs a word there."""
    columns = [column for column in part.where if column not in part.columns.values()]
    return tuple((f"where_{number}", column) for number, column in enumerate(columns))


def own_names(part: MappedRelation) -> dict[str, str]:
    """Return for each mapped field the one that stands for its column: no statement may set a column twice."""
    first: dict[str, str] = {}
    for field in SOURCE_RELATIONS["subscriptions"].field_names:
        if field in part.columns:
            first.setdefault(part.columns[field], field)
    return {field: first[column] for field, column in part.columns.items()}


def writable_view(part: MappedRelation, info: RelationInfo) -> Iterator[sql.Composable]:
    """Yield the view that PostgreSQL writes through; a row that the mapping would not show is refused."""
    check = sql.SQL("\nWITH LOCAL CHECK OPTION" if part.where else "")
    query = raw_query("subscriptions", part, info, picked_columns(part))
    yield sql.SQL("CREATE VIEW {} AS\n{}{}").format(WRITABLE, query, check)
    yield sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO loyalty_pipeline").format(WRITABLE)


def sequence_grants(info: RelationInfo) -> Iterator[sql.Composable]:
    """Yield the rights on what numbers rows: a default is computed with the rights of whoever inserts."""
    for column in info.columns:
        if column.sequence_name:
            sequence = sql.Identifier(column.sequence_schema or "public", column.sequence_name)
            yield sql.SQL("GRANT USAGE ON SEQUENCE {} TO loyalty_pipeline").format(sequence)


def writer(
    function: str, parameters: LiteralString, result: LiteralString, body: sql.Composable
) -> Iterator[sql.Composable]:
    # What writes runs in its caller's settings: the shop's defaults and triggers may read them.
    settings = SAME_TEXT if function == "lock_subscription" else sql.SQL("")
    language = sql.SQL("LANGUAGE plpgsql VOLATILE\n{}").format(settings)
    yield from function_statements(function, sql.SQL(parameters), sql.SQL(result), language, body)


def function_statements(
    function: str,
    parameters: sql.Composable,
    result: sql.Composable,
    language: sql.Composable,
    body: sql.Composable,
) -> Iterator[sql.Composable]:
    name = sql.Identifier("loyalty_source", function)
    yield sql.SQL("CREATE OR REPLACE FUNCTION {}({})\nRETURNS {}\n{}\nAS {}").format(
        name, parameters, result, language, Block(body)
    )
    yield sql.SQL("REVOKE ALL ON FUNCTION {}({}) FROM PUBLIC").format(name, parameters)
    yield sql.SQL("GRANT EXECUTE ON FUNCTION {}({}) TO loyalty_pipeline").format(name, parameters)


def writer_body(function: str, part: MappedRelation, info: RelationInfo, timezone: str) -> sql.Composable:
    match function:
        case "lock_subscription":
            return lock_body(part, info)
        case "create_subscription":
            return create_body(part, info, timezone)
        case "remove_subscription":
            return remove_body(part, info)
        case "update_subscription":
            return update_body(part, info, timezone)
        case _:
            return restore_body(part, info)


def lock_body(part: MappedRelation, info: RelationInfo) -> sql.Composable:
    return sql.SQL(
        """
DECLARE
    v_row jsonb;
BEGIN
    SELECT to_jsonb(k) - {picked}
    INTO v_row
    FROM {view} AS k
    WHERE {is_row}
    FOR UPDATE;
    RETURN v_row;
END
"""
    ).format(
        picked=text_array(name for name, _ in picked_columns(part)),
        view=WRITABLE,
        is_row=is_row("subscriptions", part, info, "p_subscription_id"),
    )


def remove_body(part: MappedRelation, info: RelationInfo) -> sql.Composable:
    return sql.SQL(
        """
BEGIN
    DELETE FROM {view} AS k
    WHERE {is_row};
    RETURN FOUND;
END
"""
    ).format(view=WRITABLE, is_row=is_row("subscriptions", part, info, "p_subscription_id"))


def restore_body(part: MappedRelation, info: RelationInfo) -> sql.Composable:
    """Return what writes the raw columns of `p_row`, and no others: UPDATE OF triggers see what is changed.

    The row is found and locked by the words of its key, then written by its key itself.
    """
    names = set(own_names(part).values()) - {"merchant_id", "subscription_id"}
    names = {name for name in names if not info.known(part.columns[name]).is_generated}
    merchant = sql.SQL("")
    if "merchant_id" in part.columns:
        merchant = sql.SQL(" AND k.merchant_id = ($2).merchant_id")
    if "merchant_id" in part.columns and "merchant_id" in part.defaults:
        merchant = sql.SQL(
            " AND (k.merchant_id = ($2).merchant_id OR (k.merchant_id IS NULL AND ($2).merchant_id IS NULL))"
        )
    return sql.SQL(
        """
DECLARE
    v_key {view};
    v_sets text;
    v_count bigint;
BEGIN
    SELECT string_agg(format('%1$I = r.%1$I', n.name), ', ')
    INTO v_sets
    FROM unnest({names}) AS n (name)
    WHERE p_row ? n.name;
    SELECT k.*
    INTO v_key
    FROM {view} AS k
    WHERE {is_row}
    FOR UPDATE;
    IF NOT FOUND OR v_sets IS NULL THEN
        RETURN FOUND;
    END IF;
    EXECUTE format({update}, v_sets) USING p_row, v_key;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count > 1 THEN
        RAISE EXCEPTION 'subscription % of merchant % is there % times, so which to change is not known',
            p_subscription_id, p_merchant_id, v_count;
    END IF;
    RETURN v_count = 1;
END
"""
    ).format(
        view=WRITABLE,
        names=text_array(sorted(names)),
        is_row=is_row("subscriptions", part, info, "p_subscription_id"),
        update=sql.Literal(
            sql.SQL(
                "UPDATE {view} AS k SET %s FROM jsonb_populate_record(CAST(NULL AS {view}), $1) AS r"
                " WHERE k.subscription_id = ($2).subscription_id{merchant}"
            )
            .format(view=WRITABLE, merchant=merchant)
            .as_string(None)
        ),
    )


def update_body(part: MappedRelation, info: RelationInfo, timezone: str) -> sql.Composable:
    """Return what turns `p_changes` into raw values and writes them."""
    stands_for = own_names(part)
    values = update_values(part, info, timezone)
    steps = [
        sql.SQL(
            "    IF p_changes ? {name} THEN\n{check}        v_raw := v_raw || jsonb_build_object({own}, {value});\n"
            "    END IF;\n"
        ).format(name=literal(name), own=literal(stands_for[name]), value=value.expression, check=value.check)
        for name, value in values.items()
    ]
    touch = sql.SQL("")
    if "updated_at" in part.columns:
        touch = sql.SQL(" || jsonb_build_object({}, {})").format(
            literal(stands_for["updated_at"]), updated_value(part, info, timezone)
        )
    return sql.SQL(
        """
DECLARE
    v_raw jsonb := '{{}}';
    v_wrong text;
BEGIN
    SELECT c.name
    INTO v_wrong
    FROM jsonb_object_keys(p_changes) AS c (name)
    WHERE c.name <> ALL ({known})
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'subscriptions.columns.% is not mapped or can''t be changed; these can: %',
            v_wrong, array_to_string({known}, ', ');
    END IF;
    v_raw := v_raw{touch};
{steps}    RETURN loyalty_source.restore_subscription(p_merchant_id, p_subscription_id, v_raw);
END
"""
    ).format(known=text_array(values), touch=touch, steps=sql.Composed(steps))


def create_body(part: MappedRelation, info: RelationInfo, timezone: str) -> sql.Composable:
    """Return what turns `p_values` into a raw row and inserts it; the shop's defaults make up for what is missing."""
    stands_for = own_names(part)
    steps: list[sql.Composable] = [
        sql.SQL(
            "    IF p_values ? {name} THEN\n{check}        v_raw := v_raw || jsonb_build_object({own}, {value});\n"
            "    END IF;\n"
        ).format(name=literal(name), own=literal(stands_for[name]), value=value.expression, check=value.check)
        for name, value in creation_values(part, info, timezone).items()
    ]
    steps.append(id_value(part, info))
    steps.extend(
        sql.SQL("    v_raw := v_raw || jsonb_build_object({}, {});\n").format(
            literal(name), sql.SQL("CAST({} AS text)").format(literal(part.where[column][0]))
        )
        for name, column in picked_columns(part)
    )
    return sql.SQL(
        """
DECLARE
    v_raw jsonb := '{{}}';
    v_wrong text;
    v_id text;
BEGIN
    SELECT c.name
    INTO v_wrong
    FROM jsonb_object_keys(p_values) AS c (name)
    WHERE c.name <> ALL ({known})
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'subscriptions have no field %', v_wrong;
    END IF;
{checks}{steps}    EXECUTE (
        SELECT format({insert}, string_agg(format('%I', c.name), ', '), string_agg(format('r.%I', c.name), ', '))
        FROM jsonb_object_keys(v_raw) AS c (name)
    ) INTO v_id USING v_raw;
    RETURN v_id;
END
"""
    ).format(
        known=text_array(SOURCE_RELATIONS["subscriptions"].field_names),
        checks=constant_checks(part),
        steps=sql.Composed(steps),
        insert=sql.Literal(
            sql.SQL(
                "INSERT INTO {view} AS k (%s) SELECT %s FROM jsonb_populate_record(CAST(NULL AS {view}), $1) AS r"
                " RETURNING CAST(k.subscription_id AS text)"
            )
            .format(view=WRITABLE)
            .as_string(None)
        ),
    )


def text_array(words: Iterable[str]) -> sql.Composable:
    """Return the words as an array of texts."""
    return sql.SQL("CAST(ARRAY[{}] AS text[])").format(sql.SQL(", ").join(literal(word) for word in words))
