"""The checks of notebook 08 and what is under its sliders."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr
from torch import nn

from vislib import nets
from vislib.checks import Wrong
from vislib.checks import guided_backprop as check
from vislib.explain.cam import grad_cam
from vislib.explain.gradients import guided_backprop
from vislib.layers import layers_with_weights
from vislib.measure import sanity
from vislib.widgets import guided_backprop as widgets

# ---------------------------------------------------------------------- right answers


def identify(rule, names=("gradient", "deconvnet", "guided")):
    against_the_signal = rule(1.0, -1.0) != 0
    through_a_closed_gate = rule(-1.0, 1.0) != 0
    return names[0 if against_the_signal else 1 if through_a_closed_gate else 2]


def spearman(a, b, absolute=np.abs, rank=rankdata):
    return np.corrcoef(rank(absolute(a).ravel()), rank(absolute(b).ravel()))[0, 1]


def weighted(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def randomise_top(model, k, draw, pick=lambda layers, k: layers[-k:], among=weighted):
    model = copy.deepcopy(model)
    for layer in pick(among(model), k):
        draw(layer)
    return model


RIGHT = [
    (check.identify, identify),
    (check.spearman, spearman),
    (check.spearman, lambda a, b: spearmanr(np.abs(a).ravel(), np.abs(b).ravel())[0]),
    (check.randomise_top, randomise_top),
]


@pytest.mark.parametrize("repeat", range(10))
@pytest.mark.parametrize(("test", "answer"), RIGHT)
def test_right_answers_pass_on_any_random_input(test, answer, repeat, capsys):
    test(answer)
    assert capsys.readouterr().out.startswith("✓ ")


# ---------------------------------------------------------------------- planted mistakes


def in_place(model, k, draw):
    for layer in weighted(model)[-k:]:
        draw(layer)
    return model


def shallow(model, k, draw):
    other = copy.copy(model)
    return in_place(other, k, draw)


def leaves(model):
    return [m for m in model.modules() if not [*m.children()]]


def places(values):
    return np.argsort(values, kind="stable")


def picked(pick):
    return lambda model, k, draw: randomise_top(model, k, draw, pick)


WRONG = [
    (
        check.identify,
        [
            (lambda r: identify(r, ("deconvnet", "gradient", "guided")), "swapped, as in the text"),
            (lambda r: "guided", "gradient rule was taken for guided"),
            (
                lambda r: identify(r, ("gradient", "guided", "deconvnet")),
                "deconvnet rule was taken",
            ),
            (lambda r: "gradient" if r(1, -1) else "deconvnet", "guided rule was taken for deconv"),
            (lambda r: identify(r).title(), "should return 'gradient', 'deconvnet' or 'guided'"),
            (lambda r: [r(1.0, -1.0)], "should return 'gradient', .* yours returned"),
            (lambda r: r, "should return 'gradient', .* yours returned"),
            (lambda r: r.__name__.upper()[5], "stopped with IndexError|should return 'gradient'"),
            (lambda r: None, "does it end with return"),
        ],
    ),
    (
        check.spearman,
        [
            (lambda a, b: spearman(a, b, absolute=np.asarray), "absolute values first"),
            (lambda a, b: spearman(a, b, rank=np.asarray), "Pearson's correlation"),
            (lambda a, b: spearman(a, b, rank=places), "not the rank of each value"),
            (lambda a, b: spearman(a, b, rank=lambda v: places(places(v))), "share their mean"),
            (lambda a, b: -spearman(a, b), "wrong sign|not right yet"),
            (lambda a, b: np.corrcoef(rankdata(np.abs(a)), rankdata(np.abs(b))), "shape"),
        ],
    ),
    (
        check.randomise_top,
        [
            (in_place, "given net is changed"),
            (shallow, "given net is changed"),
            (picked(lambda layers, k: []), "Nothing was drawn anew"),
            (picked(lambda layers, k: layers), "All layers are new"),
            (picked(lambda layers, k: layers[:k]), "first k layers are new"),
            (picked(lambda layers, k: layers[-k : len(layers) - k + 1]), "Only one layer is new"),
            (picked(lambda layers, k: layers[-k - 1 :]), "One layer too many"),
            (
                picked(lambda layers, k: layers[len(layers) - k + 1 :]),
                "Nothing|One layer is missing",
            ),
            (lambda *v: randomise_top(*v, among=leaves), "ReLUs were counted too"),
            (picked(lambda layers, k: layers[::2]), r"For k = 1 the layers \[4\]"),
            (lambda model, k, draw: [], "should return a net"),
        ],
    ),
]


@pytest.mark.parametrize("repeat", range(5))
@pytest.mark.parametrize(
    ("test", "answer", "message"), [(test, *case) for test, cases in WRONG for case in cases]
)
def test_each_mistake_is_named(test, answer, message, repeat):
    with pytest.raises(Wrong, match=message):
        test(answer)


@pytest.mark.parametrize("test", [test for test, _ in WRONG])
def test_an_open_stub_and_a_value_are_told_apart(test):
    def stub(*arguments):
        raise NotImplementedError("write your code here")

    with pytest.raises(Wrong, match="stub is not written yet"):
        test(stub)
    with pytest.raises(Wrong, match="Give the check your function itself"):
        test(3)


def test_every_check_rejects_at_least_three_mistakes():
    assert {test for test, _ in RIGHT} == {test for test, _ in WRONG}
    assert all(len(cases) >= 3 for _, cases in WRONG)
    own = {f for f in vars(check).values() if getattr(f, "__module__", "") == check.__name__}
    public = {f for f in own if callable(f) and f.__name__[0] not in "_<"}
    assert public <= {test for test, _ in RIGHT}


# ---------------------------------------------------------------------- widget


@pytest.fixture(scope="module")
def scene():
    return torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def test_the_slider_goes_through_the_whole_cascade(scene):
    model = nets.load("pocket_vgg")
    steps = ["none", *layers_with_weights(model, scene)]
    expected = [model, *(other for _, other in sanity.randomised(model, scene))]
    for depth, other in enumerate(expected):
        layer, guided, heat = widgets.step(model, scene, 3, depth)
        assert layer == steps[depth]
        assert torch.equal(guided, guided_backprop(other, scene, 3))
        assert torch.equal(heat, grad_cam(other, scene, 3))
    assert widgets.step(model, scene, 3, 99)[0] == steps[-1]
    with pytest.raises(ValueError, match="at least 0"):
        widgets.step(model, scene, 3, -1)


def test_each_step_is_drawn_with_words_of_its_own(scene, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "vislib.show.panels", lambda pictures, alt, **_: drawn.append((list(pictures), alt))
    )
    model = nets.load("pocket_vgg")
    for depth in (0, 1, 9):
        widgets.draw_step(model, scene, 3, depth)
    assert len({alt for _, alt in drawn}) == 3
    assert all(len(titles) == 3 for titles, _ in drawn)


def test_the_slider_ends_where_the_net_does(scene):
    box = widgets.random_layers(nets.load("pocket_allconv"), scene, 3)
    assert (box.children[0].min, box.children[0].max) == (0, 9)
