"""The attacks by name, in the order they are run: what only asks comes before what changes weights."""

ATTACKS: dict[str, str] = {
    "level": "level:ControlLevel",
    "membership": "membership:Membership",
    "wording": "wording:Wording",
    "context": "context:Context",
    "indirect": "indirect:Indirect",
    "sampling": "sampling:Sampling",
    "fluency": "fluency:Fluency",
    "neighbours": "neighbours:Neighbours",
    "quantisation": "quantisation:Quantisation",
    "relearning": "relearning:Relearning",
}
"""Name -> module:Class in this package, imported when the attack is asked for. To add one: its file, and a row here."""
