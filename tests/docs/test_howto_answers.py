"""The how-to pages: each of their code blocks runs, in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "howto"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chat_prompt", "which_passage", "own_scores", "confidence"])
def test_the_code_of_a_page_runs(name):
    blocks = re.findall(r"```python\n(.*?)```", (PAGES / f"{name}.md").read_text(encoding="utf-8"), flags=re.S)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
