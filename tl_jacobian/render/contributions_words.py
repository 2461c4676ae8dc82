"""How parts are arranged and coloured, the same in every view: a line for each layer, a colour for each kind."""

from __future__ import annotations

import re
from typing import NamedTuple

from tl_jacobian.render import words
from tl_jacobian.render.colors import RGB
from tl_jacobian.results.contributions import Contributions, Part
from tl_jacobian.results.tokens import visible

# Of Okabe and Ito's palette, and neither of the two that stand for signs: a bar's side is its sign.
KIND_COLORS: tuple[RGB, ...] = ((0, 158, 115), (204, 121, 167), (86, 180, 233))
REST_COLOR: RGB = (128, 128, 128)
REST = ""  # the kind of what belongs to no layer
_OF_A_LAYER = re.compile(r"(\d+)\.(.+)", re.DOTALL)


class Line(NamedTuple):
    """The parts of one layer by kind, or a part that belongs to none."""

    name: str
    parts: dict[str, Part]


def kind(name: str) -> str:
    """``"attn"`` of ``"5.attn"``; empty for what belongs to no layer."""
    found = _OF_A_LAYER.fullmatch(name)
    return found[2] if found else REST


def kinds(c: Contributions) -> list[str]:
    """The kinds of layers' parts, in the model's order."""
    return [found for found in dict.fromkeys(map(kind, c.names)) if found != REST]


def color(c: Contributions, of: str) -> RGB:
    """The colour of a kind of part."""
    colors = dict(zip(kinds(c), KIND_COLORS, strict=False))
    return colors.get(of, REST_COLOR)


def lines(c: Contributions) -> list[Line]:
    """Parts in the model's order, those of a layer side by side."""
    found: list[Line] = []
    for part in c:
        layer = _OF_A_LAYER.fullmatch(part.name)
        name = layer[1] if layer else part.name
        # A layer's parts follow each other, so only the last line can be joined.
        if not (layer and found and found[-1].name == name and REST not in found[-1].parts):
            found.append(Line(name, {}))
        found[-1].parts[kind(part.name)] = part
    return found


def title(c: Contributions) -> str:
    """``"logit of ' Paris' = 14.2"``."""
    return f"{visible(c.target)} = {words.number(c.total)}"


def facts(c: Contributions) -> list[str]:
    """How well the parts add up, and the model."""
    exact = f"the parts add up to it within {abs(c.difference):.1g}" if c.difference else "the parts add up to it"
    return [exact, *words.model_facts(c)]


def extent(c: Contributions) -> str:
    """``"in 61 parts"``."""
    return f"in {len(c)} part" + ("" if len(c) == 1 else "s")
