"""scorelab: which objective, under which noise schedule, learns the score best?

The maths (schedules, laws, denoisers, networks, likelihood, losses, samplers) imports torch, and torchdiffeq for its
ODE, and works as a plain library; ``scorelab.lit`` (Lightning), ``scorelab.config`` and ``scorelab.app`` (Hydra) are
the roof over it.
"""
