"""The small table at the end of a run."""

from collections.abc import Mapping
from typing import Any

ROWS = (
    ("Fréchet distance", "fid", "floor {fid_floor:.2f}, excess {fid_excess:.2f}"),
    ("bound, bits/dim", "vlb", "prior {vlb_prior:.4f} + diffusion {vlb_diffusion:.3f} + decoder {vlb_decoder:.3f}"),
    ("simple", "simple", "noise error over log-SNR in [-4.8, 6.6]"),
    ("common bound", "vlb_common", "bits/dim, over log-SNR in [-4.8, 9.0]: the same for every schedule"),
    ("memorization", "memorization", "held-out images {memorization_control:.3f}"),
    ("recognised", "recognised", "rarest class {rarest_class:.3f}, commonest {commonest_class:.3f}"),
    (
        "gradient noise",
        "gradient_noise",
        "images; times of importance {gradient_noise_importance:.2f}, stratified {gradient_noise_stratified:.2f}, "
        "logit-normal {gradient_noise_logitnormal:.2f} of it",
    ),
)


def table(metrics: Mapping[str, float | None], records: Mapping[str, Any]) -> str:
    """One line per yardstick of the test split: its number and what belongs to it, or why there is none."""
    test = {key.removeprefix("test/"): value for key, value in metrics.items() if key.startswith("test/")}
    skipped = {name: record["skipped"] for name, record in records.items() if "skipped" in record}
    lines = []
    for title, key, note in ROWS:
        if key not in test:
            continue
        value = test[key]
        number = "–" if value is None else f"{value:.3f}"
        told = skipped.get(key, "not available") if value is None else note.format(**test)
        lines.append(f"  {title:<18}{number:>8}   {told}")
    if (simple := metrics.get("val/simple")) is not None:
        lines.append(f"  {'simple, val':<18}{simple:>8.3f}   chooses best.ckpt")
    return "\n".join(lines)
