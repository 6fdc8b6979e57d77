"""`python -m thingjobs`: the same as the command `thingjobs`."""

import sys

from thingjobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
