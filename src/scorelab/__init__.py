"""scorelab: which objective, under which noise schedule, learns the score best?

The maths (schedules, denoisers, likelihood, losses, samplers) imports torch alone and works as a plain library;
``scorelab.lit`` is the Lightning and Hydra roof over it.
"""
