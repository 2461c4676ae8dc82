"""What a view can begin with: prompts of the paper's kind, a chat, a question over passages, a series of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tl_jacobian.app.methods import METHODS
from tl_jacobian.studies.timeseries import lorenz

# Each is the beginning of a view: the fields of app.asks.View.
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "A reversal": {"prompt": "As a smart and honest AI, I always try to be nice and"},
    "A fact": {
        "prompt": "The Eiffel Tower stands in Paris. The Colosseum stands in Rome. The Brandenburg Gate stands in"
    },
    "A person": {"prompt": "When Mary and John went to the store, John gave a drink to"},
    "A translation": {"prompt": "English: The sea is calm tonight.\nFrench: La mer est calme ce soir.\nEnglish: Good"},
    "A chat": {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant who answers in one word."},
            {"role": "user", "content": "What is the capital of Italy?"},
        ],
        "by": "words",
    },
    "Passages and a question": {
        "prompt": "Passage 1: The Nile flows through Egypt and is the longest river of Africa.\n"
        "Passage 2: The Danube flows through Vienna, Budapest and Belgrade.\n"
        "Passage 3: The Rhine flows from the Alps to the North Sea.\n"
        "Question: Which river flows through Budapest?\nAnswer: The",
        "by": "lines",
    },
    "A series of numbers": {
        "series": [round(float(x), 2) for x in lorenz(48)],
        "scope": "temperature",
    },
}


def hello(models: Mapping[str, Mapping[str, Any]], view: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a view begins with: models, methods, examples, and what is looked at first."""
    methods = {
        name: {
            "title": one.title,
            "explains": one.explains,
            "targeted": one.targeted,
            "contrasts": one.contrasts,
        }
        for name, one in METHODS.items()
    }
    return {
        "models": {name: dict(facts) for name, facts in models.items()},
        "methods": methods,
        "examples": dict(EXAMPLES),
        "view": dict(view or {}),
    }
