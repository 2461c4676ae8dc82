"""Files that are whole or absent."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from tl_jacobian.results.files import atomic, new_file
from tl_jacobian.studies.corpus.store import write_durably


def test_the_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    with atomic(path) as file:
        file.write("é")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == "é".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_may_be_text_and_the_content_bytes(tmp_path):
    with atomic(str(tmp_path / "a.bin"), "wb") as file:
        file.write(b"\xff\x00")
    assert (tmp_path / "a.bin").read_bytes() == b"\xff\x00"


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt("boom")])
def test_an_error_leaves_the_old_file_whole_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic(path) as file:
            file.write("new, and only hal")
            raise error

    with pytest.raises(type(error), match="boom"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_no_file_where_there_was_none(tmp_path):
    with pytest.raises(RuntimeError, match="boom"), atomic(tmp_path / "a.txt"):
        raise RuntimeError("boom")
    assert not list(tmp_path.iterdir())


def test_a_failed_replacement_leaves_no_file(tmp_path):
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"), atomic(tmp_path / "folder") as file:
        file.write("x")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_text_that_can_not_be_encoded_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"), atomic(path) as file:
        file.write("\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "a") as file:
            file.write("x")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_saving_never_changes_the_umask_not_even_for_a_moment(tmp_path, monkeypatch):
    """It belongs to the process: files that other threads create meanwhile would be open to everyone."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail(f"umask({mask:#o})"))
    with atomic(tmp_path / "a") as file:
        file.write("x")
    write_durably(tmp_path / "b", b"x")


def test_a_name_that_is_taken_is_not_used(tmp_path, monkeypatch):
    (tmp_path / ".x-aa.tmp").write_text("theirs")
    names = iter(["aa", "aa", "bb"])
    monkeypatch.setattr("secrets.token_hex", lambda n: next(names))
    handle, name = new_file(tmp_path, ".x-", ".tmp")
    os.close(handle)
    assert name == str(tmp_path / ".x-bb.tmp")
    assert (tmp_path / ".x-aa.tmp").read_text() == "theirs"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"), atomic(tmp_path / "nowhere" / "a"):
        pass


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a file in a folder that exists"), atomic(tmp_path):
        pass


def test_a_link_stays_one_and_the_file_behind_it_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    with atomic(link) as file:
        file.write("new")
    assert link.is_symlink()
    assert (target.read_text(), link.read_text()) == ("new", "new")
    assert [list(folder.iterdir()) for folder in (tmp_path / "real",)] == [[target]]


def test_a_link_to_nothing_makes_its_target(tmp_path):
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "a.txt")
    with atomic(link) as file:
        file.write("new")
    assert link.is_symlink()
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_an_existing_file_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(mode)
    with atomic(path) as file:
        file.write("new")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_text() == "new"


def test_a_pipe_is_written_into(tmp_path):
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_text()), daemon=True)
    reader.start()
    with atomic(path) as file:
        file.write("through")
    reader.join(10)
    assert read == ["through"]
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_written_into_and_never_replaced(tmp_path, monkeypatch):
    path, whole = tmp_path / "device", os.stat
    path.write_text("old")
    inode = path.stat().st_ino

    def faked(where, *args, **options):
        found = whole(where, *args, **options)
        if os.fspath(where) != os.fspath(path):
            return found
        return os.stat_result((stat.S_IFCHR | 0o666, *found[1:]))

    monkeypatch.setattr(os, "stat", faked)
    with atomic(path) as file:
        file.write("new")
    monkeypatch.undo()
    assert (path.read_text(), path.stat().st_ino) == ("new", inode)
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("n" * 250)
    with atomic(path) as file:
        file.write("x")
    assert path.read_text() == "x"
