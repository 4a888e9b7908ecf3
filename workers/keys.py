"""Names by content: equal requests and equal results have equal names."""

from db.questions import content_key, key_in_set

__all__ = ["content_key", "key_in_set"]
