"""What a benchmark says: figures with their targets, the machine, a table and a JSON file."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent.parent / "build" / "benchmarks"
LOAD_AT_START = round(os.getloadavg()[0], 2)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure: what was measured, the value, the target (such as `>= 0.5`) if there is one, and its raw numbers."""

    name: str
    value: float
    target: str | None
    detail: str
    samples: Sequence[float] = field(default_factory=tuple)

    @property
    def is_reached(self) -> bool | None:
        """Whether the value satisfies the target; None: there is none."""
        if self.target is None:
            return None
        relation, limit = self.target.split()
        return self.value >= float(limit) if relation == ">=" else self.value <= float(limit)


def machine() -> dict[str, object]:
    """Return what the figures depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": LOAD_AT_START,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def publish(name: str, figures: Sequence[Figure], *, extra: dict[str, object] | None = None) -> None:
    """Print the figures as a table and write them with the machine to build/benchmarks/NAME.json."""
    table = Table(title=name, title_justify="left")
    for column, justify in (("figure", "left"), ("value", "right"), ("target", "left"), ("", "left"), ("from", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for figure in figures:
        verdict = {True: "reached", False: "[bold red]missed[/]", None: ""}[figure.is_reached]
        table.add_row(figure.name, f"{figure.value:.2f}", figure.target or "", verdict, figure.detail)
    console = Console(width=150)
    console.print(table)
    facts = machine()
    console.print(", ".join(f"{key}: {value}" for key, value in facts.items()), style="dim")
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {
        "name": name,
        "measured_at": datetime.now(UTC).isoformat(),
        "machine": facts,
        "figures": [{**asdict(figure), "is_reached": figure.is_reached} for figure in figures],
        **(extra or {}),
    }
    path.write_text(json.dumps(document, indent=1))
    console.print(f"written to {path}", style="dim")
