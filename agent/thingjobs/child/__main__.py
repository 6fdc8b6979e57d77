"""`python -I -m thingjobs.child`."""

from __future__ import annotations

import sys

from thingjobs.child import main

sys.exit(main(sys.argv[1:]))
