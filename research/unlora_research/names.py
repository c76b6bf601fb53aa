"""The studies by name. Pure data: the command line lists them before anything heavy is imported."""

STUDIES: dict[str, str] = {
    "sanity": "Does an importance map find the weights that carry what was learnt?",
    "sigma": "How does the size of VILA's random factors matter, inserted as released and virtual as here?",
    "ablation": "Which start helps at equal search, under which loss?",
    "assumptions": "How wrong is Theorem 1, Var[dW] ~ Var[B] Var[A], and does coverage of layers matter?",
    "shift": "When does the variance correction pay: forget sets at a known distance from the retain set.",
    "retain_free": "What is lost when importance is measured without the retain set?",
    "scale": "How do extraction, initialisation and unlearning grow with examples, length, rank, width and depth?",
}
"""Name -> the question it answers."""
