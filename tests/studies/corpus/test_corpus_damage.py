"""Run folders that something happened to: read as they were, done again, or refused in our own words; nothing else."""

from __future__ import annotations

import copy
import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import corpus_toys as toys
import pytest

from tl_jacobian.errors import CorpusError, JacobianScopeError
from tl_jacobian.studies.corpus import read_attributions, read_records, read_settings

N = 12
WRONG = [None, True, 0, "x", [[]], {"a": 1}]
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    toys.run(folder, N)
    return folder


@pytest.fixture
def out(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def outcome(act: Callable[[], Any]) -> Any:
    """What it gives, or our error; anything else is raised."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return act()
    except JacobianScopeError as error:
        return error


def check(out: Path, expected: list[Any]) -> bool:
    """Readers give what was written or say which folder is at fault; so does going on, or all is there (true)."""
    for act in (lambda: read_records(out), lambda: read_settings(out), lambda: list(read_attributions(out))):
        found = outcome(act)
        assert found == expected or isinstance(found, dict) or str(out) in str(found), found
    partial = outcome(lambda: read_records(out, partial=True))
    assert isinstance(partial, CorpusError) or all(record in expected for record in partial)
    again = outcome(lambda: toys.run(out, N))
    if isinstance(again, JacobianScopeError):
        assert str(out) in str(again), again
        return False
    assert read_records(out) == expected
    return True


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a JSON value there is something to change."""
    yield path
    for key in value if isinstance(value, dict) else ():
        yield from places(value[key], (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one there; ``...``: with none."""
    if not path:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


@pytest.mark.parametrize("file", ["manifest.json", "done/00001.json"])
def test_every_entry_that_is_missing_or_of_another_kind(out, finished, file):
    whole, expected = json.loads((out / file).read_text()), read_records(finished)
    for path in places(whole):
        for new in [..., *WRONG]:
            if new is ... and not path:
                continue
            (out / file).write_text(json.dumps(changed(whole, path, new)))
            if check(out, expected):
                shutil.rmtree(out)
                shutil.copytree(finished, out)
            shutil.rmtree(out)
            shutil.copytree(finished, out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("versions"), "manifest.json' is damaged: versions is None, expected an object; put back"),
        (lambda m: m.update(versions=[]), r"manifest.json' is damaged: versions is \[\], expected an object"),
        (
            lambda m: m["corpus"].pop("n_prompts"),
            "manifest.json' is damaged: corpus.n_prompts is None, expected a pos",
        ),
        (lambda m: m.update(records="csv"), "records is 'csv', expected one of 'jsonl', 'parquet'"),
    ],
)
def test_a_manifest_that_is_damaged_is_named_with_what_is_wrong(out, change, message):
    manifest = json.loads((out / "manifest.json").read_text())
    change(manifest)
    (out / "manifest.json").write_text(json.dumps(manifest))
    for act in (read_records, lambda out: toys.run(out, N)):
        with pytest.raises(CorpusError, match=message):
            act(out)


def test_deep_json_is_damage(out):
    (out / "manifest.json").write_text(DEEP)
    with pytest.raises(CorpusError, match=r"manifest.json' is damaged: maximum recursion depth"):
        read_records(out)


@pytest.mark.parametrize("stray", ["1a.json", "1.json", "00001 copy.json", "٣.json", "x.json", "00099.json.bak"])
def test_what_is_no_note_is_left_alone(out, finished, stray):
    shutil.copy(out / "done" / "00001.json", out / "done" / stray)
    assert read_records(out) == read_records(finished)
    toys.run(out, N)
    assert (out / "done" / stray).exists()


def test_a_lock_that_is_no_file(out):
    (out / ".lock").unlink()
    (out / ".lock").mkdir()
    with pytest.raises(CorpusError, match=r"\.lock' can't be opened .* remove it"):
        toys.run(out, N)
    assert len(read_records(out)) == N


def damage(rng: random.Random, out: Path) -> None:
    """Something happens to one file or folder."""
    path = rng.choice(sorted(p for p in out.rglob("*")))
    kind = rng.choice(["gone", "cut", "noise", "deep", "entry", "folder", "file", "stray", "moved"])
    if kind == "stray":
        place = rng.choice([out, out / "done", out / "shards"])
        name = rng.choice(["00000.json", "00007.json", "1a.json", "x.jsonl", ".x.tmp", "é", "00001.parquet"])
        if place.is_dir():
            (place / name).write_bytes(rng.randbytes(9))
    elif kind in ("gone", "folder", "file", "moved"):
        if kind == "moved" and path.is_file():
            path.rename(path.with_name("00042" + path.suffix))
            return
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.mkdir() if kind == "folder" else path.write_bytes(b"") if kind == "file" else None
    elif path.is_file():
        data = path.read_bytes()
        if kind == "entry" and path.suffix == ".json":
            whole = outcome_of_json(data)
            where = rng.choice(list(places(whole)))
            path.write_text(json.dumps(changed(whole, where, rng.choice(WRONG))))
        else:
            noise = bytes(rng.choice(data[:1] + rng.randbytes(1)) for _ in range(5))
            cut = data[: rng.randrange(len(data) + 1)]
            path.write_bytes({"cut": cut, "deep": DEEP.encode()}.get(kind, noise + data))


def outcome_of_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


@pytest.mark.parametrize("rounds", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_whatever_happens_to_a_folder(out, finished, rounds):
    expected = read_records(finished)
    for seed in range(rounds):
        rng = random.Random(seed)
        for _ in range(rng.choice([1, 1, 2, 3])):
            damage(rng, out)
        check(out, expected)
        shutil.rmtree(out)
        shutil.copytree(finished, out)
