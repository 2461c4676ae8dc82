"""Studies of many prompts: corpora, evaluations, time series, language."""
