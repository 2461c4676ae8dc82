"""Imports only go down: each module may import from layers below its own, at module level and inside functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tl_jacobian

ROOT = Path(tl_jacobian.__file__).parent
# From the bottom up. A module may import its own layer's package-mates and every layer before it.
LAYERS = [
    {"errors", "versions", "files", "progress", "modes", "plain", "frozen", "sizes", "precision", "scope_names"},
    {"tokens", "attribution", "statistics", "links"},
    {"map_rows", "attribution_map", "spectrum_values", "grid_checks", "grid", "contributions", "number_distribution"},
    {
        "patch_comparison",
        "path_split",
        "number_influence",
        "evaluation_result",
        "linearity_result",
        "aligned_word",
        "word_alignment",
        "counterfactuals",
    },
    {"attribution_file", "attribution_map_file", "grid_file", "contributions_file", "word_alignment_file"},
    {"unembedding", "final_norm", "frozen_norm", "memory", "segments", "graph", "linalg"},
    {"record"},
    {"anatomy", "taps", "directions", "rerun"},
    {"host", "linearization", "linearization_batch"},
    {"prompts", "contract", "build", "model_first", "linearize", "targets", "products", "generate"},
    {"scopes"},
    {"map_scopes", "maps", "jacobian_block", "movers", "spectra", "drilldown", "baselines", "timeseries"},
    {"patch_pair", "patching", "language"},
    {"corpus"},
    {"evaluation"},
    {"cli_options"},
    {"cli_corpus"},
    {"cli_evaluate"},
    {"cli", "__main__", "__init__"},
]
SIDE = {"render"}  # a side branch: it sees attributions and tokens, and only the top sees it
SIDE_MAY_IMPORT = {
    "attribution",
    "attribution_map",
    "spectrum_values",
    "grid",
    "contributions",
    "patch_comparison",
    "evaluation_result",
    "linearity_result",
    "statistics",
    "number_influence",
    "number_distribution",
    "links",
    "aligned_word",
    "word_alignment",
    "counterfactuals",
    "tokens",
    "scope_names",
    "errors",
    "files",
}
# Methods of values that hand over to the module which does the work.
DOORS = {
    ("attribution", "render"),
    ("attribution", "attribution_file"),
    ("attribution_map", "render"),
    ("attribution_map", "attribution_map_file"),
    ("spectrum_values", "render"),
    ("grid", "render"),
    ("patch_comparison", "render"),
    ("grid", "grid_file"),
    ("contributions", "render"),
    ("evaluation_result", "render"),
    ("linearity_result", "render"),
    ("aligned_word", "render"),
    ("word_alignment", "render"),
    ("word_alignment", "word_alignment_file"),
    ("counterfactuals", "render"),
    ("contributions", "contributions_file"),
    ("number_influence", "render"),
}


def parts_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).with_suffix("").parts


def imports(path: Path) -> set[str]:
    """Top-level parts of tl_jacobian that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layers"
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name == "tl_jacobian":
                found.add("__init__")
            elif name.startswith("tl_jacobian."):
                found.add(name.split(".")[1])
    return found


def layer(part: str) -> int:
    found = [i for i, parts in enumerate(LAYERS) if part in parts]
    assert found, f"{part} is in no layer: add it to LAYERS"
    return found[0]


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(parts_of(p)))
def test_imports_only_go_down(path):
    me = parts_of(path)[0]
    for other in imports(path) - {me}:
        if me in SIDE:
            assert other in SIDE_MAY_IMPORT, f"{me} imports {other}"
        elif other in SIDE:
            assert me in ("cli", "cli_evaluate", "__init__") or (me, other) in DOORS, f"{me} imports {other}"
        elif (me, other) not in DOORS:
            assert layer(other) <= layer(me), f"{me} imports {other}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(parts_of(p)))
def test_only_the_hosts_know_transformer_lens(path):
    if parts_of(path)[0] != "host":
        text = path.read_text()
        assert "import transformer_lens" not in text
        assert "from transformer_lens" not in text


def test_files_stay_small():
    long = {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 250}
    assert not long
