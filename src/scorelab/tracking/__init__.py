"""Where a run's numbers go: metrics.csv, and W&B as a projection of it."""
