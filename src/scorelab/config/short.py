"""data.KEY for a key of the data set: what is typed short, and where it belongs."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LONG, SHORT = "data.source.", "data."


@dataclass(frozen=True)
class ShortKeys:
    """What may be typed as data.KEY.

    Attributes:
        own: keys of the class of ``data``; a key that both take is its.
        its: keys of the class of ``data.source``.
        given: those of ``data`` that the program sets.
        free: whether one of the two takes any key.
    """

    own: frozenset[str]
    its: frozenset[str]
    given: frozenset[str]
    free: bool

    @classmethod
    def of(cls, data: type, source: type, given: Iterable[str]) -> "ShortKeys":
        """By the signatures of the two classes."""
        takes = [inspect.signature(each).parameters for each in (data, source)]
        free = any(each.kind is each.VAR_KEYWORD for one in takes for each in one.values())
        return cls(frozenset(takes[0]), frozenset(takes[1]), frozenset(given), free)

    @property
    def known(self) -> frozenset[str]:
        """All that may be typed."""
        return (self.own | self.its) - self.given - {"source"}

    def unknown(self, key: str) -> bool:
        """Whether neither class takes a key."""
        return not (self.free or key == "_target_" or key in self.own | self.its)

    def in_place(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The node ``data`` with its data set's keys in ``source``, where they go before what stands there."""
        moved = {key: value for key, value in data.items() if key in self.its and key not in self.own}
        kept = {key: value for key, value in data.items() if key not in moved}
        return kept | {"source": data["source"] | moved}


def has_source(plain: Mapping[str, Any]) -> bool:
    """Whether a config has data whose data set is a node of its own."""
    node = plain.get("data")
    source = node.get("source") if isinstance(node, dict) and "_target_" in node else None
    return isinstance(source, dict) and "_target_" in source


def short(key: str) -> str:
    """A key as it is typed."""
    return SHORT + key.removeprefix(LONG) if key.startswith(LONG) else key
