"""Killed runs: where (places), under what choices (scenarios), by whom (killer), and what is left (compare)."""
