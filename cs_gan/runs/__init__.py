"""What a run leaves behind: its folder, its lines, its scores, its lock. Nothing here needs torch."""

from cs_gan.runs.evaluation import Evaluation, best, evaluation_of, is_number, read_evaluations
from cs_gan.runs.folder import WRITER, RunFolder
from cs_gan.runs.lines import (
    LOG_LINE,
    METRICS_LINE,
    Row,
    append_line,
    lacking,
    read_lines,
    read_text,
    readable_lines,
    write_lines,
    write_whole,
    written,
)
from cs_gan.runs.stop import StopSignal

__all__ = [
    "LOG_LINE",
    "METRICS_LINE",
    "WRITER",
    "Evaluation",
    "Row",
    "RunFolder",
    "StopSignal",
    "append_line",
    "best",
    "evaluation_of",
    "is_number",
    "lacking",
    "read_evaluations",
    "read_lines",
    "read_text",
    "readable_lines",
    "write_lines",
    "write_whole",
    "written",
]
