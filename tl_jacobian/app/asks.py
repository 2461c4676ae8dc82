"""What a view may ask for: checked structures, made of JSON and of nothing else.

Everything a page can say is here, so what it can't say it can't do: no path, no model that isn't loaded, no code.
A :class:`View` is what is looked at; a view together with one more question makes an ask.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

By = Literal["tokens", "words", "sentences", "lines", "paragraphs", "segments", "roles", "messages"]
Text = Annotated[str, Meta(max_length=400_000)]
Short = Annotated[str, Meta(max_length=200)]
Id = Annotated[int, Meta(ge=0, lt=2**31)]
Position = Annotated[int, Meta(ge=0, lt=2**31)]


class _Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Plain data; a field that isn't known is refused."""


class Message(_Asked, frozen=True):
    """One message of a conversation."""

    role: Short
    content: Text


class Segment(_Asked, frozen=True):
    """A named part of the prompt: a piece of its text that occurs once."""

    name: Short
    text: Text


class View(_Asked, frozen=True):
    """What is looked at.

    Attributes:
        model: name of one of the loaded models; empty: the first.
        prompt, ids, messages, series: the prompt; one of them.
        position: the position whose prediction is explained; None: the last.
        answer: token ids of an answer to explain instead.
        span: its tokens ``[start, stop]`` that are explained; None: all.
        scope: a row of :data:`tl_jacobian.app.methods.METHODS`.
        beside: another, drawn side by side with it.
        target, minus: token ids, explained and contrasted with.
        by: the units of the picture; ``"segments"`` are those of ``segments``.
        skip_first: whether token 0 is left out of the colours.
        bos: whether the BOS token is prepended; None: the model's own setting.
    """

    model: Short = ""
    prompt: Text | None = None
    ids: Annotated[tuple[Id, ...], Meta(max_length=400_000)] | None = None
    messages: Annotated[tuple[Message, ...], Meta(max_length=1000)] | None = None
    series: Annotated[tuple[float, ...], Meta(max_length=20_000)] | None = None
    position: Position | None = None
    answer: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=4096)] | None = None
    span: tuple[Position, Position] | None = None
    scope: Short = "semantic"
    beside: Short = ""
    target: Id | None = None
    minus: Id | None = None
    by: By = "tokens"
    segments: Annotated[tuple[Segment, ...], Meta(max_length=200)] = ()
    skip_first: bool = True
    bos: bool | None = None


class Read(_Asked, frozen=True, tag_field="do", tag="read"):
    """The text, the prediction, and what drove it."""

    view: View


class Map(_Asked, frozen=True, tag_field="do", tag="map"):
    """What drove every prediction along the text."""

    view: View


class Pairs(_Asked, frozen=True, tag_field="do", tag="pairs"):
    """What every two tokens have in common in what they do to the prediction."""

    view: View


class Features(_Asked, frozen=True, tag_field="do", tag="features"):
    """Which features of the SAE drive the prediction."""

    view: View


class Feature(_Asked, frozen=True, tag_field="do", tag="feature"):
    """Which tokens drive one feature at a token; ``remove``: what taking it out there does."""

    view: View
    feature: Id
    position: Position
    remove: bool = False


class Edges(_Asked, frozen=True, tag_field="do", tag="edges"):
    """Edges among heads and MLPs: what each carries of the difference to a prompt with other text.

    Attributes:
        edited, text: the tokens in whose place that prompt has other text, and the text.
        check: edges to measure by path patching instead, sender and receiver each; empty: none.
    """

    view: View
    edited: Annotated[tuple[Position, ...], Meta(min_length=1, max_length=4096)]
    text: Text
    check: Annotated[tuple[tuple[Short, Short], ...], Meta(max_length=1)] = ()


class Drill(_Asked, frozen=True, tag_field="do", tag="drill"):
    """From a source (token positions) to layers, heads, what each head read, and the paths."""

    view: View
    positions: Annotated[tuple[Position, ...], Meta(min_length=1, max_length=4096)]


class Head(_Asked, frozen=True, tag_field="do", tag="head"):
    """One head: its pattern, and the share of each token's influence that flows through it."""

    view: View
    layer: Position
    head: Position


class Try(_Asked, frozen=True, tag_field="do", tag="try"):
    """An intervention.

    Attributes:
        change: ``"drop"`` takes tokens out (their embeddings zero or the mean), ``"edit"`` puts other text in their
            place, ``"silence"`` replaces an activation by zero or its mean, ``"patch"`` by that of the edited prompt.
        kind: which activation: heads' outputs, what attention or the MLP wrote, the residual stream before a layer.
        positions: the tokens that are dropped or edited, or where an activation is replaced; None: everywhere.
        edited: of a patch: the tokens in whose place the other prompt, whose activations are taken, has other text.
        text: of an edit or a patch: that text.
    """

    view: View
    change: Literal["drop", "edit", "silence", "patch"]
    kind: Literal["head", "attn_out", "mlp_out", "resid_pre"] = "head"
    layer: Position | None = None
    heads: Annotated[tuple[Position, ...], Meta(max_length=512)] | None = None
    positions: Annotated[tuple[Position, ...], Meta(min_length=1, max_length=4096)] | None = None
    edited: Annotated[tuple[Position, ...], Meta(min_length=1, max_length=4096)] | None = None
    replacement: Literal["zero", "mean"] = "zero"
    text: Text = ""


class Write(_Asked, frozen=True, tag_field="do", tag="write"):
    """Let the model write an answer."""

    view: View
    n_tokens: Annotated[int, Meta(ge=1, le=200)] = 20


class Export(_Asked, frozen=True, tag_field="do", tag="export"):
    """The picture of an ask as a file: PNG or SVG; or its numbers, the saved value, as JSON."""

    view: View
    format: Literal["png", "svg", "json"]


Ask = Read | Map | Pairs | Features | Feature | Edges | Drill | Head | Try | Write | Export


class Request(_Asked, frozen=True):
    """A message of a view.

    Attributes:
        id: the view's own number for it; answers carry it.
        lane: a newer request takes the place of an older one of the same lane.
        key: the view's own name of what is asked, under which a frozen page finds the answer again.
        ask: what; None: nothing is computed.
        cancel: number of a request that isn't wanted any more.
        freeze: whether a page of all answers so far is asked for.
    """

    id: Position
    lane: Annotated[str, Meta(max_length=40)] = "main"
    key: Annotated[str, Meta(max_length=1_000_000)] = ""
    ask: Ask | None = None
    cancel: Position | None = None
    freeze: bool = False
