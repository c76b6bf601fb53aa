"""Many runs with settings that an optimiser proposes, and which of them to take."""
