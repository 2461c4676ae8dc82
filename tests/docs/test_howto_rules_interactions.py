"""The Python of the how-to pages on backward rules and on interactions runs as typed, one namespace a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HOWTO = Path(__file__).parents[2] / "docs" / "howto"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["backward_rules", "interactions"])
def test_every_block_runs(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (HOWTO / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)
    assert len(blocks) >= 2
    said = capsys.readouterr().out
    assert ("frozen_norms+frozen_attention" if page == "backward_rules" else "pulled back to token 3") in said
