"""The words that go on with a run: those that were typed, where they name it; else these and its name."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from scorelab.run.identity import key_of

SAME = "the same command"


@dataclass
class Typed:
    """A command as it was typed: the program, and the words after it; which keys its jobs differ in."""

    program: str = ""
    words: list[str] = field(default_factory=list)
    swept: tuple[str, ...] = ()

    def remember(self, argv: Sequence[str]) -> None:
        """Keep the words, which are rewritten before Hydra reads them."""
        self.program, self.words = argv[0], list(argv[1:])

    def again(self, run: str, sweep: bool) -> str:
        """What goes on with a run of this name, or with the sweep that it belongs to, whose name is never the clock's.

        A run that nobody named has to be named now, and ``overwrite=true`` would start it anew.
        """
        kept = [word for word in self.words if not anew(word)]
        named = sweep or any(key_of(word) == "run" for word in kept)
        if named and kept == self.words:
            return SAME
        return shlex.join([sys.orig_argv[0], self.program, *kept, *([] if named else [f"run={run}"])])


def anew(word: str) -> bool:
    """Whether a word asks for a run to be begun anew."""
    return key_of(word) == "overwrite" and word.partition("=")[2].strip("'\"").lower() in ("true", "yes", "on", "1")


TYPED = Typed()
