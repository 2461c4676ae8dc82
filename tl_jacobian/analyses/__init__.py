"""Analyses: one linearization, asked. The scopes, what they are compared with, and views of the model's inside."""
