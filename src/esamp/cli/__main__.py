"""``python -m esamp.cli`` is ``esamp``."""

import sys

from esamp.cli import main

sys.exit(main())
