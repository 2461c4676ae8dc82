"""Language: words of translations aligned, alignments scored against gold links, and words of prompts edited.

The paper's case studies as measurements: figures 3, 6 and 13 (translation) and 1, 2 and 7 (instructions, bias,
a mystery). Results are plain values: :class:`WordAlignment`, :class:`Counterfactuals`.
"""

from tl_jacobian.results.alignment import AlignedWord, Link, WordAlignment, parse_links
from tl_jacobian.results.counterfactuals import Counterfactuals, Edit, RankAgreement
from tl_jacobian.studies.language.align import word_alignment
from tl_jacobian.studies.language.counterfactual import counterfactuals
from tl_jacobian.studies.language.passages import segment_counterfactuals
from tl_jacobian.studies.language.score import (
    AlignedPair,
    AlignmentScore,
    LinkScore,
    aligned_pairs,
    chance_alignment,
    diagonal_alignment,
    link_score,
    read_pairs,
    score_alignment,
)

__all__ = [
    # which source words drive each word of a translation
    "word_alignment",
    "WordAlignment",
    "AlignedWord",
    "Link",
    # against gold links
    "score_alignment",
    "link_score",
    "parse_links",
    "AlignmentScore",
    "LinkScore",
    # what to beat
    "chance_alignment",
    "diagonal_alignment",
    # pairs with gold links
    "aligned_pairs",
    "read_pairs",
    "AlignedPair",
    # words removed and replaced, passages removed
    "counterfactuals",
    "segment_counterfactuals",
    "Counterfactuals",
    "Edit",
    "RankAgreement",
]
