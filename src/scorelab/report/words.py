"""Numbers as one says them."""

import math


def span(seconds: float) -> str:
    """A time as one says it: 40 s, 2.3 min, 1.4 h, 3.0 days."""
    if not math.isfinite(seconds):
        return "unknown time"
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
