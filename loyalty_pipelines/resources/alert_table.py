"""Where the table of alerts is: in docs/alerts.md, beside the package in a clone, inside it in a wheel."""

import os
from collections.abc import Mapping
from pathlib import Path

from loyalty_pipelines.domain.alert_table import AlertTable, AlertTableError, parse_alert_table

TABLE_VARIABLE = "LOYALTY_ALERT_TABLE"


def read_alert_table(environment: Mapping[str, str] = os.environ) -> AlertTable:
    """Return the table; raise `AlertTableError` when there is none or it can't be used."""
    path = _path(environment)
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AlertTableError(f"{path} can't be read ({type(error).__name__}).") from error
    return parse_alert_table(content)


def _path(environment: Mapping[str, str]) -> Path:
    named = environment.get(TABLE_VARIABLE, "").strip()
    if named:
        return Path(named).expanduser()
    package = Path(__file__).parent.parent
    candidates = (package / "docs" / "alerts.md", package.parent / "docs" / "alerts.md")
    return next((one for one in candidates if one.exists()), candidates[0])
