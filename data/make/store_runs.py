"""Compute the stored results of notebooks 23 and 24, and draw the figures of the README.

    uv run python data/make/store_runs.py pocket [FOLDER]
    uv run python data/make/store_runs.py all [FOLDER]
    uv run python data/make/store_runs.py picture
    uv run python data/make/store_runs.py real COCO_FOLDER SPLIT CLASS_TABLE

`pocket` runs the default benchmark, stores its results in data/benchmark and draws both figures of
the README, in some minutes. `all` runs all methods on a part of the scenes, and the measures of
notebook 24 on their maps. Both use a temporary folder; with FOLDER, a run that was stopped
continues there. `picture` draws the first figure of the README again.

`real` needs a folder with real COCO images and ImageNet weights for squeezenet1_0. It stores only
numbers: the table, and the fraction of positive values in the signal of the deconvnet at each ReLU.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vislib import cli, nets, show
from vislib.core import Operation, one_forward
from vislib.data.coco import Coco
from vislib.data.objects import load_unit
from vislib.layers import last_conv_stage
from vislib.measure import benchmark, perturbation, report
from vislib.measure.benchmark import Plan
from vislib.measure.methods import BENCHMARK, CONTROLS, STUDY
from vislib.paths import DATA

STORED = DATA / "benchmark"
PICTURES = DATA / "pictures"
KEEP = ("table.csv", "table.md", "chart_all.svg")

# The size of `vislib benchmark --methods all` in pixels.
SIZE = 128
# The measures are computed for half of the images of `vislib benchmark --methods all`.
PER_CATEGORY = 4
# The tolerance of the paper is 15 pixels for images of about 500 pixels, and 15 · 128 / 500 ≈ 4.
TOLERANCE = 4
# The number of steps of insertion and deletion.
STEPS = 16


def pocket(out: Path) -> None:
    """Run the default benchmark, and store the files that the course shows."""
    assert cli.main(["benchmark", "--out", str(out)]) == 0
    STORED.mkdir(exist_ok=True)
    store(pd.read_parquet(out / "records.parquet"), "records")
    for name in KEEP:
        (STORED / name).write_bytes((out / name).read_bytes())
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "benchmark.png").write_bytes((out / "chart_all.png").read_bytes())


def store(records: pd.DataFrame, name: str) -> None:
    """Store records in single precision, which halves the size of the file."""
    numbers = records.select_dtypes("float64").columns
    records.astype(dict.fromkeys(numbers, "float32")).to_parquet(
        STORED / f"{name}.parquet", index=False, compression="zstd"
    )


def everything(out: Path) -> None:
    """Run all methods on a part of the scenes, and compute three more measures of each map."""
    began = time.perf_counter()
    assert cli.main(["benchmark", "--methods", "all", "--save-maps", "--out", str(out)]) == 0
    print(f"all methods: {time.perf_counter() - began:.0f} s", flush=True)
    store(pd.read_parquet(out / "records.parquet"), "all_methods")
    (STORED / "all_methods.csv").write_bytes((out / "table.csv").read_bytes())
    began = time.perf_counter()
    store(measured(out / "maps"), "measures")
    print(f"measures: {time.perf_counter() - began:.0f} s")


def measured(maps: Path) -> pd.DataFrame:
    """Pointing game, deletion and insertion of the maps of trained networks and of controls."""
    coco = Coco(DATA / "emoji_coco", "val")
    rows = []
    for net in cli.NETS:
        model = nets.load(net)
        plan = Plan([net], cli.CATEGORIES, sizes=[SIZE], per_category=PER_CATEGORY, controls=False)
        work = benchmark.batches(coco, plan)
        for image_id, category in [unit for batch in work for unit in batch.units]:
            image, mask = load_unit(coco, image_id, category, SIZE, growth=1)
            for method in (*BENCHMARK, *CONTROLS):
                folder = benchmark.NO_NET if method in CONTROLS else net
                file = benchmark.map_file(maps, folder, SIZE, image_id, category, method)
                one = torch.from_numpy(np.load(file))
                target = model.classes.index(category)
                settings = {"steps": STEPS, "target": target, "maps": one[None]}
                rows.append(
                    {
                        "image_id": image_id,
                        "category": category,
                        "net": net,
                        "method": method,
                        "pointing": perturbation.pointing_game(one, mask, TOLERANCE),
                        "deletion": perturbation.deletion(
                            model, image[None], **settings
                        ).auc.item(),
                        "insertion": perturbation.insertion(
                            model, image[None], **settings
                        ).auc.item(),
                    }
                )
        print(net, len(rows), flush=True)
    return pd.DataFrame(rows)


def picture() -> None:
    """Draw the first figure of the README: one scene, and five explanations of one class."""
    model = nets.load("emoji_vgg")
    scenes = Coco(DATA / "emoji_coco", "gallery")
    x = load_unit(scenes, 1008, "zebra", "original")[0][None]
    target = model.classes.index("zebra")
    maps = benchmark.explain(model, x, target, STUDY, layer=last_conv_stage(model, x)).maps
    tiles = {"the scene": x[0]}
    for name, one in maps.items():
        tiles[name.replace("_", " ")] = (
            show.overlay(x[0], one[0]) if name == "grad_cam" else show.heat(one[0])
        )
    PICTURES.mkdir(exist_ok=True)
    show.grid(tiles, columns=6, size=2.4).savefig(
        PICTURES / "explanations.png", bbox_inches="tight", metadata={"Software": None}
    )


def real(folder: str, split: str, class_table: str) -> None:
    """Measure squeezenet1_0 on real images: the table by size, and the signal of the deconvnet."""
    STORED.mkdir(exist_ok=True)
    coco = Coco(folder, split)
    with tempfile.TemporaryDirectory() as out:
        records, _ = benchmark.run(
            coco,
            Path(out),
            Plan(
                ["squeezenet1_0"],
                per_category=10_000,
                class_table=Path(class_table),
                controls=False,
            ),
        )
    summary = report.table(report.frame(records))
    per_size = summary[summary["view"] == "size"].rename(columns={"value": "size"})
    columns = ["size", "method", "records", "undefined", "mean_P", "low", "high", "mask_fraction"]
    per_size[columns].to_csv(STORED / "squeezenet1_0_on_coco.csv", index=False, float_format="%.5f")

    model = nets.load("squeezenet1_0")
    targets = nets.class_targets(model, class_table)
    units = sorted({(r.image_id, r.category) for r in records if r.size == "224"})
    rows = []
    for image_id, category in units[::4]:
        image, _ = load_unit(coco, image_id, category, 224)
        fractions, map_sum = signal(model, image[None], targets[category])
        rows += [
            {"image": image_id, "dead": map_sum == 0, "relu": i, "positive": fraction}
            for i, fraction in enumerate(fractions)
        ]
    trace = pd.DataFrame(rows)
    trace.to_csv(STORED / "squeezenet1_0_signal.csv", index=False, float_format="%.5f")


def signal(model: nets.Classifier, x: Tensor, classes: list[int]) -> tuple[list[float], float]:
    """Fraction of positive values in the signal at each ReLU, and the sum of the final |map|."""
    fractions = []

    def rule(operation: Operation, signal: Tensor) -> tuple[Tensor]:
        fractions.append((signal > 0).float().mean().item())
        return (signal.clamp(min=0),)

    with one_forward(model, x, nets.best_of([classes]), families=["activation"]) as forward:
        (final,) = forward.backward(activation=rule)
    return fractions, final.abs().sum().item()


if __name__ == "__main__":
    torch.manual_seed(0)
    match sys.argv[1:]:
        case ["pocket" | "all" as what, *rest] if len(rest) < 2:
            with tempfile.TemporaryDirectory() as folder:
                (pocket if what == "pocket" else everything)(Path(*rest or [folder]))
            if what == "pocket":
                picture()
        case ["picture"]:
            picture()
        case ["real", folder, split, class_table]:
            real(folder, split, class_table)
        case _:
            sys.exit(__doc__)
