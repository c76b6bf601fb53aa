"""What is compared, in the order of tables and figures."""

from typing import Literal

Kind = Literal["topic", "template", "token"]
KINDS: dict[str, str] = {
    "topic": "other people, same wording",
    "template": "same facts, another wording",
    "token": "same answers, last token changed",
}
"""How a forget set differs from what the model knows."""
RANKINGS: dict[str, str] = {
    "change": "true change of the row (hindsight)",
    "marginal": "marginal",
    "vila": "vila",
    "fila": "fila",
    "contrast": "contrast",
    "forget_energy": "marginal without the retain set",
    "weight_norm": "norm of the row (control)",
    "random": "random order (control)",
}
MAPS = ("marginal", "vila", "fila", "contrast", "forget_energy")
CONTROLS = ("weight_norm", "random")
EVERYWHERE = "all"
"""The place of a forget set that all linear layers learn."""
