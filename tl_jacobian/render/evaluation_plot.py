"""An evaluation as a matplotlib figure: how far the prediction falls as tokens are removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tl_jacobian.render.axes import head, new_axes
from tl_jacobian.results.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which stays apart in every common colour blindness; markers say the same again.
_COLORS = ("#999999", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#000000")
_MARKERS = "osD^vPX*"


def evaluations_figure(found: Sequence[Evaluation]) -> Figure:
    """A figure to be saved, one panel a corpus.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(found), 3.6), layout="constrained")
    for ax, e in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        e.plot(ax)
    return figure


def plot_evaluation(e: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw the drop over k for each method; returns the axes.

    Args:
        e: what to draw.
        ax: matplotlib axes; default a new figure's.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    ax = ax or new_axes(5.2, 3.6)
    shift = 0.006 * (e.k[-1] - e.k[0] or 1.0)  # so that intervals of equal methods don't hide each other
    for i, method in enumerate(e.methods):
        found = [e.interval("drop", method, k) for k in e.k]
        means = [one.mean for one in found]
        around = [[one.mean - one.low for one in found], [one.high - one.mean for one in found]]
        ax.errorbar(
            [k + shift * (i - len(e.methods) / 2) for k in e.k],
            means,
            yerr=around,
            label=method.replace("_", " "),
            color=_COLORS[i % len(_COLORS)],
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=4,
            linewidth=1.2,
            capsize=2,
        )
    ax.set_xlabel("tokens removed, highest scores first (%)", fontsize=9)
    ax.set_ylabel("fall of the log-probability (nats)", fontsize=9)
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8, frameon=False)
    head(ax, f"{e.name}: {len(e.usable):,} prompts, 95% intervals")
    return ax
