"""Pocket COCO: scenes composed of photographs, in COCO's format, for work without a network.

A scene is a photograph as background, with cut-outs of other photographs in it: animals, vehicles,
fruit. In half of the scenes the objects are where they could be, with their feet on the ground, the
water or the table of the background. In the others they are anywhere. The mask of an object is
exact: its alpha channel without the pixels that other objects occlude.

    python -m vislib.data.pocket --out data/pocket_coco

builds the shipped splits again, byte for byte. `training_scenes` generates any number of scenes to
train the pocket networks. None of these scenes is in the shipped splits, whose seeds begin with
another number, and none shows an object that was held out (`Cutout.held_out`).

A scene is planned first and drawn afterwards, so it can be drawn again without one of its objects
and with everything else as it was (`draw`). This is the ground truth of what an object does to the
score of a class.

The format is that of COCO (Lin et al. 2014, "Microsoft COCO: Common Objects in Context"), with the
ids and names of its 2017 categories.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from vislib.data.compose import (
    Category,
    Object,
    Rng,
    Scene,
    darken,
    develop,
    hue_matrix,
    lit,
    overlap,
    warped,
    write_split,
)
from vislib.paths import DATA, shipped

FOLDER = DATA / "pocket_coco"


# --- Objects and backgrounds ----------------------------------------------------------------------


@dataclass(frozen=True)
class Placed(Category):
    """Category with the backgrounds where its objects are found.

    Attributes:
        kinds: kinds of `Background`.
    """

    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cutout:
    """Photograph of one object, with an alpha channel.

    Attributes:
        category: name of the category, or "distractor" for an object of no category.
        file: path inside the folder of the data set.
        held_out: whether no training scene shows the object.
    """

    category: str
    file: str
    held_out: bool


@dataclass(frozen=True)
class Background:
    """Photograph without an object of any category.

    Attributes:
        name: file name without the suffix.
        kind: what is at the bottom of the image: "ground", "street", "water", "table", "indoor",
            or "sky" for a photograph in which objects can only fly.
        floor: rows in which the feet of an object may be, as fractions of the height.
        license: id of the licence in the annotation file.
    """

    name: str
    kind: str
    floor: tuple[float, float]
    license: int


LICENSES: tuple[dict[str, Any], ...] = (
    {"id": 1, "name": "Public domain", "url": ""},
    {
        "id": 2,
        "name": "CC0-1.0",
        "url": "https://creativecommons.org/publicdomain/zero/1.0/",
    },
    {"id": 3, "name": "CC-BY-4.0", "url": "https://creativecommons.org/licenses/by/4.0/"},
    {
        "id": 4,
        "name": "GPL-2.0-or-later",
        "url": "https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
    },
)


@cache
def _table(file: str) -> Any:
    return json.loads(shipped(FOLDER / file))


CATEGORIES: tuple[Placed, ...] = tuple(
    Placed(**{**row, "kinds": tuple(row["kinds"])}) for row in _table("objects.json")["categories"]
)
NAMES = tuple(category.name for category in CATEGORIES)

# The categories of the benchmark. ImageNet has them, too, and its networks recognise the cut-outs.
STUDIED = ("bear", "bird", "cup", "dog", "elephant", "sports ball")

_BY_NAME = {category.name: category for category in CATEGORIES}

# Objects of no category turn and change colour as freely as fruit.
_DISTRACTOR = Placed(0, "distractor", "", turn=15, hue=20, kinds=("ground", "street", "table"))


@cache
def cutouts(category: str) -> tuple[Cutout, ...]:
    """All cut-outs of a category, or of "distractor", in the order of their files."""
    rows = _table("objects.json")["objects"]
    return tuple(
        Cutout(category, row["file"], row["held_out"])
        for row in rows
        if row["category"] == category
    )


@cache
def backgrounds() -> tuple[Background, ...]:
    """All backgrounds."""
    numbers = {license["name"]: license["id"] for license in LICENSES}
    return tuple(
        Background(row["name"], row["kind"], tuple(row["floor"]), numbers[row["licence"]])
        for row in _table("backgrounds.json")
    )


@cache
def _pixels(file: str, mode: str) -> Image.Image:
    with Image.open(io.BytesIO(shipped(FOLDER / file))) as image:
        return image.convert(mode)


# Where the shadows of a scene's objects are, and the rows of the floor if their feet are on it.
Stand = tuple[Literal["floor", "behind", "nowhere"], tuple[float, float] | None]


# --- Planning -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """One cut-out in a scene.

    Attributes:
        category: category of the object; a distractor's has the id 0.
        patch: the object as it is drawn, h×w×4 in [0, 1].
        x, y: column and row of the patch's upper left corner, which may be outside the image.
        shadow: where the object's shadow is: on the "floor" under its feet, on what is "behind" an
            object that floats, or in a plausible sky "nowhere".
        crowd: whether the object is one of a group that is annotated as one.
    """

    category: Placed
    patch: np.ndarray
    x: int
    y: int
    shadow: Literal["floor", "behind", "nowhere"]
    crowd: bool = False

    def covers(self, height: int, width: int) -> np.ndarray:
        """Pixels of the image that the object occludes, boolean H×W."""
        mask = np.zeros((height, width), bool)
        rows, columns, part = overlap(mask.shape, self.patch, self.x, self.y)
        mask[rows, columns] = part[..., 3] > 0.5
        return mask


@dataclass(frozen=True)
class Plan:
    """Everything that is in a scene, before it is drawn.

    Attributes:
        height, width: size in pixels.
        background: photograph.
        pixels: the part of the photograph that is used, H×W×3 in [0, 1].
        light: direction of the light, in radians.
        variation: factor on the random changes of the objects' shapes and colours.
        items: objects, from the back to the front.
        seed: seed of the camera's blur and noise.
    """

    height: int
    width: int
    background: Background
    pixels: np.ndarray
    light: float
    variation: float
    items: tuple[Item, ...]
    seed: int

    def visible(self) -> list[np.ndarray]:
        """Mask of the visible pixels of each item, boolean H×W."""
        masks: list[np.ndarray] = []
        hidden = np.zeros((self.height, self.width), bool)
        for item in reversed(self.items):
            mask = item.covers(self.height, self.width)
            masks.append(mask & ~hidden)
            hidden |= mask
        return masks[::-1]


def plan(
    rng: Rng,
    height: int,
    width: int,
    *,
    categories: Sequence[Category],
    crowd: Category | None = None,
    scale: tuple[float, float] = (0.45, 0.85),
    visible: float = 0.75,
    clutter: float = 0.3,
    plausible: bool = True,
    variation: float = 1,
    objects: Literal["training", "held out"] = "training",
) -> Plan:
    """Decide what a scene shows; the result depends only on the state of `rng` and the arguments.

    Args:
        rng: random generator.
        height, width: size in pixels, at least 32.
        categories: categories of which one object each is added if there is room.
        crowd: category of which a group of small objects is added, annotated as one object.
        scale: range of an object's longer side, as a fraction of the image's shorter side.
        visible: smallest fraction of an object that must be inside the image and not occluded.
        clutter: mean number of objects of no category.
        plausible: whether the background is one where the categories are found (or else the first
            of them), and all objects have their feet on its floor. Otherwise the background and the
            positions are arbitrary.
        variation: factor on the random changes of the objects' shapes and colours. A network that
            knows the objects from elsewhere recognises them better if it is small.
        objects: whether the objects are those of the training, or those held out of it.

    Returns:
        The plan, without the objects for which no position was found.

    Raises:
        ValueError: `height` or `width` is below 32, or no object of a category was held out.

    >>> made = plan(np.random.default_rng(0), 64, 80, categories=CATEGORIES[:1])
    >>> [item.category.name for item in made.items if item.category.id] == [NAMES[0]]
    True
    """
    if min(height, width) < 32:
        raise ValueError(f"a scene must have at least 32×32 pixels, got {height}×{width}")
    background = _background(rng, [_BY_NAME[one.name] for one in categories], plausible)
    pixels, floor = _view(rng, background, height, width)
    base = Plan(
        height,
        width,
        background,
        pixels,
        # The light comes from above, as outdoors and in most rooms.
        light=rng.uniform(-np.pi, 0),
        variation=variation,
        items=(),
        seed=int(rng.integers(2**31)),
    )
    cast = [_BY_NAME[one.name] for one in categories]
    cast += [_DISTRACTOR] * min(int(rng.poisson(clutter)), 3)
    stand: Stand = "behind", None
    if plausible:
        stand = ("nowhere", None) if background.kind == "sky" or not floor else ("floor", floor)
    for item in _crowd(rng, base, _BY_NAME[crowd.name], stand) if crowd else ():
        base = replace(base, items=(*base.items, item))
    # Objects farther away are higher in the image and smaller, and are drawn first.
    order = rng.permutation(len(cast))
    depths = np.sort(rng.uniform(0, 1, len(cast)))
    for index, depth in zip(order, depths, strict=True):
        category = cast[index]
        held_out = objects == "held out" and category is not _DISTRACTOR
        file = _choose(rng, category, held_out)
        base = _add(rng, base, category, file, scale, visible, stand, float(depth))
    return base


def _background(rng: Rng, cast: Sequence[Placed], plausible: bool) -> Background:
    kinds = {one.kind for one in backgrounds()}
    if plausible:
        common = set.intersection(*(set(one.kinds) for one in cast)) & kinds
        kinds = common or set(cast[0].kinds)
    choice = [one for one in backgrounds() if one.kind in kinds]
    return choice[rng.integers(len(choice))]


def _choose(rng: Rng, category: Placed, held_out: bool) -> str:
    files = [one.file for one in cutouts(category.name) if one.held_out == held_out]
    if not files:
        raise ValueError(f"no object of the category {category.name!r} was held out")
    return files[rng.integers(len(files))]


def _view(
    rng: Rng, background: Background, height: int, width: int
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Part of a background with its floor: H×W×3 in [0, 1], and rows as fractions of the height.

    The floor is None if the part shows too little of it.
    """
    photograph = _pixels(f"backgrounds/{background.name}.jpg", "RGB")
    fit = min(photograph.width / width, photograph.height / height)
    zoom = fit * rng.uniform(0.6, 1)
    x = rng.uniform(0, photograph.width - zoom * width)
    low, high = np.array(background.floor) * photograph.height
    # The part ends below the floor, if the photograph is high enough.
    highest = photograph.height - zoom * height
    y = rng.uniform(min(max(high - zoom * height, 0), highest), highest)
    box = (x, y, x + zoom * width, y + zoom * height)
    crop = photograph.resize((width, height), Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(crop, np.float32) / 255
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    pixels = pixels @ hue_matrix(rng.uniform(-8, 8))
    pixels = 0.5 + (pixels - 0.5) * rng.uniform(0.8, 1.05) + rng.uniform(-0.08, 0.08)
    top, bottom = np.clip((np.array([low, high]) - y) / (zoom * height), 0, 1)
    floor = (float(top), float(bottom)) if bottom - top > 0.02 else None
    return np.clip(pixels, 0, 1, dtype=np.float32), floor


def _patch(rng: Rng, scene: Plan, category: Placed, file: str, side: float) -> np.ndarray:
    """Cut-out, warped to a longer side of about `side` pixels and lit: h×w×4 in [0, 1]."""
    cutout = _pixels(file, "RGBA")
    if category.flip and rng.random() < 0.5:
        cutout = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    by = scene.variation
    patch = warped(rng, cutout, side, by * category.turn, bend=by)
    colours = patch[..., :3] @ hue_matrix(by * rng.uniform(-category.hue, category.hue))
    colours = 0.5 + (colours - 0.5) * rng.uniform(0.8, 1.1) ** by + by * rng.uniform(-0.1, 0.08)
    # In a dark photograph, an object is darker than in a bright one.
    colours = colours + 0.2 * (scene.pixels.mean() - 0.5)
    patch[..., :3] = lit(colours, scene.light, rng.uniform(0, 0.2))
    rows = np.flatnonzero((patch[..., 3] > 0.5).any(1))
    columns = np.flatnonzero((patch[..., 3] > 0.5).any(0))
    return patch[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _add(
    rng: Rng,
    scene: Plan,
    category: Placed,
    file: str,
    scale: tuple[float, float],
    visible: float,
    stand: Stand,
    depth: float,
) -> Plan:
    """Add one object at a position where enough of it and of the others is visible."""
    short = min(scene.height, scene.width)
    side = short * np.exp(rng.uniform(*np.log(scale)))
    shadow, floor = stand
    seen = scene.visible()
    if floor:
        side = max(side * (0.8 + 0.3 * depth), short * scale[0])
    for _ in range(12):
        patch = _patch(rng, scene, category, file, side)
        x, y = _position(rng, scene, patch, visible, floor, depth)
        item = Item(category, patch, x, y, shadow)
        if _fits(scene, seen, item, visible if category.id else 0.2):
            return replace(scene, items=(*scene.items, item))
        side = max(0.93 * side, short * scale[0])
    return scene


def _position(
    rng: Rng,
    scene: Plan,
    patch: np.ndarray,
    visible: float,
    floor: tuple[float, float] | None,
    depth: float,
) -> tuple[int, int]:
    """Column and row of a patch's upper left corner."""
    room, size = np.array([scene.height, scene.width]), np.array(patch.shape[:2])
    # The object may extend beyond each border by this many pixels.
    over = (1 - visible) * size
    lowest, highest = np.minimum(-over, room - size), np.maximum(room - size + over, 0)
    y, x = np.round(rng.uniform(lowest, highest)).astype(int)
    if floor:
        base = floor[0] + (floor[1] - floor[0]) * depth
        y = round(base * scene.height) - patch.shape[0]
    return int(x), int(y)


def _fits(scene: Plan, seen: Sequence[np.ndarray], item: Item, visible: float) -> bool:
    """Whether enough of a new item, and of each object behind it (`seen`), is visible."""
    mask = item.covers(scene.height, scene.width)
    if mask.sum() < visible * (item.patch[..., 3] > 0.5).sum():
        return False
    for other, before in zip(scene.items, seen, strict=True):
        whole = (other.patch[..., 3] > 0.5).sum()
        if other.category.id and (before & ~mask).sum() < visible * whole:
            return False
    return True


def _crowd(rng: Rng, scene: Plan, category: Placed, stand: Stand) -> Iterable[Item]:
    """Four to nine small objects near each other, from the back to the front."""
    short = min(scene.height, scene.width)
    shadow, floor = stand
    middle = floor[0] if floor else rng.uniform(0.3, 0.8)
    centre = rng.uniform(0.25, 0.75) * scene.width
    bases = np.sort(middle * scene.height + short * rng.uniform(0, 0.12, rng.integers(4, 10)))
    for base in bases:
        file = _choose(rng, category, held_out=False)
        patch = _patch(rng, scene, category, file, short * rng.uniform(0.18, 0.25))
        x = round(rng.normal(centre, 0.2 * short) - patch.shape[1] / 2)
        item = Item(category, patch, x, round(base) - patch.shape[0], shadow, crowd=True)
        if _fits(scene, scene.visible(), item, 0.6):
            scene = replace(scene, items=(*scene.items, item))
            yield item


# --- Drawing --------------------------------------------------------------------------------------


def draw(planned: Plan, without: Collection[int] = ()) -> Scene:
    """Draw a planned scene, or the same scene without some of its items.

    Args:
        planned: plan of the scene.
        without: positions in `planned.items` of the items that are left out.

    Returns:
        The scene. Its annotated objects are the items with a category, and a crowd as one object.

    >>> made = plan(np.random.default_rng(0), 64, 80, categories=CATEGORIES[:1])
    >>> draw(made).image.shape, len(draw(made, without=range(len(made.items))).objects)
    ((64, 80, 3), 0)
    """
    kept = tuple(item for i, item in enumerate(planned.items) if i not in without)
    planned = replace(planned, items=kept)
    pixels = planned.pixels.copy()
    for item in kept:
        _shade(pixels, item, planned.light)
        rows, columns, part = overlap(pixels.shape, item.patch, item.x, item.y)
        alpha = part[..., 3:]
        pixels[rows, columns] = (1 - alpha) * pixels[rows, columns] + alpha * part[..., :3]
    masks = planned.visible()
    objects = [
        Object(item.category, mask)
        for item, mask in zip(kept, masks, strict=True)
        if item.category.id and not item.crowd
    ]
    group = [mask for item, mask in zip(kept, masks, strict=True) if item.crowd]
    if group:
        category = next(item.category for item in kept if item.crowd)
        objects.append(Object(category, np.logical_or.reduce(group), crowd=True))
    image = develop(np.random.default_rng(planned.seed), pixels, planned.light)
    return Scene(image, objects, planned.background.name, planned.background.license)


def _shade(pixels: np.ndarray, item: Item, light: float) -> None:
    """Draw an object's shadow: under its feet if it is on the floor, else on what is behind it."""
    alpha = item.patch[..., 3]
    side = max(alpha.shape)
    if item.shadow == "nowhere":
        return
    if item.shadow == "behind":
        x, y = item.x - 0.05 * side * np.cos(light), item.y - 0.05 * side * np.sin(light)
        darken(pixels, alpha, round(x), round(y), blur=0.03 * side, by=0.35)
        return
    # What touches the floor is the lowest part of the object; its shadow is a flat ellipse.
    feet = np.flatnonzero((alpha[-max(len(alpha) // 8, 1) :] > 0.5).any(0))
    width, height = int(feet[-1] - feet[0]) + 3, max(round(0.06 * side), 2)
    rows, columns = np.mgrid[-1 : 1 : 1j * height, -1 : 1 : 1j * width]
    ellipse = (rows**2 + columns**2 <= 1).astype(np.float32)
    x, y = item.x + int(feet[0]) - 1, item.y + len(alpha) - round(0.6 * height)
    darken(pixels, ellipse, x, y, blur=0.02 * side, by=0.55)


# --- Streams --------------------------------------------------------------------------------------

# A scene's seed begins with one of these numbers, so that no two streams share a scene.
_TRAINING, _VAL, _GALLERY, _HELD_OUT = 1, 2, 3, 4


def training_scenes(
    n: int,
    size: int = 128,
    seed: int = 0,
    *,
    objects: Literal["training", "held out"] = "training",
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Square scenes for training, with objects from small to larger than the image.

    The i-th scene depends only on `seed`, `size`, `objects` and i, so a larger `n` begins with the
    same scenes.

    Args:
        n: number of scenes.
        size: side in pixels.
        seed: seed of the stream. The shipped scenes are in none of these streams.
        objects: "held out" for scenes with one object each that no training scene shows, to measure
            the accuracy on unseen objects.
        progress: whether to show a progress bar.

    Returns:
        The images, n×size×size×3, uint8, and the labels, n×K, uint8: 1 if the image shows the
        category, in the order of `CATEGORIES`.

    >>> images, labels = training_scenes(2, size=64)
    >>> images.shape, labels.shape == (2, len(CATEGORIES))
    ((2, 64, 64, 3), True)
    """
    from tqdm.auto import trange

    images = np.empty((n, size, size, 3), np.uint8)
    labels = np.zeros((n, len(CATEGORIES)), np.uint8)
    stream = _TRAINING if objects == "training" else _HELD_OUT
    for index in trange(n, desc="scenes", disable=not progress):
        rng = np.random.default_rng([stream, seed, index])
        made = _training_scene(rng, size) if objects == "training" else _held_out_scene(rng, size)
        images[index] = made.image
        for thing in made.objects:
            labels[index, NAMES.index(thing.category.name)] = 1
    return images, labels


def _training_scene(rng: Rng, size: int) -> Scene:
    """Scene with one to three objects, which may be larger if they are fewer."""
    while True:
        count = rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])
        chosen = [CATEGORIES[i] for i in rng.choice(len(CATEGORIES), count + 1, replace=False)]
        made = plan(
            rng,
            size,
            size,
            categories=chosen[:-1],
            crowd=chosen[-1] if rng.random() < 0.08 else None,
            scale=((0.4, 1.1), (0.4, 0.9), (0.35, 0.7))[count - 1],
            clutter=0.3,
            plausible=rng.random() < 0.5,
        )
        if any(item.category.id for item in made.items):
            return draw(made)


def _held_out_scene(rng: Rng, size: int) -> Scene:
    """Scene with one object that no training scene shows."""
    known = [one for one in CATEGORIES if any(cutout.held_out for cutout in cutouts(one.name))]
    while True:
        made = plan(
            rng,
            size,
            size,
            categories=[known[rng.integers(len(known))]],
            scale=(0.4, 0.9),
            plausible=rng.random() < 0.5,
            objects="held out",
        )
        if any(item.category.id for item in made.items):
            return draw(made)


def val_plan(index: int, attempt: int | None = None) -> Plan:
    """Plan of a scene of the shipped split `val`, whose id is ``index + 1``.

    Each object covers at least 5 % of the scene.

    Args:
        index: number of the scene, from 0.
        attempt: number of the attempt at this scene, from 0. By default the attempt of the shipped
            split, which `data/make/choose_pocket_scenes.py` chose.
    """
    if attempt is None:
        attempt = _table("choice.json")["val"][index]
    rng = np.random.default_rng([_VAL, index, attempt])
    names = _casts(index + 1)[index]
    for _ in range(100):
        short = int(rng.integers(240, 385))
        long = round(short * rng.choice([1, 4 / 3, 4 / 3, 3 / 2, 3 / 2, 16 / 9]))
        height, width = (short, long) if rng.random() < 0.75 else (long, short)
        cast = [_BY_NAME[name] for name in names]
        made = plan(
            rng,
            height,
            width,
            categories=cast,
            crowd=_companion(rng, cast) if len(cast) == 1 and rng.random() < 0.5 else None,
            scale=(0.6, 1.0),
            visible=0.8,
            variation=0.3,
            clutter=0.15,
            plausible=index % 2 == 0,
        )
        if _is_good(made, len(names), 0.05):
            return made
    raise AssertionError(f"no plan for scene {index}")


def _companion(rng: Rng, cast: Sequence[Category]) -> Category:
    """Random other category that is found on the same backgrounds, or where the first is."""
    kinds = [set(_BY_NAME[one.name].kinds) for one in cast]
    others = [one for one in CATEGORIES if one.name not in {known.name for known in cast}]
    common = set.intersection(*kinds)
    fitting = [one for one in others if common & set(one.kinds)]
    fitting = fitting or [one for one in others if kinds[0] & set(one.kinds)] or others
    return fitting[rng.integers(len(fitting))]


def _is_good(made: Plan, count: int, area: float) -> bool:
    """Whether a plan has all its objects, large enough, and no crowd of a category they have."""
    areas = [
        mask.sum() / (made.height * made.width)
        for item, mask in zip(made.items, made.visible(), strict=True)
        if item.category.id and not item.crowd
    ]
    single = {item.category.id for item in made.items if not item.crowd}
    crowd = {item.category.id for item in made.items if item.crowd}
    return len(areas) == count and min(areas) >= area and not single & crowd


@cache
def _casts(scenes: int) -> list[list[str]]:
    """Names of the categories in each of the first scenes of `val`.

    The scenes take the categories from a queue, in which those of the benchmark are three times as
    frequent as the others. Every second scene is plausible: it takes the next categories that are
    found on the same backgrounds.
    """
    rng = np.random.default_rng([_VAL, 0])
    queue: list[str] = []
    casts = []
    for index in range(scenes):
        while len(queue) < 3 * len(NAMES):
            queue += rng.permutation([*NAMES, *STUDIED, *STUDIED]).tolist()
        count = rng.choice([1, 2, 3], p=[0.55, 0.4, 0.05])
        cast: list[str] = []
        while len(cast) < count:
            together = [name for name in queue if name not in cast]
            if cast and index % 2 == 0:
                kinds = set.intersection(*(set(_BY_NAME[name].kinds) for name in cast))
                together = [name for name in together if kinds & set(_BY_NAME[name].kinds)]
            if not together:
                break
            cast.append(together[0])
            queue.remove(together[0])
        casts.append(cast)
    return casts


def gallery_plan(seed: int) -> Plan:
    """Plan of a scene for the notebooks: two or three large objects with little occlusion."""
    rng = np.random.default_rng([_GALLERY, seed])
    for _ in range(100):
        short = int(rng.integers(360, 449))
        chosen: list[Category] = [CATEGORIES[rng.integers(len(CATEGORIES))]]
        for _ in range(rng.integers(1, 3)):
            chosen.append(_companion(rng, chosen))
        made = plan(
            rng,
            short,
            round(short * rng.choice([1, 4 / 3, 3 / 2])),
            categories=chosen,
            scale=(0.5, 0.9),
            visible=0.88,
            variation=0.3,
            clutter=0,
        )
        if _is_good(made, len(chosen), 0.06):
            return made
    raise AssertionError(f"no plan for gallery scene {seed}")


# --- The shipped splits ---------------------------------------------------------------------------


def build(folder: str | Path, images: int = 260, gallery: Sequence[int] | None = None) -> None:
    """Write the shipped splits, `val` and `gallery`, in COCO's layout.

    Equal arguments and equal versions of the libraries give equal bytes.

    Args:
        folder: output folder for ``annotations/instances_SPLIT.json`` and the images
            ``SPLIT/000000000001.jpg`` and so on.
        images: number of scenes in `val`. A larger number begins with the same scenes.
        gallery: seeds of the scenes in `gallery`; by default those of the shipped split, which were
            chosen by eye.
    """
    from tqdm.auto import trange

    folder = Path(folder)
    seeds = _table("choice.json")["gallery"] if gallery is None else gallery
    val = (draw(val_plan(index)) for index in trange(images, desc="val"))
    write_split(folder, "val", val, 1, CATEGORIES, _about("val"))
    chosen = (draw(gallery_plan(seed)) for seed in seeds)
    write_split(folder, "gallery", chosen, 1001, CATEGORIES, _about("gallery"))


def _about(split: str) -> dict[str, Any]:
    info = {
        "description": f"Pocket COCO, {split}: scenes composed of photographs, in COCO's format",
        "contributor": "vislib",
        "date_created": "2026/11/26",
        "url": "",
        "version": "2.0",
        "year": 2026,
    }
    return {"info": info, "licenses": LICENSES}


def main() -> None:
    """Run the command line of ``python -m vislib.data.pocket``."""
    parser = argparse.ArgumentParser(description="Build Pocket COCO.")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument(
        "--images", type=int, default=260, help="number of scenes in val (default: 260)"
    )
    arguments = parser.parse_args()
    build(arguments.out, arguments.images)


if __name__ == "__main__":
    main()
