"""Content keys: equal requests and equal results have equal keys."""

from db.ledger.request_identity import content_key, key_in_set

__all__ = ["content_key", "key_in_set"]
