"""One self-contained page that shows a run to someone else, made from the run's files alone."""

from unlora.report.page import write_report as write_report

__all__ = ["write_report"]
