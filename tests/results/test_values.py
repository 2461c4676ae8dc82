"""What every value promises: nobody changes it, and files give it back exactly or not at all."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from examples import DETAILS, NAN, attribution, examples, grid
from torch import Tensor

from tl_jacobian.errors import ArgumentError, AttributionFileError
from tl_jacobian.results import base, codec, drawing, panels
from tl_jacobian.results.base import KINDS, Value
from tl_jacobian.results.spectra import Spectrum

VALUES, AGAIN = examples(), examples()  # the same, made twice
UNDRAWABLE = {"attribution that isn't finite"}
each = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)


def test_every_kind_of_value_is_tried():
    ours = {kind for kind in KINDS.values() if kind.__module__.startswith("tl_jacobian.results")}
    assert {type(value) for value in VALUES.values()} == {kind for kind in ours if not inspect.isabstract(kind)}
    assert len(KINDS) == len(set(KINDS.values()))


def fields_of(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}


# -- as a value --------------------------------------------------------------------------


@each
def test_copies_are_equal_and_made_of_the_same_things(value):
    again = type(value)(**fields_of(value))
    for other in (again, copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert other == value
    assert value != "value"
    assert value != VALUES["grid" if value != VALUES["grid"] else "map"]
    with pytest.raises(TypeError, match="unhashable"):
        hash(value)


@each
def test_no_field_can_be_set(value):
    for name in fields_of(value):
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(value, name, None)


def attack(found: Any) -> int:
    """Try to change everything in reach; how many things refused or were changed as copies."""
    if isinstance(found, Tensor):
        found.fill_(7)
        return 1
    if isinstance(found, np.ndarray):
        with pytest.raises(ValueError, match="read-only"):
            found[...] = 7
        return 1
    if isinstance(found, Mapping):
        for change in (
            lambda: found.__setitem__("model", "x"),
            lambda: found.update(a=1),
            lambda: found.pop("model", None),
            lambda: found.setdefault("a", 1),
            lambda: found.clear(),
            lambda: found.__ior__({"a": 1}),
        ):
            with pytest.raises(TypeError, match="can't be changed"):
                change()
        return 1 + sum(map(attack, found.values()))
    if isinstance(found, list):
        for change in (lambda: found.append(1), lambda: found.__setitem__(0, 1), lambda: found.sort()):
            with pytest.raises(TypeError, match="can't be changed"):
                change()
        return 1 + sum(map(attack, found))
    if isinstance(found, tuple):
        return sum(map(attack, found))
    if isinstance(found, Value):
        return sum(map(attack, fields_of(found).values()))
    return 0


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("made", ["new", "loaded", "deep copy", "unpickled"])
def test_nothing_in_reach_can_be_changed(tmp_path, name, made):
    value = VALUES[name]
    if made == "loaded":
        value.save(tmp_path / "v")
        value = type(value).load(tmp_path / "v")
    value = {"deep copy": copy.deepcopy, "unpickled": lambda v: pickle.loads(pickle.dumps(v))}.get(made, copy.copy)(
        value
    )
    tried = sum(map(attack, fields_of(value).values()))
    derived = [getattr(value, n) for n in ("matrix", "shares", "mask", "conditional", "scores") if hasattr(value, n)]
    assert tried + sum(map(attack, [d for d in derived if isinstance(d, (Tensor, np.ndarray))])) > 0 or name in (
        "forgetting slope",
        "estimate",
        "run report",
    )
    assert value == AGAIN[name]


def test_what_made_it_can_be_changed_without_it():
    scores, details = torch.tensor([1.0, 2.0, 3.0]), {"a": [1, {"b": 2}]}
    a = attribution(metadata=details)
    details["a"][1]["b"] = 3
    scores.zero_()
    assert a.metadata == {"a": [1, {"b": 2}]}


def test_metadata_are_json_from_the_start():
    a = attribution(metadata={"pair": (1, 2), 3: "three", "numpy": np.float64(0.5)})
    assert a.metadata == {"pair": [1, 2], "3": "three", "numpy": 0.5}
    with pytest.raises(ArgumentError, match="metadata holds a dtype, expected numbers, text, lists and dicts"):
        attribution(metadata={"dtype": torch.float32})


# -- files -------------------------------------------------------------------------------


@each
def test_the_round_trip_is_exact(tmp_path, value):
    value.save(tmp_path / "v.json")
    again = type(value).load(tmp_path / "v.json")
    assert again == value
    assert repr(again) == repr(value)
    assert Value.load(tmp_path / "v.json") == value
    written = (tmp_path / "v.json").read_bytes()
    again.save(tmp_path / "v.json")
    assert (tmp_path / "v.json").read_bytes() == written, "and so on for ever"
    for name, field in fields_of(again).items():
        assert type(field) is type(fields_of(value)[name]), name


@each
def test_the_file_is_json_that_anything_reads(tmp_path, value):
    value.save(tmp_path / "v.json")
    data = json.loads((tmp_path / "v.json").read_bytes().decode("ascii"), parse_constant=pytest.fail)
    assert list(data) == ["format", "version", "sha256", "value"]
    assert (data["format"], data["version"]) == (type(value).format, 2)
    assert set(data["value"]) == set(fields_of(value))


@each
def test_no_flipped_bit_goes_unseen(tmp_path, value):
    content = codec.encode(value, value.format)
    kinds = {value.format: type(value)}
    draw = random.Random(0)
    for _ in range(300):
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        with pytest.raises(AttributionFileError):
            codec.decode(bytes(flipped), kinds)
    assert codec.decode(content, kinds) == value


@each
def test_no_cut_goes_unseen(tmp_path, value):
    content = codec.encode(value, value.format)
    for length in {0, 1, 30, 100, len(content) // 2, len(content) - 2, len(content) - 1}:
        (tmp_path / "cut.json").write_bytes(content[:length])
        with pytest.raises(AttributionFileError, match=r"cut\.json: (damaged|not a saved|version)"):
            type(value).load(tmp_path / "cut.json")
    (tmp_path / "cut.json").write_bytes(content + b" ")
    with pytest.raises(AttributionFileError, match="its bytes don't match its checksum"):
        type(value).load(tmp_path / "cut.json")


def test_a_key_that_stands_twice_is_seen(tmp_path):
    content = codec.encode(grid(), "tl_jacobian.grid")
    assert b'"quantity":"logits"' in content
    twice = content.replace(b'"quantity":"logits"', b'"quantity":"logits","quantity":"nats"')
    (tmp_path / "g.json").write_bytes(twice)
    with pytest.raises(
        AttributionFileError, match="its bytes don't match its checksum, so it was cut short, flipped or"
    ):
        type(grid()).load(tmp_path / "g.json")


@each
def test_a_field_that_is_missing_or_of_another_kind_is_named(tmp_path, value):
    for name in fields_of(value):
        whole = codec.to_plain(value)
        required = {f.name for f in dataclasses.fields(value) if f.default is f.default_factory is dataclasses.MISSING}
        if name != "metadata":
            with pytest.raises(AttributionFileError, match=r"x: damaged value: "):
                read(tmp_path, type(value), {**whole, name: {"no": "such", "thing": 1}})
        if name in required:
            with pytest.raises(AttributionFileError, match=f"damaged value: .*missing required field `{name}`"):
                read(tmp_path, type(value), {k: v for k, v in whole.items() if k != name})


def forged(format: str, fields: Any) -> bytes:
    """A file of other fields, with a checksum that fits."""
    return signed(f'{{"format":"{format}","version":2,"sha256":"'.encode(), b'","value":' + json.dumps(fields).encode())


def signed(before: bytes, after: bytes) -> bytes:
    blank = before + b"0" * 64 + after + b"}\n"
    return blank.replace(b"0" * 64, codec._checksum(blank), 1)


def read(tmp_path, kind, fields):
    (tmp_path / "x").write_bytes(forged(kind.format, fields))
    try:
        return kind.load(tmp_path / "x")
    except AttributionFileError as error:
        what = kind.format.removeprefix("tl_jacobian.").replace("_", " ")
        raise AttributionFileError(str(error).replace(f"damaged {what}", "damaged value")) from error


@pytest.mark.parametrize("brackets", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000])
def test_what_is_nested_too_deeply_is_named(tmp_path, brackets):
    (tmp_path / "x").write_bytes(
        signed(b'{"format":"tl_jacobian.grid","version":2,"sha256":"', b'","value":' + brackets)
    )
    with pytest.raises(AttributionFileError, match="damaged grid: nested too deeply to be one"):
        type(grid()).load(tmp_path / "x")


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04\x95pickle", b"\xff\xfe", b"[" * 100_000, b"hello", b"{}", b"1" * 5000]
)
def test_what_is_no_value_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(AttributionFileError, match=r"not a saved grid: it begins with .*, expected a saved grid"):
        type(grid()).load(tmp_path / "x")


def test_files_of_version_1_are_refused_by_name(tmp_path):
    old = {"format": "tl_jacobian.attribution", "version": 1, "scope": "fisher", "scores": [1.0]}
    (tmp_path / "old.json").write_text(json.dumps(old, indent=1))
    with pytest.raises(
        AttributionFileError, match=r"old\.json: version 1 of the format of 'tl_jacobian.attribution' isn't read here"
    ):
        type(attribution()).load(tmp_path / "old.json")


def test_a_version_to_come_asks_for_an_upgrade(tmp_path):
    (tmp_path / "x").write_bytes(codec.encode(grid(), "tl_jacobian.grid").replace(b'"version":2', b'"version":3'))
    with pytest.raises(AttributionFileError, match="version 3 of the grid format isn't read here, expected 2; upgrade"):
        type(grid()).load(tmp_path / "x")


def test_another_value_is_named(tmp_path):
    grid().save(tmp_path / "g.json")
    with pytest.raises(AttributionFileError, match="this is a saved grid, expected a saved attribution; its own class"):
        type(attribution()).load(tmp_path / "g.json")


def test_what_values_have_in_common_loads_any_of_them(tmp_path):
    VALUES["fisher spectrum"].save(tmp_path / "s")
    assert Spectrum.load(tmp_path / "s") == VALUES["fisher spectrum"]
    with pytest.raises(AttributionFileError, match="expected a saved jacobian spectrum"):
        type(VALUES["jacobian spectrum"]).load(tmp_path / "s")
    (tmp_path / "x").write_bytes(forged("tl_jacobian.spectrum", {}))
    with pytest.raises(AttributionFileError, match="this is a saved spectrum, expected a saved spectrum"):
        Spectrum.load(tmp_path / "x")


def test_what_can_not_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    attribution().save(path)

    def broken(*_):
        raise RecursionError("too deep")

    monkeypatch.setattr(codec, "encode", broken)
    with pytest.raises(RecursionError, match="too deep"):
        grid().save(path)
    assert type(attribution()).load(path) == attribution()
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        type(grid()).load(tmp_path / "nothing.json")


# -- pictures ----------------------------------------------------------------------------


@each
@pytest.mark.parametrize("skip_first", [True, False])
def test_panels_are_plain_data(value, skip_first):
    if value is VALUES["attribution that isn't finite"]:
        with pytest.raises(ArgumentError, match=r"score of unit 0 is nan \(3 of 3 aren't finite\)"):
            value.panels(skip_first=skip_first)
        return
    drawn = value.panels(skip_first=skip_first)
    data = panels.to_json(drawn)
    assert drawn
    assert json.loads(data, parse_constant=pytest.fail)
    again = panels.from_json(data)
    assert [type(panel) for panel in again] == [type(panel) for panel in drawn]
    assert panels.to_json(again) == data


@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option is deprecated")
@each
def test_every_value_is_a_table(value):
    # pandas' own strings can't hold a lone surrogate
    with pd.option_context("future.infer_string", False):
        table = value.to_dataframe()
    assert len(table) >= (0 if value is VALUES["attribution of nothing"] else 1)


class Recorder:
    """A renderer that says what it was asked for."""

    def show(self, panels):
        self.shown = panels

    def notebook(self, panels):
        self.noted = panels
        return "<p>"

    def write(self, panels, path):
        self.written = (panels, path)
        return Path(path)

    def figure(self, panels, ax=None):
        self.drawn = (panels, ax)
        return ax

    def markdown(self, panels):
        return f"{len(panels)} tables"


@pytest.fixture
def recorder(monkeypatch):
    made = Recorder()
    monkeypatch.setattr(drawing, "_load_renderer", lambda: made)
    return made


@pytest.mark.parametrize("name", sorted(set(VALUES) - UNDRAWABLE))
def test_every_value_is_drawn_by_the_renderer_that_is_registered(name, recorder):
    value = VALUES[name]
    default = panels.to_json(value.panels())
    value.show()
    assert panels.to_json(recorder.shown) == default
    assert value._repr_html_() == "<p>"
    assert panels.to_json(recorder.noted) == default
    assert value._repr_mimebundle_() == {"text/plain": repr(value), "text/html": "<p>"}
    value.to_html("there", skip_first=False)
    assert recorder.written == (recorder.written[0], "there")
    assert panels.to_json(recorder.written[0]) == panels.to_json(value.panels(skip_first=False))
    value.plot("axes")
    assert recorder.drawn[1] == "axes"


def test_without_a_renderer_the_import_is_named(monkeypatch):
    monkeypatch.setattr(drawing, "_load_renderer", None)
    with pytest.raises(RuntimeError, match="no renderer is registered: import tl_jacobian"):
        grid().show()


def test_options_of_their_own_reach_the_panels(recorder):
    VALUES["map"].show(per_row=False)
    assert len(recorder.shown[0].scales) == 1
    VALUES["map"].plot(per_row=False, skip_first=False)
    assert (len(recorder.drawn[0][0].scales), recorder.drawn[0][0].hidden) == (1, ())
    VALUES["alignment"].plot(sure="0-0", possible=[(0, 0), (1, 1)])
    assert [(f.row, f.column, f.dashed) for f in recorder.drawn[0][0].frames] == [(0, 0, False), (1, 1, True)]
    VALUES["jacobian spectrum"].show(1)
    assert len(recorder.shown[0].rows) == 1
    VALUES["number influence"].plot(log=True, skip_first=2, width=3.3, distribution=VALUES["number distribution"])
    series = recorder.drawn[0][0]
    assert (series.below.log_y, series.below.hidden, series.width) == (True, 2, 3.3)
    assert series.beside.guides[0].label == "truth"
    assert VALUES["evaluation"].to_markdown() == VALUES["evaluation"]._repr_markdown_() == "4 tables"


def test_metadata_survive_as_they_are():
    assert codec.from_plain(type(grid()), codec.to_plain(grid())).metadata["big"] == DETAILS["big"]
    assert base.same(grid().metadata["nan"], NAN)


@pytest.mark.parametrize("ax", [True, 3, "x", [], object()])
def test_axes_that_are_none_are_refused(ax, unchecked):
    with pytest.raises(ArgumentError, match="expected matplotlib axes"):
        examples()["attribution"].plot(ax=ax)


def test_a_method_that_was_not_evaluated_has_no_gap():
    with pytest.raises(ArgumentError, match="method='x', expected one of"):
        examples()["evaluation"].completeness_gap("x")
