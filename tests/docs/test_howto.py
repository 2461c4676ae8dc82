"""The how-to pages' Python runs as typed, block after block in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PAGES = sorted((REPO / "docs" / "howto").glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_blocks_run(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(REPO))
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    if any("train_sae" in block for block in blocks):
        from benchmarks import train_sae

        if not (train_sae.folder() / "cfg.json").exists():  # one of seconds shows that the page works, and nothing else
            monkeypatch.setenv("TLJ_SAE", str(tmp_path / "sae"))
            train_sae.make(train_sae.folder(), **train_sae.QUICK)
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, path.name, "exec"), namespace)


def test_pages_are_short():
    for path in PAGES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60, path.name
