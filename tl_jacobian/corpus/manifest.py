"""What a run computes, and of what, written down before it begins: who goes on with it must want the same."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tl_jacobian.corpus.durable import write_durably
from tl_jacobian.errors import CorpusError

FORMAT, VERSION = "tl_jacobian.corpus_run", 1
NAME = "manifest.json"
_ADVISORY = "versions"  # may differ: the user is told


def write_or_compare(root: Path, wanted: Mapping[str, Any], *, alone: bool) -> None:
    """Write the manifest of a new run, or check that of an old one.

    An old one that never finished a shard makes way: a run may fail at its first prompts, and be put right.

    Args:
        root: the run's folder.
        wanted: the manifest.
        alone: whether it is certain that no other run is at work here, which may not have finished one *yet*.

    Raises:
        CorpusError: the folder holds another run (says how it differs), or isn't one.
    """
    if not (root / NAME).exists():
        if any((root / name).exists() for name in ("shards", "done")):
            raise CorpusError(
                f"{str(root)!r} has shards but no {NAME}, so it can't be told what of; choose another folder"
            )
        _write(root, wanted)
    elif (old := read_manifest(root)) != json.loads(json.dumps(wanted)):
        if alone and not _has_work(root):
            _write(root, wanted)
            return
        _warn_of_versions(old.get(_ADVISORY, {}), wanted[_ADVISORY])
        compare(root, wanted)


def _write(root: Path, wanted: Mapping[str, Any]) -> None:
    write_durably(root / NAME, (json.dumps(wanted, indent=1) + "\n").encode())


def _has_work(root: Path) -> bool:
    """Whether any shard was written there, noted or not; what a killed write left half-done (hidden) is none."""
    return any(any(root.glob(f"{name}/[!.]*")) for name in ("shards", "done", "set_aside"))


def compare(root: Path, wanted: Mapping[str, Any]) -> None:
    """Raise CorpusError unless the manifest there says the same, versions apart."""
    both = (read_manifest(root), json.loads(json.dumps(wanted)))
    old, new = (dict(_flat({key: value for key, value in m.items() if key != _ADVISORY})) for m in both)
    differ = [name for name in dict.fromkeys([*old, *new]) if old.get(name, ...) != new.get(name, ...)]
    if differ:
        says = "; ".join(f"{name} was {_shown(old, name)} and is now {_shown(new, name)}" for name in differ[:6])
        more = f"; and {len(differ) - 6} more" if len(differ) > 6 else ""
        raise CorpusError(
            f"{str(root)!r} holds another run: {says}{more}. To go on with that run use its settings; for this one "
            "choose another folder"
        )


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a run's folder.

    Raises:
        CorpusError: there is none, or it isn't one of a version known here.
    """
    path = root / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CorpusError(f"{str(root)!r} isn't the folder of a run: {error}") from error
    except ValueError as error:
        raise CorpusError(f"{str(path)!r} is damaged: {error}; choose another folder") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise CorpusError(
            f'{str(path)!r} isn\'t a run\'s manifest, expected "format": "{FORMAT}"; choose another folder'
        )
    if found.get("version") != VERSION:
        raise CorpusError(
            f"{str(path)!r} is of version {found.get('version')!r}, expected {VERSION}; upgrade tl-jacobian"
        )
    return found


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Settings inside settings, by dotted names."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _shown(settings: Mapping[str, Any], name: str) -> str:
    text = repr(settings[name]) if name in settings else "not there"
    return text if len(text) <= 60 else text[:57] + "..."


def _warn_of_versions(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differ = [f"{name} {old.get(name)} then, {new[name]} now" for name in new if old.get(name) != new[name]]
    if differ:
        warnings.warn(
            f"the run was begun with other versions ({'; '.join(differ)}): what is still to do may come out "
            "differently; if that matters, install those versions again, or begin again in another folder",
            stacklevel=6,
        )
