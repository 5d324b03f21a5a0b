"""Draw docs/cards.png, the weight cards that the README shows: make figures."""

from pathlib import Path

from torch import nn

from scorelab.denoisers import Eps, FixedSmall, NetworkDenoiser
from scorelab.losses import DSM, Simple, Uniform, VariationalBound, weight_card
from scorelab.report.card import draw_cards
from scorelab.schedules import Cosine, Linear

LOSSES = {"simple": Simple(), "vlb": VariationalBound(), "dsm": DSM()}
SCHEDULES = {"schedule=linear": Linear(), "schedule=cosine": Cosine()}

panels = {}
for title, schedule in SCHEDULES.items():
    denoiser = NetworkDenoiser(schedule, nn.Identity(), Eps(), FixedSmall(), levels=256)
    panels[title] = {f"loss={name}": weight_card(denoiser, loss, Uniform()).rows() for name, loss in LOSSES.items()}
draw_cards(Path(__file__).parent / "cards.png", panels)
