"""How good the samples are: feature extractors, Fréchet distances, memorisation and recognition."""
