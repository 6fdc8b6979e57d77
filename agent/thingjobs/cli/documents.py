"""Reading the job documents that a command line names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from thingjobs.errors import DocumentError
from thingjobs.model import Code


def read(name: str) -> object:
    """Return the parsed document in file `name`, or from stdin for `-`.

    Raises:
        DocumentError: it cannot be read, or is not JSON; the reason says where.
    """
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DocumentError(Code.DOCUMENT_INVALID, f"there is no file {name}") from None
    except OSError as error:
        raise DocumentError(Code.DOCUMENT_INVALID, f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DocumentError(Code.DOCUMENT_INVALID, f"{name} is not UTF-8") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DocumentError(Code.DOCUMENT_INVALID, f"it is not JSON: {error.msg} in {where}") from None
    except RecursionError:
        raise DocumentError(Code.DOCUMENT_INVALID, "it is nested too deeply") from None
