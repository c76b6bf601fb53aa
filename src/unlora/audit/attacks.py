"""Every attack by name, in the order they are run: what only asks comes before what changes weights."""

from unlora.audit.attack import Attack
from unlora.audit.context import Context
from unlora.audit.fluency import Fluency
from unlora.audit.level import ControlLevel
from unlora.audit.membership import Membership
from unlora.audit.neighbours import Neighbours
from unlora.audit.quantisation import Quantisation
from unlora.audit.relearning import Relearning
from unlora.audit.sampling import Sampling
from unlora.audit.wording import Wording

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        ControlLevel(),
        Membership(),
        Wording(),
        Context(),
        Sampling(),
        Fluency(),
        Neighbours(),
        Quantisation(),
        Relearning(),
    )
}
