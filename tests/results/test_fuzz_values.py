"""Values given what they can't use: every field of every constructor, every parameter of every method."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from cases import slow
from examples import examples
from wrong import WRONG

from tl_jacobian.errors import JacobianScopeError

VALUES = {name: value for name, value in examples().items() if name != "attribution that isn't finite"}
pytestmark = pytest.mark.usefixtures("unchecked")
# Read a file, take any object, or are what dataclasses make.
NOT_TRIED = {"load", "save", "to_html", "from_scores", "from_json"}

part = pytest.mark.parametrize("part", [0, *slow(*range(1, 5))])


def some(part: int) -> list[tuple[str, Any]]:
    """A fifth of the wrong values."""
    return list(WRONG.items())[part::5]


def methods(value: Any) -> dict[str, Callable[..., Any]]:
    found = {name: getattr(value, name) for name, _ in inspect.getmembers(type(value), callable)}
    return {
        name: method
        for name, method in found.items()
        if not name.startswith("_") and name not in NOT_TRIED and inspect.signature(method).parameters
    }


def outcome(call: Callable[[], Any]) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = call()
            if hasattr(made, "panels"):  # what was taken can be looked at
                made.panels()
                repr(made)
        return "works"
    except JacobianScopeError as error:
        return "refused" if len(str(error)) < 2000 else f"a message of {len(str(error))} characters"
    except (OSError, ImportError):
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:120]}"


@part
@pytest.mark.parametrize("name", VALUES)
def test_methods(name, part):
    import matplotlib.pyplot as plt

    wrong = []
    for method, fn in methods(VALUES[name]).items():
        needed = {p.name for p in inspect.signature(fn).parameters.values() if p.default is p.empty}
        for parameter, spec in inspect.signature(fn).parameters.items():
            if spec.kind in (spec.VAR_KEYWORD, spec.VAR_POSITIONAL) or needed - {parameter}:
                continue
            for label, bad in some(part):
                found = outcome(lambda fn=fn, parameter=parameter, bad=bad: fn(**{parameter: bad}))
                if found not in ("works", "refused"):
                    wrong.append(f"{method}({parameter}={label}): {found}")
            plt.close("all")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)


@part
@pytest.mark.parametrize("name", VALUES)
def test_constructors(name, part):
    value = VALUES[name]
    fields = {f: getattr(value, f) for f in inspect.signature(type(value)).parameters}
    wrong = []
    for field in fields:
        for label, bad in some(part):
            found = outcome(lambda field=field, bad=bad: type(value)(**{**fields, field: bad}))
            if found not in ("works", "refused"):
                wrong.append(f"{field}={label}: {found}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)
