"""`python -m runtimed` is `runtimed`."""

import sys

from runtimed.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
