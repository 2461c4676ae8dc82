"""Analyses: one linearization, asked. The scopes, what they are compared with, and views of the model's inside."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["baselines", "scopes"])
