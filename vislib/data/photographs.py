"""The photographs that ship with the course, by their names.

`data/photographs` has the layout of COCO: ``Coco(photographs.FOLDER, photographs.SPLIT)`` opens it
like any other data set, and ``vislib benchmark --data photographs`` measures on it. This module is
the short way for a notebook: one name gives the image, the masks, the classes and the credit.

The objects of every photograph are outlined. Each category has the ImageNet classes that show the
same kind of thing (`CLASS_TABLE`), so that a mask belongs to classes of an ImageNet network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import numpy as np
from torch import Tensor

from vislib.data.coco import Coco
from vislib.data.images import to_tensor
from vislib.errors import InputError, nearest
from vislib.paths import DATA, shipped

FOLDER = DATA / "photographs"
SPLIT = "val"
CLASS_TABLE = FOLDER / "imagenet_classes.json"
"""Class table of the photographs' categories, in the form of `vislib.data.coco`'s table."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """One photograph with everything that a notebook needs.

    Attributes:
        name: name of the file without its suffix.
        title: what the photograph shows, for an ``alt`` text or a caption.
        image: 3×H×W in [0, 1]; the longer side has at most 640 pixels.
        masks: category → boolean mask, H×W, true on the objects of the category.
        classes: category → indices of the ImageNet classes that show the same kind of thing.
        credit: author, licence and source.
    """

    name: str
    title: str
    image: Tensor
    masks: dict[str, np.ndarray]
    classes: dict[str, tuple[int, ...]]
    credit: str


def names(category: str | None = None) -> list[str]:
    """Return the names of the photographs; "chelsea", the cat, is the first.

    Args:
        category: a category of the data set, to return only the photographs that show it.

    Raises:
        InputError: the category is unknown.

    >>> names()[0], names("bear")
    ('chelsea', ['panda', 'polar_bear'])
    """
    if category is None:
        return list(_entries())
    shown = set(_coco().images_with(category))
    return [name for name, entry in _entries().items() if entry["id"] in shown]


def load(name: str) -> Photograph:
    """Load a photograph with the masks of its objects.

    Args:
        name: one of `names()`.

    Returns:
        The photograph. Crowds, such as the distant herd of "bison", have no mask.

    Raises:
        InputError: no photograph has this name; the message suggests the nearest names. Or the
            folder is incomplete.

    >>> photograph = load("panda")
    >>> photograph.title, tuple(photograph.image.shape), list(photograph.masks)
    ('a giant panda sits on a wall', (3, 426, 640), ['bear'])
    >>> photograph.credit
    'Jeff Kubina, Public domain, https://commons.wikimedia.org/wiki/File:Giant_Panda_2004-03-2.jpg'
    """
    if name not in _entries():
        raise InputError(f"there is no photograph called {name!r}: {nearest(name, _entries())}")
    entry, coco = _entries()[name], _coco()
    categories = coco.objects(entry["id"])
    licence = coco.licence(entry["id"]).partition(" (")[0]
    return Photograph(
        name=name,
        title=entry["title"],
        image=to_tensor(coco.image(entry["id"])),
        masks={category: coco.mask(entry["id"], category) for category in categories},
        classes={category: _classes()[category] for category in categories},
        credit=f"{entry['author']}, {licence}, {entry['source']}",
    )


@cache
def _coco() -> Coco:
    return Coco(FOLDER, SPLIT)


@cache
def _entries() -> dict[str, dict]:
    """The images of the annotation file, by the names of the photographs."""
    images = json.loads(_coco().file.read_bytes())["images"]
    return {entry["file_name"].removesuffix(".jpg"): entry for entry in images}


@cache
def _classes() -> dict[str, tuple[int, ...]]:
    table = json.loads(shipped(CLASS_TABLE))
    return {name: tuple(classes) for name, classes in table.items() if not name.startswith("_")}
