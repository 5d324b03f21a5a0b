"""Where runs are killed, and which kills are dealt to which scenario."""

from dataclasses import dataclass
from random import Random

START, TRAIN, END = range(3)  # the parts of a run, in their order


@dataclass(frozen=True)
class Place:
    """A moment of a run, as tests/faults/killer.py understands it.

    Attributes:
        spec: PLACE of the killer.
        part: the part of a run that it belongs to.
        most: the kill is at the 1st ... ``most``-th time of being there.
        late: the kill is at once or up to so many milliseconds after.
        needs: what a scenario has to have for the place to be reached.
    """

    name: str
    spec: str
    part: int = TRAIN
    most: int = 1
    late: int = 0
    needs: str = ""


EVALUATED = {
    "simple": "scorelab.evaluation.noise_error:NoiseError.run",
    "vlb": "scorelab.evaluation.bound:HeldOutBound.run",
    "fid": "scorelab.evaluation.samples:Frechet.run",
    "memorization": "scorelab.evaluation.samples:Memorization.run",
    "gradient_noise": "scorelab.evaluation.gradient:GradientNoise.run",
    "score_error": "scorelab.evaluation.score:ScoreError.run",
}

PLACES = (
    Place("any time", r"write=/lock$", late=8000),
    Place("start: train.log", r"write=/train\.log$", START),
    Place("start: config.yaml written", r"write=/\.?config\.", START),
    Place("start: config.yaml renamed", r"rename=/config\.yaml$", START, late=3),
    Place("start: status.json", r"rename=/status\.json$", START, late=3),
    Place("start: weight card drawn", r"write=/\.?card\.", START, most=2, late=50),
    Place("start: metrics.csv cut", r"rename=/metrics\.csv$", START, late=3),
    Place("start: state restored", "call=lightning.pytorch.trainer.connectors.checkpoint_connector:"
          "_CheckpointConnector.restore_training_state", START, late=50),
    Place("training step", "call=scorelab.lit.module:DiffusionModule.training_step", most=11, late=100),
    Place("optimiser step", "call=torch.optim.adamw:AdamW.step", most=11),
    Place("averaging", "call=scorelab.lit.ema:Following.follow", most=11, needs="averaging"),
    Place("validation", "call=scorelab.evaluation.noise_error:noise_error", most=2, late=100),
    Place("end of a step", "call=scorelab.lit.checkpointing:Checkpointing.end_of_step", most=11),
    Place("checkpoint taken", "call=scorelab.lit.checkpointing:Checkpointing.save", most=2, late=20),
    Place("checkpoint's thread", "call=scorelab.run.checkpoints:write_checkpoint", most=2, late=20),
    Place("checkpoint opened", r"write=/checkpoints/", most=2, late=20),
    Place("checkpoint linked", r"rename=/checkpoints/\.", most=3),
    Place("previous.ckpt renamed", r"rename=/previous\.ckpt$", late=3),
    Place("best.ckpt renamed", r"rename=/best\.ckpt$", most=2, late=10),
    Place("last.ckpt renamed", r"rename=/last\.ckpt$", most=2, late=10),
    Place("grid drawn", "call=scorelab.lit.callbacks:SampleGrid.act", late=300, needs="grid"),
    Place("grid written", r"write=/samples/", late=10, needs="grid"),
    Place("grid renamed", r"rename=/samples/", late=3, needs="grid"),
    Place("metrics.csv appended", r"write=/metrics\.csv$", most=4, late=1),
    Place("metrics.csv rewritten", r"rename=/metrics\.csv$", most=3, late=1),
    Place("status.json written", r"write=/\.?status\.json", most=3, late=3),
    Place("evaluating", "call=scorelab.evaluation.results:run_yardsticks", END, late=500),
    *(Place(f"evaluating: {part}", f"call={run}", END, late=200, needs=part) for part, run in EVALUATED.items()),
    Place("metrics.json written", r"write=/\.?metrics\.json", END, late=2),
    Place("metrics.json renamed", r"rename=/metrics\.json$", END, late=5),
)  # fmt: skip


@dataclass(frozen=True)
class Kill:
    """One kill: where, at which time of being there, how many milliseconds after, and whom."""

    place: Place
    nth: int
    delay: float
    whom: str

    @property
    def words(self) -> tuple[str, ...]:
        """What the killer is told."""
        return (self.place.spec, str(self.nth), str(self.delay), self.whom)


def drawn(place: Place, whom: tuple[str, ...], random: Random) -> Kill:
    """A kill at this place; half of those that may come late come at once."""
    delay = round(random.uniform(0, place.late), 1) if random.random() < 0.5 else 0
    possible = [each for each in whom if each in ("main", "group") or place.part == TRAIN]
    return Kill(place, random.randint(1, place.most), delay, random.choice(possible))


def dealt(needs: list[set[str]], kills: int, random: Random) -> list[list[Place]]:
    """So many places for each of several scenarios, by what it has; as cards are dealt, so that all are seen.

    In the order of a run, so that an early place can still be reached.
    """
    deck: list[Place] = []
    hands: list[list[Place]] = []
    for has in needs:
        hand: list[Place] = []
        while len(hand) < kills:
            fitting = [place for place in deck if place.needs in has | {""} and place not in hand]
            if not fitting:
                deck += random.sample(PLACES, len(PLACES))
                continue
            deck.remove(fitting[0])
            hand.append(fitting[0])
        hands.append(sorted(hand, key=lambda place: place.part))
    return hands
