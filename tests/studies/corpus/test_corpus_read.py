"""Reading a corpus: every format, and everything that can be wrong with one."""

from __future__ import annotations

import json

import datasets
import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from tl_jacobian.errors import ArgumentError, CorpusError
from tl_jacobian.studies.corpus import CorpusPrompt, read_corpus
from tl_jacobian.studies.corpus import read as module


@pytest.fixture(autouse=True)
def _messages_of_the_library(unchecked):
    """The library's own messages, not beartype's."""


@pytest.fixture
def written(tmp_path):
    def write(name, data):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


def texts(prompts):
    return [p.text for p in prompts]


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_lines_of_text(written):
    prompts = read_corpus(written("a.txt", "one \r\n\n   \ntwo\u2028 still two\nthrée"))
    assert texts(prompts) == ["one ", "two\u2028 still two", "thrée"]
    assert [(p.index, p.id) for p in prompts] == [(0, "0"), (1, "1"), (2, "2")]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_a_byte_order_mark_is_no_part_of_the_text(written, name):
    data = {"a.txt": "x", "a.jsonl": '"x"', "a.json": '["x"]'}[name]
    assert texts(read_corpus(written(name, b"\xef\xbb\xbf" + data.encode()))) == ["x"]


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"data": rows, "version": 1}])
def test_json_lists_of_texts_or_objects(written, wrap):
    rows = ["plain", {"text": "object", "id": 7, "target": " Paris"}, {"tokens": [1, 2], "id": "t", "target": 5}]
    assert read_corpus(written("a.json", json.dumps(wrap(rows)))) == [
        CorpusPrompt(0, "0", "plain"),
        CorpusPrompt(1, "7", "object", target=" Paris"),
        CorpusPrompt(2, "t", tokens=(1, 2), target=5),
    ]


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "JSONL"])
def test_json_lines(written, ending):
    path = written(f"a.{ending}", '"plain"\n\n{"text": "object", "tokens": [3]}\n{"text": "last"}')
    assert read_corpus(path) == [
        CorpusPrompt(0, "0", "plain"),
        CorpusPrompt(1, "1", "object", (3,)),
        CorpusPrompt(2, "2", "last"),
    ]


def test_parquet(tmp_path):
    path = parquet(
        tmp_path / "a.parquet", text=["a", "b", None], id=[1, 2, 3], target=["x", None, None], more=[1, 2, 3]
    )
    found = read_corpus(path)
    assert found[:2] == [CorpusPrompt(0, "1", "a", target="x"), CorpusPrompt(1, "2", "b")]
    assert found[2].error == "column 'text' is None (NoneType), expected text"
    assert read_corpus(parquet(tmp_path / "b.parquet", tokens=[[1], [2, 3]]))[1].tokens == (2, 3)


def test_parquet_text_that_is_not_utf8(tmp_path):
    raw = pa.array([b"ok", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": raw}), tmp_path / "a.parquet")
    good, bad = read_corpus(tmp_path / "a.parquet")
    assert good.text == "ok"
    assert "isn't UTF-8" in bad.error


def test_another_column(written, tmp_path):
    rows = [{"question": "q", "text": "t"}]
    assert texts(read_corpus(written("a.json", json.dumps(rows)), column="question")) == ["q"]
    assert texts(read_corpus(parquet(tmp_path / "a.parquet", question=["q"], text=["t"]), column="question")) == ["q"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.parquet", "folder"])
def test_a_limit(written, tmp_path, name):
    rows = [f"p{i}" for i in range(9)]
    if name == "a.parquet":
        path = parquet(tmp_path / name, text=rows)
    elif name == "folder":
        path = tmp_path / name
        datasets.Dataset.from_dict({"text": rows}).save_to_disk(path)
    else:
        lines = rows if name == "a.txt" else map(json.dumps, rows)
        path = written(name, json.dumps(rows) if name == "a.json" else "\n".join(lines))
    assert texts(read_corpus(path, limit=4)) == rows[:4]
    assert texts(read_corpus(path, limit=99)) == rows


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"\xff\xfe", "line 2 isn't UTF-8: 'utf-8' codec can't decode byte 0xff"),
        (b'{"text": ', "line 2 isn't JSON"),
        (b'{"text": "a"} extra', "line 2 isn't JSON: Extra data"),
        (b"[" * 100_000, "line 2 isn't JSON: maximum recursion"),
        (b'{"other": "a"}', "there is no column 'text', expected one with text (it has ['other'])"),
        (b'{"text": null}', "column 'text' is None (NoneType), expected text"),
        (b'{"text": 5}', "column 'text' is 5 (int), expected text"),
        (b'{"text": ["a"]}', "column 'text' is ['a'] (list), expected text"),
        (b"7", "column 'text' is 7 (int), expected text"),
        (b"[1, 2]", "column 'text' is [1, 2] (list), expected text"),
        (b'{"text": "\\ud800"}', "'\\ud800' (str) holds half a surrogate pair"),
        (b'{"text": "a", "target": "\\udfff"}', "holds half a surrogate pair"),
        (b'{"text": "a", "target": [1]}', "target [1] (list), expected text or a token id"),
        (b'{"text": "a", "target": true}', "target True (bool), expected text or a token id"),
        (b'{"text": "a", "id": {}}', "id {} (dict), expected text or a number"),
        (b'{"tokens": ["a"]}', "tokens ['a'] (list), expected a list of token ids"),
        (b'{"tokens": [true]}', "tokens [True] (list), expected a list of token ids"),
        (b'{"tokens": 5}', "tokens 5 (int), expected a list of token ids"),
    ],
)
def test_bad_lines_are_noted_and_reading_goes_on(written, line, why):
    prompts = read_corpus(written("a.jsonl", b'"first"\n' + line + b'\n"last"'))
    assert texts(prompts) == ["first", None, "last"]
    assert why in prompts[1].error
    assert [p.index for p in prompts] == [0, 1, 2]


def test_bad_lines_of_text(written):
    prompts = read_corpus(written("a.txt", b"one\n\xc3\x28\nthree"))
    assert texts(prompts) == ["one", None, "three"]
    assert "line 2 isn't UTF-8" in prompts[1].error


@given(st.binary(max_size=200), st.sampled_from(["a.txt", "a.jsonl", "a.json", "a.parquet"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data, name):
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(data)
    try:
        prompts = read_corpus(path)
    except CorpusError:
        return
    assert [p.index for p in prompts] == list(range(len(prompts)))
    assert all((p.error is None) != (p.text is None and p.tokens is None) for p in prompts)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", '{"rows": []}', r"holds an object with \['rows'\], expected a list of prompts"),
        ("a.json", '"text"', "holds a str, expected a list"),
        ("a.json", '{"text": "a"}\n{"text": "b"}', r"isn't JSON: Extra data.*name it .jsonl"),
        ("a.json", b"\xff", r"isn't UTF-8: .* byte 0xff"),
        ("a.json", "[" * 100_000, "isn't JSON: maximum recursion"),
        ("a.json", "[]", "holds no prompts, expected at least one"),
        ("a.txt", "\n\n", "holds no prompts"),
        ("a.json", '[{"q": "a"}, {"q": "b"}]', r"none of the 2 prompts .* no column 'text'.*Its columns are \['q'\]"),
        ("a.jsonl", '{\n"text": 1}', "none of the 2 prompts of .* can be read; the first: line 1 isn't JSON"),
        ("a.parquet", b"PAR1 not really", "can't be read as Parquet"),
        ("a.parquet", b"", "can't be read as Parquet"),
        ("a.csv", "text", r"ends in '.csv', expected one of .json, .jsonl, .ndjson, .txt, .parquet; convert"),
        ("corpus", "text", r"ends in '', expected one of"),
    ],
)
def test_files_that_can_not_be_read(written, name, data, message):
    with pytest.raises(CorpusError, match=message):
        read_corpus(written(name, data))


def test_a_parquet_file_without_the_column(tmp_path):
    with pytest.raises(CorpusError, match=r"has no column 'text', expected one .* its columns are \['q', 'id'\]"):
        read_corpus(parquet(tmp_path / "a.parquet", q=["a"], id=["b"]))


@pytest.mark.parametrize("name", ["no.json", "no.csv", "/no/such", "../no", "a/b/c"])
def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(name, monkeypatch):
    monkeypatch.setattr(module, "_loaded", lambda *args, **more: pytest.fail("asked the hub"))
    with pytest.raises(CorpusError, match="there is no file"):
        read_corpus(name)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3"])
def test_limits_that_are_none(limit):
    with pytest.raises(ArgumentError, match=r"limit=.*, expected (a number of prompts, at least 1|an int or None)"):
        read_corpus("a.txt", limit=limit)


# -- Hugging Face data sets ----------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A data set as the hub holds them: files by split."""
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        parquet(tmp_path / "set" / f"{split}-00000.parquet", text=[f"{split} {i}" for i in range(3)], label=[1, 2, 3])
    return tmp_path / "set"


def test_a_data_set_in_a_folder(folder):
    assert texts(read_corpus(folder)) == ["train 0", "train 1", "train 2"]
    assert texts(read_corpus(str(folder), split="test", limit=2)) == ["test 0", "test 1"]


def test_a_data_set_that_was_saved(tmp_path):
    one = datasets.Dataset.from_dict({"text": ["a", "b"]})
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": one, "test": one.select([1])}).save_to_disk(tmp_path / "several")
    assert texts(read_corpus(tmp_path / "one")) == ["a", "b"]
    assert texts(read_corpus(tmp_path / "several", split="test")) == ["b"]
    with pytest.raises(CorpusError, match=r"no split 'dev', expected one of \['train', 'test'\]"):
        read_corpus(tmp_path / "several", split="dev")


@pytest.mark.parametrize(("name", "path", "config"), [("lambada", "lambada", None), ("a/b:c", "a/b", "c")])
def test_a_name_on_the_hub(monkeypatch, folder, name, path, config):
    real, asked = datasets.load_dataset, []

    def load(*args, **options):
        asked.append((*args, options["streaming"]))
        return real(str(folder), **options)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert texts(read_corpus(name, limit=1)) == ["train 0"]
    assert texts(read_corpus(name)) == ["train 0", "train 1", "train 2"]
    assert asked == [(path, config, True), (path, config, False)]


def test_data_sets_that_can_not_be_loaded(folder):
    with pytest.raises(CorpusError, match=r"can't load '.*' \(split 'dev'\) as a Hugging Face data set: .*dev"):
        read_corpus(folder, split="dev")
    with pytest.raises(CorpusError, match=r"no column 'question', expected one .* its columns are \['text', 'label'\]"):
        read_corpus(folder, column="question")
    with pytest.raises(CorpusError, match=r"can't load 'no_such_set' .*Expected a file that ends in \.json"):
        read_corpus("no_such_set")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_a_byte_order_mark_tells_the_encoding(written, name, encoding):
    data = {"a.txt": "thrée\r\nfour", "a.jsonl": '"thrée"\r\n"four"', "a.json": '["thrée", "four"]'}[name]
    data = data if encoding in ("utf-16", "utf-32", "utf-8-sig") else "\ufeff" + data
    assert texts(read_corpus(written(name, data.encode(encoding)))) == ["thrée", "four"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_two_bytes_a_character_without_a_mark_are_refused(written, name, encoding):
    data = {"a.txt": "three\nfour", "a.jsonl": '"three"\n"four"', "a.json": '["three"]'}[name]
    with pytest.raises(CorpusError, match="holds a NUL character: if it is UTF-16, save it as UTF-8"):
        read_corpus(written(name, data.encode(encoding)))


def test_a_damaged_file_of_two_bytes_a_character_is_refused_by_name(written):
    with pytest.raises(CorpusError, match=r"a\.txt' isn't UTF-16, as its byte-order mark says: .*truncated"):
        read_corpus(written("a.txt", "three\nfour".encode("utf-16")[:-1]))
    with pytest.raises(CorpusError, match=r"a\.json isn't UTF-16: .*truncated"):
        read_corpus(written("a.json", '["a"]'.encode("utf-16")[:-1]))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(written, end):
    text = f"one{end}{end}two \u2028 still two{end}"
    assert texts(read_corpus(written("a.txt", text))) == ["one", "two \u2028 still two"]
    assert texts(read_corpus(written("a.jsonl", f'"one"{end}"two"'))) == ["one", "two"]


def test_a_line_with_a_nul_is_noted_with_its_number(written):
    good, bad, last = read_corpus(written("a.txt", b"one\n\nt\x00wo\nthree"))
    assert (good.text, last.text) == ("one", "three")
    assert bad.error.startswith("line 3 holds a NUL character")


def test_marks_of_files_that_were_joined_are_no_text(written):
    assert texts(read_corpus(written("a.txt", b"\xef\xbb\xbfone\n\xef\xbb\xbftwo"))) == ["one", "two"]


def test_ids_and_targets_of_tables(written):
    rows = [
        {"text": "a", "id": 1.0, "target": 5.0},
        {"text": "b", "id": 2.5, "target": float("nan")},
        {"text": "c", "id": float("nan"), "target": 5.5},
        {"text": "d", "id": True},
    ]
    a, b, c, d = read_corpus(written("a.json", json.dumps(rows)))
    assert (a.id, a.target, type(a.target)) == ("1", 5, int)
    assert (b.id, b.target, b.error) == ("2.5", None, None)
    assert (c.id, c.error) == ("2", "target 5.5 (float), expected text or a token id")
    assert d.error == "id True (bool), expected text or a number"


def test_an_id_that_is_no_text_is_refused(written):
    assert "half a surrogate pair" in read_corpus(written("a.json", '["a", {"text": "a", "id": "\\ud800"}]'))[1].error


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "id": "x"}, {"text": "b", "id": "x"}], "prompts 0 and 1 .* both have the id 'x'"),
        ([{"text": "a", "id": 1.0}, {"text": "b", "id": "1"}], "prompts 0 and 1 .* both have the id '1'"),
        ([{"text": "a", "id": "1"}, {"text": "b"}], "both have the id '1', .*: give one to all of them, or to none"),
    ],
)
def test_two_prompts_of_one_name_are_refused(rows, message):
    with pytest.raises(CorpusError, match=message):
        module.check_ids(module.as_prompts(rows))


def test_names_that_differ_are_fine():
    module.check_ids(module.as_prompts([{"text": "a", "id": "1"}, {"text": "b", "id": "0"}, "c"]))


def test_a_line_of_byte_order_marks_is_blank(tmp_path):
    path = tmp_path / "joined.txt"
    path.write_bytes("\ufeff\ufeff\nRome\n\ufeff\nParis\n".encode())
    assert [prompt.text for prompt in read_corpus(path)] == ["Rome", "Paris"]
