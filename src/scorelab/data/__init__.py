"""Data sets, and the one LightningDataModule that serves them."""
