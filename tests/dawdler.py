"""Something of a user's own that takes long between steps, for the test of what the logged speed counts."""

import time

from scorelab.lit.actions import EverySteps


class Dawdler(EverySteps):
    """Sleeps ``seconds`` after every ``every``-th step."""

    def __init__(self, every: int = 1, seconds: float = 0.2):
        super().__init__(every)
        self.seconds = seconds

    def act(self, run, step):
        time.sleep(self.seconds)
