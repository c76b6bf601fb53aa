"""The peer's step: its loss by our own loss terms, and what it trains."""

import argparse

import pytest
import torch

from benchmarks import peer, shapes, step
from unlora.losses import ForgetInputs, Objective, Predictions

OPTIONS = argparse.Namespace(
    shape="tiny", layers=None, device="cpu", dtype="float32", examples=5, seed=0, batch_size=3, rank=4
)


def test_the_peers_npo_is_ours_and_its_retain_term_transformers_own():
    subject = shapes.subject(OPTIONS)
    data = step.make_data(subject, OPTIONS)
    made = peer._Peer(shapes.subject(OPTIONS), subject, data, OPTIONS.batch_size)
    with torch.no_grad():  # away from the reference, so that it matters
        for parameter in made.model.parameters():
            parameter.mul_(1.05)
    forget, retain = made._sets
    predictions = Predictions.from_model_output(made.model(forget["input_ids"]).logits, forget["labels"])
    before = peer.sequence_log_probs(made.reference, forget)
    ours = Objective("npo", retain=None)(ForgetInputs(predictions, reference_log_probs=before), None).total
    kept = made.model(**{name: retain[name] for name in ("input_ids", "attention_mask", "labels")}).loss
    assert abs(float((ours - 2 / peer.BETA * torch.tensor(2.0).log()).detach())) > 0.01  # Else nothing had moved.
    assert float(made.loss().detach()) == pytest.approx(float((ours + 1.6 * kept).detach()), rel=1e-5)


def test_every_weight_of_the_peer_is_trained_and_the_reference_stays():
    subject = shapes.subject(OPTIONS)
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    made = peer._Peer(shapes.subject(OPTIONS), subject, step.make_data(subject, OPTIONS), OPTIONS.batch_size)
    first = peer._stepping(made)
    losses = [first().result for _ in range(3)]
    assert losses[2] < losses[0]
    moved = [not torch.equal(value, before[name]) for name, value in made.model.state_dict().items()]
    assert all(moved)
    assert all(torch.equal(value, before[name]) for name, value in subject.model.state_dict().items())


def test_every_way_runs_and_says_its_ratio_to_the_peer(capsys: pytest.CaptureFixture[str]):
    words = ["--shape", "tiny", "--device", "cpu", "--examples", "4", "--batch-size", "2", "--rounds", "1"]
    peer.main([*words, "--no-peaks"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[1:]] == list(peer.METHODS)
    assert "1.00 [1.00, 1.00]" in rows[1]
