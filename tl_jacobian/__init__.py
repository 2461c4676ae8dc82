"""Jacobian Scopes for TransformerLens: which input tokens drove this prediction.

Method: "Jacobian Scopes: token-level causal attributions in LLMs", arXiv 2601.16407.

The public names stand in ``__init__.pyi``; types of what functions take and give besides are in the modules that make
them. Each is imported when it is first asked for, so that importing the library, or ``tl-jacobian --help``, waits
neither for PyTorch nor for TransformerLens. (``EAGER_IMPORT=1`` in the environment imports all of them at once.)
"""

import importlib

import lazy_loader

from tl_jacobian.results.drawing import draw_with

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Values say what there is to see; what draws it is loaded when something is first drawn.
draw_with(lambda: importlib.import_module("tl_jacobian.render"))
