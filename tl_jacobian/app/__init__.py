"""The live view: one state machine, and its two homes, a notebook cell and a web page."""
