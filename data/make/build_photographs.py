# /// script
# dependencies = ["vislib", "zstandard"]
# ///
"""Build data/photographs from Debian's package gcompris-qt-data and installed Python packages.

    python data/make/build_photographs.py PACKAGES [--out FOLDER]

PACKAGES/gcompris-qt-data is the unpacked package (version 3.1 of Debian 12):

    apt-get download gcompris-qt-data && dpkg-deb -x gcompris-qt-data*.deb PACKAGES/gcompris-qt-data

The script writes the photographs, at most 640 pixels on the longer side, the annotation file in
COCO's format, the class table, a table of licences (README.md) and two sheets on which the objects
of every photograph are outlined. Author, licence, source and
changes come from the README beside each photograph in the package. Equal versions of Pillow give
equal bytes.

The outlines of the objects are stored in data/make/photograph_outlines.json. They were made once,
with data/make/outline_photographs.py: a network for salient objects (IS-Net), which no part of the
course explains, proposed a mask for each photograph. Every mask was looked at, and two of three
were corrected by hand; photograph_strokes.json holds the corrections.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import qt_resources
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from vislib.data.coco import NAMES, imagenet_targets

ROOT = Path(__file__).resolve().parents[2]
OUTLINES = Path(__file__).with_name("photograph_outlines.json")
SPLIT = "val"
LONGEST = 640
QUALITY = 88

FARM = "explore_farm_animals/resource/animals"
WORLD = "explore_world_animals/resource/animals"
ERASE = "erase/resource"
PLACES = "explore_monuments/resource"
SMALL = "categorization/resource/images"
SKIMAGE, SKLEARN = "skimage/data", "sklearn/datasets/images"

# name: (folder, file, what the photograph shows)
PHOTOGRAPHS = {
    "chelsea": (SKIMAGE, "chelsea.png", "the head of a tabby cat with yellow eyes"),
    "alpaca": (ERASE, "alpaca.webp", "head and neck of a white alpaca"),
    "anemone_fish": (SMALL, "fishes/fish9.webp", "two clownfish among the arms of an anemone"),
    "angelfish": (SMALL, "fishes/fish1.webp", "a young angelfish with yellow stripes"),
    "anthias": (SMALL, "fishes/fish14.webp", "two pink reef fish, one cut off by the border"),
    "aqueduct": (PLACES, "france/pontduGard.webp", "the Pont du Gard above trees"),
    "baseball": (SMALL, "others/baseball.webp", "a baseball that fills the image"),
    "bee": (ERASE, "bee.webp", "a honey bee flies towards a red flower"),
    "bison": (WORLD, "bison.webp", "a bison, part of a second one and a distant herd"),
    "brandenburg_gate": (
        PLACES,
        "germany/brandenburgGate.webp",
        "the Brandenburg Gate lit in the evening",
    ),
    "bucket": (SMALL, "others/bucket.webp", "an old wooden milk pail"),
    "butterfly": (ERASE, "butterfly.webp", "a black and white butterfly on a flower"),
    "camels": (ERASE, "camels.webp", "a Bactrian camel and its calf"),
    "carrousel_arch": (SMALL, "monuments/arcDeTriomphe.webp", "the Arc du Carrousel in Paris"),
    "chair": (SMALL, "others/chair.webp", "a white wooden chair"),
    "chambord": (PLACES, "france/chateaudeChambord.webp", "the castle of Chambord behind a lawn"),
    "chameleon": (ERASE, "chamaeleon.webp", "a green chameleon walks along a branch"),
    "charminar": (PLACES, "india/charminar.webp", "the Charminar in Hyderabad from below"),
    "cheetah": (ERASE, "cheetah.webp", "a cheetah lies in the grass"),
    "china": (SKLEARN, "china.jpg", "a tower of the Summer Palace above a lake"),
    "claw_hammer": (SMALL, "tools/hammer5.webp", "a claw hammer with a red handle on white"),
    "coffee": (SKIMAGE, "coffee.png", "a cup of espresso with saucer and spoon"),
    "cow": (FARM, "cow.webp", "a black and white cow, two more in the distance"),
    "crab": (ERASE, "crab.webp", "a red and blue Sally Lightfoot crab"),
    "crocodile": (WORLD, "crocodile.webp", "a crocodile on a river bank"),
    "cross_screwdriver": (SMALL, "tools/screwDriver1.webp", "a screwdriver with a yellow handle"),
    "cup": (SMALL, "others/cup.webp", "an old cream-coloured cup on a saucer"),
    "cup_and_saucer": (SMALL, "others/buffetset.webp", "a small porcelain cup in a deep saucer"),
    "duck": (FARM, "duck.webp", "a white duck before a dark pond"),
    "flower": (SKLEARN, "flower.jpg", "an orange dahlia, a second one at the border"),
    "garden_lizard": (WORLD, "chameleon.webp", "a scaly garden lizard on a twig"),
    "gibbon": (ERASE, "gibbon.webp", "a gibbon sits in a tree, one arm stretched upwards"),
    "goat": (ERASE, "goat.webp", "a long-haired goat, white behind and black before"),
    "goldfish": (SMALL, "fishes/fish25.webp", "a goldfish with long fins"),
    "gorilla": (ERASE, "gorilla.webp", "a mountain gorilla looks into the camera"),
    "gosling": (ERASE, "gosling.webp", "a yellow gosling stands on one leg"),
    "hammer": (SMALL, "tools/hammer1.webp", "a hammer on blue ground"),
    "harrier": (ERASE, "northern_harrier.webp", "a northern harrier in flight"),
    "hedgehog": (WORLD, "hedgehog.webp", "a hedgehog in the grass"),
    "hens": (FARM, "chicken.webp", "four brown hens on a lawn"),
    "heron": (ERASE, "heron.webp", "a purple heron in flight"),
    "horse": (ERASE, "horse.webp", "a brown horse before mountains"),
    "horses": (FARM, "horse.webp", "three grey and black horses and two foals"),
    "ibex": (ERASE, "nubian_ibex.webp", "a young Nubian ibex"),
    "india_gate": (SMALL, "monuments/IndiaGate.webp", "the India Gate in Delhi"),
    "jaguars": (WORLD, "jaguar.webp", "two jaguars, one touches the other's neck"),
    "kangaroo": (WORLD, "kangaroo.webp", "a kangaroo and its joey"),
    "kingfisher": (ERASE, "kingfisher.webp", "a kingfisher on a branch"),
    "kitten": (ERASE, "kitten.webp", "a ginger kitten looks over a beam"),
    "kitten_wool": (FARM, "cat.webp", "a kitten plays with a ball of wool"),
    "koala": (WORLD, "koala.webp", "a koala sits in the fork of a tree"),
    "komodo_dragon": (WORLD, "dragon.webp", "a Komodo dragon on the ground"),
    "lemurs": (WORLD, "lemur.webp", "two ring-tailed lemurs and the tail of a third"),
    "macaque": (ERASE, "macaque.webp", "head and shoulders of a bonnet macaque"),
    "macaw": (WORLD, "scarlet_macaw.webp", "a scarlet macaw on a perch"),
    "meerkats": (ERASE, "meerkats.webp", "three meerkats stand upright"),
    "mysore_palace": (PLACES, "india/mysorePalace.webp", "the palace of Mysore with its domes"),
    "neuschwanstein": (
        PLACES,
        "germany/neuschwansteinCastle.webp",
        "the castle of Neuschwanstein above a forest",
    ),
    "owl": (FARM, "owl.webp", "a brown owl on a branch"),
    "pan": (SMALL, "others/pan.webp", "a cast-iron frying pan on a metal table"),
    "panda": (WORLD, "panda.webp", "a giant panda sits on a wall"),
    "penguin": (ERASE, "penguin.webp", "a chinstrap penguin walks towards the camera"),
    "perches": (SMALL, "fishes/fish4.webp", "two yellow perches before black"),
    "pig": (FARM, "pig.webp", "a spotted piglet on grass"),
    "polar_bear": (WORLD, "polar_bear.webp", "a polar bear walks over snow"),
    "proboscis_monkeys": (ERASE, "long_nosed_monkey.webp", "a proboscis monkey and her baby"),
    "puffer": (SMALL, "fishes/fish28.webp", "a spotted puffer fish before blue"),
    "red_panda": (ERASE, "red_panda.webp", "a red panda looks down"),
    "rocket": (SKIMAGE, "rocket.jpg", "a rocket on its launch pad at night"),
    "scale": (SMALL, "others/weighingMachine.webp", "a blue laboratory scale"),
    "screwdriver": (SMALL, "tools/screwDriver2.webp", "a screwdriver with a black handle"),
    "sea_bream": (SMALL, "fishes/fish19.webp", "a red sea bream before weeds"),
    "sheep": (FARM, "sheep.webp", "a white sheep looks into the camera"),
    "shepherd": (FARM, "dog.webp", "a German shepherd stands on a path"),
    "sledgehammer": (SMALL, "tools/hammer3.webp", "the head of a sledgehammer"),
    "solar_panel": (SMALL, "renewable/solar7.webp", "a solar panel on a post"),
    "spoonbills": (ERASE, "spoonbills.webp", "two spoonbills in shallow water"),
    "spoons": (SMALL, "others/spoons.webp", "five spoons side by side"),
    "squirrel": (ERASE, "squirrel.webp", "a squirrel holds on to a trunk"),
    "stupa": (PLACES, "india/greatStupa.webp", "the Great Stupa of Sanchi"),
    "swans": (ERASE, "swans.webp", "two swans with six cygnets"),
    "taj_mahal": (PLACES, "wonders/tajMahal.webp", "the Taj Mahal and two of its minarets"),
    "tape_measure": (SMALL, "tools/measuringTape3.webp", "a blue tape measure, half unrolled"),
    "toucan": (ERASE, "toucan.webp", "a collared aracari on a branch with leaves"),
    "volleyball": (SMALL, "others/volleyball.webp", "a volleyball that fills the image"),
}

# What the Python packages say about their photographs: author, licence, source.
CREDITS = {
    "chelsea": ("Stefan van der Walt", "CC0-1.0", "scikit-image, skimage.data.chelsea"),
    "coffee": ("Rachel Michetti", "CC0-1.0", "scikit-image, skimage.data.coffee"),
    "rocket": ("SpaceX", "Public Domain", "scikit-image, skimage.data.rocket"),
    "china": (
        "danielbuechele",
        "CC-BY-2.0",
        "https://www.flickr.com/photos/danielbuechele/6061409035/sizes/z/in/photostream/",
    ),
    "flower": (
        "vultilion",
        "CC-BY-2.0",
        "https://www.flickr.com/photos/vultilion/6056698931/sizes/z/in/photostream/",
    ),
}

_CC = "https://creativecommons.org"
# As the packages spell a licence: (id, name, address)
LICENSES = {
    "Public Domain": (1, "Public domain", f"{_CC}/publicdomain/mark/1.0/"),
    "CC0-1.0": (2, "CC0 1.0", f"{_CC}/publicdomain/zero/1.0/"),
    "CC-BY-2.0": (3, "CC BY 2.0", f"{_CC}/licenses/by/2.0/"),
    "CC-BY-3.0": (4, "CC BY 3.0", f"{_CC}/licenses/by/3.0/"),
    "CC-BY-SA-4.0": (5, "CC BY-SA 4.0", f"{_CC}/licenses/by-sa/4.0/"),
}

# COCO's categories: name: (COCO's id, supercategory)
COCO_CATEGORIES = {
    "bird": (16, "animal"),
    "cat": (17, "animal"),
    "dog": (18, "animal"),
    "horse": (19, "animal"),
    "sheep": (20, "animal"),
    "cow": (21, "animal"),
    "bear": (23, "animal"),
    "sports ball": (37, "sports"),
    "cup": (47, "kitchen"),
    "spoon": (50, "kitchen"),
    "chair": (62, "furniture"),
}
# Categories that COCO does not have: name: (id, supercategory, ImageNet's classes)
OWN_CATEGORIES: dict[str, tuple[int, str, tuple[int, ...]]] = {
    "primate": (201, "animal", tuple(range(365, 385))),
    "wild cat": (202, "animal", tuple(range(286, 294))),
    "kangaroo": (203, "animal", (104,)),
    "koala": (204, "animal", (105,)),
    "meerkat": (205, "animal", (298, 299)),
    "hedgehog": (206, "animal", (334,)),
    "squirrel": (207, "animal", (335,)),
    "red panda": (208, "animal", (387,)),
    "pig": (209, "animal", (341, 342)),
    "bison": (210, "animal", (347,)),
    "goat": (211, "animal", (350,)),
    "camel": (212, "animal", (354,)),
    "llama": (213, "animal", (355,)),
    "lizard": (214, "animal", tuple(range(38, 49))),
    "crocodile": (215, "animal", (49, 50)),
    "fish": (216, "animal", (0, 1, *range(389, 398))),
    "crab": (217, "animal", (118, 119, 120, 121, 125)),
    "bee": (218, "animal", (309,)),
    "butterfly": (219, "animal", tuple(range(321, 327))),
    "flower": (220, "plant", (985, 986)),
    "espresso": (221, "food", (967,)),
    "frying pan": (222, "kitchen", (567,)),
    "bucket": (223, "tool", (463,)),
    "hammer": (224, "tool", (587,)),
    "screwdriver": (225, "tool", (784,)),
    "tape measure": (226, "tool", (769,)),
    "scale": (227, "tool", (778,)),
    "solar panel": (228, "tool", (807,)),
    "rocket": (229, "vehicle", (657, 744, 812)),
    "castle": (230, "building", (483,)),
    "palace": (231, "building", (698,)),
    "mosque": (232, "building", (668,)),
    "triumphal arch": (233, "building", (873,)),
    "stupa": (234, "building", (832,)),
    "viaduct": (235, "building", (888,)),
}


# --- The photographs and their licences -----------------------------------------------------------


class Package:
    """The files of GCompris' activities, and the credits in the README beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "gcompris-qt-data" / "usr" / "share" / "gcompris-qt" / "rcc"
        self._activity = lru_cache(self._read_activity)
        self._credits = lru_cache(self._read_credits)

    def file(self, path: str) -> bytes:
        """Content of ``ACTIVITY/FILE``."""
        activity, _, inner = path.partition("/")
        return self._activity(activity)[f"gcompris/src/activities/{activity}/{inner}"]

    def credits(self, folder: str, file: str) -> dict[str, str]:
        """The fields Copyright, License, Source and Comments of one file."""
        inner, _, name = file.rpartition("/")
        # One README serves all folders of the monuments; elsewhere each folder has its own.
        if folder == PLACES:
            return self._credits(folder)[file]
        return self._credits(f"{folder}/{inner}".rstrip("/"))[name]

    def _read_activity(self, activity: str) -> dict[str, bytes]:
        return qt_resources.read(self.folder / f"{activity}.rcc")

    def _read_credits(self, folder: str) -> dict[str, dict[str, str]]:
        text = self.file(f"{folder}/README").decode("utf-8")
        found: dict[str, dict[str, str]] = {}
        for block in re.split(r"\n\s*\n", text.strip()):
            # A field has a name at the start of a line; its value may go on in the next lines.
            fields = dict(re.findall(r"^(\w+):\s*(.*?)\s*(?=^\w+:\s|\Z)", block, re.M | re.S))
            for name in fields.pop("Files", "").split():
                found[name] = fields
        return found


def original(name: str, package: Package) -> bytes:
    """Content of the photograph's file as its package holds it."""
    folder, file, _ = PHOTOGRAPHS[name]
    if folder in (SKIMAGE, SKLEARN):
        module, _, inner = folder.partition("/")
        return (files(module) / inner / file).read_bytes()
    return package.file(f"{folder}/{file}")


def reduced(content: bytes) -> Image.Image:
    """The photograph in RGB, at most `LONGEST` pixels on its longer side."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return image


def provenance(name: str, package: Package) -> dict[str, str]:
    """Author, licence, source, changes and origin of a photograph."""
    folder, file, _ = PHOTOGRAPHS[name]
    changes = f"at most {LONGEST} pixels, JPEG"
    if name in CREDITS:
        author, licence, source = CREDITS[name]
        where = f"{folder.partition('/')[0]}: {file}"
    else:
        fields = package.credits(folder, file)
        author, source = fields["Copyright"], fields["Source"]
        # The READMEs spell "Public Domain" and "CC-BY-SA 4.0" in several ways.
        spelled = fields["License"].replace(" ", "-").upper()
        licence = next(key for key in LICENSES if key.replace(" ", "-").upper() == spelled)
        changes = "; ".join(filter(None, [fields.get("Comments"), changes]))
        where = f"gcompris-qt-data: {folder.partition('/')[0]}/{file}"
    return {
        "author": author,
        "licence": licence,
        "source": source,
        "changes": changes,
        "origin": where,
    }


# --- Annotations ----------------------------------------------------------------------------------


def categories() -> dict[str, tuple[int, str]]:
    """Name → (id, supercategory) of all categories, in the order of their ids."""
    assert set(COCO_CATEGORIES) <= set(NAMES) and not set(OWN_CATEGORIES) & set(NAMES)
    own = {name: (number, group) for name, (number, group, _) in OWN_CATEGORIES.items()}
    return COCO_CATEGORIES | own


def annotations(image_id: int, size: tuple[int, int], objects: list[Any]) -> Iterator[dict]:
    """COCO's annotations of one photograph; `objects` holds pairs [category, segmentation]."""
    width, height = size
    for number, (category, segmentation) in enumerate(objects, 1):
        crowd = isinstance(segmentation, dict)
        if crowd:
            encoded = coco_mask.frPyObjects(segmentation, height, width)
        else:
            encoded = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        yield {
            "id": 100 * image_id + number,
            "image_id": image_id,
            "category_id": categories()[category][0],
            "iscrowd": int(crowd),
            "area": int(coco_mask.area(encoded)),
            "bbox": coco_mask.toBbox(encoded).tolist(),
            "segmentation": segmentation,
        }


def class_table() -> dict[str, list[int]]:
    """ImageNet's classes of each category: the course's table, and our own categories."""
    course = imagenet_targets()
    table: dict[str, Any] = {
        "_comment": "Category of data/photographs -> the ImageNet-1k classes (torchvision's order, "
        "0 to 999) that show the same kind of thing. Categories of COCO as in the course's table. "
        "Class 334 is the synset porcupine, hedgehog; 769 is rule, ruler; 807 is solar dish, solar "
        "collector; 104 is wallaby; 354 is Arabian camel; 985 is daisy.",
    }
    table |= {name: list(course[name]) for name in COCO_CATEGORIES}
    return table | {name: list(classes) for name, (_, _, classes) in OWN_CATEGORIES.items()}


def readable(address: str) -> str:
    """Source as a link whose text is short."""
    if not address.startswith("http"):
        return address
    title = unquote(address).rstrip("/").rsplit("/", 1)[-1].removeprefix("File:").replace("_", " ")
    host = address.split("/")[2].removeprefix("www.").removeprefix("commons.")
    text = title if "wikimedia" in host else host
    return f"[{text.replace('[', '(').replace(']', ')')}]({address.replace(')', '%29')})"


def licence_table(images: list[dict[str, Any]]) -> str:
    """README.md of the folder: one line for each photograph."""
    names = {number: f"[{name}]({url})" for number, name, url in LICENSES.values()}
    lines = [
        "# Licences of the photographs",
        "",
        "Written by `data/make/build_photographs.py` from the READMEs in the packages.",
        "The annotation file has the same facts, and in addition the changes made to each file.",
        "The outlines of the objects are our own, BSD 3-Clause.",
        "",
        "| file | shows | author | licence | source |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry in images:
        lines.append(
            f"| {entry['file_name']} | {entry['title']} | {entry['author']} "
            f"| {names[entry['license']]} | {readable(entry['source'])} |"
        )
    return "\n".join(lines) + "\n"


# --- Contact sheets -------------------------------------------------------------------------------

TILE = (280, 210)
COLUMNS, ROWS = 7, 7
COLOURS = ((255, 0, 200), (0, 255, 80), (255, 220, 0), (0, 200, 255), (255, 90, 0), (160, 90, 255))


def tile(path: Path, objects: list[dict[str, Any]]) -> Image.Image:
    """A small copy of a photograph: outlines in colour, everything outside of objects dimmed."""
    image = Image.open(path)
    width, height = image.size
    image.thumbnail((TILE[0] - 6, TILE[1] - 20), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, float)
    masks = []
    for thing in objects:
        encoded = coco_mask.frPyObjects(thing["segmentation"], height, width)
        full = coco_mask.decode(encoded if thing["iscrowd"] else coco_mask.merge(encoded))
        small = Image.fromarray(255 * full).resize(image.size, Image.Resampling.BOX)
        masks.append(np.asarray(small) > 127)
    pixels = np.where(np.any(masks, axis=0)[..., None], pixels, 0.45 * pixels)
    for index, mask in enumerate(masks):
        padded = np.pad(mask, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        pixels[mask & ~inner] = COLOURS[index % len(COLOURS)]
    return Image.fromarray(pixels.astype(np.uint8))


def contact_sheets(out: Path, content: dict[str, Any]) -> None:
    """Write ``contact_sheet_1.jpg`` and so on: all photographs with their outlines."""
    for start in range(0, len(content["images"]), COLUMNS * ROWS):
        entries = content["images"][start : start + COLUMNS * ROWS]
        rows = -(-len(entries) // COLUMNS)
        sheet = Image.new("RGB", (COLUMNS * TILE[0], rows * TILE[1]), "white")
        draw = ImageDraw.Draw(sheet)
        for position, entry in enumerate(entries):
            x, y = position % COLUMNS * TILE[0], position // COLUMNS * TILE[1]
            things = [a for a in content["annotations"] if a["image_id"] == entry["id"]]
            sheet.paste(tile(out / SPLIT / entry["file_name"], things), (x + 3, y + 16))
            draw.text((x + 4, y + 2), Path(entry["file_name"]).stem, "black")
        number = start // (COLUMNS * ROWS) + 1
        sheet.save(out / f"contact_sheet_{number}.jpg", quality=82, optimize=True)


# --- The folder -----------------------------------------------------------------------------------


def build(packages: Path, out: Path) -> None:
    """Write the photographs and the files that describe them."""
    package = Package(packages)
    outlines = json.loads(OUTLINES.read_text(encoding="utf-8"))
    (out / SPLIT).mkdir(parents=True, exist_ok=True)
    (out / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for image_id, (name, (_, _, title)) in enumerate(PHOTOGRAPHS.items(), 1):
        image = reduced(original(name, package))
        image.save(out / SPLIT / f"{name}.jpg", quality=QUALITY, subsampling="4:4:4", optimize=True)
        facts = provenance(name, package)
        images.append(
            {
                "id": image_id,
                "file_name": f"{name}.jpg",
                "height": image.height,
                "width": image.width,
                "license": LICENSES[facts.pop("licence")][0],
                "title": title,
            }
            | facts
        )
        objects += annotations(image_id, image.size, outlines[name])
    content = {
        "info": {
            "description": "Photographs with outlines of their objects in the format of COCO",
            "contributor": "vislib",
            "date_created": "2026/11/26",
            "url": "",
            "version": "1.0",
            "year": 2026,
        },
        "licenses": [{"id": i, "name": name, "url": url} for i, name, url in LICENSES.values()],
        "images": images,
        "annotations": objects,
        "categories": [
            {"id": number, "name": name, "supercategory": group}
            for name, (number, group) in categories().items()
        ],
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    (out / "annotations" / f"instances_{SPLIT}.json").write_text(text + "\n", encoding="utf-8")
    table = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in class_table().items())
    (out / "imagenet_classes.json").write_text(f"{{\n{table}\n}}\n", encoding="utf-8")
    (out / "README.md").write_text(licence_table(images), encoding="utf-8")
    contact_sheets(out, content)
    size = sum(path.stat().st_size for path in (out / SPLIT).iterdir())
    print(f"{len(images)} photographs, {len(objects)} objects, {size / 1e6:.1f} MB")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build data/photographs.")
    parser.add_argument("packages", type=Path, help="folder of the unpacked Debian packages")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "photographs")
    options = parser.parse_args()
    build(options.packages, options.out)


if __name__ == "__main__":
    main()
