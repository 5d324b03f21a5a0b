"""A job on a machine: its directory, lock, status, signals, checkpoints and processes."""
