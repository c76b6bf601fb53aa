"""Every attack by name, in the order they are run: what only asks comes before what changes weights."""

from unlora.audit.attack import Attack
from unlora.audit.relearning import Relearning

ATTACKS: dict[str, Attack] = {attack.name: attack for attack in (Relearning(),)}
