"""Runs beside each other: what differs between them, which is better, and whether that can be told."""
