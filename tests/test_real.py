"""Real COCO photographs and a real ImageNet net, against numbers that Captum gave.

They lie beside the project, in ``shared``, and nothing of them is part of it: without them these
tests are skipped.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from scipy.ndimage import distance_transform_edt
from torchvision import transforms

from vislib import nets
from vislib.data.coco import Coco
from vislib.measure import benchmark, report
from vislib.measure.benchmark import Plan

SHARED = Path(__file__).parents[2] / "shared"
REFERENCE = SHARED / "coco" / "reference.json"
CLASSES = SHARED / "coco" / "imagenet_classes.json"
NAMES = {
    "gradient": "bp",
    "deconvnet": "deconv",
    "guided_backprop": "gbp",
    "grad_cam": "gradcam",
    "guided_grad_cam": "ggc",
}
NORMALIZE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

pytestmark = [
    pytest.mark.real,
    *(
        pytest.mark.skipif(not needed.exists(), reason=f"the real data are not here: no {needed}")
        for needed in (REFERENCE, SHARED / "torch_home")
    ),
]


@pytest.fixture(autouse=True)
def _torch_home(monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(SHARED / "torch_home"))


def run(out: Path, coco: Coco, size, categories=None):
    return benchmark.run(
        coco,
        out,
        Plan(
            ["squeezenet1_0"],
            categories,
            list(NAMES),
            [size],
            per_category=1000,
            class_table=CLASSES,
            controls=False,
        ),
    )


def test_all_means_at_224_are_those_of_the_reference(tmp_path):
    expected = json.loads(REFERENCE.read_text())["sizes"]["224"]
    records, skipped = run(tmp_path, Coco(SHARED / "coco", "train2017"), 224)
    # One object of the 135 is so small that nothing is left of it at this size.
    assert [s.reason.split(" in image")[0][:18] for s in skipped] == ["nothing is left of"]
    summary = report.table(report.frame(records))
    overall = summary[summary["view"] == "all"].set_index("method")
    for method, name in NAMES.items():
        row = overall.loc[method]
        assert row.records == expected["records"] == 134
        assert row.undefined == expected["undefined"][name]
        assert row.mean_P == pytest.approx(expected["mean_P"][name], abs=0.005)
        assert row.mask_fraction == pytest.approx(expected["mask_share"], abs=0.005)
    assert overall.undefined["deconvnet"] == 105


def captum_P(net, image: Image.Image, mask: np.ndarray, candidates: list[int]) -> dict[str, float]:
    """P of the five methods, one image, with Captum's five calls and the mask grown by hand."""
    from captum.attr import (
        Deconvolution,
        GuidedBackprop,
        LayerAttribution,
        LayerGradCam,
        Saliency,
    )

    x = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).movedim(-1, 0) / 255
    x = x[None].requires_grad_()
    # By pixels in [0, 1], as everywhere here. The reference is by normalised ones: that weighs the
    # channels by their deviation (0.229, 0.224, 0.225) and moves P by about a thousandth.
    layer, net = net.features[12], torch.nn.Sequential(NORMALIZE, net)
    with torch.no_grad():
        logits = net(x)[0]
    target = max(candidates, key=lambda c: logits[c].item())
    grad_cam = LayerGradCam(net, layer).attribute(x, target, relu_attributions=True)
    grad_cam = LayerAttribution.interpolate(grad_cam, x.shape[-2:], "bilinear")
    guided = GuidedBackprop(net).attribute(x, target)
    maps = {
        "gradient": Saliency(net).attribute(x, target, abs=False),
        "deconvnet": Deconvolution(net).attribute(x, target),
        "guided_backprop": guided,
        "grad_cam": grad_cam,
        "guided_grad_cam": grad_cam * guided,
    }
    distance, radius = distance_transform_edt(~mask), 0
    while (distance <= radius).sum() < 1.2 * mask.sum():
        radius += 1
    power = {m: values.detach().double().square().sum(dim=(0, 1)) for m, values in maps.items()}
    return {
        m: (p[torch.from_numpy(distance <= radius)].sum() / p.sum()).item()
        for m, p in power.items()
    }


@pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning")
def test_the_first_photographs_at_their_original_size_are_as_captum_has_them(tmp_path):
    data = json.loads((SHARED / "coco" / "annotations" / "instances_train2017.json").read_text())
    part = sorted(entry["id"] for entry in data["images"])[:8]
    data["images"] = [entry for entry in data["images"] if entry["id"] in part]
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] in part]
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(data))

    class Part(Coco):
        """The first photographs; the files stay where they are."""

        def path(self, image_id: int) -> Path:
            return SHARED / "coco" / super().path(image_id).relative_to(tmp_path)

    records, skipped = run(tmp_path, Part(tmp_path, "train2017"), "original")
    assert not skipped

    net = nets.load("squeezenet1_0").net
    for module in net.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False  # Captum's hooks need it
    coco, table = COCO(str(file)), json.loads(CLASSES.read_text())
    number = {category["name"]: category["id"] for category in data["categories"]}
    found = {(r.image_id, r.category, r.method): r.P for r in records}
    expected = {}
    for image_id in part:
        entry = coco.imgs[image_id]
        for category in sorted(set(table) & set(number)):
            outlines = coco.getAnnIds([image_id], [number[category]], iscrowd=False)
            if not outlines:
                continue
            mask = np.any([coco.annToMask(a) for a in coco.loadAnns(outlines)], axis=0)
            with Image.open(SHARED / "coco" / "train2017" / entry["file_name"]) as image:
                shares = captum_P(net, image, mask, table[category])
            expected |= {(image_id, category, method): p for method, p in shares.items()}
    assert len(expected) >= 5 * len(part)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True), key
    assert any(
        math.isnan(value) for value in expected.values()
    )  # the dying deconvnet is among them
