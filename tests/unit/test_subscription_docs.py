"""The documents on subscriptions say of every class what the code says."""

import re
from pathlib import Path

from loyalty_pipelines.domain.subscriptions import CLASSES
from loyalty_pipelines.schedules import SCHEDULES

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "subscriptions.md").read_text()
RUNBOOK = (ROOT / "docs" / "runbooks" / "subscriptions.md").read_text()
STATEMENTS = ROOT / "loyalty_pipelines" / "db" / "sql" / "subscriptions"
UNITS = {"minutes": "min", "minute": "min", "hours": "h", "hour": "h", "days": "days", "day": "day"}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table in a section."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")
    ]


def test_the_table_of_classes_has_each_with_its_severity_and_policy_in_order() -> None:
    documented = [(code.strip("`"), severity, policy) for code, _, _, severity, policy in rows("Classes")]
    assert documented == [(one.code, one.severity, one.policy) for one in CLASSES]


def test_the_table_of_classes_has_every_grace_period_of_their_statements_and_no_other() -> None:
    documented = {code.strip("`"): grace for code, _, grace, *_ in rows("Classes")}
    for one in CLASSES:
        text = "".join((STATEMENTS / f"{name}.sql").read_text() for name in one.files)
        said = re.findall(r"greatest\((?:[^()]|\([^()]*\))*?m\.grace\s*\)", text, re.DOTALL)
        found = {
            f"{number} {UNITS[unit]}" for part in said for number, unit in re.findall(r"interval '(\d+) (\w+)'", part)
        }
        assert found, one.code
        assert set(re.findall(r"\d+ (?:min|h|days?)\b", documented[one.code])) >= found, one.code


def test_the_runbook_has_a_section_per_class_that_says_what_how_and_when_not() -> None:
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))
    assert [name for name in sections if name in {one.code for one in CLASSES}] == [one.code for one in CLASSES]
    for one in CLASSES:
        words = re.findall(r"^\*\*([^*]+)\*\*", sections[one.code], re.MULTILINE)
        assert words == ["Means", "See it", "Fix", "Not"], one.code
        colour = "red" if one.severity == "error" else "yellow"
        assert sections[one.code].startswith(f"\nCheck `{one.sentence}`, {colour}.\n"), one.code
        assert f"`loyalty subscriptions findings --class {one.code}`" in sections[one.code]
        assert "```sql" in sections[one.code] or "the SQL of" in sections[one.code] or one.code == "status_unknown"


def test_every_schedule_is_in_the_table_of_the_installation() -> None:
    table = (ROOT / "docs" / "install.md").read_text()
    assert [one.name for one in SCHEDULES if f"| `{one.name}` |" not in table] == []
