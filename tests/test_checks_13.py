"""The checks and the widget of notebook 13: right answers pass, each usual mistake is named."""

import itertools

import pytest
import torch

from vislib import nets
from vislib.checks import Wrong, occlusion
from vislib.transforms import baseline_image
from vislib.widgets import occlusion as widgets


def drop(model, x, target, row, column, size, *, value=0.5, channels=3, loss=True, softmax=True):
    covered = x.clone()
    covered[:, :channels, row : row + size, column : column + size] = value
    with torch.no_grad():
        answers = [model(image)[0] for image in (x, covered)]
    p, q = (a.softmax(0)[target] if softmax else a[target] for a in answers)
    return p - q if loss else q


def pixel_map(values, size, stride, shape, *, divide=True, add=True, side=None):
    total, count = torch.zeros(shape), torch.zeros(shape)
    for i, j in itertools.product(*map(range, values.shape)):
        square = tuple(slice(k * stride, k * stride + (side or size)) for k in (i, j))
        total[square] = values[i, j] + (total[square] if add else 0)
        count[square] += 1
    return total / count.clamp(min=1) if divide else total


def in_place(model, x, target, row, column, size):
    before = model(x).softmax(1)[0, target]
    x[..., row : row + size, column : column + size] = 0.5
    return (before - model(x).softmax(1)[0, target]).detach()


@pytest.mark.parametrize(
    ("check", "answer"), [(occlusion.drop, drop), (occlusion.pixel_map, pixel_map)]
)
def test_right_answers_pass(check, answer, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (occlusion.drop, lambda *a: drop(*a, loss=False), "subtract it"),
        (occlusion.drop, lambda *a: -drop(*a), "before minus after"),
        (occlusion.drop, lambda *a: drop(*a, softmax=False), "use the probabilities"),
        (occlusion.drop, lambda *a: drop(*a, value=0), "not with black"),
        (occlusion.drop, lambda *a: drop(*a, channels=1), "all three channels"),
        (occlusion.drop, lambda m, x, t, r, c, s: drop(m, x, t, c, r, s), "Rows come before"),
        (occlusion.drop, lambda m, x, t, *a: drop(m, x, (t + 1) % 3, *a), "another class"),
        (occlusion.drop, in_place, "changes its input"),
        (occlusion.pixel_map, lambda *a: pixel_map(*a, divide=False), "divide by how many"),
        (occlusion.pixel_map, lambda *a: pixel_map(*a, add=False, divide=False), "overwrites"),
        (occlusion.pixel_map, lambda v, s, t, h: pixel_map(v, s, t, h, side=t), "size × size"),
        (
            occlusion.pixel_map,
            lambda v, s, t, h: pixel_map(v, s, t, h, divide=False) / (s / t) ** 2,
            "its own number",
        ),
    ],
)
def test_each_mistake_is_named(check, answer, told):
    with pytest.raises(Wrong, match=told):
        check(answer)


LOGITS = torch.rand(6, 7, 3, generator=torch.Generator().manual_seed(0))
CLEAN = torch.tensor([1.0, 0.0, 0.0])


def test_flips(capsys):
    share = (LOGITS.argmax(-1) != 0).float().mean()
    occlusion.flips(share, LOGITS, CLEAN)
    assert capsys.readouterr().out.startswith("✓")
    for wrong, told in [
        ((LOGITS.argmax(-1) != 0).sum(), "number of squares"),
        (1 - share, "leave the class as it was"),
        ((LOGITS.flatten(0, 1).argmax(0) != 0).float().mean(), "the last axis"),
        (share / 2, "not right yet"),
    ]:
        with pytest.raises(Wrong, match=told):
            occlusion.flips(wrong, LOGITS, CLEAN)


def test_the_square_over_the_range_of_its_sliders(monkeypatch):
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(
        "vislib.show.display", lambda figure, alt: (plt.close(figure), shown.append(alt))
    )
    model = nets.load("pocket_vgg")
    x = torch.rand(1, 3, 128, 96, generator=torch.Generator().manual_seed(1))
    row, column, size, kind, _ = widgets.square(model, x, [0, 3]).children
    for r, c, s, k in itertools.product(
        (row.min, row.max), (column.min, column.max), (size.min, size.max), kind.options
    ):
        covered = widgets.cover(x, r, c, s, k)
        changed = (covered != x).any(dim=1)[0]
        inside = torch.zeros(128, 96, dtype=torch.bool)
        inside[r * 8 : r * 8 + s, c * 8 : c * 8 + s] = True
        assert changed.any() and not (changed & ~inside).any()
        assert torch.equal(covered[..., inside], baseline_image(x, k)[..., inside])
    assert widgets.answers(model, x, [0, 3]) == pytest.approx(
        model(x).softmax(1)[0, [0, 3]].tolist()
    )
    shown.clear()
    for at in (row.min, row.max):
        widgets.draw_square(model, x, [0, 3], at, 4, 32)
    assert len(set(shown)) == 2
