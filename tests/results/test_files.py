"""Files that are whole or absent."""

from __future__ import annotations

import os
import stat

import pytest

from tl_jacobian.results.files import atomic


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


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"), atomic(tmp_path / "nowhere" / "a"):
        pass


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a file in a folder that exists"), atomic(tmp_path):
        pass
