"""An average of another length, as eval and sample are asked for it."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scorelab.denoisers import Denoiser
from scorelab.errors import UserError
from scorelab.lit.snapshots import take_average

log = logging.getLogger("scorelab")


def averaged_as_asked(denoiser: Denoiser, own: dict[str, Any], run: Path) -> dict[str, Any]:
    """Give the denoiser the average that average= asks for; the record of it, empty where none is asked for.

    Raises:
        UserError: where the run's snapshots do not tell it, or another checkpoint is asked for too.
    """
    if own["average"] is None:
        return {}
    if own["checkpoint"] != "last":
        told = f"average={own['average']:g} is made of snapshots up to the last"
        raise UserError(f"{told}: leave out checkpoint={own['checkpoint']}")
    found = take_average(denoiser, run, own["average"])
    log.info("%s", found)
    return {"average": asdict(found)}
