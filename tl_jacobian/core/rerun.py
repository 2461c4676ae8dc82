"""Runs that record no graph: other prompts, other values of x as baselines and interventions need, token by token.

The tokens that a model writes itself are chosen from the very forward pass that explains them later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_jacobian.core.graph import forgetting
from tl_jacobian.core.host.base import END_TO_END, Host, Trace, Watch
from tl_jacobian.core.host.conditions import Conditions
from tl_jacobian.core.host.past import Past
from tl_jacobian.core.progress import progress
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.results.arguments import is_id

T = TypeVar("T")
# From n values of x and the position before which they are x's own to logits.
Continue = Callable[[Float[Tensor, "n pos d_in"], int], Float[Tensor, "n *answer d_vocab"]]


@runtime_checkable
class Rerun(Protocol):
    """Runs of one prompt with the values at its input hook replaced, explained at the same position or positions."""

    def of_answer(self, positions: Sequence[int], answer: Sequence[int], start: int) -> Rerun:
        """The same for a whole answer: its tokens, predicted at these positions, are explained together.

        Args:
            start: place of the answer's first token.
        """
        ...

    def at(self, hook: str) -> Rerun:
        """Runs with the values at another hook point replaced instead.

        Raises:
            ArgumentError: this one runs on an x that the caller gave, which would be forgotten.
        """
        ...

    def check(self, x: Float[Tensor, "pos d_in"], logits: Float[Tensor, "*answer d_vocab"]) -> None:
        """Raise ContractError unless the model still gives these logits at this x."""
        ...

    def linearized(self, values: Float[Tensor, "n pos d_in"]) -> Iterator[Sequence[Any]]:
        """Linearizations at each of n values of x, as many in one forward pass as memory allows."""
        ...

    def logits(self, values: Float[Tensor, "n pos d_in"]) -> Float[Tensor, "n *answer d_vocab"]:
        """Logits at the explained position for each of n values of x, a row for each of several."""
        ...

    def continued(self, x: Float[Tensor, "pos d_in"], logits: Float[Tensor, "*answer d_vocab"]) -> Continue:
        """:meth:`logits` of values that are those of x before some position, which isn't run again where that can be.

        Args:
            x: the linearization's own, and logits: what the model gives there.
        """
        ...

    def prompts(self, tokens: Sequence[Sequence[int]]) -> Float[Tensor, "n *answer d_vocab"]:
        """Logits after the last token of n other prompts, or at the positions that predict the same answer to them.

        Args:
            tokens: of prompts; with an answer both, its last token left out.
        """
        ...


def padded(prompts: Sequence[Sequence[int]]) -> Int[Tensor, "prompts pos"]:
    """Token ids, padded on the right, where a causal model never sees it: it needs no mask."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in prompts], batch_first=True)


def run(
    host: Host,
    prompts: Sequence[Sequence[int]],
    watch: Watch = END_TO_END,
    positions: Sequence[int] = (-1,),
    under: Conditions | None = None,
    past: Past | None = None,
) -> Trace:
    """One forward pass of several prompts, each explained at its last token; no graph is recorded.

    Args:
        positions: explained in every prompt instead, one after the other; negative ones count from its end.
        under: hooks and modes; default: as they are now.
        past: of what comes before these tokens.
    """
    with forgetting():
        at = [[position % len(ids) for position in positions] for ids in prompts]
        rows = torch.tensor([row for row, own in enumerate(at) for _ in own])
        places = torch.tensor([i for own in at for i in own])
        return host.forward(padded(prompts), rows, places, watch, under=under, past=past)


def together(host: Host, prompts: Sequence[T]) -> list[Sequence[T]]:
    """Which prompts may share a forward pass: all, unless a hook of the caller's may mix what it sees."""
    alone = len(prompts) > 1 and host.conditions().mix
    return [prompts[i : i + 1] for i in range(len(prompts))] if alone else [prompts]


def last_logits(host: Host, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "prompts d_vocab"]:
    """The model's logits after the last token of each prompt."""
    with forgetting():  # ordinary tensors, inside the caller's inference_mode() too
        return torch.cat([run(host, part).logits for part in together(host, prompts)])


def generate(
    host: Host, prompt: list[int], n_tokens: int, *, temperature: float = 0.0, generator: torch.Generator | None = None
) -> list[int]:
    """``prompt`` continued by up to ``n_tokens`` tokens, fewer where the model ends the text (EOS, kept).

    Every step runs the whole text again (no cache of keys and values): the model is left as it
    was, the caller's hooks act as they do on a prompt, and so do rounding errors.

    Args:
        host: the model.
        prompt: token ids.
        n_tokens: how many at most.
        temperature: 0 takes the most probable token; above, tokens are drawn from the
            distribution of the logits divided by it.
        generator: source of the draws, needed for them; the global one is never used.

    Raises:
        ArgumentError: an option can't be used.
        PromptError: the text wouldn't fit into the model's context.
    """
    _check(n_tokens, temperature, generator)
    longest = len(prompt) + n_tokens - 1  # nothing follows the last token, so the model never reads it
    if host.n_ctx is not None and longest > host.n_ctx:
        raise PromptError(
            f"{len(prompt)} tokens of prompt and n_tokens={n_tokens} generated ones don't fit into the model's context "
            f"of n_ctx={host.n_ctx}; shorten either by {longest - host.n_ctx}"
        )
    text = list(prompt)
    with progress(n_tokens, "tokens") as bar:
        for _ in range(n_tokens):
            text.append(_choose(last_logits(host, [text])[0], temperature, generator))
            bar.update()
            if host.is_eos(text[-1]):
                break
    return text


def _choose(logits: Float[Tensor, " d_vocab"], temperature: float, generator: torch.Generator | None) -> int:
    if generator is None:
        return int(logits.argmax())
    probs = (exact(logits) / temperature).softmax(dim=-1)
    return int(torch.multinomial(probs.to(generator.device), 1, generator=generator))


def _check(n_tokens: Any, temperature: Any, generator: Any) -> None:
    if not is_id(n_tokens) or n_tokens < 1:
        raise ArgumentError(f"n_tokens={n_tokens!r}, expected a positive integer")
    if not isinstance(temperature, (int, float)) or not 0 <= temperature < math.inf:
        raise ArgumentError(f"temperature={temperature!r}, expected 0 (the most probable token) or a positive number")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ArgumentError(f"generator={generator!r}, expected a torch.Generator")
    if temperature > 0 and generator is None:
        raise ArgumentError(
            f"temperature={temperature} draws tokens at random: pass generator=torch.Generator().manual_seed(0)"
        )
    if temperature == 0 and generator is not None:
        raise ArgumentError("a generator is given, but temperature=0 draws nothing: pass temperature=1.0, say")
