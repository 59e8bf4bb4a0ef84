"""Charts as SVG that stands inside a page: no file of their own, no script, no font to load.

Numbers become floats here, because they become lengths.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Told apart by people who see no red or no green (Okabe and Ito), too.
COLORS = ("#0072B2", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#E69F00", "#CC79A7", "#7A7A7A")
INK, GRID = "#3b4351", "#e3e7ee"
# Labels that stand beside each other, per inch of a chart.
TICKS_PER_INCH = 1.5


def line_and_bars(
    labels: Sequence[str],
    line: Sequence[float],
    bars: Mapping[str, Sequence[float]],
    *,
    line_title: str,
    bars_title: str,
    key: str,
) -> str:
    """Return a curve on the left, and on the right bars that are stacked from zero upwards and downwards."""
    figure = _figure(11, 3.1)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    places = range(len(labels))
    left.plot(places, line, color=COLORS[0], linewidth=2, marker="o", markersize=3)
    left.fill_between(places, line, color=COLORS[0], alpha=0.12, linewidth=0)
    _dress(left, labels, line_title, width=4)
    left.set_ylim(bottom=min(0, *line) if line else 0)
    above, below = [0.0] * len(labels), [0.0] * len(labels)
    for number, (name, values) in enumerate(bars.items()):
        if not any(values):
            continue
        bottom = [above[n] if value >= 0 else below[n] for n, value in enumerate(values)]
        right.bar(places, values, bottom=bottom, label=name, color=COLORS[number % len(COLORS)], width=0.8)
        above = [total + max(value, 0) for total, value in zip(above, values, strict=True)]
        below = [total + min(value, 0) for total, value in zip(below, values, strict=True)]
    right.axhline(0, color=INK, linewidth=0.8)
    # Half a finding is none.
    is_whole = all(value.is_integer() for values in bars.values() for value in values)
    _dress(right, labels, bars_title, width=5, is_whole=is_whole)
    if right.get_legend_handles_labels()[0]:
        right.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False, fontsize=8, labelcolor=INK, handlelength=1
        )
    return _svg(figure, key)


def columns(
    labels: Sequence[str], values: Sequence[float], *, title: str, key: str, width: float = 11, height: float = 2.4
) -> str:
    """Return one column per label."""
    figure = _figure(width, height)
    axes = figure.subplots()
    axes.bar(range(len(labels)), values, color=COLORS[0], width=0.75)
    _dress(axes, labels, title, width=width)
    return _svg(figure, key)


def _figure(width: float, height: float) -> Figure:
    # Without pyplot: no window, no state that two reports would share.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def _dress(axes: Axes, labels: Sequence[str], title: str, *, width: float, is_whole: bool = False) -> None:
    # A currency is the shop's text: a dollar sign in it is no formula.
    axes.set_title(title, loc="left", fontsize=10, color=INK, parse_math=False)
    step = max(1, -(-len(labels) // int(TICKS_PER_INCH * width)))
    # From the end, so that the present one has its label.
    places = list(range(len(labels) - 1, -1, -step))[::-1]
    axes.set_xticks(places, [labels[place] for place in places], fontsize=8, parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=is_whole))
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    for side in axes.spines.values():
        side.set_visible(False)


def _short(value: float, _: Any = None) -> str:
    """Return a tick's number with a unit: 1.5 M."""
    for size, unit in ((1e9, " bn"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:,.1f}".removesuffix(".0") + unit
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def _svg(figure: Figure, key: str) -> str:
    """Return the figure; `key` keeps the ids of one page's charts apart, and the same from run to run."""
    out = io.StringIO()
    # Text stays text: the browser has fonts, and a reader can search it.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
