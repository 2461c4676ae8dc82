"""A job over 10 to 100,000 prompts: in batches, on one device or many, and never lost.

``run_corpus`` computes a record for each prompt and writes them to a folder, shard by shard; killed at any
moment, it goes on where it was. A job is anything that makes records of prompts: ``attribute_corpus`` runs a scope.
"""

from tl_jacobian.corpus.attributions import attribute_corpus, read_attributions
from tl_jacobian.corpus.job import Job
from tl_jacobian.corpus.prompt import CorpusPrompt
from tl_jacobian.corpus.read import read_corpus
from tl_jacobian.corpus.records import each_record, read_records, read_settings
from tl_jacobian.corpus.run import RunReport, run_corpus
from tl_jacobian.corpus.scope_job import ScopeJob, prompt_generator
from tl_jacobian.corpus.tokenizer import tokenizer_of

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
