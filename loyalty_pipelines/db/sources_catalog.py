"""What the live catalogue says about the relations that a source mapping names."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.source_mapping import FunctionName, RelationName, SourceMapping

RELATION = load("sources/relation")
COLUMNS = load("sources/columns")
RELATION_NAMES = load("sources/relation_names")
TIME_ZONES = load("sources/time_zones")
RIGHTS = load("sources/rights")
WRITABLE = load("sources/writable")
FUNCTIONS = load("sources/functions")
CAPTURE_TRIGGERS = load("sources/capture_triggers")

INTEGERS = frozenset({"int2", "int4", "int8"})
TEXTS = frozenset({"text", "varchar", "bpchar", "name"})
FLOATS = frozenset({"float4", "float8"})
TIMESTAMPS = frozenset({"timestamptz", "timestamp", "date"})


@dataclass(frozen=True, kw_only=True)
class ColumnInfo:
    """A column of the shop.

    `has_default`: a row without it gets one, identity included. `is_generated`: a row can't be given one.
    `sequence_name`: of a serial column; `can_share_sequence`: the pipeline may use it, or the current user can let it.
    `base_type` is the catalogue's short name (`int8`, `varchar`), domains resolved; empty for types that PostgreSQL
    does not bring along.
    """

    name: str
    shown_type: str
    base_type: str
    is_enum: bool
    is_not_null: bool
    has_default: bool
    is_generated: bool
    sequence_schema: str | None
    sequence_name: str | None
    can_share_sequence: bool
    collation_schema: str | None
    collation_name: str | None
    is_deterministic: bool


@dataclass(frozen=True, kw_only=True)
class RelationInfo:
    """A relation of the shop, its columns in order, and what the current user may do with it.

    `kind` is pg_class.relkind: r table, p partitioned table, v view, m materialized view, f foreign table.
    `missing_rights`: those of INSERT, UPDATE, DELETE that the current user lacks. `hides_rows`: row security keeps rows
    from the current user. `unique_keys`: the columns of each unique index.
    """

    schema_name: str
    table_name: str
    kind: str
    persistence: str
    is_child: bool
    can_use_schema: bool
    can_select: bool
    can_trigger: bool
    missing_rights: str
    hides_rows: bool
    owner: str
    unique_keys: Sequence[Sequence[str]]
    columns: tuple[ColumnInfo, ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> ColumnInfo | None:
        """Return the column called `name`; None when there is none."""
        return next((column for column in self.columns if column.name == name), None)

    def known(self, name: str) -> ColumnInfo:
        """Return the column called `name`, which `check` has seen; KeyError when there is none."""
        column = self.column(name)
        if column is None:
            raise KeyError(name)
        return column


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What the current user may do in schema `loyalty_source`, and whether a migration's parts are there.

    `is_capture_member`: already has the rights of role loyalty_capture; `can_join_capture`: may take them.
    `can_record`: may write the mapping into loyalty.source_mapping. `other_owners`: roles that own views
    there which the current user cannot replace.
    """

    user_name: str
    is_superuser: bool
    has_schema: bool
    can_create: bool
    has_tables: bool
    can_record: bool
    has_capture_role: bool
    is_capture_member: bool
    can_join_capture: bool
    other_owners: str


@dataclass(frozen=True, kw_only=True)
class FunctionInfo:
    """A function of the shop. `fits`: takes one jsonb and returns text. `is_allowed`: the pipeline may call it."""

    schema_name: str
    function_name: str
    shown: str
    fits: bool
    is_allowed: bool


@dataclass(frozen=True, kw_only=True)
class InstalledTrigger:
    """A capture trigger that exists on a table of the shop."""

    schema_name: str
    table_name: str
    trigger_name: str


Relations = dict[str, RelationInfo]
"""The relations of a mapping by the name of their view; those that do not exist are missing."""


def read_relation(conn: Connection, name: RelationName) -> RelationInfo | None:
    """Return the relation called `name` with its columns; None when there is none."""
    row = conn.execute(RELATION, {"schema_name": name.schema_name, "table_name": name.table}).one_or_none()
    if row is None:
        return None
    fields = dict(row._mapping)
    columns = conn.execute(COLUMNS, {"relation_oid": fields.pop("relation_oid")})
    return RelationInfo(
        schema_name=name.schema_name,
        table_name=name.table,
        columns=tuple(ColumnInfo(**column._mapping) for column in columns),
        **fields,
    )


def read_relations(conn: Connection, mapping: SourceMapping) -> Relations:
    """Return the relations that `mapping` names, as far as they exist."""
    found: Relations = {}
    for name in mapping.mapped_relations:
        part = mapping.relation(name)
        relation = read_relation(conn, part.relation) if part else None
        if relation is not None:
            found[name] = relation
    return found


def read_relation_names(conn: Connection) -> list[tuple[str, str]]:
    """Return schema and name of every relation that could be mapped."""
    return [(row.schema_name, row.table_name) for row in conn.execute(RELATION_NAMES)]


def read_is_writable(conn: Connection, relation: RelationInfo) -> bool:
    """True when PostgreSQL can write there: a table, or a view by its own rules or by INSTEAD OF triggers."""
    values = {"schema_name": relation.schema_name, "table_name": relation.table_name}
    return conn.execute(WRITABLE, values).scalar_one()


def read_functions(conn: Connection, name: FunctionName) -> list[FunctionInfo]:
    """Return the functions that `name` may mean: those of its name in any schema, and all of its schema."""
    rows = conn.execute(FUNCTIONS, {"schema_name": name.schema_name, "function_name": name.name})
    return [FunctionInfo(**row._mapping) for row in rows]


def read_time_zones(conn: Connection) -> list[str]:
    """Return the names of the time zones that the server knows."""
    return list(conn.execute(TIME_ZONES).scalars())


def read_rights(conn: Connection) -> Rights:
    """Return what the current user may do where views and triggers will lie."""
    return Rights(**conn.execute(RIGHTS).one()._mapping)


def read_triggers(conn: Connection) -> list[InstalledTrigger]:
    """Return the capture triggers that exist now."""
    return [InstalledTrigger(**row._mapping) for row in conn.execute(CAPTURE_TRIGGERS)]
