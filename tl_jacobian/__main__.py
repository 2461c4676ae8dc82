"""``tl-jacobian`` and ``python -m tl_jacobian``: the command line."""

from tl_jacobian.cli.interrupts import INTERRUPTED, at_once, never_more


def main() -> None:
    """Run the command that the arguments name."""
    try:
        with at_once():
            from tl_jacobian.cli.app import app
        app(prog_name="tl-jacobian")
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    finally:
        never_more()


if __name__ == "__main__":
    main()
