"""The documentation's Python runs as typed, each page in a namespace of its own, and prints what it says; its links
lead somewhere."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path

import pytest

import tl_jacobian as tj

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if not {"_build", "evidence"} & set(page.relative_to(DOCS).parts))
NEEDS_A_HUB = ("from_pretrained_no_processing(", "boot_transformers(")
LOAD = cache(tj.load_demo_model)  # once for all pages
GENERATED = ("/evidence/", "/notebooks/")


NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Python, and what it is said to print: a block of text that comes right after it."""
    found = re.findall(r"```python\n(.*?)```(?:\n+```text\n(.*?)```)?", page.read_text(encoding="utf-8"), re.DOTALL)
    return [(block, text) for block, text in found if not any(name in block for name in NEEDS_A_HUB)]


def without_numbers(text: str) -> tuple[list[str], list[float]]:
    """What is printed, and its numbers: their last digits, and the lengths of bars, may differ between processors."""
    lines = [re.sub(r"[█-▏]+", "", line).rstrip() for line in text.strip().splitlines()]
    return [NUMBER.sub("#", line) for line in lines], [float(n) for line in lines for n in NUMBER.findall(line)]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_python_blocks_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(tj, "load_demo_model", LOAD)
    if any("train_sae" in block for block, _ in blocks(page)):
        from benchmarks import train_sae

        if not (train_sae.folder() / "cfg.json").exists():  # one of seconds shows that the page works, and nothing else
            monkeypatch.setenv("TLJ_SAE", str(tmp_path / "sae"))
            train_sae.make(train_sae.folder(), **train_sae.QUICK)
    namespace: dict[str, object] = {"__name__": page.stem}
    for block, expected in blocks(page):
        capsys.readouterr()
        exec(compile(block, page.name, "exec"), namespace)
        if expected:
            printed = capsys.readouterr().out
            (found, numbers), (text, known) = map(without_numbers, (printed, expected))
            assert found == text, printed
            assert numbers == pytest.approx(known, rel=0.02, abs=0.02), printed


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("*.md"))], ids=lambda page: page.stem)
def test_no_formatter_broke_a_line_for_its_comment(page):
    for block, _ in blocks(page):
        assert not re.search(r"^\s*[\])}]+  #", block, re.MULTILINE), block


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower()).replace(" ", "-")
        for title in titles
    }


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("*.md"))], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text):
        if link.startswith(("http", *GENERATED)):
            continue
        target = page.parent / link if link else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}#{anchor}"
    for link in re.findall(r'href="([^"]+)"', text):
        assert (ROOT / "docs" / "extra" / link).exists(), link


def test_every_error_has_its_section():
    sections = set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE))
    kinds = {e.__name__ for e in vars(tj.errors).values() if inspect.isclass(e) and issubclass(e, Exception)}
    assert sections == kinds - {"JacobianScopeError"}


def test_every_public_name_is_in_the_reference_once():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in tj.__all__:
        entry = rf"^(?:\.\. auto(?!module)\w+:: tl_jacobian\.[\w.]+|### tj)\.{name}$"
        assert len(re.findall(entry, text, re.MULTILINE)) == 1, name
