"""`python -I -m thingjobs.child`."""

from __future__ import annotations

import sys

from thingjobs.child import end, main

end(main(sys.argv[1:]))
