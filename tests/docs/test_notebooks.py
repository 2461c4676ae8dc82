"""The notebooks run from a fresh kernel, and what is committed is what they give.

A notebook whose first code cell reads ``TLJ_SHORT`` takes minutes as it is committed. The tests run it in its short
mode, and only ask that every cell still gives outputs of the same kinds.

``python tests/docs/test_notebooks.py [02 ...]`` executes them in full, or those named, and stores the new outputs;
with ``--model NAME=FOLDER`` on another model than the demo one (its variable is ``TLJ_MODEL``), in ``notebooks/NAME/``.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from math import isclose
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

REPO = Path(__file__).parents[2]
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
OTHERS = sorted((REPO / "notebooks").glob("*/*.ipynb"))  # the same cells on other models
BUNDLE, PACKED = "var CircuitsVis=(", "tlJacobianUnpacks = true"  # how CircuitsVis' script begins, and what unpacks it
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:root|home|tmp|opt|work|usr|Users|var)/|[A-Z]:\\\\")
REQUEST = re.compile(
    r"""(?:src|href|srcset|action)\s*=\s*["']?\s*(?:https?:)?//|url\(\s*["']?(?:https?:)?//|@import""", re.I
)

SHORT = "TLJ_SHORT"  # the variable of a notebook's short mode
MODEL = "TLJ_MODEL"  # and of the model of those that run on others too


def has_short_mode(path: Path) -> bool:
    return SHORT in code_cells(nbformat.read(path, as_version=4))[0].source


every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def execute(path: Path, folder: Path | str, *, short: bool = False) -> Any:
    """The notebook with the outputs of a fresh kernel of this interpreter, working in ``folder``."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        """Starts ``sys.executable``, whatever kernels are installed."""

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])

    notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(
        notebook,
        kernel_manager_class=ThisInterpreter,
        resources={"metadata": {"path": str(folder)}},
        timeout=3600,
        record_timing=False,
        store_widget_state=False,
    )
    # The package may not be installed where the tests run from a checkout.
    search = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": search, "HF_HUB_OFFLINE": "1", SHORT: "1" if short else "0"}
    return client.execute(env={**os.environ, **settings})


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tidy(notebook: Any) -> Any:
    """Without progress bars, warnings and whatever else differs from machine to machine."""
    for number, cell in enumerate(code_cells(notebook), start=1):
        cell.outputs = joined([out for out in cell.outputs if not is_noise(out)])
        cell.execution_count, cell.metadata = number, {}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def joined(outputs: list[Any]) -> list[Any]:
    """What was printed in one go, in one output; a kernel splits it as its buffer happened to be emptied."""
    merged: list[Any] = []
    for output in outputs:
        if merged and output.output_type == merged[-1].output_type == "stream":
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def is_noise(output: Any) -> bool:
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return widget or output.get("name") == "stderr"


def texts(output: Any) -> Iterator[str]:
    """All that an output would put on the screen, in each of its forms, but no script."""
    for text in [output.get("text", ""), *output.get("data", {}).values()]:
        yield re.sub(r"<script>.*?</script>", "", text if isinstance(text, str) else "".join(text), flags=re.S)


def printed(cell: Any) -> str:
    """What the cell printed, and the plain form of a table it shows."""
    streams = [out.text for out in cell.outputs if out.get("name") == "stdout"]
    tables = [out.data["text/plain"] for out in cell.outputs if "dataframe" in out.get("data", {}).get("text/html", "")]
    return "".join(streams + tables)


def figures(cell: Any) -> list[list[tuple[str, str]]]:
    """Scores and texts of the units that each figure of the cell draws."""
    pages = [out.data.get("text/html", "") for out in cell.outputs if "data" in out]
    return [re.findall(r'<bdi [^>]*title="(\d+: [^"]*)">(.*?)</bdi>', page) for page in pages if 'class="tlj ' in page]


def same(ours: str, theirs: str, rel: float = 0.02, abs_tol: float = 0.02) -> bool:
    """Equal up to small differences of the numbers in them, and to spacing."""
    if NUMBER.sub("#", ours).split() != NUMBER.sub("#", theirs).split():
        return False
    pairs = zip(NUMBER.findall(ours), NUMBER.findall(theirs), strict=True)
    return all(isclose(float(a), float(b), rel_tol=rel, abs_tol=abs_tol) for a, b in pairs)


def kinds(cell: Any) -> list[tuple[str, list[str]]]:
    """What sorts of output a cell gives, in which forms."""
    return [(out.output_type, sorted(out.get("data", {}))) for out in cell.outputs]


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_same_allows_rounding_only():
    assert same("ratio 1.20, #3 of 17", "ratio  1.21, #3 of 17")
    assert not same("#3 of 17", "#4 of 17")
    assert not same("ratio 1.20", "ratio 1.30")
    assert not same("' Sofa' 3", "' Katze' 3")


@pytest.mark.parametrize("path", [*NOTEBOOKS, *OTHERS], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_committed_outputs_show_without_a_network(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    drawn = sum(bool(figures(cell)) for cell in code_cells(notebook))
    carriers = sum(path.read_text(encoding="utf-8").count(mark) for mark in (BUNDLE, PACKED))
    assert min(drawn, 1) <= carriers <= min(drawn, 2), "CircuitsVis' script belongs into one output or two"
    assert notebook.metadata.kernelspec.name == "python3"
    for number, cell in enumerate(code_cells(notebook), start=1):
        assert cell.execution_count == number, "not run from top to bottom"
        assert cell.metadata == {}
        assert cell.outputs or not displays(cell), f"no output of:\n{cell.source}"
        for output in cell.outputs:
            assert output.output_type != "error"
            assert not is_noise(output)
            for text in texts(output):
                assert not MACHINE_PATH.search(text), MACHINE_PATH.search(text)
                assert not REQUEST.search(text), REQUEST.search(text)


def test_other_models_ran_the_same_cells():
    for path in OTHERS:
        ours, theirs = (nbformat.read(p, as_version=4) for p in (REPO / "notebooks" / path.name, path))
        assert [cell.source for cell in ours.cells] == [cell.source for cell in theirs.cells]


def displays(cell: Any) -> bool:
    """Whether the cell prints, shows a figure, or ends with an expression."""
    last = cell.source.rstrip().splitlines()[-1]
    return bool(re.search(r"\bprint\(|\.show\(", cell.source)) or re.match(r"[\w.]+(\(|$)", last) is not None


@every_notebook
@pytest.mark.slow
def test_a_fresh_run_gives_the_committed_outputs(path, tmp_path):
    committed, short = code_cells(nbformat.read(path, as_version=4)), has_short_mode(path)
    fresh = code_cells(tidy(execute(path, tmp_path, short=short)))
    for before, after in zip(committed, fresh, strict=True):
        if short:
            assert kinds(before) == kinds(after), before.source
            continue
        assert same(printed(before), printed(after)), f"{before.source}\n\n{printed(before)}\n\n{printed(after)}"
        assert same(repr(figures(before)), repr(figures(after))), before.source
    assert not list(tmp_path.iterdir()), "a notebook leaves files behind"


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("parts", nargs="*")
    options.add_argument("--model", metavar="NAME=FOLDER")
    given = options.parse_args()
    name, _, folder = (given.model or "").partition("=")
    if folder:
        os.environ[MODEL] = str(Path(folder).resolve())
    for each in [path for path in NOTEBOOKS if not given.parts or any(part in path.stem for part in given.parts)]:
        with tempfile.TemporaryDirectory() as scratch:
            made = tidy(execute(each, scratch))
        (each.parent / name).mkdir(exist_ok=True)
        nbformat.write(made, each.parent / name / each.name)
