"""A bounded cache that many threads share."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Cache(Generic[Key, Value]):
    """Keeps what was used last, up to a total `weight` (say, bytes). Safe to share between threads.

    Two threads that miss the same key both compute it: values here are cheap and equal.
    """

    def __init__(self, limit: int, weight: Callable[[Value], int]) -> None:
        self._limit = limit
        self._weight = weight
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """The value, None where it is not kept."""
        with self._lock:
            value = self._kept.get(key)
            if value is not None:
                self._kept.move_to_end(key)
            return value

    def put(self, key: Key, value: Value) -> None:
        """Keep `value`, and let go of what was used longest ago where there is no room."""
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
