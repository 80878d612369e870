"""The two networks for digits that notebook 16 uses."""

import pytest
import torch
from safetensors.torch import load_file

from vislib.nets import digits


def test_the_shipped_nets_are_as_their_card_says():
    from safetensors import safe_open

    with safe_open(digits.WEIGHTS, "pt") as file:
        card = file.metadata()
    reader, writer = digits.load()
    x, y = digits.data(held_out=True)
    assert len(x) == 297 and x.min() == 0 and x.max() == 1
    with torch.no_grad():
        right = float((reader(x).argmax(1) == y).float().mean())
    assert right == pytest.approx(float(card["reader_unseen"]), abs=0.007)
    assert right > 0.93
    parameters = sum(p.numel() for net in (reader, writer) for p in net.parameters())
    assert parameters == int(card["parameters"])
    assert digits.WEIGHTS.stat().st_size < 400_000


def test_most_codes_from_the_prior_become_digits():
    """What the writer makes of random codes lies nearer to real digits than noise does."""
    _, writer = digits.load()
    real = digits.data()[0].flatten(1)
    with torch.no_grad():
        made = writer(torch.randn(50, digits.CODE, generator=torch.Generator().manual_seed(0)))
    shuffled = made.flatten(1)[:, torch.randperm(64)]
    near, far = (torch.cdist(x, real).amin(1).mean() for x in (made.flatten(1), shuffled))
    assert near < 0.6 * far


def test_training_repeats_and_writes_what_load_reads(tmp_path, monkeypatch):
    state = torch.get_rng_state()
    cards = [digits.train(tmp_path / f"{n}.safetensors", epochs=1, readings=1) for n in "ab"]
    assert cards[0] == cards[1]
    a, b = (load_file(tmp_path / f"{name}.safetensors") for name in "ab")
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(digits, "WEIGHTS", tmp_path / "a.safetensors")
    reader, _ = digits.load()
    with torch.no_grad():
        x, y = digits.data(held_out=True)
        right = float((reader(x).argmax(1) == y).float().mean())
    assert f"{right:.4f}" == cards[0]["reader_unseen"]


def test_the_bound_has_the_divergence_of_two_gaussians():
    """``KL(N(m, s²) ‖ N(0, 1))`` against PyTorch's own, for a writer without error."""
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mean, log_variance = torch.randn(2, 5, 10, generator=torch.Generator().manual_seed(1))
    bound = digits.evidence_bound(lambda _: torch.cat([mean, log_variance], 1), lambda _: x, x)
    own = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    kl = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0))
    assert float(bound) == pytest.approx(float(kl.sum(1).mean()), rel=1e-5)
