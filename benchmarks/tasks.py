"""Prompts whose right explanation is known, because they were made so: generated, from a seed, for any model."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A prompt, what it should be answered with, and which part of it says so.

    Attributes:
        prompt, answer: texts.
        segments: parts of the prompt by name, as ``Attribution.segments`` takes them.
        evidence: the name of the part that the answer needs.
        kind: of which template.
    """

    prompt: str
    answer: str
    segments: dict[str, str]
    evidence: str
    kind: str = ""


# What a passage says of its own key, and how it is asked for; both hold the key, the passage alone the value.
_TEMPLATES = {
    "room": ("{name} works in room {number}.", "{name} works in room", " {number}"),
    "platform": (
        "The train to {city} leaves from platform {number}.",
        "The train to {city} leaves from platform",
        " {number}",
    ),
    "pet": ("{name} has a dog called {pet}.", "The dog of {name} is called", " {pet}"),
    "parcel": ("The parcel for {city} was packed by {other}.", "The parcel for {city} was packed by", " {other}"),
    "price": ("A ticket to {city} costs {number} dollars.", "A ticket to {city} costs", " {number}"),
}
_VALUES = {
    "name": ("Mary", "Peter", "Susan", "Robert", "Helen", "George", "Laura", "Frank"),
    "city": ("Oslo", "Madrid", "Vienna", "Dublin", "Athens", "Warsaw", "Lisbon", "Prague"),
    "pet": ("Max", "Bella", "Rocky", "Daisy", "Oscar", "Ruby", "Lucky", "Coco"),
    "other": ("Anna", "David", "Julia", "Simon", "Karen", "Martin", "Nora", "Victor"),
    "number": tuple(map(str, range(12, 98, 7))),
}
# Of different lengths, so that it shows whether length is mistaken for evidence.
_FILLERS = (
    "",
    " It is a quiet place.",
    " Nobody was surprised when they heard about it.",
    " That was decided last week, after a long talk about the plans for the summer.",
)


def passages(n: int, seed: int = 0, *, among: int = 4) -> list[Task]:
    """Exactly one of several passages holds what the answer needs; the others say the same of something else.

    Templates take turns, the evidence's place is uniform, and each passage gets a second sentence of a random length.

    >>> task = passages(1)[0]
    >>> task.answer.strip() in task.segments[task.evidence], len(task.segments)
    (True, 4)
    """
    rng = random.Random(seed)
    places = [i % among for i in range(n)]
    rng.shuffle(places)
    return [_passages(rng, list(_TEMPLATES)[i % len(_TEMPLATES)], place, among) for i, place in enumerate(places)]


def _passages(rng: random.Random, kind: str, place: int, among: int) -> Task:
    says, asks, answers = _TEMPLATES[kind]
    drawn = {field: rng.sample(values, among) for field, values in _VALUES.items()}
    facts = [{field: values[i] for field, values in drawn.items()} for i in range(among)]
    said = [says.format(**fact) + rng.choice(_FILLERS) for fact in facts]
    return Task(
        prompt="\n".join(said) + "\n\n" + asks.format(**facts[place]),
        answer=answers.format(**facts[place]),
        segments={f"passage {i + 1}": text for i, text in enumerate(said)},
        evidence=f"passage {place + 1}",
        kind=kind,
    )
