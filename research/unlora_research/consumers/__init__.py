"""What other programs make of an exported run: each scores the run's answers, beside what they are worth here."""
