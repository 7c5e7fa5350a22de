"""A grid of runs over seeds, each in its own process: ``python -m cs_gan.sweep configs/sweeps/<name>.yaml``."""

from cs_gan.sweep.plan import Point, Run, plan
from cs_gan.sweep.spec import Sweep, read_sweep
from cs_gan.sweep.summary import summarise

__all__ = ["Point", "Run", "Sweep", "plan", "read_sweep", "summarise"]
