"""A class that leaves out what its base asks for cannot be made, and is told what it lacks."""

import pytest

from scorelab.data.base import Source
from scorelab.data.synthetic import Synthetic
from scorelab.denoisers import Denoiser, Parameterization, Variance
from scorelab.evaluation import Yardstick
from scorelab.laws import Law
from scorelab.lit.actions import EverySteps
from scorelab.losses import Loss, TimestepSampler, WeightedError
from scorelab.metrics.features import Extractor
from scorelab.samplers import Sampler
from scorelab.schedules import Schedule, VariancePreserving

ASKED = {
    Schedule: {"alpha", "sigma"},
    VariancePreserving: {"log_alpha_bar"},
    Law: {"posterior", "draw", "moments"},
    Denoiser: {"forward"},
    Parameterization: {"estimate"},
    Variance: {"log_variance"},
    Sampler: {"step"},
    Loss: {"forward"},
    WeightedError: {"weight"},
    TimestepSampler: {"draw"},
    Source: {"splits"},
    Synthetic: {"law"},
    Yardstick: {"cost", "run"},
    Extractor: {"features"},
    EverySteps: {"act"},
}


@pytest.mark.parametrize("base", ASKED, ids=lambda base: base.__name__)
def test_a_class_without_what_its_base_asks_for_is_refused_by_that_name(base: type) -> None:
    for left_out in ASKED[base]:
        others = dict.fromkeys(ASKED[base] - {left_out}, lambda *_: None)
        with pytest.raises(TypeError, match=rf"abstract class Half.* abstract method '?{left_out}\b"):
            type("Half", (base,), others)()
