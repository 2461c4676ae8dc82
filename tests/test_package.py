"""What an installed package needs besides its modules lies where setuptools is told to take it from."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_everything_that_is_no_module_is_packaged():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packaged: set[Path] = set()
    for package, patterns in settings["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            found = set((ROOT / package.replace(".", "/")).glob(pattern))
            assert found, f"{package}: {pattern} is nothing"
            packaged |= {path for path in found if path.is_file()}
    there = {p for p in (ROOT / "tl_jacobian").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert {p for p in there if p.suffix != ".py"} == packaged
