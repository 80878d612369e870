"""The checks of notebook 07, its widget, and the colours of its pictures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vislib import nets, show
from vislib.checks import Wrong
from vislib.checks import deconvnet as check
from vislib.features import deconvnet, top_patches
from vislib.widgets import deconvnet as widgets


def gates(method, z, R):
    return {
        "backprop": (z > 0) * R,
        "deconvnet": (R > 0) * R,
        "guided": (z > 0) * (R > 0) * R,
    }[method]


def swapped(method, z, R):
    return gates({"backprop": "deconvnet", "deconvnet": "backprop"}.get(method, method), z, R)


def unpool(values, switches, shape, join=max):
    flat = torch.zeros(shape[0] * shape[1])
    taken = set()
    for value, place in zip(values.flatten(), switches.flatten().tolist(), strict=True):
        flat[place] = join(flat[place], value) if place in taken else value
        taken.add(place)
    return flat.reshape(shape)


def turned(values, switches, shape):
    height, width = shape
    return unpool(values, (switches % width) * height % (height * width) + switches // width, shape)


def corners(values, switches, shape):
    out = torch.zeros(shape)
    out[: 2 * values.shape[0] : 2, : 2 * values.shape[1] : 2] = values
    return out


def from_zero(values, switches, shape):
    flat = torch.zeros(shape[0] * shape[1])
    return flat.scatter_reduce(0, switches.flatten(), values.flatten(), "amax").reshape(shape)


def up(signal, switches):
    return F.max_unpool2d(signal, switches, 2)


def back(maps, weight, **options):
    return F.conv_transpose2d(maps, weight, **{"padding": 1} | options)


def centred(a, b):
    a, b = a.flatten(1), b.flatten(1)
    return a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)


def correlation(a, b):
    a, b = centred(a, b)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


RIGHT = [
    (check.relu_backwards, gates),
    (check.unpool, unpool),
    (check.stage, lambda s, i, w: back(up(s, i).relu(), w)),
    (check.correlation, correlation),
]
WRONG = [
    (
        check.relu_backwards,
        [
            (swapped, "backprop and deconvnet are swapped"),
            (lambda m, z, R: gates("guided", z, R), "one of the two|Nothing|off by|does not look"),
            (lambda m, z, R: gates("backprop", z, R), "not right yet"),
            (lambda m, z, R: R, "Nothing is stopped"),
            (lambda m, z, R: (gates(m, z, R) != 0).float(), "The gate alone"),
            (lambda m, z, R: (gates(m, z, R) != 0) * z, "only decides about it"),
            (lambda m, z, R: gates(m, z, R).abs(), "Keep the sign"),
            (
                lambda m, z, R: gates("backprop" if m == "guided" else m, z, R),
                "missing .that is backprop",
            ),
            (
                lambda m, z, R: gates("deconvnet" if m == "guided" else m, z, R),
                "missing .that is the deconvnet",
            ),
            (
                lambda m, z, R: gates("guided" if m == "deconvnet" else m, z, R),
                "does not look at z at all",
            ),
            (
                lambda m, z, R: ((z > 0) | (R > 0)) * R if m == "guided" else gates(m, z, R),
                "Both conditions must hold",
            ),
            (lambda m, z, R: None, "does it end with return"),
        ],
    ),
    (
        check.unpool,
        [
            (lambda *v: unpool(*v, join=lambda a, b: a + b), "added up"),
            (lambda *v: unpool(*v, join=lambda a, b: b), "last value overwrites"),
            (lambda *v: unpool(*v, join=lambda a, b: a), "first value stays"),
            (from_zero, "below zero is lost"),
            (turned, "Rows and columns are swapped"),
            (lambda *v: unpool(*v).flatten(), "still flat"),
            (corners, "corner of their windows"),
        ],
    ),
    (
        check.stage,
        [
            (lambda s, i, w: back(up(s, i), w), "not rectified"),
            (lambda s, i, w: back(up(s, i), w).relu(), "not after it"),
            (lambda s, i, w: back(up(s, i).relu(), w).relu(), "Rectify once"),
            (
                lambda s, i, w: F.conv2d(up(s, i).relu(), w.transpose(0, 1), padding=1),
                "forward convolution",
            ),
            (
                lambda s, i, w: back(F.interpolate(s, scale_factor=2.0).relu(), w),
                "fill their whole windows",
            ),
            (lambda s, i, w: back(up(s, i).relu(), w, padding=0), "padding of the convolution"),
            (lambda s, i, w: 2 * back(up(s, i).relu(), w), "2 times what it should be"),
        ],
    ),
    (
        check.correlation,
        [
            (
                lambda a, b: F.cosine_similarity(a.flatten(1), b.flatten(1)),
                "means are not taken off",
            ),
            (lambda a, b: correlation(a.flatten()[None], b.flatten()[None])[0], "whole batch"),
            (lambda a, b: (centred(a, b)[0] * centred(a, b)[1]).mean(1), "this is the covariance:"),
            (lambda a, b: (centred(a, b)[0] * centred(a, b)[1]).sum(1), "covariance, as a sum"),
            (lambda a, b: correlation(a, b).abs(), "two maps can be opposites"),
            (lambda a, b: correlation(a, b) ** 2, "square of it"),
            (lambda a, b: correlation(a.abs(), b.abs()), "absolute values of the maps"),
            (lambda a, b: correlation(a, b).mean(), "return all N"),
            (lambda a, b: -correlation(a, b), "wrong sign"),
        ],
    ),
]


@pytest.mark.parametrize("repeat", range(10))
@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_pass_on_any_random_input(check, answer, repeat, capsys):
    torch.manual_seed(repeat)
    check(answer)
    assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize("repeat", range(5))
@pytest.mark.parametrize(
    ("check", "answer", "message"), [(c, *wrong) for c, answers in WRONG for wrong in answers]
)
def test_planted_mistakes_are_named(check, answer, message, repeat):
    torch.manual_seed(repeat)
    with pytest.raises(Wrong, match=f"(?i){message}"):
        check(answer)


# ---------------------------------------------------------------------- the widget and its pictures


@pytest.fixture(scope="module")
def searched():
    model = nets.load("pocket_vgg")
    scenes = torch.rand(10, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layers = ("net.features.4", "net.features.12", "net.features.17")
    return model, scenes, {layer: top_patches(model, layer, scenes, 9) for layer in layers}


def test_the_widget_over_its_whole_range(searched):
    for stage, top in enumerate(searched[2].values(), 1):
        for unit in range(0, 97, 24):
            patches, views = widgets.patches_and_reconstructions(*searched, stage, unit)
            assert patches.shape == views.shape and patches.shape[2] == 3
            assert np.isfinite(views).all() and 0 <= views.min() <= views.max() <= 1
            assert widgets.top_unit(*searched, stage, unit)[2] == min(unit, len(top.units) - 1)
    box = widgets.units(*searched)
    assert [(c.min, c.max) for c in box.children[:2]] == [(1, 3), (0, 95)]


def test_windows_are_cut_where_the_patches_are(searched):
    """Cutting the scenes themselves gives the patches, but for what lies outside of the picture."""
    _, scenes, tops = searched
    for top in tops.values():
        cut = widgets.windows(scenes[top.images[3]], top.boxes[3])
        assert torch.equal(cut, top.crops(3, fill=0))


def test_a_reconstruction_is_zero_outside_of_its_window(searched):
    model, scenes, tops = searched
    top = tops["net.features.4"]
    pictures = deconvnet.reconstruct(model, scenes[top.images[5]], "net.features.4", 5)
    inside = widgets.windows(pictures, top.boxes[5])
    assert inside.any()
    assert torch.allclose(inside.abs().sum(), pictures.abs().sum())


def test_tinted_pictures():
    maps = torch.zeros(3, 20, 20)
    assert (show.tinted(maps) == 0.5).all()
    maps[0, 4, 7], maps[2, 9, 9] = 2, -1
    seen = show.tinted(maps, percentile=100)
    assert seen.shape == (20, 20, 3)
    assert (seen[4, 7] == [1, 0.5, 0.5]).all() and (seen[9, 9] == [0.5, 0.5, 0.25]).all()
    assert show.tinted(maps, percentile=99)[9, 9, 2] == 0.25  # few values: ends at the maximum
    blurred = show.tinted(maps, percentile=100, blur=1)
    assert blurred[4, 7, 0] == 1 > blurred[4, 8, 0] > 0.5 == blurred[4, 7, 1]
