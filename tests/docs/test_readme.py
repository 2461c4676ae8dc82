"""The README's Python runs as typed, block after block in one namespace; its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    assert BLOCKS
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["lin"].str_tokens[-1] == " is"


def test_it_is_one_screen():
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 900


def test_commands_and_links_exist():
    for target in re.findall(r"`?make ([a-z0-9-]+)", README):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if not link.startswith("http"):
            assert (Path(__file__).parents[2] / link).exists(), link
