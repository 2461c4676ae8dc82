"""Studies of many prompts: corpora, evaluations, time series, language."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["corpus", "evaluation", "language", "timeseries"])
