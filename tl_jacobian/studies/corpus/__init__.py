"""A job over 10 to 100,000 prompts: in batches, on one device or many, and never lost.

``run_corpus`` computes a record for each prompt and writes them to a folder, shard by shard; killed at any
moment, it goes on where it was. A job is anything that makes records of prompts: ``attribute_corpus`` runs a scope.
"""

from tl_jacobian.studies.corpus.jobs import Job, ScopeJob, prompt_generator
from tl_jacobian.studies.corpus.read import CorpusPrompt, read_corpus
from tl_jacobian.studies.corpus.run import RunReport, attribute_corpus, read_attributions, run_corpus, tokenizer_of
from tl_jacobian.studies.corpus.store import each_record, read_records, read_settings

__all__ = [
    "CorpusPrompt",
    "Job",
    "RunReport",
    "ScopeJob",
    "attribute_corpus",
    "each_record",
    "prompt_generator",
    "read_attributions",
    "read_corpus",
    "read_records",
    "read_settings",
    "run_corpus",
    "tokenizer_of",
]
