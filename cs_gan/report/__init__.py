"""Pictures of a run: sample grids and metric curves."""

from cs_gan.report.curve import save_curve
from cs_gan.report.grid import save_grid
from cs_gan.report.overview import save_overview

__all__ = ["save_curve", "save_grid", "save_overview"]
