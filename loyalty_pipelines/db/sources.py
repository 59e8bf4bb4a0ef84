"""Puts a source mapping into force: checks it against the live catalogue, shows it, applies it.

What callers write against the views and key functions is described in docs/source-mapping.md.
"""

from sqlalchemy import Connection

from loyalty_pipelines.db.sources_capture import captures_of
from loyalty_pipelines.db.sources_catalog import (
    Relations,
    read_relations,
    read_rights,
    read_triggers,
)
from loyalty_pipelines.db.sources_check import find_problems
from loyalty_pipelines.db.sources_render import render_script, unindexed_keys
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.source_mapping import (
    AppliedMapping,
    MappingProblem,
    NoMappingError,
    SourceMapping,
    SourceMappingError,
    parse_mapping,
)

LOCK = load("sources/lock")
STORE = load("sources/store")
CURRENT = load("sources/current")
GET_LOCK_TIMEOUT = load("sources/lock_timeout")
SET_LOCK_TIMEOUT = load("sources/set_lock_timeout")


def check(conn: Connection, mapping: SourceMapping) -> list[MappingProblem]:
    """Return every reason why `mapping` does not fit this database; empty when it can be applied."""
    return find_problems(conn, mapping, read_relations(conn, mapping))


def render(conn: Connection, mapping: SourceMapping) -> str:
    """Return the SQL script that `apply` would run now. Changes nothing.

    Raises SourceMappingError when the mapping does not fit.
    """
    statements = _statements(conn, mapping, _fitting_relations(conn, mapping))
    return "".join(f"{statement};\n\n" for statement in statements)


def apply(conn: Connection, mapping: SourceMapping) -> AppliedMapping:
    """Replace views, key functions and capture triggers by those of `mapping`, and record it.

    Runs in the caller's transaction and does not commit. Repeating it leaves the same state. Waits at most 5
    seconds for each lock on the shop's tables; then the driver's lock_not_available is raised, and the caller
    rolls back. Raises SourceMappingError when the mapping does not fit.
    """
    conn.execute(LOCK)
    relations = _fitting_relations(conn, mapping)
    _run(conn, _statements(conn, mapping, relations))
    applied_at = conn.execute(STORE, {"mapping_yaml": mapping.yaml_text}).scalar_one()
    return AppliedMapping(
        mapping=mapping,
        applied_at=applied_at,
        triggers=tuple(f"{capture.trigger} on {capture.part.relation}" for capture in captures_of(mapping, relations)),
        notes=tuple(unindexed_keys(mapping, relations)),
    )


def current(conn: Connection) -> SourceMapping | None:
    """Return the mapping in force; None when none was ever applied.

    `mapped_relations` of the result says which views have rows. Raises SourceMappingError when the recorded
    text is not understood, for example because a newer version wrote it.
    """
    text = conn.execute(CURRENT).scalar_one_or_none()
    return None if text is None else parse_mapping(text)


def require_mapping(conn: Connection) -> SourceMapping:
    """Return the mapping in force, as `current` does; raise `NoMappingError` when none was ever applied."""
    mapping = current(conn)
    if mapping is None:
        raise NoMappingError
    return mapping


def withdraw(conn: Connection) -> None:
    """Let go of the shop's tables: empty the views, remove the triggers. `apply` puts everything back.

    For migrations of the shop that drop or retype a column that the views read. The record of the mapping
    stays, and so do a fixed list of merchants and what was built on the views. Repeating it changes nothing.
    Runs in the caller's transaction and does not commit.
    """
    conn.execute(LOCK)
    mapping = current(conn)
    if mapping is not None:
        _run(conn, _statements(conn, mapping, {}))


def _run(conn: Connection, statements: list[str]) -> None:
    previous_timeout = conn.execute(GET_LOCK_TIMEOUT).scalar_one()
    for statement in statements:
        # Without parameters, so that a percent sign in a name or word stays one.
        conn.exec_driver_sql(statement, execution_options={"no_parameters": True})
    conn.execute(SET_LOCK_TIMEOUT, {"lock_timeout": previous_timeout})


def _fitting_relations(conn: Connection, mapping: SourceMapping) -> Relations:
    relations = read_relations(conn, mapping)
    problems = find_problems(conn, mapping, relations)
    if problems:
        raise SourceMappingError(problems)
    return relations


def _statements(conn: Connection, mapping: SourceMapping, relations: Relations) -> list[str]:
    """Return the statements as texts, quoted as this connection needs it."""
    context = conn.connection.driver_connection
    statements = render_script(mapping, relations, read_rights(conn), read_triggers(conn))
    return [statement.as_string(context) for statement in statements]  # type: ignore[arg-type]
