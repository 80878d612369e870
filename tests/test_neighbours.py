"""Features, neighbours, the parts of t-SNE and the grids, against scikit-learn and plain loops."""

import copy
import io
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import squareform
from sklearn.manifold import TSNE
from sklearn.manifold._t_sne import _joint_probabilities
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors
from torch import nn

from vislib import nets, show
from vislib.core import record
from vislib.data.coco import Coco
from vislib.data.objects import object_crops
from vislib.errors import InputError
from vislib.features import neighbours
from vislib.layers import classifier_head
from vislib.paths import DATA
from vislib.widgets import neighbours as widgets

SHARED = Path(__file__).parents[2] / "shared"


# ---------------------------------------------------------------------- crops


@pytest.fixture(scope="module")
def gallery() -> Coco:
    return Coco(DATA / "pocket_coco", "gallery")


def test_a_crop_holds_the_whole_object(gallery: Coco) -> None:
    crops = object_crops(gallery, 64)
    count = sum(len(gallery.objects(i)) for i in range(1001, 1013))
    assert crops.images.shape == (count, 3, 64, 64)
    assert crops.images.min() >= 0 and crops.images.max() <= 1
    for label, scene in zip(crops.labels.tolist(), crops.scenes.tolist(), strict=True):
        assert crops.names[label] in gallery.objects(scene)
    few = object_crops(gallery, 64, per_category=1, categories=["zebra", "dog"])
    assert few.names == ("zebra", "dog") and few.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "box", [(0, 20, 0, 10), (90, 100, 50, 60), (0, 100, 0, 60), (40, 44, 3, 9)]
)
def test_a_crop_is_cut_where_the_object_is(tmp_path: Path, box: tuple[int, ...]) -> None:
    """One white rectangle on a black 100×60 image: all of it is in the square around it."""
    top, bottom, left, right = box
    pixels = np.zeros((100, 60, 3), np.uint8)
    pixels[top:bottom, left:right] = 255
    (tmp_path / "val").mkdir()
    (tmp_path / "annotations").mkdir()
    Image.fromarray(pixels).save(tmp_path / "val" / "1.png")
    corners = [left, top, right, top, right, bottom, left, bottom]
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": 100, "width": 60, "license": 1}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "segmentation": [corners]}
        ],
        "categories": [{"id": 7, "name": "box"}, {"id": 8, "name": "nowhere"}],
        "licenses": [],
    }
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    longest = max(bottom - top, right - left)
    length = min(round(1.3 * longest), 60)
    crops = object_crops(Coco(tmp_path, "val"), length)
    assert crops.names == ("box",) and crops.images.shape == (1, 3, length, length)
    seen = min(bottom - top, length) * (right - left)
    assert crops.images[0, 0].sum() == seen
    with pytest.raises(ValueError, match="none of the categories nowhere"):
        object_crops(Coco(tmp_path, "val"), 8, categories=["nowhere"])
    with pytest.raises(InputError, match="boxx"):
        object_crops(Coco(tmp_path, "val"), 8, categories=["boxx"])


# ---------------------------------------------------------------------- features

HEADS = {
    "alexnet": ("classifier.6", 4096),
    "vgg11": ("classifier.6", 4096),
    "squeezenet1_1": ("classifier.1", 512),
    "resnet18": ("fc", 512),
    "googlenet": ("fc", 1024),
    "densenet121": ("classifier", 1024),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_last_hidden_layer_is_found(untrained, name: str) -> None:
    """What is called features gives the logits again when the head is put on top."""
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
            wanted = model.features(x).mean((2, 3))
            assert torch.allclose(features, wanted, atol=1e-5)
        else:
            again = model.get_submodule(head)(features)
            assert torch.allclose(again, logits, atol=1e-4 * logits.abs().max())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", nets.POCKET_NETS)
def test_pocket_nets(name: str) -> None:
    """All heads are linear in the mean of what enters them, pooled before or after."""
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
        found = neighbours.features_of(model, x, layer, batch=2)
        assert found.shape == (3, size)
        assert torch.allclose(found, out, atol=1e-5)
    by_module = neighbours.features_of(model, x, model.features[3])
    assert torch.allclose(by_module, neighbours.features_of(model, x, "features.3"), atol=1e-5)


def test_the_net_stays_as_it_was_also_after_an_exception(untrained) -> None:
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
    """No linear layer at the end, and a layer that gives neither vector nor map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.flat = nn.Flatten(2)
        self.spare = nn.Linear(2, 2)

    def forward(self, x):
        return self.flat(self.conv(x)).mean(2) @ torch.ones(4, 5)


def test_what_has_no_features_is_refused(untrained) -> None:
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"each of its 5 classes: say with layer="):
        neighbours.features_of(Odd(), x)
    assert neighbours.features_of(Odd(), x, "conv").shape == (2, 4)
    with pytest.raises(ValueError, match=r"'flat' gives shape \(2, 4, 36\) for 2 images"):
        neighbours.features_of(Odd(), x, "flat")
    with pytest.raises(ValueError, match="never calls layer 'spare'"):
        neighbours.features_of(Odd(), x, "spare")
    with pytest.raises(ValueError, match="no layer 'convv'"):
        neighbours.features_of(Odd(), x, "convv")
    with pytest.raises(ValueError, match="batch must be at least 1"):
        neighbours.features_of(Odd(), x, "conv", batch=0)
    with pytest.raises(ValueError, match="NaN"):
        neighbours.features_of(Odd(), x * torch.nan)


# ---------------------------------------------------------------------- neighbours


@pytest.mark.parametrize("metric", neighbours.METRICS)
@pytest.mark.parametrize("n", [20, 300])  # 300: more than one part
def test_neighbours_are_those_of_scikit_learn(metric: str, n: int) -> None:
    bank, queries = torch.randn(n, 7) + 3, torch.randn(9, 7) + 3
    peer = NearestNeighbors(metric=metric, algorithm="brute").fit(bank.double().numpy())
    wanted = peer.kneighbors(n_neighbors=6, return_distance=False)  # without itself
    assert np.array_equal(neighbours.nearest(bank, 6, metric=metric), wanted)
    wanted = peer.kneighbors(queries.double().numpy(), 6, return_distance=False)
    assert np.array_equal(neighbours.nearest(bank, 6, queries=queries, metric=metric), wanted)


def test_neighbours_by_plain_loops_with_ties_far_from_zero() -> None:
    """Whole numbers far from zero: many equal distances, of which the first row wins."""
    bank = torch.randint(0, 3, (40, 4)).double() + 1000
    found = neighbours.nearest(bank, 39).tolist()
    for i in range(40):
        others = [j for j in range(40) if j != i]
        wanted = sorted(others, key=lambda j: (((bank[i] - bank[j]) ** 2).sum().item(), j))
        assert found[i] == wanted


def test_wrong_arguments_of_nearest() -> None:
    bank = torch.randn(5, 3)
    for k in (0, 5):
        with pytest.raises(ValueError, match="k must be between 1 and 4"):
            neighbours.nearest(bank, k)
    assert neighbours.nearest(bank, 5, queries=bank).shape == (5, 5)
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        neighbours.nearest(bank, 2, metric="cosin")
    with pytest.raises(ValueError, match="queries have 2 features, the pictures have 3"):
        neighbours.nearest(bank, 2, queries=bank[:, :2])
    with pytest.raises(ValueError, match=r"N×D, one row for each picture, got \(5, 3, 1, 1\)"):
        neighbours.nearest(bank[:, :, None, None], 2)
    with pytest.raises(ValueError, match="NaN"):
        neighbours.nearest(bank * torch.nan, 2)


def test_precision_by_plain_loops() -> None:
    labels, asked = torch.randint(0, 3, (30,)), torch.randint(0, 3, (8,))
    table = torch.randint(0, 30, (8, 6))
    for k in (1, 4, 6):
        found = neighbours.precision_at(k, table, labels, asked)
        for i, row in enumerate(table.tolist()):
            right = sum(int(labels[j]) == int(asked[i]) for j in row[:k])
            assert found[i] == right / k
    for k in (0, 7):
        with pytest.raises(ValueError, match=f"k = {k} needs a table"):
            neighbours.precision_at(k, table, labels, asked)
    with pytest.raises(ValueError, match="8 queries need as many labels, got 30"):
        neighbours.precision_at(3, table, labels)


# ---------------------------------------------------------------------- t-SNE


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_similarities_are_those_of_scikit_learn(scale: float) -> None:
    features = torch.randn(50, 8, dtype=torch.float64) * scale
    found = neighbours.similarities(features, 7)
    squared = pairwise_distances(features.numpy(), squared=True) / scale**2
    wanted = squareform(_joint_probabilities(squared.astype(np.float32), 7, 0))
    assert np.allclose(found, wanted, rtol=1e-3, atol=1e-8)
    assert abs(found.sum() - 1) < 1e-12 and torch.equal(found, found.T)


def test_each_row_has_the_wanted_perplexity() -> None:
    """The effective number 2^H, also where rows are of very different density."""
    features = torch.randn(30, 5, dtype=torch.float64)
    features[:10] *= 100
    for wanted in (2, 5, 20):
        p = neighbours._conditional(features, wanted)
        assert p.diagonal().max() == 0
        effective = torch.special.entr(p).sum(dim=1).div(np.log(2)).exp2()
        assert torch.allclose(effective, torch.tensor(float(wanted), dtype=torch.float64))
    corners = torch.eye(12, dtype=torch.float64)
    p = neighbours.similarities(corners, 11 - 1e-9)
    assert torch.allclose(p, (1 - torch.eye(12, dtype=torch.float64)) / (12 * 11))
    with pytest.raises(ValueError, match="30 pictures allow at least 1 and less than 29, got 29"):
        neighbours.similarities(features, 29)


def test_divergence_is_the_loss_that_scikit_learn_reports() -> None:
    features = torch.randn(60, 10, generator=torch.Generator().manual_seed(0))
    features[:30] += 4
    tsne = TSNE(perplexity=10, method="exact", init="pca", random_state=0, max_iter=2000)
    points = tsne.fit_transform(features.numpy())
    found = neighbours.divergence(neighbours.similarities(features, 10), points)
    assert found == pytest.approx(tsne.kl_divergence_, rel=1e-3)
    with pytest.raises(ValueError, match="60 pictures, but 59 points"):
        neighbours.divergence(neighbours.similarities(features, 10), points[1:])


def test_repulsion_without_tree_is_the_plain_sum() -> None:
    points = np.random.default_rng(0).normal(size=(200, 2)) * 10
    points[5] = points[6] = points[7]  # equal points cannot be told apart by any tree
    for i in (0, 5, 150):
        wanted = sum((points[i] - y) / (1 + ((points[i] - y) ** 2).sum()) ** 2 for y in points)
        force, terms = neighbours.repulsion(points, i, theta=0)
        assert np.allclose(force, wanted, atol=1e-12) and 190 < terms <= 199
        rough, fewer = neighbours.repulsion(points, i, theta=0.5)
        assert fewer < terms / 2
        assert np.linalg.norm(rough - wanted) < 0.15 * np.linalg.norm(wanted)


# ---------------------------------------------------------------------- the map


def test_grid_by_nearest_is_one_nearest_neighbour() -> None:
    points = np.random.default_rng(1).normal(size=(37, 2)) * (3, 40)
    unit = (points - points.min(0)) / (points.max(0) - points.min(0))
    grid = neighbours.grid_by_nearest(points, 6)
    peer = NearestNeighbors(n_neighbors=1).fit(unit)
    for row, column in itertools.product(range(6), repeat=2):
        centre = [(column + 0.5) / 6, 1 - (row + 0.5) / 6]  # the first row is at the top
        assert grid[row, column] == peer.kneighbors([centre], return_distance=False)[0, 0]


def test_grid_by_assignment_is_the_best_of_all() -> None:
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
    """Points that lie on a grid already come back as they are, in both ways."""
    order = np.random.default_rng(3).permutation(25)
    points = neighbours.cell_centres(5)[order]
    wanted = order.argsort().reshape(5, 5)
    assert np.array_equal(neighbours.grid_by_nearest(points, 5), wanted)
    assert np.array_equal(neighbours.grid_by_assignment(points, 5), wanted)
    with pytest.raises(ValueError, match="points N×2"):
        neighbours.grid_by_nearest(points.T, 5)
    with pytest.raises(ValueError, match="at least 1 cell"):
        neighbours.grid_by_assignment(points, 0)
    with pytest.raises(ValueError, match="NaN"):
        neighbours.grid_by_nearest(points * np.nan, 5)
    assert (neighbours.unit_square(np.ones((4, 2))) == 0.5).all()


def test_pictures_at_their_points() -> None:
    images = torch.stack([torch.full((3, 4, 4), value) for value in (0.0, 0.25, 0.5)])
    canvas = neighbours.placed(images, np.array([[0, 0], [1, 1], [1, 0]]), side=20)
    seen = canvas[0, [18, 1, 18, 1], [1, 18, 18, 1]]
    assert torch.allclose(seen, torch.tensor([0, 0.25, 0.5, 1]))
    with pytest.raises(ValueError, match="4×4 pixels do not fit on 3×3"):
        neighbours.placed(images, np.eye(3, 2), side=3)


def test_a_photograph_is_shown_as_jpeg_pixel_for_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("IPython.display.display", seen.append)
    grey = torch.linspace(0, 1, 40).expand(3, 30, 40)
    show.photograph(grey, alt="a ramp")
    (shown,) = seen
    assert shown._repr_jpeg_()[1]["alt"] == "a ramp"
    image = Image.open(io.BytesIO(shown.data))
    assert image.format == "JPEG" and image.size == (40, 30)
    assert np.abs(np.asarray(image)[..., 1] / 255 - grey[0].numpy()).max() < 0.03
    with pytest.raises(ValueError, match="alt text"):
        show.photograph(grey, alt=" ")


# ---------------------------------------------------------------------- the widget


def test_the_widget_over_its_range(gallery: Coco) -> None:
    crops = object_crops(gallery, 32)
    spaces = {"pixels": crops.images.flatten(1), "colour": crops.images.mean((2, 3))}
    for depth, name in enumerate(spaces):
        table = neighbours.nearest(spaces[name], 5)
        for query in range(len(crops.images)):
            assert widgets.neighbours_at(spaces, query, depth) == table[query].tolist()


def _alt(shown: Any) -> str:
    _, metadata = shown._repr_mimebundle_()
    (of_the_image,) = metadata.values()
    return of_the_image["alt"]


def test_the_widgets_pictures(gallery: Coco, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("IPython.display.display", seen.append)
    crops = object_crops(gallery, 16, per_category=2)
    spaces = {"pixels": crops.images.flatten(1), "colour": crops.images.mean((2, 3))}
    widgets.draw_neighbours(crops, spaces, 3, 1)
    found = [crops.names[crops.labels[i]] for i in widgets.neighbours_at(spaces, 3, 1)]
    assert f"colour (picture 3, {crops.names[crops.labels[3]]}): {', '.join(found)}" in _alt(
        seen[0]
    )
    points = np.random.default_rng(0).normal(size=(len(crops.images), 2))
    widgets.draw_maps(crops, {"a": points, "b": points}, alt="two maps", shown=("dog", "zebra"))
    assert _alt(seen[1]) == "two maps"
    box = widgets.neighbour_browser(crops, spaces, query=2)
    query, depth, _ = box.children
    assert (query.value, query.max, depth.min, depth.max) == (2, len(crops.images) - 1, 1, 1)


# ---------------------------------------------------------------------- real nets and pictures


@pytest.mark.real
def test_features_beat_pixels_on_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    """SqueezeNet with ImageNet weights on objects from real COCO images."""
    weights = SHARED / "torch_home"
    if not weights.is_dir() or not (SHARED / "coco" / "annotations").is_dir():
        pytest.skip("neither ImageNet weights nor COCO images beside the project")
    monkeypatch.setenv("TORCH_HOME", os.fspath(weights))
    split = next((SHARED / "coco" / "annotations").glob("instances_*.json")).stem[10:]
    coco = Coco(SHARED / "coco", split)
    crops = object_crops(coco, 128, categories=["zebra", "bus", "pizza", "cat"])
    model = nets.load("squeezenet1_0")
    precisions = []
    for features in (crops.images.flatten(1), neighbours.features_of(model, crops.images)):
        table = neighbours.nearest(features, 3, metric="cosine")
        precisions.append(neighbours.precision_at(3, table, crops.labels).mean().item())
    assert precisions[1] > precisions[0] + 0.2
