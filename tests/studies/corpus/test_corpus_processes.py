"""Several processes at one corpus: killed together, one by one, and gone on with by any number of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import corpus_toys as toys
import psutil
import pytest
from test_corpus_kills import files_of

from tl_jacobian.errors import CorpusError, TargetError
from tl_jacobian.studies.corpus import read_records

pytestmark = pytest.mark.slow
CHILD = Path(__file__).with_name("corpus_child.py")
PATHS = os.pathsep.join([str(CHILD.parent), str(CHILD.parents[3]), os.environ.get("PYTHONPATH", "")])
ENV = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    toys.run(out, 150)
    return read_records(out), files_of(out)


def start(out, naps, *more):
    """Processes as a launcher starts them, without the launcher."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": str(len(naps)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, str(CHILD), str(out), str(nap), *more],
            env={**ENV, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, nap in enumerate(naps)
    ]


def until(out, n_done):
    """Wait for so many shards."""
    deadline = time.monotonic() + 120
    while len(list((out / "done").glob("*.json"))) < n_done:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ends(processes, timeout=120):
    """What each said, and how it ended."""
    told = [p.communicate(timeout=timeout) for p in processes]
    return [out + err for out, err in told], [p.returncode for p in processes]


def check(out, undisturbed):
    assert (read_records(out), files_of(out)) == undisturbed
    assert not list(out.rglob(".*.tmp"))


@pytest.mark.parametrize("n_then", [1, 2, 3])
def test_killed_together_and_gone_on_with_by_another_number(tmp_path, undisturbed, n_then):
    running = start(tmp_path, [0.02, 0.02])
    until(tmp_path, 8)
    for p in running:
        p.kill()
    assert ends(running)[1] == [-signal.SIGKILL] * 2
    done = len(read_records(tmp_path, partial=True))
    assert 40 <= done < 150
    if n_then == 1:
        assert toys.run(tmp_path, 150).n_resumed == done
    else:
        told, codes = ends(start(tmp_path, [0.001] * n_then))
        assert codes == [0] * n_then, told
        assert all(f"report {rank} 150 {done}" in told[rank] for rank in range(n_then))
    check(tmp_path, undisturbed)


@pytest.mark.parametrize("dies", [0, 1])
def test_who_waits_for_a_dead_process_is_told_at_once(tmp_path, undisturbed, dies):
    running = start(tmp_path, [1.0 if rank == dies else 0.0 for rank in range(2)])
    until(tmp_path, 15)  # half of the shards: the other one is through
    time.sleep(0.5)
    running[dies].kill()
    began = time.monotonic()
    told, codes = ends(running, timeout=30)
    assert time.monotonic() - began < 15  # most of it the end of a Python process; measured: 1.7 s
    assert codes[1 - dies] == 1
    assert "another process of this run has ended" in told[1 - dies]
    assert "the same command goes on" in told[1 - dies]
    toys.run(tmp_path, 150)
    check(tmp_path, undisturbed)


@pytest.mark.parametrize("fails", [0, 1])
def test_a_bug_in_one_process_ends_all(tmp_path, undisturbed, fails):
    told, codes = ends(start(tmp_path, [0.0, 0.0], str(fails)), timeout=60)
    assert codes == [1, 1]
    assert "ValueError: a bug" in told[fails]
    assert "another process of this run has ended" in told[1 - fails]
    toys.run(tmp_path, 150)
    check(tmp_path, undisturbed)


def test_processes_may_take_a_folder_in_which_nothing_is_done(tmp_path, undisturbed):
    def fail(prompts):
        raise TargetError("no such token")

    with pytest.raises(CorpusError, match="no such token"):
        toys.run(tmp_path, 40, toys.Toy(fails=fail))
    told, codes = ends(start(tmp_path, [0.0, 0.0]))
    assert codes == [0, 0], told
    check(tmp_path, undisturbed)


def test_a_launcher_that_is_killed_and_its_processes_after_it(tmp_path, undisturbed):
    """``accelerate launch --cpu`` starts a single process; ``--multi_gpu`` is its way to start several, on CPUs too.

    Its processes have sessions of their own: killed alone, it leaves them at work, and nobody else gets in.
    """
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        launch += ["--main_process_port", str(free.getsockname()[1])]
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    running = subprocess.Popen([*launch, str(CHILD), str(tmp_path), "0.05"], env=ENV, **quiet)
    until(tmp_path, 6)
    orphans = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    running.wait()
    with pytest.raises(CorpusError, match="another run is at work"):
        toys.run(tmp_path, 150)
    until(tmp_path, 12)
    for p in orphans:
        p.kill()
    psutil.wait_procs(orphans, timeout=10)
    done = len(read_records(tmp_path, partial=True))
    assert 60 <= done < 150
    assert toys.run(tmp_path, 150).n_resumed == done
    check(tmp_path, undisturbed)
