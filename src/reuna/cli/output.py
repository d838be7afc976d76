"""How the command line speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
from typing import Any


def as_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2))
