"""What the interactive view is called with, and where its scripts go; test_chromium.py looks at what comes of it."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any

import panel_samples as samples
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panel_samples import NAN, grid, paris, row, strip

from tl_jacobian import render
from tl_jacobian.render.circuitsvis import packed_scripts, runtime_scripts, script_json, strip_script
from tl_jacobian.results.panels import Scale, TokenStrip
from tl_jacobian.results.tokens import visible

BUNDLE_MARK, PACKED_MARK = "var CircuitsVis=", "tlJacobianUnpacks = true"


def call(panel: TokenStrip) -> dict[str, Any]:
    """What the runtime is called with."""
    found = re.search(r"mount\((\{.*\})\);\n", strip_script(panel, "x"))
    assert found
    return json.loads(found[1])


@given(st.text(st.characters()))
def test_script_json_holds_nothing_that_ends_or_hides_a_script(text: str) -> None:
    encoded = script_json({"tokens": [text]})
    assert encoded.isascii()
    assert not set("<>&") & set(encoded)
    assert "\n" not in encoded


def test_script_json_refuses_numbers_that_are_not_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json([NAN])


def test_the_bundle_can_be_embedded_in_a_script() -> None:
    bundle, mount = runtime_scripts()
    for script in (bundle, mount):
        assert not re.search(r"</script|<!--", script, re.IGNORECASE)
        assert "sourceMappingURL" not in script
        assert "\r" not in script
    assert len(bundle) > 1_000_000


def test_a_page_with_three_strips_holds_the_bundle_once() -> None:
    html = render.page([paris(), paris(), paris()])
    assert html.count(BUNDLE_MARK) == 1
    assert html.count("<style>") == 2
    assert len(set(re.findall(r'id="(tlj-\d)"', html))) == 3
    assert html.count("</script>") == 2 + 3


class Shell:
    """A kernel's shell, as far as it is asked."""

    kernel = object()

    def __init__(self, cell: str | None, execution_count: int) -> None:
        self.cell, self.execution_count = cell, execution_count

    def get_parent(self) -> dict[str, Any]:
        return {"metadata": {} if self.cell is None else {"cellId": self.cell}}


def carries(cell: str | None, count: int, monkeypatch: pytest.MonkeyPatch, *, panel: Any = None) -> bool:
    monkeypatch.setattr("IPython.get_ipython", lambda: Shell(cell, count))
    return PACKED_MARK in render.notebook([panel or paris()])


def test_without_a_kernel_the_scripts_are_given_once_and_only_if_needed() -> None:
    outputs = [render.notebook([panel]) for panel in (grid(), paris(), paris(), grid())]
    assert [output.count(PACKED_MARK) for output in outputs] == [0, 1, 0, 0]
    assert [output.count("</script>") for output in outputs] == [0, 3, 1, 0]
    assert len(outputs[1]) < 600_000
    assert all(len(output) < 25_000 for output in outputs[2:])
    ids = re.findall(r'id="(tlj-\w+-0)"', "".join(outputs))
    assert len(set(ids)) == len(ids)
    render.embed_scripts_again()
    assert PACKED_MARK in render.notebook([paris()])


def test_two_cells_carry_the_scripts_and_again_when_they_are_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that neither clearing one output nor running a cell again takes them out of the notebook."""
    import IPython  # noqa: F401  # as in a kernel

    order = [("a", 1), ("a", 1), ("b", 2), ("c", 3), ("a", 4), ("c", 5), ("b", 6)]
    assert [carries(*one, monkeypatch) for one in order] == [True, False, True, False, True, False, True]
    render.embed_scripts_again()
    assert [carries(None, count, monkeypatch) for count in (7, 8, 9)] == [True, True, False]  # cells without a name


def test_what_is_packed_is_the_bundle() -> None:
    bundle, mount = runtime_scripts()
    unpack, same = packed_scripts()
    packed = re.search(r'atob\("([\w+/=]+)"\)', unpack)
    assert packed
    assert gzip.decompress(base64.b64decode(packed[1])).decode() == bundle
    assert same == mount


def test_one_row_is_given_as_it_is() -> None:
    props = call(strip(["a", "\x1b[31m", "\n"], rows=[row([1.0, NAN, -2.5e-7], errors=(0.1, NAN, 0.2), coming="b\n")]))
    assert props["tokens"] == ["a", visible("\x1b[31m"), "↵"]
    assert props["breaks"] == [2]
    assert props["columns"] == [[1.0, None, -2.5e-7]]
    assert props["errors"] == ["0.1", "none", "0.2"]
    assert (props["limit"], props["captions"], props["coming"]) == (1.0, [], ["b↵"])


def test_compared_rows_are_shares_of_their_own_full_colour() -> None:
    props = call(strip("ab", rows=[row([1.0, 4.0], label="one"), row([-2e-4, 1e-4], label="two")]))
    assert props["columns"] == [[0.25, 1.0], [-1.0, 0.5]]
    assert props["limit"] == 1.0
    assert props["labels"] == ["one (1 = 4)", "two (1 = 0.0002)"]
    assert (props["together"], props["captions"]) == (True, [])


def test_rows_on_one_scale_keep_their_numbers() -> None:
    scale = Scale(limit=4.0, low=-2.0, high=4.0, signed=True)
    rows = [row([50.0, 1.0, NAN], scale=scale, label="0"), row([40.0, -2.0, 4.0], scale=scale, label="1")]
    props = call(strip("abc", rows=rows, together=False, hidden=(0,)))
    assert props["columns"] == [[50, 1, None], [40, -2, 4]]
    assert (props["limit"], props["hidden"], props["labels"]) == (4, [0], ["0", "1"])
    assert props["captions"] == ["0 · full colour = 4", "1 · full colour = 4"]


def test_small_numbers_get_a_unit_that_six_decimals_can_show() -> None:
    scale = Scale(limit=4e-7, low=0.0, high=4e-7, signed=False)
    props = call(strip("ab", rows=[row([1e-7, 4e-7], scale=scale), row([0.0, 2e-7], scale=scale)], together=False))
    assert props["limit"] == pytest.approx(4)
    assert props["columns"][0] == pytest.approx([1, 4])
    assert props["captions"][0].endswith("numbers in units of 1e-07")


def test_a_choice_starts_with_the_chosen_row() -> None:
    props = call(samples.map_strip())
    assert (props["chosen"], props["together"]) == (4, False)
    assert props["framed"] == [[1], [2], [3], [4], []]
    assert props["coming"] == ["", "", "", "", "' Paris' (predicted)"]
    assert props["columns"][1] == [0.5, 1.0], "the rest comes later"
    assert props["limit"] == 1.0, "also where the first row has no colour at all"


@pytest.mark.parametrize(("n", "width", "live"), [(130, 3, True), (131, 3, False), (100, 200, True), (100, 201, False)])
def test_too_many_rows_or_cells_need_no_script(n, width, live) -> None:
    panel = strip(["a"] * width, *([[1.0] * width] * n), together=False)
    assert bool(strip_script(panel, "x")) == live
    assert "tlj-tokens" in render.notebook([panel])
