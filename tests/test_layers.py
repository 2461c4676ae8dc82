"""Only the hosts know TransformerLens, and imports are absolute."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tl_jacobian

ROOT = Path(tl_jacobian.__file__).parent
FILES = sorted(str(p.relative_to(ROOT)) for p in ROOT.rglob("*.py"))


@pytest.mark.parametrize("file", [f for f in FILES if not f.startswith("core/host/")])
def test_only_the_hosts_know_transformer_lens(file):
    text = (ROOT / file).read_text()
    assert "import transformer_lens" not in text
    assert "from transformer_lens" not in text


@pytest.mark.parametrize("file", FILES)
def test_imports_are_absolute(file):
    imports = [node for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.ImportFrom)]
    assert not [node.lineno for node in imports if node.level], "relative imports hide the layers"
