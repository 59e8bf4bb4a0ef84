"""How long the code location takes to import, against Dagster alone: each in a fresh interpreter, in turns."""

import statistics
import subprocess
import sys
import time

import click

from benchmarks.report import Figure, publish


def seconds(module: str) -> float:
    """Return the seconds that a fresh interpreter needs to import a module, its own start included."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.monotonic() - started


@click.command()
@click.option("--runs", default=15, show_default=True, help="Imports of each; the medians count.")
def main(runs: int) -> None:
    """Measure the import of the code location."""
    for module in ("dagster", "loyalty_pipelines.definitions"):
        seconds(module)
    pairs = [(seconds("loyalty_pipelines.definitions"), seconds("dagster")) for _ in range(runs)]
    ours, dagster = (statistics.median(column) for column in zip(*pairs, strict=True))
    publish(
        "imports",
        [
            Figure(
                name="import loyalty_pipelines.definitions / import dagster",
                value=ours / dagster,
                target="<= 1.25",
                detail=f"{ours:.2f} s / {dagster:.2f} s",
                samples=[a / b for a, b in pairs],
            )
        ],
    )


if __name__ == "__main__":
    main()
