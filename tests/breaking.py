"""A yardstick of someone's own, with a fault in it while the file ``broken`` lies in the working directory."""

from pathlib import Path

from scorelab.evaluation import EvaluationContext, Result, Yardstick


class Breaks(Yardstick):
    """Shows the network three images, then fails, or says how many they were."""

    names = ("mine", "mine_too")

    def cost(self, case: EvaluationContext) -> int:
        return 3

    def run(self, case: EvaluationContext, left: int | None) -> Result:
        x0, labels = (each[:3] for each in case.held_out_data())
        case.denoiser(x0, x0.new_full((3,), 0.5), labels)
        if Path("broken").exists():
            raise RuntimeError("a fault of\n  its own")
        return Result({"mine": 3.0, "mine_too": 4.0}, {}, 3)
