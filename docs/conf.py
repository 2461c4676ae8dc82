"""The documentation: `make docs` builds it offline; a warning is an error."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import tl_jacobian

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "tl_jacobian"
copyright = "The tl_jacobian authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",  # no page asks an outside host for anything
]
html_theme = "furo"
html_title = "tl_jacobian"
html_static_path = ["_static"]
html_css_files = ["printed.css"]
html_extra_path = ["extra"]  # pages of their own: frozen live views, as docs/make_live_pages.py writes them
exclude_patterns = ["_build", "extra", "**/.ipynb_checkpoints"]

# Notebooks are committed with their outputs; tests execute them.
nb_execution_mode = "off"
myst_heading_anchors = 3
autodoc_typehints = "none"  # shapes stand in the signatures
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_ivar = True  # dataclasses name their fields twice otherwise
nitpicky = False
suppress_warnings = ["ref.python"]  # attributes of several values have one name

# Files that lie elsewhere in the repository are pages too: a copy for each build, which git ignores.
COPIES = {
    "notebooks": (ROOT / "notebooks", "*.ipynb"),
    "notebooks/qwen": (ROOT / "notebooks" / "qwen", "*.ipynb"),
    "evidence": (ROOT / "benchmarks" / "results", "*.md"),
}


def copy_pages() -> None:
    for folder, (source, pattern) in COPIES.items():
        target = HERE / folder
        target.mkdir(exist_ok=True)
        for old in target.glob(pattern):
            old.unlink()
        for page in sorted(source.glob(pattern)):
            shutil.copy(page, target)
        for picture in source.glob("*.png"):
            shutil.copy(picture, target)


copy_pages()

# On GitHub links lead to where files lie; here to their pages.
_LINKS = [
    (re.compile(r"\]\((?:\.\./)*benchmarks/results/([\w.-]+\.md)"), r"](/evidence/\1"),
    (re.compile(r"\]\((?:\.\./)*notebooks/([\w./-]+\.ipynb)"), r"](/notebooks/\1"),
    (re.compile(r"\]\((?:\.\./)*docs/"), "](/"),
    (re.compile(r"\]\((?:\.\./)*CONTRIBUTING\.md"), "](/contributing.md"),
    (re.compile(r"\]\((?:\.\./)*CHANGELOG\.md"), "](/changelog.md"),
]


def redirect(app: object, page: str, source: list[str]) -> None:
    for pattern, to in _LINKS:
        source[0] = pattern.sub(to, source[0])


def setup(app: object) -> None:
    app.connect("source-read", redirect)  # type: ignore[attr-defined]


assert tl_jacobian.__all__  # what autodoc documents is installed
