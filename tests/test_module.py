"""What one training step computes, clips and trains, seen with a trainer that has nothing but its numbers."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scorelab.denoisers import Eps, FixedSmall, NetworkDenoiser
from scorelab.lit.module import DiffusionModule
from scorelab.lit.optim import Constant
from scorelab.lit.record import StepRecord
from scorelab.losses import Example, Loss, Simple, Terms, Timesteps, TimestepSampler
from scorelab.networks import MLP
from scorelab.samplers import DDIM
from scorelab.schedules import Cosine

BATCH = torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)


class Uneven(TimestepSampler):
    """The same times for all, of weights 0, 1 and 2; notes the shares it was asked for and what it has learned."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int, int]] = []
        self.learned: list[Tensor] = []

    def draw(self, schedule: Any, n: int, step: int, rank: int, world: int, generator: Any) -> Timesteps:
        self.asked.append((step, rank, world))
        return Timesteps(torch.linspace(0.2, 0.8, n, dtype=torch.float64), torch.arange(n, dtype=torch.float32))

    def update(self, t: Tensor, losses: Tensor) -> None:
        self.learned.append(losses)


class Toy(Loss):
    """Losses 2, 3 and 5, times a parameter of its own; notes the noise it is shown and what it draws itself."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.fixed = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, denoiser: Any, example: Example, generator: Any = None) -> Terms:
        self.seen = example.eps, torch.rand(4, generator=generator), torch.rand(4)
        losses = self.scale * torch.tensor([2.0, 3.0, 5.0])
        return Terms(losses, {"half": losses / 2})


@dataclass
class FakeTrainer:
    """What a step reads of a trainer; the other processes found what this one did."""

    global_step: int = 0
    accumulate_grad_batches: int = 1
    global_rank: int = 0
    world_size: int = 1
    strategy: Any = field(init=False)

    def __post_init__(self) -> None:
        self.strategy = SimpleNamespace(all_gather=lambda mine, **_: torch.stack([mine] * self.world_size).squeeze(0))


def module_of(normalizer: float = 1.0, seed: int = 0, **trainer: int) -> DiffusionModule:
    denoiser = NetworkDenoiser(Cosine(), MLP((2,), width=2, blocks=1), Eps(), FixedSmall())
    optimizer, rates = (lambda parameters: torch.optim.SGD(parameters, lr=1.0)), (lambda made: Constant(made, 10))
    module = DiffusionModule(denoiser, Toy(), Uneven(), DDIM(2), optimizer, rates, seed, normalizer)
    module.trainer = FakeTrainer(**trainer)
    return module


def test_the_loss_to_train_on_is_the_weighted_mean_over_the_normalizer_and_the_one_told_is_before_it() -> None:
    module = module_of(normalizer=4.0)
    loss = module.training_step(BATCH, 0)
    weighted = (0 * 2 + 1 * 3 + 2 * 5) / 3
    assert float(loss.detach()) == pytest.approx(weighted / 4)
    loss.backward()
    assert float(module.loss.scale.grad) == pytest.approx(weighted / 4)
    assert float(module.record.loss) == pytest.approx(weighted)
    assert float(module.record.parts["half"]) == pytest.approx(weighted / 2)
    assert module.record.losses.tolist() == [2, 3, 5], "without weights"
    assert [each.tolist() for each in module.timesteps.learned] == [[2, 3, 5]]


class Counted(Cosine):
    """Notes how often it is asked for alpha."""

    asked = 0

    def alpha(self, t: Tensor) -> Tensor:
        self.asked += 1
        return super().alpha(t)


def test_noising_and_reading_the_network_ask_the_schedule_once() -> None:
    module = module_of()
    module.denoiser.schedule, module.loss = Counted(), Simple()
    module.training_step(BATCH, 0)
    assert module.denoiser.schedule.asked == 1
    module.training_step(BATCH, 1)
    assert module.denoiser.schedule.asked == 2


def drawn(index: int, seed: int = 0, **trainer: int) -> list[list[float]]:
    """The noise of one step's batch, and what its loss and its dropout would draw."""
    module = module_of(seed=seed, **trainer)
    for part in range(index + 1):
        module.training_step(BATCH, part)
    return [each.flatten().tolist() for each in module.loss.seen]


@pytest.mark.parametrize(
    ("index", "other"),
    [
        (0, {"seed": 1}),
        (0, {"global_step": 7}),
        (0, {"world_size": 2, "global_rank": 1}),
        (1, {"accumulate_grad_batches": 2}),
    ],
    ids=["seed", "step", "rank", "part"],
)
def test_a_steps_noise_is_its_own_by_seed_step_rank_and_accumulated_batch(index: int, other: dict[str, int]) -> None:
    first, again = drawn(0), drawn(0)
    assert first == again, "a function of them alone"
    for one, two in zip(first, drawn(index, **other), strict=True):
        assert set(one).isdisjoint(two)


def test_ranks_and_accumulated_batches_are_shares_of_one_draw_of_times() -> None:
    asked = []
    for rank in range(2):
        module = module_of(global_step=5, accumulate_grad_batches=3, global_rank=rank, world_size=2)
        for index in range(3):
            module.training_step(BATCH, index)
        asked += module.timesteps.asked
    assert sorted(asked) == [(5, share, 6) for share in range(6)]


def test_what_is_on_record_of_an_accumulated_step_is_all_its_samples_and_its_last_loss() -> None:
    module = module_of(accumulate_grad_batches=2)
    for index in range(3):
        module.loss.scale.data.fill_(1 + index)
        module.training_step(BATCH, index)
        seen = [2, 3, 5] if index % 2 == 0 else [2, 3, 5, 4, 6, 10]
        assert module.record.losses.tolist() == [each * (3 if index == 2 else 1) for each in seen]
        assert len(module.record.t) == len(seen)
        assert float(module.record.loss) == pytest.approx((1 + index) * 13 / 3)


@pytest.mark.parametrize(("limit", "kept"), [(None, 1.0), (10.0, 1.0), (1.0, 0.2)])
def test_gradients_are_clipped_to_the_norm_of_all_and_told_before(limit: float | None, kept: float) -> None:
    module = module_of()
    module.record = StepRecord(torch.zeros(()), {}, torch.zeros(1), torch.zeros(1))
    one, two, none = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    one.grad, two.grad = torch.tensor([3.0]), torch.tensor([4.0])
    module.configure_gradient_clipping(torch.optim.SGD([one, two, none], lr=1.0), limit)
    assert float(module.record.gradient_norm) == pytest.approx(5)
    assert [float(one.grad), float(two.grad)] == pytest.approx([3 * kept, 4 * kept], rel=1e-5)


def test_the_norm_of_no_gradients_at_all_is_where_the_others_are() -> None:
    """A step that was left out has none: its zero is added up with the norms of other steps."""
    module = module_of().to("meta")
    module.record = StepRecord(torch.zeros(()), {}, torch.zeros(1), torch.zeros(1))
    module.measure_gradients(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0))
    assert module.record.gradient_norm.device.type == "meta"


def test_what_a_loss_has_of_its_own_is_trained_beside_the_network_and_what_is_fixed_is_not() -> None:
    module = module_of()
    next(module.denoiser.parameters()).requires_grad_(False)
    module.average()
    found = [p for group in module.configure_optimizers()["optimizer"].param_groups for p in group["params"]]
    wanted = [*list(module.denoiser.parameters())[1:], module.loss.scale]
    assert [id(p) for p in found] == [id(p) for p in wanted]


def test_a_law_of_times_learns_from_a_whole_accumulated_batch_at_once() -> None:
    module = module_of(accumulate_grad_batches=2)
    for index in range(2):
        module.loss.scale.data.fill_(1 + index)
        module.training_step(BATCH, index)
        assert len(module.timesteps.learned) == index
    assert [each.tolist() for each in module.timesteps.learned] == [[2, 3, 5, 4, 6, 10]]
