"""Files that survive a power failure, and the clearing away of what killed processes leave."""

from __future__ import annotations

import os
import signal
import stat
import time

import corpus_toys as toys
import pytest

from tl_jacobian.errors import CorpusError
from tl_jacobian.studies.corpus.store import only_run, sweep, write_durably


def test_data_are_on_the_disk_before_the_name_and_the_name_before_it_returns(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        happened.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"{os.fstat(handle).st_size} bytes")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("name"), replace(a, b))[1])
    write_durably(tmp_path / "a", b"12345")
    assert happened == ["5 bytes", "name", "folder"]
    assert (tmp_path / "a").read_bytes() == b"12345"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    write_durably(tmp_path / "a", b"old")
    monkeypatch.setattr(os, call, lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_durably(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_durably(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_what_a_dead_process_left_is_swept_away_and_nothing_of_a_living_one(tmp_path):
    def stuck():
        os.fsync = lambda handle: time.sleep(60)
        write_durably(tmp_path / "a", b"half")

    child = toys.in_child(stuck)
    while not list(tmp_path.glob(".a.*.tmp")):
        time.sleep(0.01)
    time.sleep(0.05)
    (tmp_path / ".other").write_text("")
    assert sweep(tmp_path) == 0
    assert len(list(tmp_path.glob(".a.*.tmp"))) == 1
    os.kill(child, signal.SIGKILL)
    toys.status_of(child)
    assert sweep(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".other"]


def test_a_folder_has_one_run_and_a_dead_one_holds_nothing(tmp_path):
    def hold():
        with only_run(tmp_path):
            (tmp_path / "held").touch()
            time.sleep(60)

    child = toys.in_child(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(CorpusError, match=r"another run is at work in .*: wait until it has ended"), only_run(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    toys.status_of(child)
    with only_run(tmp_path):
        pass
    with only_run(tmp_path):
        pass
