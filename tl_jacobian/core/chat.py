"""Conversations: a list of messages as the chat template of the tokenizer writes it, and whose each token is.

A template may trim what it is given, move it, look into it, or put a system prompt of its own in front, and its text
doesn't tell. So the template itself is asked: rendered again with a mark (a character that occurs nowhere) beside a
message's content, it shows where that content goes. An answer counts only if the text without the mark is the very
text that the model reads, and if what stands between a content's two marks is that content: it is never guessed.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeGuard

from tl_jacobian.core.host.base import Host
from tl_jacobian.errors import PromptError
from tl_jacobian.results.arguments import excerpt, warn
from tl_jacobian.results.tokens import Region, Regions

ASSISTANT, TEMPLATE = "assistant", "template"
Span = tuple[int, int]  # of characters
_TRIES = 1000  # more spaces are hardly trimmed, nor longer tags dropped


class Message(NamedTuple):
    """One message: who says it, and what."""

    role: str
    content: str


class Conversation(NamedTuple):
    """A conversation as the model reads it.

    Attributes:
        tokens: ids.
        regions: under ``"roles"`` and ``"messages"``: whose each token is, ``"template"`` for the template's own.
    """

    tokens: list[int]
    regions: Regions


def is_conversation(prompt: Any) -> TypeGuard[Sequence[Any]]:
    """Whether this is meant as a list of messages.

    >>> is_conversation([{"role": "user", "content": "Hi"}]), is_conversation([{"input_ids": [1]}]), is_conversation([])
    (True, False, False)
    """
    return isinstance(prompt, (list, tuple)) and any(
        isinstance(item, Mapping) and ("role" in item or "content" in item) for item in prompt
    )


def is_answered(prompt: Any) -> bool:
    """Whether this is a conversation whose last message is the assistant's.

    >>> is_answered([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    True
    """
    return is_conversation(prompt) and isinstance(prompt[-1], Mapping) and prompt[-1].get("role") == ASSISTANT


def read_conversation(host: Host, given: Sequence[Any], prepend_bos: bool | None = None) -> Conversation:
    """A conversation, ready for the assistant's next message: the generation prompt is added.

    Raises:
        PromptError: it isn't a list of messages, the template refuses it, it ends with the assistant's message, or it
            can't be told exactly which tokens belong to which message.
    """
    said = _messages(given)
    if prepend_bos is not None:
        raise PromptError(
            f"prepend_bos={prepend_bos} is for text: a conversation begins as its chat template says; leave it out"
        )
    if said[-1].role == ASSISTANT:
        raise PromptError(
            f"the last of the {len(said)} messages is the assistant's, so nothing is left to predict: leave it out "
            "(messages[:-1]); linearize(model, messages) explains it as the answer"
        )
    return _read(host, said, add_generation_prompt=True)


class Answered(NamedTuple):
    """A conversation that ends with the assistant's message.

    Attributes:
        prompt: ids of all before that message's content.
        answer: ids of its content.
        regions: of prompt and answer: see :class:`Conversation`.
    """

    prompt: list[int]
    answer: list[int]
    regions: Regions


def read_answered(host: Host, given: Sequence[Any]) -> Answered:
    """A conversation whose last message, the assistant's, is the answer to what comes before it.

    Raises:
        PromptError: as :func:`read_conversation` does; the last message isn't the assistant's, has no tokens, or the
            template writes it otherwise than it asks for it, so that the model would never be prompted like this.
    """
    said = _messages(given)
    if said[-1].role != ASSISTANT or len(said) < 2:
        raise PromptError(
            f"the last of {len(said)} messages has the role {said[-1].role!r}, expected the assistant's, after another"
        )
    asked = _read(host, said[:-1], add_generation_prompt=True).tokens
    tokens, regions = _read(host, said, add_generation_prompt=False)
    if tokens[: len(asked)] != asked:
        raise PromptError(
            "the chat template writes the assistant's last message otherwise than it asks for it, so the model would "
            "never be prompted like this: give messages[:-1] as the prompt and the answer apart"
        )
    name = _names(said)[-1]
    (at,) = [region.positions for region in regions["messages"] if region.name == name] or [()]
    if not at:
        raise PromptError(f"the assistant's last message {said[-1].content!r} has no tokens, expected an answer")
    first, stop = at[0], at[-1] + 1
    return Answered(tokens[:first], tokens[first:stop], cut_off(regions, stop))


def cut_off(regions: Regions, n: int) -> dict[str, tuple[Region, ...]]:
    """Regions of the first n tokens; those that begin later are left out.

    >>> cut_off({"roles": (Region("template", (0, 3)), Region("user", (1, 2)), Region("assistant", (4,)))}, 2)
    {'roles': (Region(name='template', positions=(0,)), Region(name='user', positions=(1,)))}
    """
    kept = {
        key: [Region(r.name, tuple(at for at in r.positions if at < n)) for r in found]
        for key, found in regions.items()
    }
    return {key: tuple(region for region in found if region.positions) for key, found in kept.items()}


def written_on(regions: Regions, start: int, stop: int) -> Regions:
    """Regions of a conversation with the assistant's next message: tokens ``start`` to ``stop``, which the model wrote.

    >>> told = {"roles": (Region("user", (1,)), Region("template", (0, 2)))}
    >>> [region.name for region in written_on(told, 3, 5)["roles"]]
    ['user', 'assistant', 'template']
    """
    said = [region.name for region in regions.get("messages", ()) if region.name.startswith(f"{ASSISTANT} ")]
    names = {"roles": ASSISTANT, "messages": f"{ASSISTANT} {len(said) + 1}"}
    made = {}
    for key, known in regions.items():
        found = {region.name: region.positions for region in known}
        found[names[key]] = (*found.get(names[key], ()), *range(start, stop))
        made[key] = _in_order(found)
    return made


def _in_order(found: Mapping[str, Sequence[int]]) -> tuple[Region, ...]:
    """Positions by name, in the order of the text; the template's own last."""
    order = sorted(found, key=lambda name: (name == TEMPLATE, found[name][0]))
    return tuple(Region(name, tuple(found[name])) for name in order)


# -- messages --------------------------------------------------------------------------


def _messages(given: Sequence[Any]) -> list[Message]:
    """What was said, checked."""
    return [_message(i, item) for i, item in enumerate(given)]


def _message(i: int, given: Any) -> Message:
    wanted = 'expected {"role": "user", "content": "..."}'
    if not isinstance(given, Mapping):
        raise PromptError(f"message {i} is {excerpt(given)}, {wanted}")
    role, content = given.get("role"), given.get("content")
    more = sorted(str(key) for key, value in given.items() if key not in ("role", "content") and value is not None)
    if more:
        raise PromptError(f"message {i} has {', '.join(map(repr, more))}, which aren't read here; {wanted}")
    if not isinstance(role, str) or not role:
        raise PromptError(f"message {i} has the role {excerpt(role)}, {wanted}")
    if role == TEMPLATE:
        raise PromptError(f"message {i} has the role {role!r}, which is what the template's own tokens are called")
    text = _content(i, content)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(f"message {i} holds half a surrogate pair, expected valid Unicode text: {error}") from error
    return Message(role, text)


def _content(i: int, content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise PromptError(
            f'message {i} has the content {excerpt(content)}, expected text, or [{{"type": "text", ...}}]'
        )
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise PromptError(
                f'message {i} has a part of type {excerpt(kind)}, expected {{"type": "text", "text": "..."}}: only '
                "text can be explained"
            )
    return "".join(part["text"] for part in content)


def _names(said: Sequence[Message]) -> list[str]:
    """A name for each message: its role, and the how manieth of that role it is: ``"user 2"``."""
    seen: Counter[str] = Counter()
    names = []
    for message in said:
        seen[message.role] += 1
        names.append(f"{message.role} {seen[message.role]}")
    return names


# -- tokens ----------------------------------------------------------------------------


def _read(host: Host, said: Sequence[Message], add_generation_prompt: bool) -> Conversation:
    roles = [message.role for message in said]

    def render(contents: Sequence[str]) -> str:
        pairs = zip(roles, contents, strict=True)
        return host.chat([{"role": role, "content": content} for role, content in pairs], add_generation_prompt)

    contents = [message.content for message in said]
    text = render(contents)
    spans = find_contents(render, text, contents)
    for i, found in enumerate(spans):
        if contents[i].strip() and not found:
            warn(f"the chat template leaves message {i} ({roles[i]!r}) out: the model doesn't read it")
    tokens, places = host.spans(text)
    if tokens != host.chat_ids([message._asdict() for message in said], add_generation_prompt):
        raise PromptError(
            "this tokenizer's chat template gives other token ids than its text does, so it can't be told which belong "
            "to which message: pass the ids, tokenizer.apply_chat_template(messages, add_generation_prompt=True)"
        )
    owner: list[int | None] = [None] * (len(text) + 1)  # a token without a character may stand at the very end
    for i, found in enumerate(spans):
        for start, stop in found:
            owner[start:stop] = [i] * (stop - start)
    whose = [owner[_first(text, start, stop)] for start, stop in places]
    return Conversation(tokens, {"roles": _regions(whose, roles), "messages": _regions(whose, _names(said))})


def _first(text: str, start: int, stop: int) -> int:
    """The character that says whose a token is: its first that isn't a space."""
    return next((at for at in range(start, stop) if not text[at].isspace()), start)


def _regions(whose: Sequence[int | None], names: Sequence[str]) -> tuple[Region, ...]:
    """Tokens by the name of the message that each belongs to."""
    found: dict[str, list[int]] = {}
    for at, i in enumerate(whose):
        found.setdefault(TEMPLATE if i is None else names[i], []).append(at)
    return _in_order(found)


# -- where contents go -----------------------------------------------------------------


def find_contents(render: Callable[[Sequence[str]], str], text: str, contents: Sequence[str]) -> list[list[Span]]:
    """Where each content stands in what a template makes of them; nowhere if it is empty or left out.

    Args:
        render: the template, with the roles of the messages.
        text: what it makes of ``contents``.

    Raises:
        PromptError: it can't be told exactly.

    >>> trims = lambda contents: "".join(f"<{content.strip()}>" for content in contents)
    >>> find_contents(trims, "<a><b>", ["a", " b"])
    [[(1, 2)], [(4, 5)]]
    """
    unused = _unused(text, *contents)
    marks = [(next(unused), next(unused)) for _ in contents]
    marked = [a + content + b if content else "" for (a, b), content in zip(marks, contents, strict=True)]
    # Most templates leave most contents as they are: one rendering tells where all of them are.
    places = _places(render, text, marked, [mark for pair in marks for mark in pair])
    found = []
    for i, (content, (a, b)) in enumerate(zip(contents, marks, strict=True)):
        spans = places and _paired(text, content, places[a], places[b])
        found.append((spans or _find_one(render, text, contents, i, a)) if content else [])
    return found


def _find_one(
    render: Callable[[Sequence[str]], str], text: str, contents: Sequence[str], i: int, mark: str
) -> list[Span]:
    """Where one content stands, or what the template leaves of it at its two ends."""
    content = contents[i]

    def instead(changed: str) -> str:
        try:
            return render([*contents[:i], changed, *contents[i + 1 :]])
        except PromptError:
            return ""

    if instead(mark) == text or (not content.strip() and instead("") == text):
        return []  # the text is the same without it

    def marked(at: int) -> str:
        return instead(content[:at] + mark + content[at:])

    start, starts = _edge(marked, text, mark, range(len(content) + 1))
    stop, stops = _edge(marked, text, mark, range(len(content), -1, -1))
    spans = _paired(text, content[start:stop], starts, stops)
    if not spans:
        raise PromptError(
            f"it can't be told which part of the text is message {i} ({excerpt(content, 60)}), which the chat template "
            "rewrites: pass the text, tokenizer.apply_chat_template(messages, tokenize=False), with prepend_bos=False"
        )
    return spans


def _edge(marked: Callable[[int], str], text: str, mark: str, order: Sequence[int]) -> tuple[int, list[int]]:
    """The first of the offsets in a content at which a mark comes through and changes nothing; where it then stands.

    A template that drops a part (an earlier answer's reasoning) drops marks in it, those that come first in
    ``order``; one that trims lets a mark through that keeps spaces from being trimmed, which changes the text.
    """
    kept = 0 if mark in marked(order[0]) else bisect_left(order, True, key=lambda at: mark in marked(at))
    for at in order[kept : kept + _TRIES]:
        before, *after = marked(at).split(mark)
        if after and before + "".join(after) == text:
            pieces = [before, *after[:-1]]
            return at, list(accumulate(map(len, pieces)))
    return 0, []


def _paired(text: str, content: str, starts: Sequence[int], stops: Sequence[int]) -> list[Span] | None:
    """What stands between marks, if that is the content each time."""
    if len(starts) != len(stops):
        return None
    spans = list(zip(starts, stops, strict=True))
    return spans if all(text[start:stop] == content for start, stop in spans) else None


def _places(
    render: Callable[[Sequence[str]], str], text: str, marked: Sequence[str], marks: Sequence[str]
) -> dict[str, list[int]] | None:
    """Where in ``text`` each mark ends up; None if the marks change anything else."""
    try:
        rendered = render(marked)
    except PromptError:  # a template may look into a content and refuse the marked one
        return None
    found: dict[str, list[int]] = {mark: [] for mark in marks}
    pieces, length = [], 0
    for piece in re.split(f"([{''.join(marks)}])", rendered):
        if piece in found:
            found[piece].append(length)
        else:
            pieces.append(piece)
            length += len(piece)
    return found if "".join(pieces) == text else None


def _unused(*texts: str) -> Iterator[str]:
    """Characters that occur in none of the texts, from Unicode's planes for private use."""
    used = set().union(*texts)
    return (char for char in map(chr, range(0xF0000, 0x10FFFE)) if char not in used)
