"""`python -m retigrade` is the `retigrade` command."""

import sys

from retigrade.cli import main

if __name__ == "__main__":
    sys.exit(main())
