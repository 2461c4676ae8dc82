"""A run: its records, its errors, going on with it, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from importlib.metadata import version

import corpus_toys as toys
import pandas as pd
import pytest
import torch

from tl_jacobian.errors import ArgumentError, CorpusError, MemoryBudgetError, TargetError
from tl_jacobian.studies.corpus import CorpusPrompt, each_record, read_records, read_settings, run_corpus, store


def test_a_record_for_each_prompt_in_order(tmp_path):
    report = toys.run(tmp_path / "new" / "folder")
    records = read_records(report.out)
    assert [r["prompt"] for r in records] == list(range(40))
    assert [r["id"] for r in records] == [f"id {i}" for i in range(40)]
    for prompt, record in zip(toys.prompts(40), records, strict=True):
        if prompt.error:
            assert record["error"] == "line isn't UTF-8"
        elif not prompt.text:
            assert record["error"] == "the prompt '' is empty"
        else:
            assert record["n"] == len(toys.tokenize(prompt))
            assert record["scores"] == [t / 3 for t in toys.tokenize(prompt)]
    assert report.n_errors == sum("error" in r for r in records) == 6
    assert (report.n_prompts, report.n_resumed) == (40, 0)
    assert list(each_record(report.out)) != records
    assert sorted(each_record(report.out), key=lambda r: r["prompt"]) == records


def test_batches_are_of_like_length_and_the_longest_come_first(tmp_path):
    job = toys.Toy()
    toys.run(tmp_path, 200, job)
    lengths = [[len(toys.tokenize(toys.prompts(200)[i])) for i in batch] for batch in job.calls]
    assert max(lengths[0]) == max(map(max, lengths))
    assert all(max(batch) - min(batch) <= 1 for batch in lengths)
    assert all(len(batch) <= 2 for batch in lengths)


def test_a_run_that_is_done_does_nothing_again(tmp_path):
    toys.run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    job = toys.Toy()
    assert toys.run(tmp_path, 40, job).n_resumed == 40
    assert not job.calls
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(job=toys.Toy(name="other")), r"job.job was 'toy' and is now 'other'\. To go on with that run use its"),
        (dict(n=41), r"corpus.n_prompts was 40 and is now 41; corpus.sha256 was"),
        (dict(batch_size=3), r"batch_size was 2 and is now 3"),
        (dict(shard_size=6), r"shard_size was 5 and is now 6"),
        (dict(format="parquet"), r"records was 'jsonl' and is now 'parquet'"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(tmp_path, change, message):
    toys.run(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(CorpusError, match=f"holds another run: {message}"):
        toys.run(tmp_path, **change)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize(
    "change", [dict(job=toys.Toy(name="other")), dict(n=41), dict(shard_size=6), dict(format="parquet")]
)
def test_a_folder_in_which_nothing_is_done_may_be_taken(tmp_path, change):
    with pytest.raises(CorpusError, match="fail for the same reason"):
        toys.run(tmp_path, 40, toys.Toy(fails=fail_alike))
    toys.run(tmp_path, **change)
    toys.run(tmp_path / "new", **change)
    assert read_records(tmp_path) == read_records(tmp_path / "new")
    assert (tmp_path / "manifest.json").read_bytes() == (tmp_path / "new" / "manifest.json").read_bytes()


def fail_alike(prompts):
    raise TargetError("target 'abc' is 3 tokens")


@pytest.mark.parametrize("left", ["shards/00000.jsonl", "done/00000.json", "set_aside/00000.0.jsonl"])
def test_a_folder_with_any_work_in_it_is_not_taken(tmp_path, left):
    """A shard without its note too: it was written in full."""
    toys.run(tmp_path, 5)
    (tmp_path / "set_aside").mkdir()
    (tmp_path / "set_aside" / "00000.0.jsonl").write_text("")
    for path in [*(tmp_path / "shards").iterdir(), *(tmp_path / "done").iterdir(), *(tmp_path / "set_aside").iterdir()]:
        if path != tmp_path / left:
            path.unlink()
    with pytest.raises(CorpusError, match="holds another run: shard_size was 5"):
        toys.run(tmp_path, 5, shard_size=6)


def test_other_versions_of_a_run_without_work_are_those_of_now(tmp_path, recwarn):
    with pytest.raises(CorpusError):
        toys.run(tmp_path, 40, toys.Toy(fails=fail_alike))
    edit(tmp_path / "manifest.json", lambda m: m["versions"].update(torch="1.0"))
    toys.run(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["versions"]["torch"] == version("torch")
    assert not recwarn.list


@pytest.mark.parametrize("why", [errno.ENOLCK, errno.ENOSYS])
def test_without_locks_no_folder_is_taken(tmp_path, monkeypatch, why):
    """Another run may be at its first shard there."""

    def refuse(*_, **__):
        raise OSError(why, "no locks")

    with pytest.raises(CorpusError):
        toys.run(tmp_path, 40, toys.Toy(fails=fail_alike))
    monkeypatch.setattr(store, "lock_descriptor", refuse)
    with pytest.raises(CorpusError, match=r"holds another run: corpus.n_prompts was 40"):
        toys.run(tmp_path, 41)
    assert toys.run(tmp_path, 40).n_prompts == 40


def test_another_tokenizer_is_another_run(tmp_path):
    toys.run(tmp_path)
    with pytest.raises(CorpusError, match=r"another run: corpus.tokens_sha256 was '\w+\.\.\. and is now"):
        run_corpus(toys.Toy(), toys.prompts(40), tmp_path, tokenize=lambda p: [1], batch_size=2, shard_size=5)


def test_nested_settings_are_compared_by_name(tmp_path):
    toys.run(tmp_path)
    with pytest.raises(CorpusError, match=r"job.options.b was None and is now not there; job.options.c was not there"):
        toys.run(tmp_path, job=toys.Toy(options={"a": 1, "c": [2]}))


def test_other_versions_are_pointed_out_and_gone_on_with(tmp_path):
    toys.run(tmp_path)
    edit(tmp_path / "manifest.json", lambda m: m["versions"].update(torch="1.0"))
    with pytest.warns(UserWarning, match=r"begun with other versions \(torch 1.0 then, .* now\)"):
        toys.run(tmp_path)


def edit(path, change):
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "isn't a run's manifest"),
        ('{"format": "other"}', "isn't a run's manifest"),
        (f'{{"format": "{store.FORMAT}", "version": 99}}', "of version 99, expected 1; upgrade"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CorpusError, match=message):
        toys.run(tmp_path)
    with pytest.raises(CorpusError, match=message):
        read_records(tmp_path)


def test_shards_without_a_manifest_are_nobodys(tmp_path):
    toys.run(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(CorpusError, match=r"has shards but no manifest\.json"):
        toys.run(tmp_path)


def test_a_folder_without_a_run_can_not_be_read(tmp_path):
    with pytest.raises(CorpusError, match="isn't the folder of a run"):
        read_records(tmp_path)


def test_a_second_run_at_the_same_time_is_refused(tmp_path):
    def again(prompts):
        with pytest.raises(CorpusError, match=r"another run is at work in .* wait until it has ended"):
            toys.run(tmp_path)

    toys.run(tmp_path, 8, toys.Toy(fails=again))
    assert len(read_records(tmp_path)) == 8


def test_settings_can_be_read_back(tmp_path):
    toys.run(tmp_path)
    assert read_settings(tmp_path) == toys.Toy().settings


# -- bad prompts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        TargetError("no such token"),
        MemoryBudgetError("too long"),
        pytest.param(MemoryError("too long"), marks=pytest.mark.slow),
        pytest.param(torch.OutOfMemoryError("too long"), marks=pytest.mark.slow),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_bad_prompt_is_recorded_and_the_others_are_done(tmp_path, error):
    def fail(prompts):
        if any(p.index in (7, 25) for p in prompts):
            raise error

    report = toys.run(tmp_path, 40, toys.Toy(fails=fail), batch_size=4)
    bad = {r["prompt"]: r["error"] for r in read_records(tmp_path) if "error" in r}
    assert str(error) in bad[7]
    assert str(error) in bad[25]
    assert report.n_errors == len(bad) == 8
    alone = [r for r in read_records(tmp_path) if "error" not in r and len(r["batch"]) == 1]
    assert alone  # those that shared a batch with them


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("shapes differ"), KeyError("x")])
def test_a_bug_ends_the_run_and_what_was_done_is_kept(tmp_path, error):
    def fail(prompts):
        if len(job.calls) == 6:
            raise error

    job = toys.Toy(fails=fail)
    with pytest.raises(type(error)):
        toys.run(tmp_path, 40, job)
    done = len(read_records(tmp_path, partial=True))
    assert 0 < done < 40
    assert toys.run(tmp_path).n_resumed == done


def test_what_fails_for_all_in_the_same_words_is_not_the_prompts_fault(tmp_path):
    with pytest.raises(CorpusError, match="all of the first 5 prompts fail for the same reason: target 'abc' is 3 tok"):
        toys.run(tmp_path, 40, toys.Toy(fails=fail_alike))
    assert not read_records(tmp_path, partial=True)


def test_prompts_that_all_fail_each_in_its_own_way_are_recorded(tmp_path):
    def fail(prompts):
        raise TargetError(f"prompt {prompts[0].index} is bad")

    assert toys.run(tmp_path, 40, toys.Toy(fails=fail)).n_errors == 40


def test_a_corpus_in_which_nothing_can_be_used_is_recorded(tmp_path):
    bad = [CorpusPrompt(i, str(i), error="bad") for i in range(3)]
    assert run_corpus(toys.Toy(), bad, tmp_path, tokenize=toys.tokenize, progress=False).n_errors == 3


def test_tokens_that_are_none_are_an_error(tmp_path):
    one = [CorpusPrompt(0, "a", "text")]
    run_corpus(toys.Toy(), one, tmp_path, tokenize=lambda p: [], progress=False)
    assert read_records(tmp_path) == [
        {"prompt": 0, "id": "a", "error": "the prompt has no tokens, expected at least one"}
    ]


def test_a_folder_of_parquet_shards_is_one_table(tmp_path):
    """As pandas reads it: the first shard says what columns there are."""

    def fail(prompts):
        if any(len(p.tokens) > 8 for p in prompts):
            raise TargetError(f"prompt {prompts[0].index} is too long")

    toys.run(tmp_path, 40, toys.Toy(fails=fail), format="parquet")
    assert {r.get("scores") is None for r in toys.folder_of(tmp_path, "parquet").read(0)} == {True}
    table = pd.read_parquet(tmp_path / "shards").sort_values("prompt")
    for row, record in zip(table.to_dict("records"), read_records(tmp_path), strict=True):
        assert record.get("error") == (None if pd.isna(row["error"]) else row["error"])
        assert (row["scores"] is None) == ("error" in record)
        assert row["scores"] is None or row["scores"].tolist() == record["scores"]


# -- jobs and arguments that can't be used -------------------------------------------


class Odd(toys.Toy):
    def __init__(self, records):
        super().__init__()
        self.records = records

    def __call__(self, prompts):
        return self.records


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "gave 0 records for 2 prompts"),
        ([{}, {"x": float("nan")}], "record of prompt .* isn't JSON: Out of range float.*None for a number"),
        ([{}, {"x": torch.ones(1)}], "isn't JSON: Object of type Tensor"),
        ([{}, {"error": "x"}], "error='x'; these three are the runner's"),
        ([{"prompt": -1}, {}], "has prompt=-1"),
    ],
)
def test_records_that_can_not_be_kept(tmp_path, records, message):
    with pytest.raises(ArgumentError, match=message):
        toys.run(tmp_path, 40, Odd(records), shard_size=2)
    assert not read_records(tmp_path, partial=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(batch_size=0), "batch_size=0, expected a number of prompts, at least 1"),
        (dict(shard_size=-1), "shard_size=-1, expected"),
        (dict(shard_size=True), "shard_size=True is a bool, expected"),
        (dict(format="csv"), "format='csv', expected one of 'jsonl', 'parquet'"),
        (dict(n=0), "0 prompts, expected at least one"),
    ],
)
def test_arguments_that_can_not_be_used(tmp_path, unchecked, options, message):
    with pytest.raises(ArgumentError, match=message):
        toys.run(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_two_prompts_with_one_index_are_refused(tmp_path):
    twice = [CorpusPrompt(3, "a", "x"), CorpusPrompt(3, "b", "y")]
    with pytest.raises(ArgumentError, match="an index of its own"):
        run_corpus(toys.Toy(), twice, tmp_path / "out", tokenize=toys.tokenize)


def test_indices_may_have_gaps(tmp_path):
    run_corpus(toys.Toy(), toys.prompts(40)[10:30:3], tmp_path, tokenize=toys.tokenize, progress=False)
    assert [r["prompt"] for r in read_records(tmp_path)] == list(range(10, 30, 3))


# -- a full disk ---------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 2, 5, 9, 14, 16])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_says_what_is_done_and_the_run_goes_on(tmp_path, monkeypatch, call, at):
    real, count = getattr(os, call), iter(range(10**6))

    def full(*args):
        if next(count) >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(CorpusError, match=r"the disk is full .* \d+ prompts are done and kept.* the same command"):
            toys.run(tmp_path)
    assert not list(tmp_path.rglob(".*.tmp"))
    toys.run(tmp_path)
    assert [r["prompt"] for r in read_records(tmp_path)] == list(range(40))


def test_a_file_that_may_grow_no_further(tmp_path):
    """The kernel itself refuses, in the middle of a write."""

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1200, 1200))
        try:
            toys.run(tmp_path, 40, shard_size=20)
        except CorpusError as error:
            told = "the disk is full" in str(error) and "0 prompts are done" in str(error)
            os._exit(7 if told else 8)

    assert toys.status_of(toys.in_child(limited)) == 7
    assert not list(tmp_path.rglob(".*.tmp"))
    toys.run(tmp_path, 40, shard_size=20)
    assert len(read_records(tmp_path)) == 40


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match=r"it can't be written to \(.*0 prompts are done"):
        toys.run(tmp_path / "file")


# -- damage --------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_shards_that_were_changed_are_set_aside_and_done_again(tmp_path, format):
    toys.run(tmp_path, format=format)
    whole, shard = read_records(tmp_path), tmp_path / "shards" / f"00001.{format}"
    data = shard.read_bytes()
    for number, damaged in enumerate([data[:-1], b"", bytes([data[0] ^ 1]) + data[1:], data + b"\n"]):
        shard.write_bytes(damaged)
        with pytest.raises(CorpusError, match=r"00001.* isn't what was written there"):
            read_records(tmp_path)
        with pytest.warns(UserWarning, match=r"00001.* isn't what was written there; it is set aside"):
            assert toys.run(tmp_path, format=format).n_resumed == 35
        assert read_records(tmp_path) == whole
        assert shard.read_bytes() == data
        assert (tmp_path / "set_aside" / f"00001.{number}.{format}").read_bytes() == damaged


def test_every_truncation_of_a_shard_and_its_note_is_seen(tmp_path):
    toys.run(tmp_path, 7, shard_size=3)
    work = toys.folder_of(tmp_path)
    prompts = work.note(0).prompts
    for path in (tmp_path / "shards" / "00000.jsonl", tmp_path / "done" / "00000.json"):
        data = path.read_bytes()
        for end in range(len(data) - 1):  # all but the note's last newline says something
            path.write_bytes(data[:end])
            assert not work.is_done(0, prompts), (path, end)
        for at in range(len(data) - 1):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            seen = not work.is_done(0, prompts)
            assert seen or path.parent.name == "done", (path, at)  # a note's count of errors decides nothing
        path.write_bytes(data)
        assert work.is_done(0, prompts)
    assert not work.is_done(0, prompts[::-1])
    assert not work.is_done(0, prompts[:-1])


def test_a_shard_that_is_gone_is_done_again(tmp_path):
    toys.run(tmp_path)
    (tmp_path / "shards" / "00002.jsonl").unlink()
    with pytest.warns(UserWarning, match="00002"):
        toys.run(tmp_path)
    assert len(read_records(tmp_path)) == 40


def test_a_run_that_is_not_done_is_read_only_on_request(tmp_path):
    toys.run(tmp_path)
    (tmp_path / "done" / "00000.json").unlink()
    with pytest.raises(CorpusError, match=r"35 of 40 prompts of .* are done: run the command again"):
        read_records(tmp_path)
    assert len(read_records(tmp_path, partial=True)) == 35


def test_notes_that_were_copied_are_seen(tmp_path):
    toys.run(tmp_path)
    before = read_records(tmp_path)
    copied = (tmp_path / "done" / "00001.json").read_bytes()
    (tmp_path / "done" / "00099.json").write_bytes(copied)  # there are eight shards: it can't be one's
    assert read_records(tmp_path) == before
    (tmp_path / "done" / "00002.json").write_bytes(copied)
    with pytest.raises(CorpusError, match="notes of the same prompts twice"):
        read_records(tmp_path)


# -- progress ------------------------------------------------------------------------


def test_progress_counts_what_was_done_before_and_the_errors(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tl_jacobian.core.progress.is_watched", lambda: True)  # as a terminal is
    toys.run(tmp_path)
    (tmp_path / "done" / "00003.json").unlink()
    toys.run(tmp_path, progress=True)
    told = capsys.readouterr().err
    assert "35/40" in told
    assert "40/40" in told
    assert "prompts/s" in told
    assert "errors=6" in told


def test_nothing_is_printed_without_progress(tmp_path, capsys):
    toys.run(tmp_path)
    assert capsys.readouterr() == ("", "")


def test_no_process_group_without_a_launch(tmp_path):
    toys.run(tmp_path)
    assert not torch.distributed.is_initialized()


def test_of_lists_that_differ_only_the_difference_is_named():
    from tl_jacobian.studies.corpus.store import _change

    old, new = {"job.methods": list("abcdefgh"), "k": [1, 2]}, {"job.methods": list("abcdegi"), "k": [2, 1]}
    assert _change("job.methods", old, new) == "job.methods had ['f', 'h'] and now has ['i']"
    assert _change("k", old, new) == "k was [1, 2] and is now [2, 1]"


def test_a_pipe_gets_no_progress(tmp_path, capsys):
    toys.run(tmp_path, progress=True)
    assert capsys.readouterr().err == ""
