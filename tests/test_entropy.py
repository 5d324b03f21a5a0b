"""Times drawn by how much is decided there: as it is known, and as it is learned."""

import io

import pytest
import torch
from exact_cases import seeded
from test_configs import built

from scorelab.errors import Refusal
from scorelab.losses import EDGES, Entropy
from scorelab.schedules import Cosine, Flow, Schedule

CENTRES = (EDGES[1:] + EDGES[:-1]) / 2


def bump(log_snr: torch.Tensor) -> torch.Tensor:
    return torch.exp(-0.5 * ((log_snr - 2) / 1.5) ** 2)


def drawn(law: Entropy, schedule: Schedule, n: int = 40_000) -> torch.Tensor:
    return schedule.log_snr(law.draw(schedule, n, 0, 0, 1, seeded()).t)


@pytest.mark.parametrize("schedule", [Flow(), Cosine(1000)], ids=lambda each: type(each).__name__)
def test_times_lie_where_the_rate_is_and_a_tenth_of_them_anywhere(schedule: Schedule) -> None:
    log_snr = drawn(Entropy(least=bump(CENTRES)), schedule)
    middle = log_snr[(log_snr > -2.5) & (log_snr < 6.5)]
    assert len(middle) / len(log_snr) > 0.9
    assert float(middle.mean()) == pytest.approx(2, abs=0.1)
    assert ((log_snr < -5).double().mean() > 0.005) and (log_snr > -20 - 1e-6).all()


def test_what_is_learned_comes_to_the_errors_that_were_seen_and_keeps_to_the_last() -> None:
    law, schedule = Entropy(), Flow()
    for step in range(900):
        t = law.draw(schedule, 256, step, 0, 1, seeded(step)).t
        law.see(schedule, t, bump(schedule.log_snr(t)) if step > 20 else torch.ones(256))
    found, expected = law.density_by_cell, Entropy(least=bump(CENTRES)).density_by_cell
    inside = (CENTRES > -15) & (CENTRES < 12)
    assert torch.allclose(found[inside], expected[inside], atol=0.02)


def test_errors_that_are_no_numbers_are_left_out_and_a_checkpoint_has_all_that_was_seen() -> None:
    law, schedule = Entropy(), Flow()
    t = law.draw(schedule, 2000, 0, 0, 1, seeded()).t
    law.see(schedule, t, torch.where(t < 0.5, torch.nan, 3.0))
    assert law.density_by_cell.isfinite().all()
    file = io.BytesIO()
    torch.save(law.state_dict(), file)
    file.seek(0)
    other = Entropy()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.density_by_cell, law.density_by_cell)


def test_what_is_known_is_not_learned() -> None:
    law = Entropy(least=bump(CENTRES))
    before = law.density_by_cell
    law.see(Flow(), law.draw(Flow(), 500, 0, 0, 1, seeded()).t, torch.full((500,), 9.0))
    assert torch.equal(law.density_by_cell, before)


def test_a_run_on_a_known_law_is_told_the_rate_and_one_on_other_data_learns_it() -> None:
    known = built("data=gaussian", "timesteps=entropy").module.timesteps
    assert known.least is not None and (known.least > 0).all()
    assert built("timesteps=entropy", "++model.channels=8").module.timesteps.least is None


@pytest.mark.parametrize("uniform", [0.0, 1.1])
def test_a_share_that_is_none_is_refused(uniform: float) -> None:
    with pytest.raises(Refusal, match="uniform must lie in"):
        Entropy(uniform)
