"""Bad and odd inputs, kills and pairs of processes: `python -m tests.faults.harness --help` (docs/faults.md)."""
