"""The README's picture of time series: what drove the demo model's forecast of a chaotic and of a random one.

python docs/make_series_picture.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import tl_jacobian as tj
from tl_jacobian import timeseries as ts

NUMBERS = 72


def draw(ax: Any, model: Any, name: str, values: np.ndarray) -> None:
    """All but the last value are the prompt; the last is the truth."""
    series = ts.serialize(values[:-1], model)
    drivers = ts.number_influence(tj.temperature_scope(tj.linearize(model, list(series.tokens))), series)
    forecast = ts.predict_number(model, series, truth=values[-1])
    drivers.plot(ax, distribution=forecast)
    ax.set_title(f"{name}: Temperature Scope, demo model", loc="left", fontsize=8)


def main() -> None:
    model = tj.load_demo_model("bridge")
    _, axes = plt.subplots(2, 1, figsize=(8, 5), layout="constrained")
    draw(axes[0], model, "Lorenz system with drift", ts.lorenz_with_drift(NUMBERS + 1, dt=0.08))
    draw(axes[1], model, "Brownian motion", ts.brownian_motion(NUMBERS + 1, seed=0))
    plt.savefig(Path(__file__).with_name("time_series.png"), dpi=110)


if __name__ == "__main__":
    main()
