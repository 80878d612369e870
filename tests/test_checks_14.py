"""The checks and the widget of notebook 14: right answers pass, each usual mistake is named."""

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from vislib import nets
from vislib.checks import Wrong, relevance
from vislib.core import BackwardRules
from vislib.explain.lrp import lrp, rules
from vislib.explain.lrp.operations import as_layer, without_bias
from vislib.widgets import relevance as widgets


def epsilon_layer(x, w, b, R, epsilon, *, bias=True, sign=True, divide=True, inputs=True):
    z = x @ w.T + (b if bias else 0)
    s = R / (z + epsilon * (z.sign() if sign else 1)) if divide else R
    return x * (s @ w) if inputs else s @ w


def bias_takes(x, w, b, R, *, bias=True):
    z = x @ w.T + (b if bias else 0)
    return (b / z * R).sum(dim=1)


def alpha_beta_layer(x, w, R, alpha, beta, *, split=True):
    def part(v, u, v2, u2):
        z = v @ u.T + v2 @ u2.T
        return v * ((R / z) @ u) + v2 * ((R / z) @ u2)

    up, down = (x.clamp(min=0), x.clamp(max=0)) if split else (x, torch.zeros_like(x))
    w_up, w_down = w.clamp(min=0), w.clamp(max=0)
    return alpha * part(up, w_up, down, w_down) - beta * part(up, w_down, down, w_up)


def z_box_layer(x, w, R, low, high, *, lows=True, highs=True):
    up, down = w.clamp(min=0), w.clamp(max=0)
    low, high = torch.full_like(x, low) * lows, torch.full_like(x, high) * highs
    z = x @ w.T - low @ up.T - high @ down.T
    s = R / z
    return x * (s @ w) - low * (s @ up) - high * (s @ down)


def in_place(x, w, b, R, epsilon):
    return x.mul_((R / (x @ w.T + b + epsilon * (x @ w.T + b).sign())) @ w)


RIGHT = [
    (relevance.epsilon_layer, epsilon_layer),
    (relevance.bias_takes, bias_takes),
    (relevance.alpha_beta_layer, alpha_beta_layer),
    (relevance.z_box_layer, z_box_layer),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_pass(check, answer, capsys):
    for _ in range(5):  # on fresh random layers each time
        check(answer)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (
            lambda x, w, b, R: epsilon_layer(x, w, b, R, 0.3),
            partial(rules.epsilon_rule, epsilon=0.3),
        ),
        (
            lambda x, w, b, R: alpha_beta_layer(x, w, R, 2, 1),
            lambda o, R: rules.alpha_beta_rule(_without_bias(o), R),
        ),
        (
            lambda x, w, b, R: z_box_layer(x, w, R, -9.0, 9.0),
            partial(rules.z_box_rule, low=-9.0, high=9.0),
        ),
    ],
)
def test_right_answers_are_the_rules_of_vislib(answer, rule):
    x, w, b, R = relevance._both_signs(8, 4)
    rules, leaf = BackwardRules("dense"), x.clone().requires_grad_()
    with rules:
        z = nn.functional.linear(leaf, w, b)
    rules.rules = {"dense": rule}
    (seen,) = torch.autograd.grad(z, leaf, R)
    assert torch.allclose(seen, answer(x, w, b, R), rtol=1e-3, atol=1e-4)


def _without_bias(operation):
    return without_bias(as_layer(operation))


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (relevance.epsilon_layer, partial(epsilon_layer, bias=False), "bias belongs"),
        (relevance.epsilon_layer, partial(epsilon_layer, sign=False), "ε has the sign of z"),
        (relevance.epsilon_layer, partial(epsilon_layer, divide=False), "not divided by z"),
        (relevance.epsilon_layer, partial(epsilon_layer, inputs=False), "to be multiplied in"),
        (relevance.epsilon_layer, lambda *a: epsilon_layer(*a[:4], 0), "this is LRP-0"),
        (relevance.epsilon_layer, in_place, "changes its input"),
        (relevance.bias_takes, lambda *a: a[3].sum(1) - bias_takes(*a), "what the inputs get"),
        (relevance.bias_takes, partial(bias_takes, bias=False), "with the bias in it"),
        (relevance.bias_takes, lambda x, w, b, R: b / (x @ w.T + b) * R, "Add up over the neu"),
        (relevance.bias_takes, lambda x, w, b, R: (b * R).sum(1), "its share"),
        (relevance.alpha_beta_layer, partial(alpha_beta_layer, split=False), "Split the input's"),
        (
            relevance.alpha_beta_layer,
            lambda x, w, R, a, b: alpha_beta_layer(x, w, R, a, -b),
            "are subtracted",
        ),
        (
            relevance.alpha_beta_layer,
            lambda x, w, R, a, b: alpha_beta_layer(x, w, R, b, a),
            "exchanged",
        ),
        (
            relevance.alpha_beta_layer,
            lambda x, w, R, a, b: alpha_beta_layer(x, w, R, a, 0),
            "subtract β times",
        ),
        (relevance.alpha_beta_layer, lambda x, w, R, a, b: x * ((R / (x @ w.T)) @ w), "not right"),
        (
            relevance.z_box_layer,
            lambda x, w, R, low, high: z_box_layer(x, w, R, high, low),
            "not right|low goes with",
        ),
        (relevance.z_box_layer, partial(z_box_layer, lows=False), "low · w⁺ is missing"),
        (relevance.z_box_layer, partial(z_box_layer, highs=False), "high · w⁻ is missing"),
        (relevance.z_box_layer, partial(z_box_layer, lows=False, highs=False), "this is LRP-0"),
        (
            relevance.z_box_layer,
            lambda x, w, R, low, high: z_box_layer(x, w, R, -low, -high),
            "not right|subtracted",
        ),
    ],
)
def test_each_mistake_is_named(check, answer, told):
    with pytest.raises(Wrong, match=f"(?i){told}"):
        check(answer)


# ------------------------------------------------------------ the widget


@pytest.fixture(scope="module")
def scene() -> tuple[nets.Classifier, Tensor]:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return nets.load("pocket_vgg"), x


def test_the_composite_over_the_range_of_its_sliders(scene):
    model, x = scene
    count = widgets.convolutions(model, x)
    assert count == sum(isinstance(module, nn.Conv2d) for module in model.modules())
    mask = torch.zeros(64, 64, dtype=torch.bool).numpy()
    mask[20:40, 20:40] = True
    gamma, switch, _ = widgets.composites(model, x, 3, mask).children
    assert (switch.min, switch.max) == (0, count)
    for g, k in itertools.product((gamma.min, 0.25, gamma.max), (switch.min, 3, switch.max)):
        R, share, cancels = widgets.look(model, x, 3, mask, g, k)
        assert R.shape == (1, 64, 64) and R.isfinite().all()
        assert 0 < share < 1 and cancels >= 1
    everywhere = lrp(model, x, 3, rule="epsilon_gamma_box", gamma=0.5)[0].sum(0, keepdim=True)
    assert torch.allclose(widgets.look(model, x, 3, mask, 0.5, count)[0], everywhere)


def test_each_slider_changes_the_picture(scene, monkeypatch):
    shown = []
    monkeypatch.setattr("vislib.show.panels", lambda *a, alt, **k: shown.append(alt))
    model, x = scene
    mask = torch.ones(64, 64, dtype=torch.bool).numpy()
    mask[:32] = False
    for g, k in [(0.25, 3), (0.3, 3), (0.25, 4)]:
        widgets.draw_look(model, x, 3, mask, g, k)
    assert len(set(shown)) == 3
