"""What there is to see in each value: units, scales, what is left out, and the words around it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from examples import NAN, ODD, alignment, attribution, attribution_map, evaluation, examples, grid, split

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.alignment import WordAlignment
from tl_jacobian.results.attribution import Prediction
from tl_jacobian.results.comparison import Comparison, compare
from tl_jacobian.results.curves import PerturbationCurves
from tl_jacobian.results.linearity import Linearity
from tl_jacobian.results.numbers import NumberInfluence
from tl_jacobian.results.panels import Bars, Curves, HeatMap, Table, TokenStrip, Unit, hidden_units, scale_of
from tl_jacobian.results.patching import PatchComparison
from tl_jacobian.results.spectra import JacobianSpectrum

VALUES = examples()


# -- token 0 -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "hidden"),
    [
        (((0,), (1,)), (0,)),
        (((0,),), ()),
        (((0, 1), (2,)), ()),
        (((1,), (0,)), (1,)),
        ((), ()),
        (((1,), (2,)), ()),
    ],
)
def test_token_0_is_hidden_where_it_is_a_unit_beside_others(units, hidden):
    assert hidden_units(units, True) == hidden
    assert hidden_units(units, False) == ()


def test_an_attribution_hides_token_0_and_says_what_it_would_be():
    a = attribution((12.34, 1.0, -4.0), str_tokens=("The", " cat", " sat"))
    strip = a.panels()[0]
    assert isinstance(strip, TokenStrip)
    assert (strip.hidden, strip.rows[0].scale.limit, strip.rows[0].scale.signed) == ((0,), 4.0, True)
    assert strip.rows[0].values == pytest.approx((12.34, 1.0, -4.0)), "numbers never hide it"
    assert strip.legend == ("nats",), "range and what is left out are the renderers' to say"
    assert strip.units == (Unit("The", (0,)), Unit(" cat", (1,)), Unit(" sat", (2,)))
    whole = a.panels(skip_first=False)[0]
    assert (whole.hidden, whole.legend) == ((), ("nats",))
    assert (strip.rows[0].scale.low, strip.rows[0].scale.high) == (-4.0, 1.0)
    assert whole.rows[0].scale.limit == pytest.approx(12.34)


def test_a_units_tokens_need_not_be_neighbours():
    found = attribution((3.0, 1.0, 4.0)).grouped_by([(2, 0), (1,)], ["ends", "middle"]).panels()[0]
    assert found.units == (Unit("ends", (0, 2)), Unit("middle", (1,)))
    assert found.hidden == ()


# -- attributions ------------------------------------------------------------------------


def test_an_attribution_says_what_was_explained_where_and_by_what():
    strip, bars = attribution(
        predictions=(Prediction(7, " a", 0.5), Prediction(8, ODD[0], 0.25)), stderr=torch.tensor([0.3, 0.4, 0.01])
    ).panels()
    assert (strip.title, strip.detail) == ("Fisher Scope", "distribution = 0.1")
    assert strip.facts == ("prediction after token 2 'a\n\nb\u2028'", "m", "float32")
    assert strip.rows[0].errors == pytest.approx((0.3, 0.4, 0.01))
    assert isinstance(bars, Bars)
    assert (bars.title, bars.percent, bars.aside) == ("predicted next token", True, True)
    assert [(bar.name, bar.value, bar.note) for bar in bars.bars] == [(" a", 0.5, "token 7"), (ODD[0], 0.25, "token 8")]
    elsewhere = attribution(metadata={"output_hook": "blocks.5.hook_resid_post"}).panels()[0]
    assert elsewhere.facts[0].startswith("blocks.5.hook_resid_post at token 2")


def test_an_answer_has_its_first_unit_in_a_frame_and_says_so():
    of_answer = attribution((3.0, 1.0, 4.0, 2.0), str_tokens=("The", " sky", " is", " blue"), answer_start=2)
    (strip,) = of_answer.panels()
    assert (strip.rows[0].framed, strip.facts[0]) == ((2,), "answer after token 1 ' sky', from the framed one on")
    (blocks,) = of_answer.segments([range(2), range(2, 4)], split_first=False).panels()
    assert (blocks.rows[0].framed, blocks.inside.rows[0].framed) == ((1,), (2,))
    (part,) = of_answer.prompt.panels()
    assert (part.rows[0].framed, part.facts[0]) == ((), "answer after token 1 ' sky'")
    elsewhere = attribution(answer_start=3, metadata={"output_hook": "blocks.5.hook_resid_post"}).panels()[0]
    assert elsewhere.facts[0] == "blocks.5.hook_resid_post at token 2 'a\n\nb\u2028' and along the answer"
    assert attribution().panels()[0].rows[0].framed == ()


def test_a_comparison_has_a_row_and_a_scale_each():
    one = attribution((9.0, 1.0, 2.0))
    other = attribution((1.0, -2.0, 3.0), scope="semantic", predictions=(Prediction(1, "x", 0.5),))
    strip, bars = compare([one, other]).panels()
    assert (strip.title, strip.detail, strip.together) == ("2 attributions of one prompt", "", True)
    assert [row.scale.limit for row in strip.rows] == [2.0, 3.0]
    assert [row.label for row in strip.rows] == [
        "Fisher Scope: distribution = 0.1",
        "Semantic Scope: distribution = 0.1",
    ]
    assert strip.rows[0].facts == ("nats",)
    assert (strip.legend, strip.hidden) == ((), (0,))
    assert bars.bars[0].name == "x"
    assert compare([one]).panels() == one.panels()
    assert len(compare([one, other]).to_dataframe()) == 6


@pytest.mark.usefixtures("unchecked")
def test_what_can_not_be_compared():
    with pytest.raises(ValueError, match="nothing to compare: got an empty list"):
        compare([])
    with pytest.raises(ArgumentError, match="attributions=3 is an int, expected a list of"):
        compare(3)
    with pytest.raises(ValueError, match=r"attributions 0 and 1 aren't of the same tokens \(3 units, .* and 2 units"):
        compare([attribution(), attribution((1.0, 2.0))])
    with pytest.raises(ValueError, match="aren't of the same tokens"):
        compare(
            [attribution().grouped_by([(0,), (1, 2)], ["a", "b"]), attribution().grouped_by([(0, 1), (2,)], ["a", "b"])]
        )
    assert repr(Comparison(attributions=(attribution(),))) == "Comparison(fisher: distribution)"


def test_a_map_is_a_heat_map_a_text_and_a_ranking():
    heat, strip, table = attribution_map().panels()
    assert isinstance(heat, HeatMap)
    assert [len(row) for row in heat.values] == [1, 2, 3], "what comes later can't matter"
    assert heat.detail == "attribution map"
    assert (heat.row_axis, heat.column_axis) == ("target", "source")
    assert heat.rows[0] == "0 '</script>' → 'שלום 🦜'"
    assert heat.rows[2] == "2 'a\n\nb\u2028' → '</script>' (predicted)"
    assert (heat.numbered, heat.hidden) == (True, (0,))
    assert [scale.limit for scale in heat.scales] == pytest.approx([0.0, 1 / 3, 2.0])
    assert (heat.quantity, heat.legend) == ("nats", ())
    assert (strip.together, strip.chosen, strip.views) == (False, 2, ("page",))
    assert [row.framed for row in strip.rows] == [(1,), (2,), ()]
    assert strip.rows[0].label == "→ 'שלום 🦜' (p = 50.0%): distribution = 0.1"
    assert strip.rows[2].coming == "'</script>' (predicted)"
    assert table.views == ("terminal",)
    assert table.rows[2][1].text == "'a\n\nb\u2028' -2, 'שלום 🦜' 1"
    heat, strip, _ = attribution_map().panels(per_row=False)
    assert [scale.limit for scale in heat.scales] == [2.0]
    assert {row.scale for row in strip.rows} == set(heat.scales)


def test_a_map_of_words_frames_the_word_that_comes():
    m = attribution_map()
    last = m[2].grouped([1, 2])
    early = dataclasses.replace(m[0], predictions=())
    words = dataclasses.replace(m, attributions=(early, last), next_texts=("b c", None), target_words=())
    assert [row.framed for row in words.panels()[1].rows] == [(1,), ()]
    assert (len(words.panels()[0].rows), len(words.panels()[0].columns)) == (2, 2)


# -- grids -------------------------------------------------------------------------------


def test_a_grid_is_a_heat_map_and_a_text():
    heat, strip = grid(((9.0, -1.0, NAN), (8.0, 0.5, 0.25)), columns=("The", " cat", " sat")).panels()
    assert (heat.detail, heat.quantity, heat.legend) == ("", "logits", ())
    assert (heat.scales[0].low, heat.scales[0].high) == (-1.0, 0.5)
    assert (heat.hidden, heat.numbered, heat.scales[0].limit) == ((0,), True, 1.0)
    assert (strip.views, strip.together, strip.chosen, strip.rows[1].label) == (("page",), False, 0, "</script>")
    assert strip.rows[0].scale == heat.scales[0]
    assert math.isnan(strip.rows[0].values[2])


def test_columns_that_are_no_tokens_have_no_text_and_nothing_is_left_out():
    (heat,) = grid(column_axis="head").panels()
    assert (heat.hidden, heat.numbered, heat.columns[0].positions) == ((), False, ())
    assert heat.scales[0].limit == 9.0


def test_a_grid_of_too_many_rows_has_no_text():
    big = grid(torch.zeros(131, 2).tolist(), rows=tuple(map(str, range(131))), columns=("a", "b"))
    assert len(big.panels()) == 1


def test_contributions_are_bars_by_layer_and_kind():
    bars, heads, sources, *_ = VALUES["contributions"].panels()
    assert [(bar.line, bar.kind) for bar in bars.bars] == [("", ""), ("0", "attn"), ("0", "mlp"), ("", "")]
    assert bars.title == "</script> = -2.1"
    assert bars.detail == "4 parts"
    assert bars.facts[0].startswith("the parts add up to it within")
    assert (bars.running, bars.bars[1].note) == (True, "running total -2.17")
    assert heads.views == sources.views == ("terminal", "page")
    many = dataclasses.replace(
        VALUES["contributions"],
        sources=grid(torch.arange(80.0).reshape(40, 2).tolist(), rows=tuple(map(str, range(40))), columns=("a", "b")),
    )
    assert len(next(p for p in many.panels()[2:] if isinstance(p, HeatMap)).rows) == 24
    assert VALUES["contributions of one"].panels()[0].facts == ("the parts add up to it",)


def test_patching_is_two_heat_maps_on_one_scale_and_a_scatter_plot():
    c = VALUES["patching"]
    maps = [panel for panel in c.panels() if isinstance(panel, HeatMap)]
    assert [m.scales[0].limit for m in maps] == [10.0, 10.0]
    assert c.summary() == f"2 layers x 3 tokens; {'; '.join(maps[0].facts[:2])}"
    scatter = c.panels()[-1]
    assert isinstance(scatter, Curves)
    assert (scatter.square, scatter.guides[0].axis) == (True, "diagonal")
    agree, differ = scatter.curves
    assert (agree.x, agree.y, agree.role, agree.marks) == ((2.0, 10.0), (1.0, 5.0), "positive", "points")
    assert (differ.x, differ.y, differ.role) == ((4.0,), (-4.0,), "negative")
    assert scatter.title.startswith("Spearman ")
    (table,) = (panel for panel in c.panels() if isinstance(panel, Table))
    assert table.header == ("layer", "token", "predicted", "measured")
    assert [row[3].text for row in table.rows][:2] == ["10", "4"]
    assert [row[2].text for row in table.rows][:2] == ["5", "-4"]


def test_a_split_is_its_grid():
    heat, _ = split().panels()
    assert heat.rows == ("full", "through", "around", "share")
    assert torch.equal(split().grid.values[3], split().share.scores)
    assert list(split().to_dataframe()) == ["position", "tokens", "text", "full", "through", "around", "share"]
    words = dataclasses.replace(
        split(), **{name: a.grouped([2, 1], ["ab", "c"]) for name, a in split()._parts().items()}
    )
    assert words.grid.units == ((0, 1), (2,))
    with pytest.raises(ArgumentError, match="share is of other tokens or units than full"):
        dataclasses.replace(split(), share=split().share.grouped([2, 1]))


# -- alignments --------------------------------------------------------------------------


def test_an_alignment_is_a_heat_map_and_the_text_once_a_target_word():
    heat, strip = alignment().panels(sure="0-0", possible="0-0 1-1")
    assert [(f.row, f.column, f.dashed) for f in heat.frames] == [(0, 0, False), (1, 1, True)]
    assert heat.legend[-1] == "framed: gold links (dashed: possible)"
    assert heat.title == "Fisher Scope: word alignment"
    assert [row.framed for row in strip.rows] == [(4,), (5,)]
    red, last = strip.rows
    assert red.values[1:3] == (4.0, 2.0)
    assert all(math.isnan(red.values[i]) for i in (0, 3, 4))
    assert (len(red.values), len(last.values)) == (5, 6), "what comes after the framed word can't matter"
    assert red.facts == (
        "'rot' 4, '\ud800\x00' 2",
        "nats",
        "source words hold 38% of all influence on it",
    )
    assert strip.legend == ()
    plain = WordAlignment.of_matrix(torch.eye(2), ["a", "b"], ["c", "d"])
    assert "source words hold" not in str(plain.panels())
    with pytest.raises(ArgumentError, match=r"gold link 9-9 \(source-target\) is outside 2 source words and 2"):
        alignment().panels(sure=[(9, 9)])


def test_one_aligned_word_is_one_row():
    (strip,) = alignment().row("red").panels()
    assert [row.label for row in strip.rows] == ["red"]


def test_an_alignment_whose_positions_are_known_hides_token_0():
    a = VALUES["alignment with positions"]
    heat, strip = a.panels()
    assert (heat.hidden, strip.hidden) == ((0,), (1,))
    assert strip.rows[0].scale.limit == 2.0
    assert strip.rows[0].values[1] == 4.0, "numbers never hide it"
    elsewhere = alignment(positions=((0,), (1,), (2, 4), (3,), (5,), (6,))).panels()
    assert (elsewhere[0].hidden, elsewhere[1].hidden) == ((), ()), "what is no source word has no colour to hide"
    assert VALUES["alignment with positions"].row("red").top(3) == [(1, ODD[3], 2.0)]
    assert a.panels(skip_first=False)[1].hidden == ()


# -- numbers -----------------------------------------------------------------------------


def test_a_series_has_its_influences_below_and_the_forecast_beside():
    (series,) = VALUES["number influence"].panels(distribution=VALUES["number distribution"])
    assert series.guides[0].at == 3.0
    assert series.below is not None
    assert series.beside is not None
    assert (series.below.hidden, series.below.curves[0].marks) == (1, "bars")
    assert series.below.curves[0].y == (100.0, 0.1, 1 / 3), "numbers never hide it"
    assert series.below.curves[0].high[1] == pytest.approx(0.2)
    assert series.legend == ()
    assert series.beside.curves[0].x == (21.0, 23.0, 27.0)
    assert sum(series.beside.curves[0].y) == pytest.approx(1)
    assert VALUES["number influence"].panels(skip_first=False)[0].below.hidden == 0


@pytest.mark.parametrize(
    ("influence", "options", "message"),
    [
        ([1.0, math.inf], {}, "an influence isn't finite: only finite ones can be drawn"),
        ([1.0, -1.0], {}, "influences from -1 to 1, expected none negative"),
        ([0.0, 0.0], {"log": True}, "expected none negative and some above zero for log=True"),
        ([1.0, 1.0], {"skip_first": 2}, "skip_first=2, expected 0 to 1 numbers to leave out"),
    ],
)
def test_influences_that_can_not_be_drawn(influence, options, message):
    i = NumberInfluence(values=np.zeros(2), influence=np.array(influence), scope="s", target="t")
    with pytest.raises(ArgumentError, match=message):
        i.panels(**options)


def test_a_forecast_marks_the_truth():
    (bars,) = VALUES["number distribution"].panels()
    assert bars.guides[0].at == 23.5
    assert bars.curves[0].marks == "bars"
    assert "60.0% of the probability is on numbers, as far as the beam saw" in bars.facts


# -- tables and curves -------------------------------------------------------------------


def test_a_spectrum_is_a_table_and_its_decay():
    s = VALUES["jacobian spectrum"]
    assert isinstance(s, JacobianSpectrum)
    table, decay = s.panels(n=1)
    assert table.header == ("", "singular value", "share", "raises", "lowers")
    assert [cell.text for cell in table.rows[0]] == [
        *("0", "3", "90.0%", "'שלום 🦜' 0.5, '\ud800\x00' 0.25", "'</script>' 0.25")
    ]
    assert (table.views, len(table.rows), len(s.panels()[0].rows)) == (("terminal", "page"), 1, 2)
    assert table.facts[:2] == ("effective rank 1.5 ± 0.01", "2 leading directions: 90.1% of all")
    assert (decay.log_y, decay.whole_x, decay.guides[0].at) == (True, True, 1.0)
    assert decay.curves[0].high[1] == pytest.approx(0.1 + 1e-9)
    assert not VALUES["fisher spectrum"].panels()[1].log_y
    with pytest.raises(ArgumentError, match="direction 5 is out of range, expected 0 to 1"):
        s.moves(5)
    with pytest.raises(ArgumentError, match="n=21, expected 0 to 20, as many as are kept"):
        s.moves(0, 21)
    assert s.left.dtype == s.right.dtype == torch.float64


def test_linearity_is_a_table_and_its_error():
    table, curve = VALUES["linearity"].panels()
    assert table.title == "Linearity of </script>"
    assert [cell.text for cell in table.rows[0]] == ["0.01", "0", "+0.3 → +0.3", "+0.4 → +0.4"]
    assert "way: steepest" in table.facts
    assert (curve.log_x, curve.guides[0].at) == (True, 1.0)
    many = Linearity(
        epsilons=(0.1,),
        positions=tuple(range(5)),
        str_tokens=("a",) * 5,
        predicted=torch.ones(1, 5),
        actual=torch.ones(1, 5),
    )
    assert "3 of 5 tokens shown" in many.panels()[0].facts
    assert not many.panels()[1].log_y, "nothing above zero"
    few = dataclasses.replace(
        many,
        positions=(3, 5),
        str_tokens=("a", "b"),
        predicted=torch.tensor([[3.0, 4.0]]),
        actual=torch.zeros(1, 2),
    )
    assert few.relative_error.tolist() == [1.0]
    assert list(few.to_dataframe()) == ["epsilon", "position", "text", "predicted", "actual"]
    assert few.to_dataframe().predicted.tolist() == [3.0, 4.0]
    with pytest.raises(ArgumentError, match=r"for 1 epsilons and 5 positions, expected \(1, 5\)"):
        dataclasses.replace(many, str_tokens=("a",))


def test_an_evaluation_is_tables_and_drops_over_k():
    *tables, curves = evaluation().panels()
    assert all(isinstance(table, Table) for table in tables)
    assert [table.header[0] for table in tables] == ["method", "method", "method", "difference of AOPC"]
    assert tables[0].title == "</script>"
    assert tables[0].detail.startswith("4 prompts, tokens removed by putting zeros in the place of their embeddings.")
    assert tables[0].numbers == (1, 2)
    assert tables[0].rows[0][1].text == "2.50 [1.25, 3.75]" or "[" in tables[0].rows[0][1].text
    assert any(note.startswith("Completeness gap of random") for note in tables[-1].notes)
    assert any("Prompts left out for errors: 1, such as: \ud800" in note for note in tables[-1].notes)
    assert [curve.name for curve in curves.curves] == ["semantic", "random"]
    assert curves.curves[0].low[0] <= curves.curves[0].y[0] <= curves.curves[0].high[0]
    with pytest.raises(TypeError, match="can't be changed"):
        evaluation().records[0]["methods"]["semantic"]["removed"][0] = 1.0


@pytest.mark.parametrize(("n", "least"), [(2, "0.5"), (5, "0.0625"), (6, None)])
def test_too_few_prompts_for_any_significance(n, least):
    """Flipping the signs of n differences gives 2^n sums, of which the observed one and its negative are extreme."""
    records = [
        {"log_prob": -1.0, "methods": {"a": {"removed": [-9.0 - i]}, "b": {"removed": [-2.0]}}} for i in range(n)
    ]
    e = dataclasses.replace(evaluation(), records=tuple(records), metadata={"k": [20.0]})
    (d,) = e.differences()
    assert d.p == pytest.approx(2 / 2**n)
    notes = " ".join(note for panel in e.panels() if isinstance(panel, Table) for note in panel.notes)
    told = f"With {n} prompts no difference can reach p < 0.05 (the smallest possible is {least})"
    assert (told in notes) == (least is not None)


def test_an_evaluation_of_too_few_prompts_names_the_first_error():
    bad = {"error": "too long"}
    with pytest.raises(ArgumentError, match=r"1 of 2 prompts could be used, .* the first error: too long"):
        dataclasses.replace(evaluation(), records=(evaluation().records[0], bad))
    with pytest.raises(ArgumentError, match="metric='aopcc'"):
        evaluation().values("aopcc", "semantic")
    with pytest.raises(ArgumentError, match="k=7 for metric='drop'"):
        evaluation().values("drop", "semantic", 7)


def test_edits_are_listed_by_score_and_shaded_by_their_own_scales():
    (table,) = VALUES["counterfactuals"].panels()
    assert [row[0].text for row in table.rows] == ["0 </script>", "1 שלום 🦜", "2 a\n\nb\u2028", "3 \ud800\x00"]
    assert table.rows[0][1].shade == 1.0
    assert table.rows[3][4].shade == -1.0
    assert table.rows[0][2].text == "removed"
    assert table.rows[1][2].text == "→ </script>"
    assert [row[6].text.endswith("*") for row in table.rows] == [False, True, True, True]
    assert table.above == ODD[2]
    assert table.detail == "log-probability = -0.5"
    assert table.facts[0] == "'\ud800\x00' predicted with 50% (*: another is)"


def test_perturbation_curves_are_curves():
    (drawn,) = VALUES["curves"].panels()
    assert [curve.name for curve in drawn.curves] == ["without the top k%", "with nothing but the top k%"]
    assert drawn.guides[0].at == -0.1
    assert VALUES["curves of one side"].sufficiency is None
    with pytest.raises(ArgumentError, match=r"have lengths \[1, 2, 1\], expected one each"):
        PerturbationCurves(k=(5.0,), n=(1, 2), clean=0.0, removed=torch.zeros(1), scope="s")


def test_claims_are_tables():
    table, curves = VALUES["pattern match"].panels()
    assert [cell.text for cell in table.rows[0]] == ["0.5", "0.01", "nan", "3"]
    assert curves.curves[0].x == (0.0, 1.0, 2.0)
    assert VALUES["forgetting slope"].panels()[0].title == "slope of log-influence over position"
    assert VALUES["estimate"].panels()[0].header == ("estimate", "95% from", "to", "p", "n")


# -- scales ------------------------------------------------------------------------------


def test_a_scale_is_symmetric_about_zero_and_has_no_infinite_ends():
    scale = scale_of([1.0, -2.0, NAN])
    assert (scale.limit, scale.low, scale.high, scale.signed) == (2.0, -2.0, 1.0, True)
    assert (scale.strength(1.0), scale.strength(-9.0), scale.strength(NAN)) == (0.5, 1.0, 0.0)
    assert scale_of([]).strength(3.0) == 0.0
    with pytest.raises(ArgumentError, match="an infinite value can't be drawn"):
        scale_of([math.inf])


def test_a_comparison_of_patches_without_any_effect_can_be_drawn():
    zero = grid(((0.0, 0.0), (0.0, 0.0)), columns=("a", "b"))
    c = PatchComparison(predicted=zero, measured=zero, clean=0.0, corrupted=0.0)
    assert c.panels()[0].scales[0].limit == 0.0
