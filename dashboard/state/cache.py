"""A bounded, thread-safe cache."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Cache(Generic[Key, Value]):
    """LRU cache with a maximum total `weight` (bytes, for example). Thread-safe.

    Two threads that miss the same key both compute its value: values are cheap to compute and identical.
    """

    def __init__(self, limit: int, weight: Callable[[Value], int]) -> None:
        self._limit = limit
        self._weight = weight
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """The value, None if it is not cached."""
        with self._lock:
            value = self._kept.get(key)
            if value is not None:
                self._kept.move_to_end(key)
            return value

    def put(self, key: Key, value: Value) -> None:
        """Store `value`, evicting the least recently used entries if there is no room."""
        with self._lock:
            old = self._kept.pop(key, None)
            if old is not None:
                self._total -= self._weight(old)
            self._kept[key] = value
            self._total += self._weight(value)
            while self._total > self._limit and self._kept:
                _, dropped = self._kept.popitem(last=False)
                self._total -= self._weight(dropped)

    def __len__(self) -> int:
        return len(self._kept)
