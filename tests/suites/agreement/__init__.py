"""Our numbers beside those of other people's code, which is run where its checkout is given."""
