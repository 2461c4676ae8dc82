"""``python -m tl_jacobian``: the command line."""

from tl_jacobian.cli.app import app

app(prog_name="tl-jacobian")
