"""The values that everything hands out: data, selection, files. They know no model and no renderer.

Each can be compared, saved, loaded and looked at (:class:`~tl_jacobian.results.base.Value`); what there is to see in
it is plain data (:mod:`~tl_jacobian.results.panels`), which any renderer draws.
"""
