"""The table in docs/alerts.md: what is how bad, and where the operator reads on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from markdown_it import MarkdownIt
from markdown_it.token import Token

from loyalty_pipelines.domain.alerts import Graded, Severity, Source, State, Symptom, UnknownProblemError
from loyalty_pipelines.domain.errors import ConfigurationError

COLUMNS = ("source", "name", "when red", "when yellow", "runbook")
# The row for what has none of its own.
ANYTHING = "*"
# In a cell of a severity: nobody is told.
NOBODY = "-"


class AlertTableError(ConfigurationError):
    """The table can't be used; its text says which line and what was expected."""

    def __init__(self, text: str, *, line: int | None = None) -> None:
        where = f", line {line}" if line else ""
        super().__init__(
            f"The table of alerts{where}: {text} Expected in docs/alerts.md one table with the columns "
            f"{' | '.join(COLUMNS)}, a row for each name, one with the name {ANYTHING}, and {', '.join(Severity)} or "
            f"{NOBODY} as severities. Until it is corrected, red is P1 and yellow is P2."
        )


@dataclass(frozen=True, kw_only=True)
class AlertRow:
    """What one row says; None: nobody is told."""

    source: str
    name: str
    red: Severity | None
    yellow: Severity | None
    runbook: str = ""

    def severity(self, state: State) -> Severity | None:
        """Return how bad a state is. What could not run proves nothing: it is never P0."""
        if state is State.YELLOW:
            return self.yellow
        if state is State.BROKEN and self.red is Severity.P0:
            return Severity.P1
        return self.red


DEFAULT_ROW = AlertRow(source=ANYTHING, name=ANYTHING, red=Severity.P1, yellow=Severity.P2)


@dataclass(frozen=True, kw_only=True)
class AlertTable:
    """The rows by name, and the one for everything else."""

    rows: dict[str, AlertRow] = field(default_factory=dict)
    default: AlertRow = DEFAULT_ROW

    def row(self, name: str, asset: str = "") -> AlertRow:
        """Return the row of a name, else that of all checks of its asset's group ('shop/*'), else the default one."""
        of_group = self.rows.get(f"{asset.partition('/')[0]}/{ANYTHING}", self.default)
        return self.rows.get(name, of_group)

    def graded(self, symptoms: Iterable[Symptom]) -> list[Graded]:
        """Return the symptoms that somebody is to be told of, each with its severity."""
        found = []
        for symptom in symptoms:
            row = self.row(symptom.name, symptom.asset)
            if severity := row.severity(symptom.state):
                found.append(Graded(symptom=symptom, severity=severity, runbook=row.runbook))
        return found

    def require(self, name: str) -> AlertRow:
        """Return the row of a name that somebody typed; raise `UnknownProblemError` when there is none."""
        if name not in self.rows or name.endswith(f"/{ANYTHING}"):
            raise UnknownProblemError(name, similar=get_close_matches(name, self.rows, n=2))
        return self.rows[name]


def parse_alert_table(markdown: str) -> AlertTable:
    """Read the table out of the document; raise `AlertTableError` when there is none, or one of its rows is wrong."""
    header, lines = _table_with(COLUMNS, markdown)
    rows: dict[str, AlertRow] = {}
    for number, cells in lines:
        row = _row(cells, number)
        if row.name in rows:
            raise AlertTableError(f"{row.name!r} has two rows.", line=number)
        rows[row.name] = row
    default = rows.pop(ANYTHING, None)
    if default is None:
        raise AlertTableError(f"no row has the name {ANYTHING}, which is for all that has no row.", line=header)
    return AlertTable(rows=rows, default=default)


def _row(cells: Sequence[Token], number: int) -> AlertRow:
    source, name, red, yellow = (_text(cell) for cell in cells[:4])
    if not name:
        raise AlertTableError("a row has no name.", line=number)
    if source not in (*Source, ANYTHING):
        raise AlertTableError(
            f"the source of {name!r} is {source!r}, none of {', '.join((*Source, ANYTHING))}.", line=number
        )
    return AlertRow(
        source=source,
        name=name,
        red=_severity(red, name, number),
        yellow=_severity(yellow, name, number),
        runbook=_link(cells[4]),
    )


def _severity(text: str, name: str, number: int) -> Severity | None:
    if text == NOBODY:
        return None
    if text not in list(Severity):
        raise AlertTableError(f"a severity of {name!r} is {text!r}.", line=number)
    return Severity(text)


def _table_with(columns: Sequence[str], markdown: str) -> tuple[int, list[tuple[int, list[Token]]]]:
    """Return where the only table with these columns begins, and its rows: the line's number and the cells."""
    found: list[tuple[int, list[tuple[int, list[Token]]]]] = []
    rows: list[tuple[int, list[Token]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "table_open":
            rows = []
        elif token.type == "tr_open":
            rows.append(((token.map or [0])[0] + 1, []))
        elif token.type == "inline" and rows:
            rows[-1][1].append(token)
        elif token.type == "table_close":
            if [_text(cell) for cell in rows[0][1]] == list(columns):
                found.append((rows[0][0], rows[1:]))
            rows = []
    if len(found) != 1:
        raise AlertTableError(f"{'none' if not found else f'{len(found)} tables'} found.")
    return found[0]


def _text(cell: Token) -> str:
    """Return the words of a cell, without the marks of code and links."""
    return "".join(one.content for one in cell.children or () if one.type in ("text", "code_inline")).strip()


def _link(cell: Token) -> str:
    """Return where the link in a cell goes; '' without one."""
    return next((str(one.attrGet("href")) for one in cell.children or () if one.type == "link_open"), "")
