"""Texts that nobody would write, through everything that reads text: prompts, targets, words, files, the command line.

    python -m benchmarks.fuzz_texts --n 1000    # 0 raw errors is right; a minute on one core

Whatever a text is, it is either explained or refused with an error of the library's own that says why; words are made
of all tokens, each once, and a file gives as many prompts as it has lines with something in them. The model is a small
one with random weights, whose tokens are bytes.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tl_jacobian as tj
from tl_jacobian.cli import app
from tl_jacobian.studies.corpus import read_corpus
from tl_jacobian.studies.corpus.text import text_of
from tl_jacobian.studies.language.words import split_words

KINDS: tuple[Callable[[random.Random], str], ...] = (
    lambda r: chr(r.randrange(0x110000)),  # any code point, surrogates too
    lambda r: chr(r.randrange(0xD800, 0xE000)),
    lambda r: chr(r.randrange(0x20)),
    lambda r: r.choice("\ufeff\u200b\u200d\u2028\u2029\x85\x00\r\n\t \u00a0\u202e\u0301\ufffd"),
    lambda r: r.choice(["\r\n", "<bos>", "<eos>", "<pad>", "</script>", "$1,234.56", "29,30,", "don't", "l’eau"]),
    lambda r: chr(r.randrange(0x0E00, 0x0F00)),  # Thai and Lao
    lambda r: chr(r.randrange(0x3000, 0x3200)),  # kana and what goes with them
    lambda r: chr(r.randrange(0x4E00, 0xA000)),  # Han
    lambda r: chr(r.randrange(0x0900, 0x0E00)),  # scripts of India
    lambda r: chr(r.randrange(0x0590, 0x0700)),  # Hebrew and Arabic
    lambda r: chr(r.randrange(0x1F300, 0x1FB00)),  # emoji
    lambda r: "".join(r.choice("abc xyz.,'1234567890") for _ in range(r.randrange(1, 8))),
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "shift_jis", "gb18030")


def texts(n: int, seed: int) -> Iterator[str]:
    """``n`` texts of one to twelve pieces, each of one kind or of all."""
    r = random.Random(seed)
    for _ in range(n):
        kinds = KINDS if r.random() < 0.5 else [r.choice(KINDS)]
        yield "".join(r.choice(kinds)(r) for _ in range(r.randrange(1, 13)))


def explained(model: Any, text: str) -> None:
    """A prompt's scores by token and by word."""
    lin = tj.linearize(model, text)
    a = tj.temperature_scope(lin)
    assert sum(word.size for word in lin.words) == len(lin.tokens) == len(a)
    assert sum(map(len, a.words().units)) == len(lin.tokens)


def targeted(model: Any, text: str) -> None:
    """The text itself as a target."""
    tj.semantic_scope(tj.linearize(model, "Rome"), text)


def split(model: Any, text: str) -> None:
    for word in split_words(text):
        assert text[word.start : word.stop] == word.text != ""


def edited(model: Any, text: str) -> None:
    tj.language.counterfactuals(model, text, 65, top=1)


def filed(model: Any, text: str) -> None:
    """Files of every kind, in every encoding that has the text."""
    with tempfile.TemporaryDirectory() as folder:
        for encoding in ENCODINGS:
            data = f"{text}\n{text}x".encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
            text_of_or_refused(data)
            for ending in ("txt", "jsonl", "json"):
                path = Path(folder) / f"a.{ending}"
                path.write_bytes(data)
                try:
                    found = read_corpus(path)
                except tj.JacobianScopeError:
                    continue
                assert ending != "txt" or encoding not in ("utf-8", "utf-8-sig") or len(found) == n_lines(text)


def n_lines(text: str) -> int:
    """Lines with something in them of the file that :func:`filed` writes."""
    lines = f"{text}\n{text}x".replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return sum(any(not c.isspace() for c in line.lstrip("\ufeff")) for line in lines)


def text_of_or_refused(data: bytes) -> None:
    try:
        found = text_of(data, "data")
    except tj.JacobianScopeError:
        return
    assert "\r" not in found
    assert "\0" not in found


def on_the_command_line(model: Any, text: str) -> None:
    """As an argument and on standard input, as far as reading goes."""
    stdin, data = sys.stdin, text.encode("utf-8", "surrogatepass")
    sys.stdin = io.TextIOWrapper(io.BytesIO(data))
    try:
        read = app._read("-")
    finally:
        sys.stdin = stdin
    tj.linearize(model, read)
    tj.linearize(model, app._read(text) if text != "-" else "x")


TRIED = (explained, targeted, split, edited, filed, on_the_command_line)


def run(model: Any, n: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """How often each of :data:`TRIED` gave a result or was refused, and what else happened, which is wrong."""
    counts: Counter[str] = Counter()
    wrong = []
    for text in texts(n, seed):
        for fn in TRIED:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    fn(model, text)
                counts[f"{fn.__name__}: done"] += 1
            except tj.JacobianScopeError as error:
                str(error).encode("utf-8")  # can be written to a log
                counts[f"{fn.__name__}: {type(error).__name__}"] += 1
            except Exception as error:
                wrong.append(f"{fn.__name__}({text!a}): {type(error).__name__}: {ascii(str(error))[:200]}")
    return counts, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from cases import make

    counts, wrong = run(make("llama", "bridge"), args.n, args.seed)
    print("\n".join(f"{n:6} {what}" for what, n in sorted(counts.items())))
    print(f"{len(wrong)} raw errors", *wrong[:20], sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
