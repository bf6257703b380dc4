"""``python -m flowlib.train``: see ``--help``."""

import sys

from flowlib.train.command import main

if __name__ == "__main__":
    sys.exit(main())
