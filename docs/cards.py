"""Draw docs/cards.png, the weight cards that the README shows: make figures."""

from pathlib import Path

from torch import nn

from scorelab.config.check import instantiate
from scorelab.config.groups import choices
from scorelab.denoisers import Eps, FixedSmall, NetworkDenoiser
from scorelab.losses import Uniform, weight_card
from scorelab.report.card import draw_cards

HERE = Path(__file__).parent
LOSSES, SCHEDULES = (choices(group, [HERE.parent / "configs"]) for group in ("loss", "schedule"))

panels = {}
for name in ("linear", "cosine"):
    schedule = instantiate(SCHEDULES[name], "schedule")
    denoiser = NetworkDenoiser(schedule, nn.Identity(), Eps(), FixedSmall(), levels=256)
    cards = {
        loss: weight_card(denoiser, instantiate(LOSSES[loss], "loss"), Uniform()) for loss in ("simple", "vlb", "dsm")
    }
    panels[f"schedule={name}"] = {f"loss={loss}": card.rows() for loss, card in cards.items()}
draw_cards(HERE / "cards.png", panels)
