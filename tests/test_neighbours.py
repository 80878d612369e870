"""Features, neighbours, the parts of t-SNE and the grids, against scikit-learn and plain loops."""

import copy
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import squareform
from sklearn.manifold import TSNE
from sklearn.manifold._t_sne import _joint_probabilities
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors
from torch import nn

from vislib import nets
from vislib.core import record
from vislib.data.coco import Coco
from vislib.data.objects import object_crops
from vislib.features import neighbours
from vislib.layers import classifier_head

SHARED = Path(__file__).parents[2] / "shared"


# --- Features -------------------------------------------------------------------------------------

HEADS = {
    "alexnet": ("classifier.6", 4096),
    "vgg11": ("classifier.6", 4096),
    "squeezenet1_1": ("classifier.1", 512),
    "resnet18": ("fc", 512),
    "googlenet": ("fc", 1024),
    "densenet121": ("classifier", 1024),
}


@pytest.mark.parametrize("name", HEADS)
def test_features_are_those_of_the_last_hidden_layer(untrained, name: str) -> None:
    """The head computes the logits from the features."""
    model, x = untrained(name), torch.rand(3, 3, 96, 96)
    before = copy.deepcopy(model.state_dict())
    head, size = HEADS[name]
    assert classifier_head(model, x) == head
    features = neighbours.features_of(model, x, batch=2)
    assert features.shape == (3, size) and not features.requires_grad
    with torch.no_grad():
        logits = model(x)
        if name == "squeezenet1_1":  # the ReLU after the head makes it an inequality
            maps = torch.relu(model.classifier[1](model.features(x)))
            assert torch.allclose(maps.mean((2, 3)), logits, atol=1e-5)
            expected = model.features(x).mean((2, 3))
            assert torch.allclose(features, expected, atol=1e-5)
        else:
            again = model.get_submodule(head)(features)
            assert torch.allclose(again, logits, atol=1e-4 * logits.abs().max())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", nets.EMOJI_NETS)
def test_features_of_the_pocket_networks_give_the_logits(name: str) -> None:
    """All heads are linear in the mean of their input, which is pooled before or after."""
    model, x = nets.load(name), torch.rand(3, 3, 128, 128)
    features = neighbours.features_of(model, x, batch=2)
    head = model.get_submodule(classifier_head(model, x))
    weight = head.weight.flatten(1)
    with torch.no_grad():
        assert torch.allclose(features @ weight.T + head.bias, model(x), atol=1e-4)


def test_features_of_a_chosen_layer(untrained) -> None:
    model, x = untrained("alexnet"), torch.rand(3, 3, 96, 96)
    with torch.no_grad(), record(model, ["features.3", "classifier.1"]) as outputs:
        model(x)
    for layer, size in [("features.3", 192), ("classifier.1", 4096)]:
        out = outputs[layer] if layer[0] == "c" else outputs[layer].mean((2, 3))
        actual = neighbours.features_of(model, x, layer, batch=2)
        assert actual.shape == (3, size)
        assert torch.allclose(actual, out, atol=1e-5)
    by_module = neighbours.features_of(model, x, model.features[3])
    assert torch.allclose(by_module, neighbours.features_of(model, x, "features.3"), atol=1e-5)


def test_the_model_stays_as_it_was_also_after_an_exception(untrained) -> None:
    model = copy.deepcopy(untrained("alexnet")).train()
    model.features[0].weight.requires_grad_(False)
    state = torch.get_rng_state()
    for x in (torch.rand(2, 3, 96, 96), torch.rand(2, 3, 4, 4)):  # the second is too small
        try:
            neighbours.features_of(model, x)
            neighbours.features_of(model, x, "features.3")
        except RuntimeError:
            assert x.shape[-1] == 4
        assert all(module.training for module in model.modules())
        assert not model.features[0].weight.requires_grad
        assert model.features[3].weight.requires_grad
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    torch.random.set_rng_state(state)


class Odd(nn.Module):
    """A network without a final linear layer; one layer gives neither vector nor map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.flat = nn.Flatten(2)
        self.spare = nn.Linear(2, 2)

    def forward(self, x):
        return self.flat(self.conv(x)).mean(2) @ torch.ones(4, 5)


def test_a_layer_without_features_is_refused(untrained) -> None:
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"each of its 5 classes: pass layer="):
        neighbours.features_of(Odd(), x)
    assert neighbours.features_of(Odd(), x, "conv").shape == (2, 4)
    with pytest.raises(
        ValueError, match=r"'flat' must give a vector .* got shape \(2, 4, 36\) for 2 images"
    ):
        neighbours.features_of(Odd(), x, "flat")
    with pytest.raises(ValueError, match="never calls layer 'spare'"):
        neighbours.features_of(Odd(), x, "spare")
    with pytest.raises(ValueError, match="no layer 'convv'"):
        neighbours.features_of(Odd(), x, "convv")
    with pytest.raises(ValueError, match="batch must be at least 1"):
        neighbours.features_of(Odd(), x, "conv", batch=0)
    with pytest.raises(ValueError, match="NaN"):
        neighbours.features_of(Odd(), x * torch.nan)


# --- Neighbours -----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", neighbours.METRICS)
@pytest.mark.parametrize("n", [20, 300])  # 300: more than one part
def test_neighbours_equal_scikit_learn(metric: str, n: int) -> None:
    bank, queries = torch.randn(n, 7) + 3, torch.randn(9, 7) + 3
    peer = NearestNeighbors(metric=metric, algorithm="brute").fit(bank.double().numpy())
    expected = peer.kneighbors(n_neighbors=6, return_distance=False)  # without itself
    assert np.array_equal(neighbours.nearest_neighbours(bank, 6, metric=metric), expected)
    expected = peer.kneighbors(queries.double().numpy(), 6, return_distance=False)
    assert np.array_equal(
        neighbours.nearest_neighbours(bank, 6, queries=queries, metric=metric), expected
    )


def test_neighbours_equal_loops_with_ties_far_from_zero() -> None:
    """With whole numbers far from zero, many distances are equal, and the first row wins."""
    bank = torch.randint(0, 3, (40, 4)).double() + 1000
    actual = neighbours.nearest_neighbours(bank, 39).tolist()
    for i in range(40):
        others = [j for j in range(40) if j != i]
        expected = sorted(others, key=lambda j: (((bank[i] - bank[j]) ** 2).sum().item(), j))
        assert actual[i] == expected


def test_neighbours_with_a_wrong_argument_raise() -> None:
    bank = torch.randn(5, 3)
    for k in (0, 5):
        with pytest.raises(ValueError, match="k must be between 1 and 4"):
            neighbours.nearest_neighbours(bank, k)
    assert neighbours.nearest_neighbours(bank, 5, queries=bank).shape == (5, 5)
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        neighbours.nearest_neighbours(bank, 2, metric="cosin")
    with pytest.raises(ValueError, match="as many columns as features, 3, got 2"):
        neighbours.nearest_neighbours(bank, 2, queries=bank[:, :2])
    with pytest.raises(ValueError, match=r"N×D, one row for each image, got \(5, 3, 1, 1\)"):
        neighbours.nearest_neighbours(bank[:, :, None, None], 2)
    with pytest.raises(ValueError, match="NaN"):
        neighbours.nearest_neighbours(bank * torch.nan, 2)


def test_precision_equals_plain_loops() -> None:
    labels, query_labels = torch.randint(0, 3, (30,)), torch.randint(0, 3, (8,))
    table = torch.randint(0, 30, (8, 6))
    for k in (1, 4, 6):
        actual = neighbours.precision_at(k, table, labels, query_labels)
        for i, row in enumerate(table.tolist()):
            right = sum(int(labels[j]) == int(query_labels[i]) for j in row[:k])
            assert actual[i] == right / k
    for k in (0, 7):
        with pytest.raises(ValueError, match=f"k = {k} needs a table"):
            neighbours.precision_at(k, table, labels, query_labels)
    with pytest.raises(ValueError, match="8 queries need as many labels, got 30"):
        neighbours.precision_at(3, table, labels)


# --- t-SNE ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_similarities_equal_scikit_learn(scale: float) -> None:
    features = torch.randn(50, 8, dtype=torch.float64) * scale
    actual = neighbours.similarities(features, 7)
    squared = pairwise_distances(features.numpy(), squared=True) / scale**2
    expected = squareform(_joint_probabilities(squared.astype(np.float32), 7, 0))
    assert np.allclose(actual, expected, rtol=1e-3, atol=1e-8)
    assert abs(actual.sum() - 1) < 1e-12 and torch.equal(actual, actual.T)


def test_each_row_has_the_given_perplexity() -> None:
    """The effective number 2^H is right also for rows of very different density."""
    features = torch.randn(30, 5, dtype=torch.float64)
    features[:10] *= 100
    for perplexity in (2, 5, 20):
        p = neighbours._conditional(features, perplexity)
        assert p.diagonal().max() == 0
        effective = torch.special.entr(p).sum(dim=1).div(np.log(2)).exp2()
        assert torch.allclose(effective, torch.tensor(float(perplexity), dtype=torch.float64))
    corners = torch.eye(12, dtype=torch.float64)
    p = neighbours.similarities(corners, 11 - 1e-9)
    assert torch.allclose(p, (1 - torch.eye(12, dtype=torch.float64)) / (12 * 11))
    with pytest.raises(
        ValueError, match="must be at least 1 and less than 29 for 30 images, got 29"
    ):
        neighbours.similarities(features, 29)


def test_divergence_equals_the_loss_of_scikit_learn() -> None:
    features = torch.randn(60, 10, generator=torch.Generator().manual_seed(0))
    features[:30] += 4
    tsne = TSNE(perplexity=10, method="exact", init="pca", random_state=0, max_iter=2000)
    points = tsne.fit_transform(features.numpy())
    actual = neighbours.divergence(neighbours.similarities(features, 10), points)
    assert actual == pytest.approx(tsne.kl_divergence_, rel=1e-3)
    with pytest.raises(ValueError, match="a row for each of the 60 images, got 59"):
        neighbours.divergence(neighbours.similarities(features, 10), points[1:])


def test_repulsion_with_theta_zero_equals_the_plain_sum() -> None:
    points = np.random.default_rng(0).normal(size=(200, 2)) * 10
    points[5] = points[6] = points[7]  # no tree can separate equal points
    for i in (0, 5, 150):
        expected = sum((points[i] - y) / (1 + ((points[i] - y) ** 2).sum()) ** 2 for y in points)
        force, terms = neighbours.repulsion(points, i, theta=0)
        assert np.allclose(force, expected, atol=1e-12) and 190 < terms <= 199
        rough, fewer = neighbours.repulsion(points, i, theta=0.5)
        assert fewer < terms / 2
        assert np.linalg.norm(rough - expected) < 0.15 * np.linalg.norm(expected)


# --- The map --------------------------------------------------------------------------------------


def test_grid_by_nearest_equals_scikit_learn() -> None:
    points = np.random.default_rng(1).normal(size=(37, 2)) * (3, 40)
    unit = (points - points.min(0)) / (points.max(0) - points.min(0))
    grid = neighbours.grid_by_nearest(points, 6)
    peer = NearestNeighbors(n_neighbors=1).fit(unit)
    for row, column in itertools.product(range(6), repeat=2):
        centre = [(column + 0.5) / 6, 1 - (row + 0.5) / 6]  # the first row is at the top
        assert grid[row, column] == peer.kneighbors([centre], return_distance=False)[0, 0]


def test_grid_by_assignment_is_the_best_of_all_grids() -> None:
    rng = np.random.default_rng(2)
    for n, side in [(4, 2), (6, 2), (3, 2)]:
        points = rng.normal(size=(n, 2))
        grid = neighbours.grid_by_assignment(points, side)
        shown = [i for i in grid.ravel() if i >= 0]
        assert len(set(shown)) == len(shown) == min(n, side * side)
        centres, unit = neighbours.cell_centres(side), neighbours.unit_square(points)

        def cost(pairs, centres=centres, unit=unit):
            return sum(((centres[cell] - unit[i]) ** 2).sum() for cell, i in pairs)

        cells = range(side * side)
        if n >= side * side:
            every = (zip(cells, p, strict=True) for p in itertools.permutations(range(n), side**2))
        else:
            every = (zip(c, range(n), strict=True) for c in itertools.permutations(cells, n))
        best = min(map(cost, every))
        assert cost((c, i) for c, i in enumerate(grid.ravel()) if i >= 0) == pytest.approx(best)


def test_a_grid_of_points_stays_a_grid() -> None:
    """Both functions leave points on a grid as they are."""
    order = np.random.default_rng(3).permutation(25)
    points = neighbours.cell_centres(5)[order]
    expected = order.argsort().reshape(5, 5)
    assert np.array_equal(neighbours.grid_by_nearest(points, 5), expected)
    assert np.array_equal(neighbours.grid_by_assignment(points, 5), expected)
    with pytest.raises(ValueError, match="points must be an array N×2"):
        neighbours.grid_by_nearest(points.T, 5)
    with pytest.raises(ValueError, match="side must be at least 1 cell, got 0"):
        neighbours.grid_by_assignment(points, 0)
    with pytest.raises(ValueError, match="NaN"):
        neighbours.grid_by_nearest(points * np.nan, 5)
    assert (neighbours.unit_square(np.ones((4, 2))) == 0.5).all()


def test_images_at_their_points() -> None:
    images = torch.stack([torch.full((3, 4, 4), value) for value in (0.0, 0.25, 0.5)])
    canvas = neighbours.scatter_images(images, np.array([[0, 0], [1, 1], [1, 0]]), side=20)
    pixels = canvas[0, [18, 1, 18, 1], [1, 18, 18, 1]]
    assert torch.allclose(pixels, torch.tensor([0, 0.25, 0.5, 1]))
    with pytest.raises(ValueError, match="size of the images, 4×4 pixels, got 3"):
        neighbours.scatter_images(images, np.eye(3, 2), side=3)


# --- Real networks and photographs ----------------------------------------------------------------


@pytest.mark.real
def test_features_beat_pixels_on_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    """SqueezeNet with ImageNet weights on objects from real COCO images."""
    weights = SHARED / "torch_home"
    if not weights.is_dir() or not (SHARED / "coco" / "annotations").is_dir():
        pytest.skip("ImageNet weights or COCO images are not available")
    monkeypatch.setenv("TORCH_HOME", os.fspath(weights))
    split = next((SHARED / "coco" / "annotations").glob("instances_*.json")).stem[10:]
    coco = Coco(SHARED / "coco", split)
    crops = object_crops(coco, 128, categories=["zebra", "bus", "pizza", "cat"])
    model = nets.load("squeezenet1_0")
    precisions = []
    for features in (crops.images.flatten(1), neighbours.features_of(model, crops.images)):
        table = neighbours.nearest_neighbours(features, 3, metric="cosine")
        precisions.append(neighbours.precision_at(3, table, crops.labels).mean().item())
    assert precisions[1] > precisions[0] + 0.2
