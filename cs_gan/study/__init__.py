"""A grid of runs over seeds, each in its own process: ``python -m cs_gan.study configs/studies/<name>.yaml``."""

from cs_gan.study.plan import Point, Run, plan
from cs_gan.study.spec import Study, read_study
from cs_gan.study.summary import summarise

__all__ = ["Point", "Run", "Study", "plan", "read_study", "summarise"]
