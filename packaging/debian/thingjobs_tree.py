"""Makes the folder this file stands in, when it was put on `sys.path`, a whole installation.

The agent and its libraries are in this folder, where no other Python program of the machine meets them. Handler
packages are not part of it: those of the distribution are found by themselves, and those of teams are looked for in
HANDLERS, a folder that belongs to no version of Python and to no version of thingjobs:

    pip install --target /usr/local/lib/thingjobs --upgrade PACKAGE

It comes last, so that nothing in it can take the place of a module of the agent.
"""

import sys

HANDLERS = "/usr/local/lib/thingjobs"

if sys.version_info < (3, 11):  # noqa: UP036 - an archive may come to any machine
    sys.exit("thingjobs: cannot start: it needs Python 3.11 or newer, and this one is " + sys.version.split()[0])

if HANDLERS not in sys.path:
    sys.path.append(HANDLERS)
