"""`python -m flowsteer`, as `torchrun -m flowsteer` needs it."""

import sys

from flowsteer.cli import main

if __name__ == "__main__":
    sys.exit(main())
