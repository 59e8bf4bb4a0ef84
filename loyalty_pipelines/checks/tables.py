"""What checks show of what they found."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import dagster as dg

SHOWN = 10


def table(rows: Sequence[Any], columns: Sequence[str]) -> dg.TableMetadataValue:
    """Return domain objects as a metadata table with the named attributes as columns; instants as ISO 8601."""
    kinds = {int: "int", float: "float", Decimal: "float"}
    return dg.MetadataValue.table(
        records=[dg.TableRecord({name: _cell(getattr(row, name)) for name in columns}) for row in rows],
        schema=dg.TableSchema(
            columns=[
                dg.TableColumn(name, kinds.get(type(getattr(rows[0], name)), "string") if rows else "string")
                for name in columns
            ]
        ),
    )


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return float(value) if isinstance(value, Decimal) else value
