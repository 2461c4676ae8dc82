"""The README's Python runs as typed, block after block in one namespace; its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
NEEDS_A_HUB = ("from_pretrained_no_processing(", "boot_transformers(")


@pytest.mark.slow
def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    run = [block for block in BLOCKS if not any(name in block for name in NEEDS_A_HUB)]
    assert len(run) >= 3
    for block in run:
        exec(compile(block, "README.md", "exec"), namespace)
    assert (tmp_path / "paris.html").exists()
    assert namespace["a"].target == "logit of ' Paris' minus logit of ' London'"


def test_blocks_that_need_a_hub_name_real_functions():
    from transformer_lens.model_bridge import TransformerBridge

    assert callable(TransformerBridge.boot_transformers)
    for block in BLOCKS:
        compile(block, "README.md", "exec")


def test_commands_and_links_exist():
    for target in re.findall(r"`?make ([a-z0-9-]+)", README):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if not link.startswith("http"):
            assert (Path(__file__).parents[2] / link).exists(), link
