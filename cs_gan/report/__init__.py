"""Reports of one or several runs: sample grids, curves, tables, pages."""

from cs_gan.report.comparison import save_comparison
from cs_gan.report.curve import save_curve, save_metrics_csv
from cs_gan.report.grid import save_grid
from cs_gan.report.neighbours import save_neighbours
from cs_gan.report.overview import save_overview
from cs_gan.report.robustness import save_robustness
from cs_gan.report.run_report import save_report
from cs_gan.report.study import save_study
from cs_gan.report.zoo import save_zoo

__all__ = [
    "save_comparison",
    "save_curve",
    "save_grid",
    "save_metrics_csv",
    "save_neighbours",
    "save_overview",
    "save_report",
    "save_robustness",
    "save_study",
    "save_zoo",
]
