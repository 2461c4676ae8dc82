"""Contributions as a matplotlib figure, for papers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_jacobian.render import contributions_words as of_parts
from tl_jacobian.render.axes import head, name_ticks, new_axes, unit
from tl_jacobian.render.contributions_words import REST
from tl_jacobian.results.contributions import Contributions
from tl_jacobian.results.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_contributions(c: Contributions, ax: Axes | None = None) -> Axes:
    """Draw a bar for each part from top to bottom, and the line of their running total; returns the axes.

    Args:
        c: what to draw.
        ax: matplotlib axes; default a new figure's.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    ax = ax or new_axes(7.0, min(1.6 + 0.15 * len(c), 14.0))
    places = range(len(c))
    for kind in [*of_parts.kinds(c), REST]:
        at = [i for i in places if of_parts.kind(c.names[i]) == kind]
        bars = [c.values[i].item() for i in at]
        color = unit(of_parts.color(c, kind))
        if at:
            ax.barh(at, bars, height=0.8, color=color, label=visible(kind) or "other")
    ax.step(c.values.cumsum(0).tolist(), places, where="pre", color="0.25", linewidth=1, label="running total")
    ax.axvline(0, color="0.5", linewidth=0.6)
    _label(ax, c)
    return ax


def _label(ax: Axes, c: Contributions) -> None:
    name_ticks(ax, "y", [visible(name) for name in c.names], 7)
    ax.set_ylim(len(c) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"contribution to {visible(c.target)}", fontsize=8, parse_math=False)
    head(ax, of_parts.title(c))
    for text in ax.legend(fontsize=8).get_texts():
        text.set_parse_math(False)
