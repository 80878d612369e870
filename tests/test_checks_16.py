"""The checks of notebook 16, and the two nets for digits that it uses."""

import pytest
import torch
from safetensors.torch import load_file

from vislib.checks import Wrong, synthesis
from vislib.nets import digits


def climb(score, x, steps, lr, momentum, *, sign=1, fresh=1.0, clip=True, extra=0):
    v, x = torch.zeros_like(x), x.clone()
    for _ in range(steps + extra):
        x = x.detach().requires_grad_()
        v = momentum * v + sign * fresh * torch.autograd.grad(score(x), x)[0]
        x = x + lr * v
        x = x.clamp(0, 1) if clip else x
    return x.detach()


def in_place(score, x, steps, lr, momentum):
    x += 0.1
    return x


def total_variation(x):
    return x.diff(dim=1).abs().sum() + x.diff(dim=2).abs().sum()


def posterior(reader, writer, z, target, weight, mean, *, power=2, sign=-1):
    p = reader(writer(z)).log_softmax(dim=1)[:, target]
    return p + sign * weight * (z - mean).norm(dim=1) ** power


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (synthesis.climb, climb),
        (synthesis.climb, lambda *a: climb(*a).requires_grad_()),
        (synthesis.total_variation, total_variation),
        (synthesis.posterior, posterior),
    ],
)
def test_right_answers_pass(check, answer, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (synthesis.climb, lambda *a: climb(*a, sign=-1), "this is descent"),
        (synthesis.climb, lambda s, x, n, lr, m: climb(s, x, n, lr, 0), "gradient alone"),
        (synthesis.climb, lambda s, x, n, lr, m: climb(s, x, n, lr, 1), "old v by momentum"),
        (synthesis.climb, lambda *a: climb(*a, fresh=1 - a[4]), "goes into v whole"),
        (synthesis.climb, lambda *a: climb(*a, clip=False), "clip after each step"),
        (synthesis.climb, lambda *a: climb(*a, clip=False).clamp(0, 1), "not only at the end"),
        (synthesis.climb, lambda *a: climb(*a, extra=-1), "one step too few"),
        (synthesis.climb, lambda *a: climb(*a, extra=1), "one step too many"),
        (synthesis.climb, lambda s, x, n, lr, m: climb(s, x, n, 0.05, 0.9), "numbers of the text"),
        (synthesis.climb, lambda s, x, n, lr, m: climb(s, x, n, 0.05, m), "the lr that is given"),
        (synthesis.climb, lambda s, x, n, lr, m: climb(s, x, n, lr, 0.9), "the momentum that is"),
        (synthesis.climb, in_place, "changes its input"),
        (synthesis.total_variation, lambda x: x.diff(dim=1).abs().sum(), "to the right count"),
        (synthesis.total_variation, lambda x: x.diff(dim=2).abs().sum(), "those below count"),
        (synthesis.total_variation, lambda x: x.diff(dim=1).sum() + x.diff(dim=2).sum(), "cancel"),
        (
            synthesis.total_variation,
            lambda x: x.diff(dim=1).square().sum() + x.diff(dim=2).square().sum(),
            "absolute values",
        ),
        (
            synthesis.total_variation,
            lambda x: x.diff(dim=1).abs().mean() + x.diff(dim=2).abs().mean(),
            "add up",
        ),
        (
            synthesis.total_variation,
            lambda x: (x - x.roll(1, 1)).abs().sum() + (x - x.roll(1, 2)).abs().sum(),
            "does not go round",
        ),
        (
            synthesis.total_variation,
            lambda x: sum(x.diff(dim=d).abs().sum() for d in range(3)),
            "between channels",
        ),
        (synthesis.posterior, lambda *a: posterior(*a, sign=1), "far from z̄ is bad"),
        (synthesis.posterior, lambda *a: posterior(*a, power=1), "not the distance"),
        (synthesis.posterior, lambda *a: posterior(*a, sign=0), "classifier's part alone"),
        (synthesis.posterior, lambda *a: posterior(*a).sum(), "do not add them up"),
        (synthesis.posterior, lambda *a: posterior(*a[:4], 1.0, a[5]), "by the weight"),
        (synthesis.posterior, lambda *a: posterior(*a[:5], 0), "not from 0"),
        (
            synthesis.posterior,
            lambda r, w, z, t, k, m: r(w(z))[:, t] - k * (z - m).square().sum(1),
            "log_softmax",
        ),
        (
            synthesis.posterior,
            lambda r, w, z, t, k, m: r(w(z)).softmax(1)[:, t] - k * (z - m).square().sum(1),
            "its logarithm",
        ),
    ],
)
def test_each_mistake_is_named(check, answer, told):
    with pytest.raises(Wrong, match=told):
        check(answer)


LOGITS = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
TARGETS = [0, 1, 2, 3, 0, 1]


def test_agreement(capsys):
    hits = LOGITS.argmax(1) == torch.tensor(TARGETS)
    assert 0 < hits.sum() < 6 and hits.sum() != 3
    synthesis.agreement(hits.float().mean(), LOGITS, TARGETS)
    assert capsys.readouterr().out.startswith("✓")
    for wrong, told in [
        (hits.sum(), "number of pictures"),
        (1 - hits.float().mean(), "another class"),
        (LOGITS.softmax(1)[range(6), TARGETS].mean(), "mean probability"),
        (0.9, "not right yet"),
    ]:
        with pytest.raises(Wrong, match=told):
            synthesis.agreement(wrong, LOGITS, TARGETS)


# ------------------------------------------------------------ the digits' nets


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
    """``KL(N(m, s²) ‖ N(0, 1))`` against PyTorch's own, with a writer that is always right."""
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mean, log_variance = torch.randn(2, 5, 10, generator=torch.Generator().manual_seed(1))
    found = digits.evidence_bound(lambda _: torch.cat([mean, log_variance], 1), lambda _: x, x)
    own = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    kl = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0))
    assert float(found) == pytest.approx(float(kl.sum(1).mean()), rel=1e-5)
