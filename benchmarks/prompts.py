"""Prompts to measure on: files of the caller's (a JSON list of texts or of {"text": ...}), or a few built in."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

BUILT_IN = (
    "The old lighthouse keeper counted the ships that passed below, and wrote each of them down in a book that",
    "German: Der Zug fuhr durch den Regen, und niemand sprach ein Wort. English: The train drove through the rain, and",
    "As a smart and honest assistant, I always try to be nice and helpful, but some questions are",
    "To bake good bread you need flour, water, salt, yeast and above all",
)


def add_arguments(parser: argparse.ArgumentParser, count: int, tokens: int) -> None:
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="JSON files of prompts (default: built in)")
    parser.add_argument("--count", type=int, default=count, help="prompts in all")
    parser.add_argument("--tokens", type=int, default=tokens, help="tokens of each prompt at most")


def read(args: argparse.Namespace, tokenizer: Any) -> list[list[int]]:
    """Token ids of the prompts asked for, spread evenly over the files."""
    if not args.data:
        texts = list(BUILT_IN[: args.count])
    else:
        share = -(-args.count // len(args.data))
        texts = [text for path in args.data for text in _texts(path)[:share]]
    return [tokenizer(text)["input_ids"][: args.tokens] for text in texts]


def _texts(path: Path) -> list[str]:
    items = json.loads(path.read_text(encoding="utf-8"))
    return [item if isinstance(item, str) else item["text"] for item in items]
