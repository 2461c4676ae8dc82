"""Runs that are killed: at every touch of the file system, and at random moments. Nothing is lost, nothing twice."""

from __future__ import annotations

import random
import signal
import time

import corpus_toys as toys
import pytest

from tl_jacobian.studies.corpus import read_records

KILLS = 25


@pytest.fixture(scope="module", params=["jsonl", "parquet"])
def format(request):
    return request.param


@pytest.fixture(scope="module")
def undisturbed(format, tmp_path_factory):
    """Records and files of a run that nobody disturbed, for so many prompts."""

    def of(n):
        out = tmp_path_factory.mktemp("whole")
        toys.run(out, n, format=format)
        return read_records(out), files_of(out)

    return of


def files_of(out):
    return {path.name: path.read_bytes() for path in [*(out / "shards").iterdir(), *(out / "done").iterdir()]}


def check_whole(out, expected):
    records, files = expected
    assert read_records(out) == records
    assert files_of(out) == files  # bit for bit, and nothing else
    assert not list(out.rglob(".*.tmp"))
    assert not (out / "set_aside").exists()


def check_part(out, expected):
    """What is there of a killed run is right."""
    if (out / "manifest.json").exists():
        whole = {record["prompt"]: record for record in expected[0]}
        part = read_records(out, partial=True)
        assert len({record["prompt"] for record in part}) == len(part)
        assert all(whole[record["prompt"]] == record for record in part)


@pytest.mark.slow
def test_killed_at_every_touch_of_the_file_system(tmp_path, format, undisturbed):
    expected, touch, ended = undisturbed(9), 0, -signal.SIGKILL
    while ended == -signal.SIGKILL:
        touch += 1
        out = tmp_path / str(touch)
        ended = end_of(toys.start(toys.run_and_die, touch, out, 9, format))
        check_part(out, expected)
        assert toys.run(out, 9, format=format).n_prompts == 9
        check_whole(out, expected)
    assert ended == 0
    assert touch > 30  # two shards, each written, flushed, named and noted


@pytest.mark.slow
def test_killed_while_going_on(tmp_path, format, undisturbed):
    """Each run dies a little later than the last, all in one folder."""
    expected, touch, ended = undisturbed(14), 8, -signal.SIGKILL
    while ended == -signal.SIGKILL:
        touch += 3
        ended = end_of(toys.start(toys.run_and_die, touch, tmp_path, 14, format))
        check_part(tmp_path, expected)
    assert ended == 0
    check_whole(tmp_path, expected)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, format, undisturbed):
    expected, moments = undisturbed(150), random.Random(0)
    kills, rounds, resumed = 0, 0, 0
    while kills < KILLS or resumed < 5:  # some must have something to go on with
        out, ended, patience = tmp_path / str(rounds), -signal.SIGKILL, 1.0
        rounds += 1
        while ended == -signal.SIGKILL:
            child = toys.start(toys.slow_run, out, format)
            time.sleep(patience * moments.uniform(0.01, 0.12))
            child.kill()
            ended = end_of(child)
            patience *= 1.2  # on a busy machine a child may need longer to get anywhere
            kills += ended == -signal.SIGKILL
            check_part(out, expected)
            resumed += len(list((out / "done").glob("*.json"))) > 0
        assert ended == 0
        check_whole(out, expected)


def end_of(child):
    """How it ended: 0, or minus the signal."""
    child.join()
    return child.exitcode


def test_an_interrupt_is_gone_on_with(tmp_path, format, undisturbed):
    def interrupt(prompts):
        if len(job.calls) == 4:
            raise KeyboardInterrupt

    job = toys.Toy(fails=interrupt)
    with pytest.raises(KeyboardInterrupt):
        toys.run(tmp_path, 40, job, format=format)
    assert 0 < len(read_records(tmp_path, partial=True)) < 40
    toys.run(tmp_path, 40, format=format)
    check_whole(tmp_path, undisturbed(40))
