"""``python -m esamp``: the command line."""

from esamp.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
