"""Prompts whose right explanation is known, because they were made so: generated, from a seed, for any model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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


# -- in context: keys, names, needles, examples ------------------------------------------------

_THINGS = [
    "apple",
    "river",
    "candle",
    "window",
    "garden",
    "silver",
    "doctor",
    "bridge",
    "pencil",
    "forest",
    "basket",
    "engine",
]
_FIRST = ["Anna", "Carl", "Dora", "Emil", "Greta", "Hugo", "Irma", "Karl", "Lena", "Max", "Nora", "Otto"]
_LAST = [
    "Baker",
    "Carter",
    "Fisher",
    "Hunter",
    "Mason",
    "Miller",
    "Porter",
    "Smith",
    "Taylor",
    "Turner",
    "Walker",
    "Weaver",
]
_IDLE = (
    "The weather was mild that day.",
    "A dog barked in the street.",
    "She closed the old book.",
    "The train left on time.",
    "He bought bread and milk.",
    "The lamp was still on.",
    "Rain fell on the roof.",
    "They walked to the lake.",
    "The clock had stopped.",
    "A letter lay on the table.",
)
_COPIED = ["Arm", "Hand", "Ring", "Wind", "Finger", "Winter", "Sand", "Land", "Wolf", "Gold"]
_TRANSLATED = {"Hund": "dog", "Haus": "house", "Wasser": "water", "Baum": "tree", "Buch": "book", "Brot": "bread"}
_ASKED = {"Katze": "cat", "Vogel": "bird", "Mutter": "mother", "Freund": "friend", "Nacht": "night", "Milch": "milk"}


def key_value(g: np.random.Generator) -> Task:
    """Six keys and numbers; one key again."""
    keys, numbers, at = g.permutation(_THINGS)[:6], g.permutation(np.arange(11, 99))[:6], int(g.integers(6))
    lines = tuple(f"{key}: {number}" for key, number in zip(keys, numbers, strict=True))
    return _numbered("\n".join(lines) + f"\n{keys[at]}:", f" {numbers[at]}", lines, at)


def induction(g: np.random.Generator) -> Task:
    """Six names; one first name again, whose last name follows."""
    first, last, at = g.permutation(_FIRST)[:6], g.permutation(_LAST)[:6], int(g.integers(6))
    names = tuple(f"{a} {b}" for a, b in zip(first, last, strict=True))
    return _numbered(", ".join(names) + f", {first[at]}", f" {last[at]}", names, at)


def needle(g: np.random.Generator) -> Task:
    """One sentence that matters among five that don't."""
    at, number = int(g.integers(6)), int(g.integers(11, 99))
    lines = [str(line) for line in g.permutation(_IDLE)[:5]]
    lines.insert(at, f"The secret number is {number}.")
    return _numbered(" ".join(lines) + " What is the secret number? It is", f" {number}", tuple(lines), at)


def disambiguation(g: np.random.Generator) -> Task:
    """Copy or translate? Five examples fit both, one only the translation."""
    at, words = int(g.integers(6)), g.permutation(_COPIED)[:5]
    lines = [f"{word} = {word.lower()}" for word in words]
    one, asked = str(g.choice(list(_TRANSLATED))), str(g.choice(list(_ASKED)))
    lines.insert(at, f"{one} = {_TRANSLATED[one]}")
    return _numbered("\n".join(lines) + f"\n{asked} =", f" {_ASKED[asked]}", tuple(lines), at)


def _numbered(prompt: str, answer: str, segments: Sequence[str], evidence: int) -> Task:
    """Segments by their place."""
    return Task(prompt, answer, {str(i): text for i, text in enumerate(segments)}, str(evidence))
