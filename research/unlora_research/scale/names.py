"""What is timed, in the order of tables and figures."""

AXES = ("examples", "length", "rank", "width", "depth")
EXTRACTION: dict[str, str] = {
    "marginal": "marginal",
    "vila": "vila",
    "contrast_inputs": "contrast_inputs",
    "fila": "FILA, one pass",
    "vila_published": "VILA as released, ten passes",
    "fila_published": "FILA as released, ten passes",
}
"""What measures a map."""
OTHERS: dict[str, str] = {
    "initialise vila": "initialise from vila",
    "initialise marginal": "initialise from marginal",
    "initialise contrast_inputs": "initialise from contrast_inputs",
    "initialise fila": "initialise from FILA",
    "pass plain": "training pass, plain LoRA",
    "pass anchored": "training pass, anchored (vila, marginal, fila)",
    "pass frozen A": "training pass, A frozen (contrast_inputs)",
}
"""What is made of one, and a training pass over the same tokens."""
