"""evaluate(): attribution methods compared over a corpus, on the runner that survives being killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from tl_jacobian.core.host.backward import Rule
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.precision import Precision
from tl_jacobian.core.linearize import Options, linearize, linearize_read
from tl_jacobian.core.prompts import all_text, resolve_target
from tl_jacobian.errors import ArgumentError, CorpusError, PromptError
from tl_jacobian.results.arguments import checked, fitted
from tl_jacobian.results.evaluation import Evaluation
from tl_jacobian.studies.corpus import CorpusPrompt, read_corpus, read_records, read_settings, run_corpus, tokenizer_of
from tl_jacobian.studies.corpus.jobs import by_kind, read_of
from tl_jacobian.studies.corpus.processes import is_launched
from tl_jacobian.studies.corpus.read import Given
from tl_jacobian.studies.corpus.run import given_prompts
from tl_jacobian.studies.evaluation.judge import Trial, judge

Explained = Literal["argmax", "next"]
# A record, with a value of each kind.
_EXAMPLE = {"n_tokens": 1, "target": 1, "answer": [1], "target_text": "", "log_prob": -0.5, "methods": {}}


@dataclass(frozen=True)
class EvaluationJob:
    """What the corpus runner does to each batch of prompts.

    Attributes:
        model: a HookedTransformer or a TransformerBridge.
        trial: what to measure.
        explained: the token that is explained and scored, where a prompt names none itself: ``"argmax"`` the
            model's most probable one, ``"next"`` the prompt's last token, given those before it. Where a prompt has an
            answer, that is explained as a whole, and the tokens of the prompt alone are ranked and removed.
        name: of the corpus.
        max_memory, precision, rule: of each forward pass; see :func:`linearize`.
    """

    model: Any
    trial: Trial
    explained: Explained = "argmax"
    name: str = "prompts"
    max_memory: int | str | None = None
    precision: Precision = None
    rule: Rule = None
    facts: Mapping[str, Any] = field(init=False)
    example: ClassVar[Mapping[str, Any]] = _EXAMPLE

    def __post_init__(self) -> None:
        explained = fitted(self.explained, Explained, "explained")
        object.__setattr__(self, "explained", explained)
        host = resolve(self.model, self.precision, self.rule)
        device = host.unembedding().weight.device.type
        object.__setattr__(self, "facts", {**host.facts(), "weights": host.weights_digest(), "device": device})

    @property
    def settings(self) -> Mapping[str, Any]:
        about = {"job": "evaluate", "name": self.name, "explained": self.explained}
        return {**about, **self.trial.facts(), **self.facts}

    def __call__(self, prompts: Sequence[CorpusPrompt]) -> list[dict[str, Any]]:
        return by_kind(prompts, self._of_predictions, self._of_answers)

    def _of_answers(self, prompts: Sequence[CorpusPrompt]) -> list[dict[str, Any]]:
        host = resolve(self.model, self.precision, self.rule)
        options = Options(max_memory=self.max_memory, record=self.trial.record)
        batch = linearize_read(host, [read_of(host, p) for p in prompts], options)
        return judge(self.trial, batch, [None] * len(batch), [p.index for p in prompts])

    def _of_predictions(self, prompts: Sequence[CorpusPrompt]) -> list[dict[str, Any]]:
        tokens = [list(p.tokens or ()) for p in prompts]
        held_out = [self.explained == "next" and p.target is None for p in prompts]
        for ids, held in zip(tokens, held_out, strict=True):
            if held and len(ids) < 2:
                raise PromptError("a prompt of one token has no next one to explain, expected at least two")
        at = [len(ids) - 2 if held else len(ids) - 1 for ids, held in zip(tokens, held_out, strict=True)]
        how: dict[str, Any] = {"max_memory": self.max_memory, "precision": self.precision, "rule": self.rule}
        texts = [all_text(ids) for ids in tokens]
        batch = linearize(self.model, texts, position=at, record=self.trial.record, **how)
        targets = [
            ids[-1] if held else resolve_target(lin, p.target)
            for ids, held, lin, p in zip(tokens, held_out, batch, prompts, strict=True)
        ]
        return judge(self.trial, batch, targets, [p.index for p in prompts])


@checked
def evaluate(
    model: Any,
    prompts: str | PathLike[str] | Sequence[Given] | Int[Tensor, "prompts pos"] | Mapping[str, Any],
    trial: Trial | None = None,
    *,
    out: str | PathLike[str] | None = None,
    name: str | None = None,
    explained: Explained = "argmax",
    prepend_bos: bool | None = None,
    max_memory: int | str | None = None,
    precision: Precision = None,
    rule: Rule = None,
    batch_size: int = 8,
    shard_size: int = 32,
    format: Literal["jsonl", "parquet"] = "jsonl",
    progress: bool = True,
) -> Evaluation:
    """Which attribution method finds the tokens that the prediction falls without? (the paper's AOPC table)

    Every prompt is linearised once; each method ranks its tokens for the same target; the target's log-probability
    is taken again without the tokens that rank highest, and with nothing but those.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        prompts: a file or data set for :func:`read_corpus`, or a list of texts, of token ids (lists, tuples,
            tensors), or of objects with ``"text"`` or ``"tokens"`` that may have an ``"id"``, and a ``"target"`` or an
            ``"answer"``; or what a tokenizer gave for them.
        trial: methods, percentages, perturbation; default: the paper's six methods at 5, 10 and 20%.
        out: folder for the records; killed and called again with the same arguments, it goes on where it was.
            Default: nothing is kept.
        name: of the corpus in tables; default: the file's.
        explained: the token that is explained and scored, ``"argmax"`` or ``"next"``: see :class:`EvaluationJob`.
        prepend_bos: whether texts get a BOS token; default: the model's own setting.
        max_memory, precision, rule: of each forward pass; see :func:`linearize`.
        batch_size: prompts linearised together.
        shard_size: prompts written together.
        format: of the records.
        progress: show a bar.

    Raises:
        ArgumentError: an option out of range, what is no prompt, or fewer than two prompts that can be used.
        CorpusError: see :func:`run_corpus`.

    >>> import tl_jacobian as tj
    >>> texts = ["The capital of France is", "The capital of Italy is"]
    >>> trial = tj.Trial(methods=("random", "semantic"), k=(20,))
    >>> tj.evaluate(tj.load_demo_model(), texts, trial, progress=False).k
    (20.0,)
    """
    if out is None and is_launched():
        raise ArgumentError("out=None, but several processes share this evaluation: give a folder that all of them see")
    corpus = read_corpus(prompts) if isinstance(prompts, (str, PathLike)) else given_prompts(model, prompts)
    job = EvaluationJob(model, trial or Trial(), explained, name or _name(prompts), max_memory, precision, rule)
    with TemporaryDirectory() as nowhere:
        folder = Path(nowhere) / "records" if out is None else Path(out)
        run_corpus(
            job,
            corpus,
            folder,
            tokenize=tokenizer_of(model, prepend_bos=prepend_bos),
            batch_size=batch_size,
            shard_size=shard_size,
            format=format,
            progress=progress,
        )
        return load_evaluation(folder)


@checked
def load_evaluation(out: str | PathLike[str]) -> Evaluation:
    """What :func:`evaluate` wrote to a folder.

    Raises:
        CorpusError: not the folder of an evaluation, or one that isn't done.
    """
    settings = read_settings(out)
    if settings.get("job") != "evaluate":
        raise CorpusError(f"{str(out)!r} holds a run of {settings.get('job')!r}, expected one of 'evaluate'")
    metadata = {key: value for key, value in settings.items() if key not in ("job", "name")}
    return Evaluation(name=settings["name"], records=tuple(read_records(out)), metadata=metadata)


def _name(prompts: Any) -> str:
    return Path(prompts).stem if isinstance(prompts, (str, PathLike)) else "prompts"
