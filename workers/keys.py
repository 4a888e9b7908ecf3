"""Names by content: equal requests and equal results have equal names."""

import hashlib
import json
from typing import Any


def content_key(*parts: Any) -> str:
    """SHA-256 over the parts as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
