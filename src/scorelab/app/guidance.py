"""Guidance, as eval and sample are asked for it."""

from typing import Any

from scorelab.denoisers import Denoiser, Guided
from scorelab.errors import Refusal, UserError


def guided(denoiser: Denoiser, own: dict[str, Any], config: dict[str, Any]) -> Denoiser:
    """The denoiser, led towards its labels where guidance= is not 1.

    Raises:
        UserError: for a run that knows no labels, or never did without.
    """
    scale, interval = float(own["guidance"]), own["guidance_log_snr"]
    if scale == 1:
        if interval is not None:
            raise UserError("guidance_log_snr= says where guidance= is: give that, too")
        return denoiser
    model = config["model"]
    if not model.get("conditional"):
        raise UserError(
            f"guidance={scale:g}: this run was trained without labels; model.conditional=true model.label_dropout=0.1 "
            "trains with and without"
        )
    if "label_dropout" in model and not model["label_dropout"]:
        raise UserError(
            f"guidance={scale:g}: this run never learned to do without labels; model.label_dropout=0.1 teaches it"
        )
    try:
        return Guided(denoiser, scale, *(interval or ()))
    except Refusal as error:
        raise UserError(f"guidance={scale:g}: {error}") from error
