"""Without the extra `sweep`, what needs Optuna is left out."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("optuna") is not None else ["test_proposals.py", "test_table.py"]
