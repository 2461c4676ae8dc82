"""attribute_corpus(): a scope over a corpus; read_attributions(): what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from tl_jacobian.attribution import Attribution
from tl_jacobian.corpus.encoding import Format
from tl_jacobian.corpus.given import Given, as_prompts
from tl_jacobian.corpus.manifest import read_manifest
from tl_jacobian.corpus.records import read_records
from tl_jacobian.corpus.run import RunReport, run_corpus
from tl_jacobian.corpus.scope_job import FisherMethod, Scope, ScopeJob, from_record
from tl_jacobian.corpus.tokenizer import tokenizer_of
from tl_jacobian.errors import CorpusError
from tl_jacobian.targets import Target


def attribute_corpus(
    model: Any,
    prompts: Sequence[Given] | Int[Tensor, "prompts pos"],
    scope: Scope,
    out: str | PathLike[str],
    *,
    target: Target | None = None,
    minus: Target | None = None,
    method: FisherMethod | None = None,
    rank: int | None = None,
    seed: int = 0,
    prepend_bos: bool | None = None,
    max_memory: int | str | None = None,
    batch_size: int = 8,
    shard_size: int = 32,
    format: Format = "jsonl",
    progress: bool = True,
) -> RunReport:
    """Which tokens drove the prediction after each prompt of a corpus.

    A run that was killed goes on where it was when this is called again with the same arguments, and ends with the
    same scores; see :func:`run_corpus`. :func:`read_attributions` gives them back.

    Args:
        model: a HookedTransformer or a TransformerBridge; left as it was.
        prompts: of :func:`read_corpus`, or a list of texts, of token ids (lists, tuples, tensors), or of objects with
            ``"text"`` or ``"tokens"`` that may have an ``"id"`` and a ``"target"``.
        scope: ``"semantic"``, ``"temperature"`` or ``"fisher"``.
        out: folder for the records.
        target, minus: of Semantic Scope, for prompts without a target of their own; default: the most probable token.
        method, rank: of Fisher Scope: see :func:`fisher_scope`.
        seed: of Fisher's random signs. Each prompt has its own, so its scores don't depend on its batch, and the errors
            of different prompts average out.
        prepend_bos: whether text gets a BOS token in front; default: the model's own setting.
        max_memory: the most that a batch may take beyond the model: see :func:`linearize`. The default, what is free
            at the time, can change how a batch is computed, and with it scores in their last digits.
        batch_size: prompts in one forward pass.
        shard_size, format, progress: see :func:`run_corpus`.

    Raises:
        CorpusError, ArgumentError: as :func:`run_corpus` does; ArgumentError for what is no prompt.

    >>> import tempfile, tl_jacobian as tj
    >>> from tl_jacobian.corpus import attribute_corpus, read_attributions
    >>> out = tempfile.mkdtemp()
    >>> report = attribute_corpus(tj.load_demo_model(), ["Rome is", ""], "semantic", out, progress=False)
    >>> report.n_prompts, report.n_errors, [a.str_tokens for a in read_attributions(out)]
    (2, 1, [('Rome', ' is')])
    """
    job = ScopeJob(model, scope, target, minus, method, rank, seed, max_memory)
    return run_corpus(
        job,
        as_prompts(prompts),
        out,
        tokenize=tokenizer_of(model, prepend_bos=prepend_bos),
        batch_size=batch_size,
        shard_size=shard_size,
        format=format,
        progress=progress,
    )


def read_attributions(out: str | PathLike[str], *, partial: bool = False) -> Iterator[Attribution]:
    """The attributions of a run, in the corpus' order.

    Prompts that have an error instead are left out; ``metadata["prompt"]`` and ``["id"]`` say which these are of.

    Args:
        out: the run's folder.
        partial: take what there is of a run that isn't done.

    Raises:
        CorpusError: not a run of attributions, one that isn't done, or a shard that isn't what was written.
    """
    manifest = read_manifest(Path(out))
    settings = manifest["job"]
    if settings.get("job") != "attributions":
        raise CorpusError(f"{str(out)!r} holds no attributions but {settings.get('job')!r}: use read_records")
    for record in read_records(out, partial=partial):
        if "error" not in record:
            yield from_record(record, settings, manifest["versions"])
