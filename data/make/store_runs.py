"""Compute the stored results of the benchmark, and draw the figures of the README.

    uv run python data/make/store_runs.py pocket [RUN]
    uv run python data/make/store_runs.py photographs [RUN]
    uv run python data/make/store_runs.py coco FOLDER SPLIT [RUN]
    uv run python data/make/store_runs.py squeezenet FOLDER SPLIT [RUN]
    uv run python data/make/store_runs.py picture
    uv run python data/make/store_runs.py emoji [RUN]

The first four run `vislib benchmark` and store its records, its tables and one chart in
data/benchmark/NAME. Each table begins with the command and ends with the digests of the weights.
Without RUN the runs use a temporary folder; with RUN, a run that was stopped continues there.

`pocket` and `photographs` need nothing but the course. `coco` and `squeezenet` need a FOLDER with
images of COCO, and store numbers only. `squeezenet` also needs the weights of squeezenet1_0, for
which PyTorch searches in TORCH_HOME. `picture` draws the first figure of the README. `emoji` runs
all methods on the emoji scenes for notebook 24.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from vislib import cli, nets, show
from vislib.core import Operation, one_forward
from vislib.data import photographs
from vislib.data.coco import Coco
from vislib.data.images import resize
from vislib.data.objects import load_unit
from vislib.layers import last_conv_stage
from vislib.measure import benchmark, perturbation, report
from vislib.measure.benchmark import Plan
from vislib.measure.methods import BENCHMARK, CONTROLS, RANDOM, STUDY
from vislib.paths import DATA

STORED = DATA / "benchmark"
PICTURES = DATA / "pictures"
CLASS_TABLE = STORED / "coco" / "imagenet_classes.json"

EMOJI_NETS = ("emoji_alexnet", "emoji_vgg", "emoji_resnet", "emoji_squeezenet")
EMOJI_CATEGORIES = ("airplane", "boat", "dog", "elephant", "teddy bear", "traffic light")
# The size of `vislib benchmark --methods all` in pixels.
SIZE = 128
# The measures are computed for half of the images of `vislib benchmark --methods all`.
PER_CATEGORY = 4
# The tolerance of the paper is 15 pixels for images of about 500 pixels, and 15 · 128 / 500 ≈ 4.
TOLERANCE = 4
# The number of steps of insertion and deletion.
STEPS = 16


# --- The benchmark on one set of images -----------------------------------------------------------


def run(name: str, arguments: list[str], out: Path) -> None:
    """Run `vislib benchmark`, and store what the course shows of it.

    Args:
        name: folder in data/benchmark.
        arguments: arguments of the command.
        out: folder of the run.
    """
    assert cli.main(["benchmark", *arguments, "--out", str(out)]) == 0
    folder = STORED / name
    folder.mkdir(parents=True, exist_ok=True)
    store(pd.read_parquet(out / "records.parquet"), folder / "records.parquet")
    # The command names no folder of this machine.
    words = ["FOLDER" if before == "--coco" else word for before, word in pairs(arguments)]
    command = " ".join(["uv run vislib benchmark", *words]).replace(f"{DATA.parent}/", "")
    write_table(folder, f"Made by `{command}`")
    chart = "chart_network_and_size.svg"
    (folder / chart).write_bytes((out / chart).read_bytes())


def write_table(folder: Path, head: str) -> None:
    """Write the tables of the stored records, below a line with the command."""
    records = pd.read_parquet(folder / "records.parquet")
    text = report.markdown(report.table(records)) + "\n" + report.study_markdown(records)
    (folder / "table.md").write_text(f"{head}\n\n{text}", encoding="utf-8")


def pairs(words: list[str]) -> list[tuple[str, str]]:
    """Each word with the word before it."""
    return list(zip(["", *words], words, strict=False))


def store(records: pd.DataFrame, file: Path) -> None:
    """Store records in single precision, in an encoding that makes the file small."""
    numbers = list(records.select_dtypes("float64"))
    # The mask fraction has few values, which a dictionary stores in less space.
    various = [name for name in numbers if name != "mask_fraction"]
    records.astype(dict.fromkeys(numbers, "float32")).to_parquet(
        file,
        index=False,
        compression="zstd",
        use_byte_stream_split=various,
        use_dictionary=[name for name in records.columns if name not in various],
    )


def pocket(out: Path) -> None:
    """Store the study on Pocket COCO, and draw the second figure of the README."""
    run("pocket", [], out)
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "benchmark.png").write_bytes((out / "chart_network_and_size.png").read_bytes())


def coco(folder: str, split: str, out: Path) -> None:
    """Store the study on real images of COCO, and the same for other random weights."""
    arguments = ["--coco", folder, "--split", split, "--categories", "all"]
    run("coco", [*arguments, "--class-table", str(CLASS_TABLE)], out)
    records = plain_random("efficientnet_lite0", Coco(folder, split))
    store(report.frame(records), STORED / "coco" / "plain_random.parquet")


def plain_random(name: str, coco: Coco) -> list[benchmark.Record]:
    """Records of a network as PyTorch initialises it: its normalisation does nothing.

    `nets.load` measures means and variances of the batch normalisation of EfficientNet-Lite0 with
    random weights. Here they are 0 and 1, as for the other networks of the course.
    """
    twin = nets.load(name, weights=False)
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    targets = nets.class_targets(twin, CLASS_TABLE)
    categories = benchmark.check_categories(coco, None, {name: targets})
    plan = Plan([name], categories, sizes=["original", twin.input_size], controls=False)
    layer = last_conv_stage(twin, torch.zeros(1, 3, twin.input_size, twin.input_size))
    weights = {RANDOM: benchmark.weights_digest(twin)[:12]}
    records = []
    for batch in benchmark.batches(coco, plan):
        found, _ = benchmark.run_batch(
            batch, coco, {RANDOM: twin}, targets, STUDY, layer=layer, weights=weights
        )
        records += found
    return records


# --- SqueezeNet on real images --------------------------------------------------------------------


def squeezenet(folder: str, split: str, out: Path) -> None:
    """Store the study with squeezenet1_0, and the signal of its deconvnet at each ReLU."""
    arguments = ["--nets", "squeezenet1_0", "--no-controls", "--methods", *STUDY]
    arguments += ["--coco", folder, "--split", split, "--categories", "all"]
    run("squeezenet", [*arguments, "--class-table", str(CLASS_TABLE)], out)
    records = pd.read_parquet(out / "records.parquet")
    units = records.loc[records["size"] == "224", ["image_id", "category"]].drop_duplicates()
    model, images = nets.load("squeezenet1_0"), Coco(folder, split)
    targets = nets.class_targets(model, CLASS_TABLE)
    rows = []
    for image_id, category in list(units.sort_values(list(units)).itertuples(index=False))[::4]:
        x = load_unit(images, image_id, category, 224)[0][None]
        fractions, map_sum = signal(model, x, targets[category])
        rows += [
            {"image": image_id, "dead": map_sum == 0, "relu": i, "positive": fraction}
            for i, fraction in enumerate(fractions)
        ]
    trace = pd.DataFrame(rows).assign(weights=benchmark.weights_digest(model)[:12])
    trace.to_csv(STORED / "squeezenet" / "signal.csv", index=False, float_format="%.5f")


def signal(model: nets.Classifier, x: Tensor, classes: Sequence[int]) -> tuple[list[float], float]:
    """Fraction of positive values in the signal at each ReLU, and the sum of the final |map|."""
    fractions = []

    def rule(operation: Operation, signal: Tensor) -> tuple[Tensor]:
        fractions.append((signal > 0).float().mean().item())
        return (signal.clamp(min=0),)

    with one_forward(model, x, nets.best_of([classes]), families=["activation"]) as forward:
        (final,) = forward.backward(activation=rule)
    return fractions, final.abs().sum().item()


# --- All methods on the emoji scenes --------------------------------------------------------------


def emoji(out: Path) -> None:
    """Run all methods on a part of the scenes, and compute three more measures of each map."""
    began = time.perf_counter()
    arguments = ["--coco", str(DATA / "emoji_coco"), "--split", "val", "--nets", *EMOJI_NETS]
    arguments += ["--categories", *EMOJI_CATEGORIES, "--methods", "all", "--save-maps"]
    assert cli.main(["benchmark", *arguments, "--out", str(out)]) == 0
    print(f"all methods: {time.perf_counter() - began:.0f} s", flush=True)
    store(pd.read_parquet(out / "records.parquet"), STORED / "all_methods.parquet")
    (STORED / "all_methods.csv").write_bytes((out / "table.csv").read_bytes())
    began = time.perf_counter()
    store(measured(out / "maps"), STORED / "measures.parquet")
    print(f"measures: {time.perf_counter() - began:.0f} s")


def measured(maps: Path) -> pd.DataFrame:
    """Pointing game, deletion and insertion of the maps of trained networks and of controls."""
    scenes = Coco(DATA / "emoji_coco", "val")
    rows = []
    for net in EMOJI_NETS:
        model = nets.load(net)
        plan = Plan(
            [net], EMOJI_CATEGORIES, sizes=[SIZE], per_category=PER_CATEGORY, controls=False
        )
        work = benchmark.batches(scenes, plan)
        for image_id, category in [unit for batch in work for unit in batch.units]:
            image, mask = load_unit(scenes, image_id, category, SIZE, growth=1)
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


# --- The first figure of the README ---------------------------------------------------------------


def picture() -> None:
    """Draw the first figure of the README: a photograph, and five explanations of its class."""
    photograph = photographs.load("chelsea")
    model = nets.load("efficientnet_lite0")
    x = resize(photograph.image[None], 224)
    target = nets.best_of([photograph.classes["cat"]])
    maps = benchmark.explain(model, x, target, STUDY, layer=last_conv_stage(model, x)).maps
    PICTURES.mkdir(exist_ok=True)
    masks = {"cat": resize(torch.from_numpy(photograph.masks["cat"])[None].float(), 224)[0] > 0.5}
    alt = f"{photograph.title}, and five attribution maps of the class cat"
    file = PICTURES / "explanations.png"
    # Outside a notebook, the HTML of the figure would be printed.
    with contextlib.redirect_stdout(io.StringIO()):
        show.maps(x, maps, masks=masks, target="cat", alt=alt, file=file)


if __name__ == "__main__":
    torch.manual_seed(0)
    what, *words = sys.argv[1:] or [""]
    images = {"coco": coco, "squeezenet": squeezenet}
    course = {
        "pocket": pocket,
        "photographs": lambda out: run(what, ["--data", what], out),
        "emoji": emoji,
    }
    with tempfile.TemporaryDirectory() as temporary:
        match words:
            case [] if what == "picture":
                picture()
            case [] | [_] if what in course:
                course[what](Path(*words or [temporary]))
            case [folder, split] | [folder, split, _] if what in images:
                images[what](folder, split, Path(*words[2:] or [temporary]))
            case _:
                sys.exit(__doc__)
