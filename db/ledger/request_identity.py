"""The identity of a request, by content: equal requests have equal keys, whatever the image set is called.

A result is found by its question, its set and its image. The set's name is added to the key last: a renamed
set takes its rows along, and another set that takes the old name finds none of them.
"""

import hashlib
import json
from typing import Any


def content_key(*parts: Any) -> str:
    """SHA-256 of the parts as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def key_in_set(question: str, image_set: str, *image_id: int) -> str:
    """The key of a question about a set, or about one image of it."""
    return content_key(question, image_set, *image_id)
