"""Which numbers are the better the more they are; of all other yardsticks, the less."""

MORE = ("is", "precision", "recall", "recognised", "rarest_class")
FLOORS = ("_floor", "_control", "_exact")  # what a number is to be compared with is no goal


def goal(name: str) -> str | None:
    """``maximize`` or ``minimize`` for a yardstick's number (test/fid, val/simple); None for what is no yardstick."""
    split, _, number = name.rpartition("/")
    if split.partition("/")[0] not in ("test", "val") or number.endswith(FLOORS):
        return None
    return "maximize" if number in MORE else "minimize"
