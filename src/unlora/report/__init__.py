"""Self-contained pages that show a run and its audit to someone else, made from the files alone."""

from unlora.report.audit_page import write_audit_page as write_audit_page
from unlora.report.comparison import write_comparison as write_comparison
from unlora.report.load import read_evaluation as read_evaluation
from unlora.report.page import write_report as write_report

__all__ = ["read_evaluation", "write_audit_page", "write_comparison", "write_report"]
