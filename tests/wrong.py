"""Some thirty values that few parameters take."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from cases import WIDTH


def a_function(*_: object, **__: object) -> None:
    return None


class AClass:
    """It can be called, and makes nothing of what it is given."""

    def __init__(self, *_: object, **__: object) -> None: ...


WRONG: dict[str, Any] = {
    "None": None,
    "True": True,
    "-1": -1,
    "10**30": 10**30,
    "1.5": 1.5,
    "nan": float("nan"),
    "text": "x",
    "no text": "",
    "bytes": b"x",
    "[]": [],
    "[1.5]": [1.5],
    "[True]": [True],
    "[None]": [None],
    "{}": {},
    "a set": {1, 2},
    "an object": object(),
    "a function": a_function,
    "a class": AClass,
    "np.int64(3)": np.int64(3),
    "np.array([1, 2])": np.array([1, 2]),
    "np.array(1.5)": np.array(1.5),
    "np.array('a')": np.array(["a"]),
    "a matrix": np.zeros((2, 2)),
    "no tensor": torch.zeros(0),
    "a wrong tensor": torch.zeros(2, 3, 4),
    "a tensor of bools": torch.ones(3, dtype=torch.bool),
    "a tensor of ints": torch.ones(WIDTH, dtype=torch.int64),
    "a tensor of nans": torch.full((WIDTH,), torch.nan, dtype=torch.float64),
    "a complex tensor": torch.zeros(WIDTH, dtype=torch.complex64),
    "many": ["x", None] * 5000,
}
