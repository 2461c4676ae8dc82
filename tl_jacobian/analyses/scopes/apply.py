"""From directions to attributions: where every scope ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.hooks import EMBED
from tl_jacobian.core.linalg.gram import GramSums
from tl_jacobian.core.linalg.product import unrounded
from tl_jacobian.core.linearization import Linearization, LinearizationBatch, Linearized
from tl_jacobian.core.products import squares
from tl_jacobian.errors import ArgumentError, ContractError, DirectionError
from tl_jacobian.results.arguments import excerpt
from tl_jacobian.results.attribution import Attribution, of_squares
from tl_jacobian.results.scopes import SCOPES, Combine, ScopeName

# Baselines that take no gradient: a backward rule changes nothing of them.
FORWARD_ONLY = (
    "leave_one_out",
    "attention_rollout",
    "random",
    "recency",
    "first_and_recency",
    "token_frequency",
    "embedding_norm",
)
L = TypeVar("L", bound=Linearized)


class Explained(NamedTuple):
    """What a scope explains: directions at the output, and words for them.

    Attributes:
        v: k directions, of the shape of ``lin.y``; scores combine ||v_i^T J_t||^2 over them.
        target: the explained quantity in words.
        details: more of the same for the metadata.
    """

    v: Float[Tensor, " k *own"]
    target: str
    details: dict[str, Any]


Explain = Callable[[Any], Explained]


def apply(
    lin: Linearized | LinearizationBatch, scope: ScopeName, explain: Explain, pairs: GramSums | None = None
) -> Any:
    """Choose directions, pull them back, aggregate: one attribution, or one for each member of a batch.

    Args:
        pairs: of a single linearization, to which the products for every two tokens are added.
    """
    return apply_each(lin, [(scope, explain)], pairs)[0]


@unrounded()
def apply_each(
    lin: Linearized | LinearizationBatch, asked: Sequence[tuple[ScopeName, Explain]], pairs: GramSums | None = None
) -> list[Any]:
    """:func:`apply` for several scopes, whose directions share backward passes."""
    members = members_of(lin)
    if not members:
        return [[] for _ in asked]
    explained = [[explain(one) for one in members] for _, explain in asked]
    for (scope, _), own in zip(asked, explained, strict=True):
        if SCOPES[scope].combine == "root_sum_squares":
            for e in own:
                check_gradient(e)
    v = [e.v for own in explained for e in own]
    sums = iter(squares(members * len(asked), v, None if pairs is None else [pairs]))
    made = []
    for (scope, _), own in zip(asked, explained, strict=True):
        combine = SCOPES[scope].combine
        made.append(
            [
                attribution(one, scope, e.target, of_squares(next(sums).sum(0), combine), combine, e.details)
                for one, e in zip(members, own, strict=True)
            ]
        )
    return [own[0] for own in made] if isinstance(lin, Linearized) else made


def along(lin: Linearized) -> str:
    """What is added up, where it is."""
    return f", summed over the answer {excerpt(lin.text)}" if isinstance(lin, AnswerLinearization) else ""


def start_of_answer(lin: Linearized) -> int | None:
    """Place of the answer's first token, where an answer is explained."""
    return lin.answer_start if isinstance(lin, AnswerLinearization) else None


def check_gradient(explained: Explained) -> None:
    """Raise DirectionError if there is nothing to explain."""
    if not explained.v.any():
        raise DirectionError(f"{explained.target} has no gradient in y (v is zero): every score would be zero")


def check_finite(lin: Linearized, scores: Float[Tensor, " pos"], what: str) -> None:
    """Raise ContractError where a score isn't finite."""
    bad = (~scores.isfinite()).nonzero()[:, 0].tolist()
    if bad:
        raise ContractError(
            f"{what} aren't finite in float32: {scores[bad[0]].item()} at token {bad[0]} ({lin.str_tokens[bad[0]]!r}), "
            f"{len(bad)} of {len(scores)}; explain something of a smaller size, or look for overflow in the model"
        )


def members_of(lin: Linearized | LinearizationBatch) -> list[Any]:
    """The linearizations to explain, fresh ones."""
    if not isinstance(lin, (Linearized, LinearizationBatch)):
        raise ArgumentError(f"got a {type(lin).__name__}, expected a linearization: pass linearize(model, prompt)")
    members = [lin] if isinstance(lin, Linearized) else list(lin)
    for one in {id(one.weights): one for one in members}.values():
        one.check_fresh()
    return members


def one_of(lin: L) -> L:
    """A single linearization, of a position or an answer, a fresh one."""
    if not isinstance(lin, Linearized):
        raise ArgumentError(
            f"got a {type(lin).__name__}, expected one linearization: batch[i], or linearize(model, prompt) (tokens of "
            "shape (1, pos) are a batch: pass tokens[0])"
        )
    lin.check_fresh()
    return lin


def attribution(
    lin: Linearized,
    scope: str,
    target: str,
    scores: Float[Tensor, " pos"],
    combine: Combine,
    details: Mapping[str, Any],
    stderr: Float[Tensor, " pos"] | None = None,
) -> Attribution:
    """Scores of one linearization as a value that says what they are; fewer than tokens: those of the first.

    Raises:
        ContractError: a score isn't finite in float32.
    """
    check_finite(lin, scores.float(), f"the scores of {target}")
    inputs = "token embeddings" if lin.input_hook == EMBED else "activations"
    return Attribution(
        scores=scores.float(),
        stderr=None if stderr is None else stderr.float(),
        scope=scope,
        tokens=tuple(lin.tokens.tolist()),
        str_tokens=lin.str_tokens[: len(scores)],
        units=tuple((i,) for i in range(len(scores))),
        position=lin.position,
        answer_start=start_of_answer(lin),
        target=target,
        combine=combine,
        word_groups=lin.words,
        regions=lin.regions,
        predictions=lin.predictions if isinstance(lin, Linearization) and lin.output_hook is None else (),
        metadata={
            "features": f"{inputs} at {lin.input_hook}, positions 0 to the explained one",
            "output_hook": lin.output_hook,
            "held_fixed": "weights, positional embeddings, token ids; nothing else (attention moves freely)",
            "seed": None,
            **details,
            **(lin.facts_without_rule if scope in FORWARD_ONLY else lin.facts),
        },
    )
