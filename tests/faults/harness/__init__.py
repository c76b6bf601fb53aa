"""Bad and odd inputs, kills and pairs of processes, tried on the command line: `python -m tests.faults.harness --help`."""
