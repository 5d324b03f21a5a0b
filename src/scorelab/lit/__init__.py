"""The roof: Lightning, Hydra and W&B over the maths."""
