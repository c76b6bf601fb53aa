"""The sentence that a reader takes away."""

from unlora.audit.attack import AttackResult
from unlora.audit.verdict import SCOPE, verdict

BACK = AttackResult("fails", "4 forget examples bring back 80% of the others in 12 steps (control 5%)")
LEAK = AttackResult("fails", "16 answers leak 0.60 of the facts (control 0.20)")
HELD = AttackResult("holds", "nothing came back")
HARM = AttackResult("fails", "near neighbours keep 61%", damage=True)


def test_the_strongest_attack_is_named_first() -> None:
    text = verdict({"sampling": LEAK, "relearning": BACK, "wording": HELD})
    assert text == f"Suppressed, not gone: {BACK.sentence} (sampling too)."


def test_all_holds() -> None:
    tried = AttackResult("holds", "nothing came back", tested="40 forget examples, 200 steps of 8, 3 seeds")
    text = verdict({"wording": HELD, "relearning": tried})
    assert text == (
        "No return of the knowledge beyond the control was found by wording, "
        "relearning (40 forget examples, 200 steps of 8, 3 seeds)."
    )


def test_damage_is_no_return_of_knowledge() -> None:
    text = verdict({"relearning": HELD, "neighbours": HARM})
    assert "Suppressed" not in text
    assert text.endswith("More was lost than should be: near neighbours keep 61%.")


def test_without_a_control_nothing_is_said_to_be_gone() -> None:
    """Fluency and neighbours can hold by themselves; they never looked for the knowledge."""
    unclear = AttackResult("unclear", "no control")
    unharmed = AttackResult("holds", "still language", damage=True)
    results = {"wording": unclear, "relearning": unclear, "fluency": unharmed, "neighbours": unharmed}
    assert verdict(results) == "Cannot be told: wording, relearning."
    alone = verdict({"fluency": unharmed, "neighbours": unharmed})
    assert alone == "Whether the knowledge is gone was not tested: fluency, neighbours look for damage alone."


def test_what_could_not_be_told_or_tested_is_said() -> None:
    results = {
        "relearning": AttackResult("unclear", "no control"),
        "membership": AttackResult("not tested", "needs a holdout"),
    }
    assert verdict(results) == "Cannot be told: relearning. Not tested: membership."
    assert verdict({"membership": results["membership"]}).startswith("Nothing was tested")


def test_it_never_claims_deletion_or_compliance() -> None:
    assert "no proof of deletion" in SCOPE
    assert "no statement about any law" in SCOPE
    for results in ({"relearning": HELD}, {"relearning": BACK}):
        assert not any(word in verdict(results).lower() for word in ("deleted", "erased", "complian", "legal"))
