"""Texts that nobody would write: explained or refused, never anything else; benchmarks/fuzz_texts.py tries more."""

from __future__ import annotations

from cases import shared

from benchmarks.fuzz_texts import TRIED, run, targeted


def test_odd_texts_are_explained_or_refused(unchecked):
    counts, wrong = run(shared("llama", "bridge"), 20)
    assert not wrong
    assert counts.total() == 20 * len(TRIED)
    assert min(counts[f"{fn.__name__}: done"] for fn in TRIED if fn is not targeted) > 0
    assert counts["explained: PromptError"] > 0
