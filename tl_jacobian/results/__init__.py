"""Values that everything above hands out: they know no model and no renderer."""
