"""Choose the scenes of Pocket COCO that ship with the course.

    uv run python data/make/choose_pocket_scenes.py val       # writes data/pocket_coco/choice.json
    uv run python data/make/choose_pocket_scenes.py gallery   # draws candidates into candidates.png

For each scene of `val`, up to three attempts are drawn. The first in which EfficientNet-Lite0 has
every annotated object among its five best classes is taken, or else the attempt with the best worst
rank. The network's accuracy on these scenes is therefore not an estimate of its accuracy elsewhere.
The gallery's scenes are chosen by eye from the candidates, in which the same holds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from tqdm import trange

from vislib import nets
from vislib.data import pocket
from vislib.data.compose import Scene
from vislib.data.images import to_tensor

FILE = pocket.FOLDER / "choice.json"
MODEL = nets.load("efficientnet_lite0")
CLASSES = nets.class_targets(MODEL)


def ranks(scene: Scene) -> list[int]:
    """Rank, from 0, of the best ImageNet class of each annotated object that has one."""
    image = Image.fromarray(scene.image).resize((224, 224), Image.Resampling.BILINEAR)
    with torch.no_grad():
        logits = MODEL(to_tensor(image)[None])[0]
    names = [one.category.name for one in scene.objects if not one.crowd]
    return [
        min(int((logits > logits[index]).sum()) for index in CLASSES[name])
        for name in names
        if name in CLASSES
    ]


def choose_val(scenes: int = 260, attempts: int = 3) -> None:
    """Write the chosen attempt of each scene of `val`, and print how often the top 5 are right."""
    chosen, found = [], []
    for index in trange(scenes):
        best: tuple[int, int, list[int]] | None = None
        for attempt in range(attempts):
            rank = ranks(pocket.draw(pocket.val_plan(index, attempt)))
            worst = max(rank, default=0)
            if best is None or worst < best[0]:
                best = (worst, attempt, rank)
            if worst < 5:
                break
        assert best is not None
        chosen.append(best[1])
        found += best[2]
    content = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {"gallery": []}
    FILE.write_text(json.dumps(content | {"val": chosen}) + "\n", encoding="utf-8")
    print(f"top 5: {np.mean(np.array(found) < 5):.3f}, top 1: {np.mean(np.array(found) < 1):.3f}")


def draw_candidates(first: int = 0, last: int = 300, columns: int = 8) -> None:
    """Draw the gallery scenes in which every object is among the network's five best classes."""
    cell = (300, 235)
    found = []
    for seed in trange(first, last):
        scene = pocket.draw(pocket.gallery_plan(seed))
        rank = ranks(scene)
        if len(rank) == len(scene.objects) and max(rank) < 5:
            found.append((seed, scene))
    rows = -(-len(found) // columns)
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    for number, (seed, scene) in enumerate(found):
        image = Image.fromarray(scene.image)
        image.thumbnail((cell[0] - 6, cell[1] - 20))
        x, y = number % columns * cell[0], number // columns * cell[1]
        sheet.paste(image, (x + 3, y + 17))
        names = ", ".join(one.category.name for one in scene.objects)
        ImageDraw.Draw(sheet).text((x + 3, y + 3), f"{seed}: {names}", "black")
    sheet.save(Path("candidates.png"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["val"]:
            choose_val()
        case ["gallery"]:
            draw_candidates()
        case _:
            sys.exit(__doc__)
