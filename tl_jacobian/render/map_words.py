"""The words and the colour ranges around a map, the same in every view."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from itertools import accumulate

from tl_jacobian.render import words
from tl_jacobian.render.colors import Scale, scale_of
from tl_jacobian.results.attribution_map import AttributionMap


def scales(m: AttributionMap, *, skip_first: bool, per_row: bool) -> list[Scale]:
    """The colour range of each row: its own, or that of the whole map for all.

    Raises:
        ValueError: a score isn't finite, and so has no colour.
    """
    own = [scale_of(a.scores, skip_first=skip_first) for a in m]
    if per_row:
        return own
    limit = max(scale.limit for scale in own)
    return [dataclasses.replace(scale, limit=limit) for scale in own]


def predicted_units(m: AttributionMap) -> list[int]:
    """For each target, the unit that it predicts; the number of units where that comes after them all."""
    ends = list(accumulate(m.attributions[-1].sizes))
    return [bisect_right(ends, a.position + 1) for a in m]


def predicted_text(m: AttributionMap, i: int) -> str:
    """The token (or word) that really follows target ``i``, or the one predicted where the text ends."""
    follows, likely = m.next_texts[i], m[i].predictions
    if follows is not None:
        return words.quoted(follows)
    return f"{words.quoted(likely[0].text)} (predicted)" if likely else "(the text ends)"


def row_name(m: AttributionMap, i: int) -> str:
    """``"4 ' is' → ' Paris'"``: the last unit seen, numbered as the columns are, and what follows."""
    return f"{len(m[i]) - 1} {words.quoted(m[i].str_tokens[-1])} → {predicted_text(m, i)}"


def caption(m: AttributionMap, i: int) -> str:
    """What row ``i`` explains: ``"→ ' Paris' (p = 77%): logit of ' Paris' = 14.2"``."""
    chance = next((f" (p = {p.probability:.1%})" for p in m[i].predictions if p.text == m.next_texts[i]), "")
    return f"→ {predicted_text(m, i)}{chance}: {words.explained(m[i])}"


def extent(m: AttributionMap) -> str:
    """``"12 predictions × 13 tokens"``."""
    units = "words" if any(size > 1 for size in m.attributions[-1].sizes) else "tokens"
    return f"{len(m)} predictions × {len(m.str_tokens)} {units}"


def scale_facts(m: AttributionMap, ranges: list[Scale], *, per_row: bool) -> tuple[str, list[str]]:
    """What full colour means, and what else there is to know about the colours."""
    full = "largest of its row" if per_row else words.number(ranges[0].limit)
    each = "each row on its own scale" if per_row else "one scale for all rows"
    skipped = f"first {words.quoted(m.str_tokens[0])} left out" if ranges[0].skipped else ""
    return full, [each, words.score_unit(m[-1]), skipped]
