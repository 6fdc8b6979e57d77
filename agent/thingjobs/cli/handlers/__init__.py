"""What handlers there are on this device, what is wrong with them, and new ones.

Exit code: 0 done, or all is well; 1 a handler has a problem, or there is none of that name; 2 the call is wrong.
"""

from __future__ import annotations

import importlib
from typing import Any

from thingjobs.cli import options, print_help

#: The actions in the order of the help; each is a module here.
ACTIONS = ("list", "show", "check", "new")
_MODULES = {"list": "listing", "show": "show", "check": "check", "new": "new"}


def add_to(commands: Any) -> None:
    """Add this command and what it can do."""
    parser = options.new_parser(commands, "handlers", "list, show, check and make handlers", __doc__)
    parser.set_defaults(command=print_help)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    for action in ACTIONS:
        importlib.import_module(f"{__name__}.{_MODULES[action]}").add_to(actions)
