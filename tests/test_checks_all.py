"""What all checks share, and answers that a check could easily take for right or for wrong."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt, label
from torch import nn

from vislib import checks, scratch
from vislib.checks import (
    Wrong,
    attacks,
    backpropagation,
    cam,
    convolution,
    dream,
    energy,
    filters,
    fullgrad,
    gradient_descent,
    guided_backprop,
    measures,
    neighbours,
    occlusion,
    perceptron,
    shapley,
    style,
)
from vislib.maps import upsample
from vislib.measure import localisation

# ---------------------------------------------------------------------- the shared tools


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([torch.tensor(1.0, requires_grad=True), 2.0], np.array([1.0, 2.0])),
        (((1, 2), (3, 4)), torch.tensor([[1, 2], [3, 4]])),
        (torch.tensor([0.5], dtype=torch.bfloat16), [0.5]),
        (torch.tensor(0.25, requires_grad=True), 0.25),
        (np.float32(0.1), 0.1),
    ],
)
def test_numbers_of_any_kind_are_the_same(found, expected):
    checks.same(found, expected, what="it")


@pytest.mark.parametrize(
    ("found", "expected", "message"),
    [
        (None, 0.123, "it should be one number, yours is None"),
        (..., 0.123, "it should be one number, yours is Ellipsis"),
        ("0.123", 0.123, "it should be one number, yours is '0.123'"),
        ([0.123], 0.123, r"it should be one number, yours has shape \(1,\)"),
        (0.5, [0.1, 0.2], r"it should have shape \(2,\), yours is one number"),
        ([[1], [1, 2]], [0.1, 0.2], r"it should have shape \(2,\), yours is \[\[1\]"),
        ((x for x in "ab"), [1, 2], "yours is a generator"),
        (np.array([2.0, 4]), np.array([1.0, 2]), "2 times what it should be"),
        (np.array([1.001, 2.0]), np.array([1.0, 2]), "off by"),
    ],
)
def test_what_is_wrong_is_said_without_the_answer(found, expected, message):
    with pytest.raises(Wrong, match=message) as error:
        checks.same(found, expected, what="it")
    assert "0.123" not in str(error.value).replace("'0.123'", "")


def test_a_right_answer_is_never_taken_for_a_mistake():
    checks.same(1.0, 1.0, what="it", mistakes={"no": 1.000015}, tolerance=1e-5)
    checks.same(1.000008, 1.0, what="it", mistakes={"no": 1.000015}, tolerance=1e-5)


def test_a_call_says_with_what_it_was_made():
    with pytest.raises(Wrong, match="It was called with 'guided', a Tensor of shape"):
        checks.call(lambda method, z: None, "guided", torch.ones(2, 3))
    with pytest.raises(Wrong, match="It was called with nothing"):
        checks.call(lambda: 1 / 0)
    with pytest.raises(Wrong, match=r"called with a function$"):
        checks.call(lambda f: 1 / 0, lambda: 0)
    with pytest.raises(Wrong, match="not a Tensor of shape"):
        checks.call(torch.ones(100))


def test_lists_must_stay_as_they_are():
    def shorter(pairs):
        return pairs.pop()

    def other(weights):
        weights[0] *= 2
        return weights

    for function, given in [(shorter, [(1, 2), (3, 4)]), (other, [np.ones(3)])]:
        with pytest.raises(Wrong, match="changes its input"):
            checks.call(function, given)


@pytest.mark.parametrize("found", ["yes", None, [True], 0.5, np.nan, {}, [[1], [1, 2]]])
def test_only_a_truth_is_a_truth(found):
    with pytest.raises(Wrong, match="Return True or False, for this map, not"):
        checks.truth(found, "for this map")
    assert checks.truth(torch.tensor(True), "") is True
    assert checks.truth(np.False_, "") is False


# ---------------------------------------------------------------------- right answers


def half_adder(a, b, nand):
    n = nand(a, b)
    return nand(nand(a, n), nand(b, n)), nand(n, n)


def chain_slope(x, weights):
    x = a = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    for w in weights:
        a = torch.sigmoid(float(w) * a)
    return torch.autograd.grad(a, x)[0]


def forward(x, weights, biases):
    return scratch.mlp_forward(x, weights, biases)[1][-1]


def descend(gradient, start, rate, steps):
    path = [torch.tensor(start, requires_grad=True)]
    for _ in range(steps):
        path.append(path[-1] - rate * torch.tensor(gradient(path[-1].detach().numpy())))
    return path


def logit_gradient(z, labels, dtype=np.float32):
    z = torch.tensor(z.astype(dtype), requires_grad=True)
    F.cross_entropy(z, torch.tensor(labels)).backward()
    return z.grad


def drop(model, x, target, row, column, size):
    covered = x.clone()
    covered[..., row : row + size, column : column + size] = 0.5
    before, after = model(torch.cat([x, covered])).double().softmax(1)[:, target]
    return before - after


def float_ranks(a, b):
    ranks = np.stack([guided_backprop.rankdata(np.abs(v).ravel()) for v in (a, b)])
    return torch.corrcoef(torch.tensor(ranks).float())[0, 1]


def defined(values):
    return [np.nanmean(values), np.isnan(values).sum()]


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (perceptron.a_but_not_b, lambda: (torch.tensor([1.0, -1], requires_grad=True), -0.5)),
        (perceptron.half_adder, lambda *a: torch.tensor(np.array(half_adder(*a)))),
        (perceptron.chain_slope, chain_slope),
        (perceptron.forward, lambda *a: forward(*a).tolist()),
        (gradient_descent.descend, descend),
        (gradient_descent.logit_gradient, logit_gradient),
        (guided_backprop.spearman, float_ranks),
        (occlusion.drop, drop),
        (energy.mean_of_defined, defined),
        (energy.mean_of_defined, lambda values: np.array(defined(values))),
    ],
)
def test_right_answers_in_another_form_pass(check, answer):
    for _ in range(30):
        check(answer)


# ---------------------------------------------------------------------- wrong answers


def never_reset(losses, patience, late=0, reset=False):
    best = bad = 0
    for step, loss in enumerate(losses):
        better = loss < losses[best]
        best, bad = (step, bad if not reset else 0) if better else (best, bad + (step > 0))
        if bad >= patience + late:
            break
    return best


def overflow_to_zero(z, labels):
    e = np.exp(z)
    p = np.nan_to_num(e / e.sum(axis=1, keepdims=True))
    p[np.arange(len(z)), labels] -= 1
    return p / len(z)


def without_biases(x, c, weights, biases):
    return scratch.input_gradient(x, c, weights, [0 * b for b in biases])


def kernel_side_from_channels(x, w, stride, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    k = len(w)
    rows, columns = ((side - k) // stride + 1 for side in x.shape[1:])
    places = [(i * stride, j * stride) for i in range(rows) for j in range(columns)]
    values = [np.sum(w * x[:, i : i + k, j : j + k]) for i, j in places]
    return np.array(values).reshape(rows, columns)


def padded_by(width):
    def crop(image, row, column, size, jump, start):
        width_ = -start if width is None else width
        image = F.pad(image, (width_,) * 4, value=0.5)
        top, left = start + row * jump + width_, start + column * jump + width_
        return image[:, top : top + size, left : left + size]

    return crop


def randomised(model, k, draw=lambda layer: layer.reset_parameters()):
    model = copy.deepcopy(model)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers[-k:]:
        draw(layer)
    return model


def top_alone(model, k, draw):
    return nn.Sequential(*list(randomised(model, k, draw)[-1])[-k:])


def no_clamp(part, size):
    part = part.abs() - part.abs().amin((2, 3), keepdim=True)
    return upsample(part / part.amax((2, 3), keepdim=True), size).sum(1, keepdim=True)


def spread(axis):
    def answer(part, size):
        large = upsample(part, size).sum(1, keepdim=True)
        return large / (size[axis] // part.shape[axis + 2]) ** 2

    return answer


def no_box_below_zero(cam_map, threshold):
    values = cam_map.numpy()
    if values.max() < 0:
        return 0, 0, 0, 0
    parts, _ = label(values > threshold * values.max())
    return localisation.bounding_box(parts == 1 + np.bincount(parts.ravel())[1:].argmax())


def sizes(height, width, octaves, ratio, whole=round):
    powers = [ratio**k for k in reversed(range(octaves))]
    return [(whole(height / p), whole(width / p)) for p in powers]


def strongest(power):
    def place(maps):
        values = power(maps)
        return np.unravel_index(values.argmax(), values.shape)

    return place


def near(power=lambda maps: (maps**2).sum(0)):
    return lambda m, k, t: distance_transform_edt(~k)[strongest(power)(m)] <= t


def to_one_pixel(choose):
    def answer(maps, mask, tolerance):
        place = strongest(lambda m: (m**2).sum(0))(maps)
        return np.hypot(*(choose(np.argwhere(mask)) - place)) <= tolerance

    return answer


POWERS = [
    (lambda m: np.abs(m).sum(0), "Square each channel"),
    (lambda m: m.sum(0) ** 2, "Square each channel"),
    (lambda m: (m**2).max(0), "over all channels"),
    (lambda m: m[0] ** 2, "over all channels"),
    (lambda m: m[-1] ** 2, "Square each channel"),
]


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (
            perceptron.half_adder,
            lambda a, b, nand: (a ^ b, nand(nand(a, b), nand(a, b))),
            "come out of nand",
        ),
        (perceptron.half_adder, lambda *a: (0, np.ones(3)), "return two bits"),
        (perceptron.chain_slope, lambda x, w: abs(_slope(x, w)), "chain of 1"),
        (gradient_descent.descend, lambda *a: [], "should have shape"),
        (gradient_descent.logit_gradient, overflow_to_zero, "logits of 1000"),
        (gradient_descent.early_stopping, never_reset, "in a row count"),
        (
            gradient_descent.early_stopping,
            lambda losses, p: never_reset(losses, p, late=1, reset=True),
            "one step too late",
        ),
        (backpropagation.input_gradient, without_biases, "not right yet"),
        (convolution.convolve, kernel_side_from_channels, "stopped with|shape"),
        (filters.crop, padded_by(3), "shape"),
        (filters.crop, padded_by(None), "shape"),
        (filters.best_places, lambda maps, k: _strongest_places(maps.abs(), k), "off by|swapped"),
        (filters.best_places, lambda maps, k: [("a", "b", "c")] * k, "should have shape"),
        (filters.best_places, lambda maps, k: [(np.nan,) * 3] * k, "NaN"),
        (neighbours.precision_at, lambda k, table, labels: 1 / 3, "not right yet"),
        (
            neighbours.fill_grid,
            lambda p, c: np.abs(c[:, None] - p).sum(2).argmin(1),
            "in a straight line",
        ),
        (
            neighbours.fill_grid,
            lambda p, c: np.abs(c[:, None] - p).max(2).argmin(1),
            "the larger is not enough",
        ),
        (guided_backprop.randomise_top, lambda m, k, d: randomised(m, k), "from draw"),
        (guided_backprop.randomise_top, top_alone, "return the whole copy"),
        (guided_backprop.randomise_top, lambda m, k, d: nn.Linear(2, 2), "the whole copy"),
        (guided_backprop.randomise_top, lambda m, k, d: randomised(m, 1, d), "k = 4 the layers"),
        (cam.box_of, no_box_below_zero, "no value above zero"),
        (cam.box_of, lambda m, t: _box_or(m, t, None), "no value above zero.* returns None"),
        (cam.box_of, lambda m, t: _box_or(m, t, "none"), "no value above zero"),
        (
            cam.overlap,
            lambda a, b: localisation.iou((a[1], a[0], *a[2:]), b),
            "IoU",
        ),
        (fullgrad.psi, no_clamp, "constant maps holds NaN"),
        (fullgrad.spread, spread(0), "different factors"),
        (fullgrad.spread, spread(1), "different factors"),
        (occlusion.drop, lambda *a: drop(*a).abs(), "not right yet"),
        (occlusion.drop, lambda m, x, t, *a: drop(m, x, 0, *a), "not right yet"),
        (shapley.along, lambda v, o: _along(v, o.argsort()), "off by"),
        (dream.sizes, lambda *a: sizes(*a, whole=int), "cut off"),
        (dream.sizes, lambda *a: sizes(*a, whole=float), "Sizes are whole numbers"),
        (dream.sizes, lambda h, w, n, r: sizes(h, w, 4, r), "too many"),
        (
            attacks.fgsm,
            lambda m, x, t, e: _fgsm(m, x, int(m(x)[0].argmax()), e),
            "not right yet",
        ),
        (energy.pointing_hit, lambda m, k: "True", "True or False"),
        (energy.mean_of_defined, lambda values: {"a": 1, "b": 2}, "The mean should be one"),
        (style.gram, lambda maps: (maps.flatten(1) @ maps.flatten(1).T).abs(), "off by"),
        *[
            (energy.pointing_hit, lambda m, k, p=power: k[strongest(p)(m)], told)
            for power, told in POWERS
        ],
        *[(measures.hits_near, near(power), told) for power, told in POWERS],
        (measures.hits_near, to_one_pixel(lambda places: places.mean(0)), "this should be True"),
        (measures.hits_near, to_one_pixel(lambda places: places[0]), "this should be True"),
        (measures.rank_agreement, lambda a, b: abs(_ranks(a, b)), "not right yet"),
    ],
)
def test_wrong_answers_that_are_near_are_found(check, answer, told):
    for _ in range(10):
        with pytest.raises(Wrong, match=told):
            check(answer)


def _strongest_places(maps, k):
    value, index = maps.flatten(1).max(dim=1)
    best = value.argsort(descending=True)[:k]
    return [(n, *divmod(int(index[n]), maps.shape[2])) for n in best]


def _slope(x, weights):
    slope = 1.0
    for w in weights:
        slope, x = slope * w * scratch.sigmoid_prime(w * x), scratch.sigmoid(w * x)
    return slope


def _box_or(cam_map, threshold, otherwise):
    return localisation.box(cam_map, threshold) if cam_map.max() > 0 else otherwise


def _along(value, order):
    place = order.argsort()
    return value(place < torch.arange(len(order) + 1)[:, None]).diff()[place]


def _fgsm(model, x, target, epsilon):
    x.requires_grad_()
    loss = F.cross_entropy(model(x), torch.full((len(x),), target))
    return (x + epsilon * torch.autograd.grad(loss, x)[0].sign()).clamp(0, 1)


def _ranks(a, b):
    return np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1]
