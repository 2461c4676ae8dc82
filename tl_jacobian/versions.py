"""Versions of everything that can change a number."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("tl_jacobian", "transformer-lens", "transformers", "torch")


def versions() -> dict[str, str]:
    """Installed versions, for an attribution's metadata.

    >>> sorted(versions())
    ['tl_jacobian', 'torch', 'transformer-lens', 'transformers']
    """
    return {name: _version(name) for name in _PACKAGES}


@cache  # reading a package's metadata takes longer than all the rest of an attribution's
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
