"""What a run leaves behind: its folder, its lines, its scores, its lock. Nothing here needs torch."""

from cs_gan.runs.evaluation import Evaluation, best, evaluation_of, is_number, read_evaluations
from cs_gan.runs.folder import WRITER, RunFolder
from cs_gan.runs.lines import (
    Row,
    append_line,
    read_lines,
    read_text,
    readable_lines,
    write_lines,
    write_whole,
    written,
)
from cs_gan.runs.stop import StopSignal

__all__ = [
    "WRITER",
    "Evaluation",
    "Row",
    "RunFolder",
    "StopSignal",
    "append_line",
    "best",
    "evaluation_of",
    "is_number",
    "read_evaluations",
    "read_lines",
    "read_text",
    "readable_lines",
    "write_lines",
    "write_whole",
    "written",
]
