"""Make the objects and backgrounds of Pocket COCO from photographs in Debian packages.

    python data/make/build_pocket_objects.py PACKAGES

The folder PACKAGES holds one folder per package, into which it was unpacked:

    for package in tuxpaint-stamps-default gcompris-qt-data tuxpaint-data mate-backgrounds \\
                   lomiri-wallpapers-16.04; do
        apt-get download $package && dpkg-deb -x $package*.deb PACKAGES/$package
    done

The versions of Debian 12 are tuxpaint-stamps-default 2022.06.04, gcompris-qt-data 3.1,
tuxpaint-data 0.9.28, mate-backgrounds 1.26.0 and lomiri-wallpapers-16.04 20.04.0. A few more
photographs come from scikit-image. Besides the project's packages, the script needs ``zstandard``
to read GCompris' resource files.

It writes data/pocket_coco/objects (lossless WebP with an alpha channel), objects.json, backgrounds
(JPEG) and backgrounds.json, and repeats bit for bit with the same version of Pillow. The alpha
channels of the stamps are the package's. Those of the photographs were made once, with a network
for salient objects (IS-Net), and cleaned: one piece, no holes, no thread at the cat's ball of wool;
the volleyball's is a disc. They are stored in data/make/pocket_masks: the script applies them and
does not remake them.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import qt_resources
from PIL import Image, ImageFilter
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "data" / "pocket_coco"
MASKS = Path(__file__).with_name("pocket_masks")
LONGEST_OBJECT = 320
LONGEST_BACKGROUND = 640

# --- Categories -----------------------------------------------------------------------------------
# name: (COCO's id, supercategory, largest rotation in degrees, flip, largest hue shift in degrees,
#        plausible kinds)
CATEGORIES = {
    "car": (3, "vehicle", 6, True, 180, ("street", "ground")),
    "airplane": (5, "vehicle", 12, True, 20, ("sky",)),
    "bus": (6, "vehicle", 6, True, 180, ("street",)),
    "truck": (8, "vehicle", 6, True, 180, ("street", "ground")),
    "boat": (9, "vehicle", 8, True, 15, ("water",)),
    "bird": (16, "animal", 12, True, 8, ("ground",)),
    "cat": (17, "animal", 12, True, 8, ("ground", "indoor", "table")),
    "dog": (18, "animal", 8, True, 8, ("ground", "street", "indoor")),
    "horse": (19, "animal", 8, True, 8, ("ground",)),
    "sheep": (20, "animal", 8, True, 6, ("ground",)),
    "cow": (21, "animal", 8, True, 6, ("ground",)),
    "elephant": (22, "animal", 8, True, 6, ("ground",)),
    "bear": (23, "animal", 8, True, 6, ("ground",)),
    "zebra": (24, "animal", 8, True, 4, ("ground",)),
    "giraffe": (25, "animal", 6, True, 6, ("ground",)),
    "sports ball": (37, "sports", 180, True, 25, ("ground", "street", "indoor")),
    "cup": (47, "kitchen", 8, True, 180, ("table",)),
    "orange": (55, "food", 180, True, 6, ("table",)),
    "broccoli": (56, "food", 60, True, 8, ("table",)),
    "chair": (62, "furniture", 6, True, 180, ("indoor",)),
    "toilet": (70, "furniture", 6, True, 180, ("indoor",)),
    "teddy bear": (88, "indoor", 15, True, 15, ("indoor", "table")),
}
DISTRACTOR = "distractor"

# --- Stamps ---------------------------------------------------------------------------------------
PUJAL = "Stas Zytkiewicz (Childsplay), adapted by Pere Pujal i Carabantes"
FORD = "Caroline Ford"
KENDRICK = "Bill Kendrick"
CAHALAN = "Albert Cahalan"
TUX = "Tux Paint contributors"
GOERNER = "Chris Goerner"
SULLIVAN = "John O'Sullivan"
GPL = "GPL-2.0-or-later"

# category: ((path under the stamps, author, licence, held out of training), …)
STAMPS: dict[str, tuple[tuple[str, str, str, bool], ...]] = {
    "car": (
        ("vehicles/auto/beetle", FORD, GPL, False),
        ("vehicles/auto/sedan", "Justin Zeigler", GPL, True),
        ("vehicles/auto/sportscar2", TUX, GPL, False),
        ("vehicles/race/indycar", CAHALAN, GPL, False),
    ),
    "airplane": (
        ("vehicles/flight/planes/747", CAHALAN, GPL, False),
        (
            "military/vehicles/f22_raptor",
            "Ben Bloker (U.S. Air Force), prepared by Steve Karg",
            "Public domain",
            False,
        ),
    ),
    "bus": (("vehicles/masstransit/green_korean_bus", TUX, GPL, False),),
    "truck": (
        ("vehicles/auto/truck", TUX, GPL, False),
        (
            "vehicles/emergency/firetruck",
            "Aaron M. Lang, prepared by Bill Kendrick",
            "CC-BY-2.5",
            False,
        ),
        ("vehicles/garbagetruck", FORD, GPL, True),
    ),
    "boat": (
        ("vehicles/ship/chineseJunk", "Jim Trice", GPL, False),
        ("vehicles/ship/walnutBoat", "Jim Trice", GPL, False),
    ),
    "bird": (
        ("animals/birds/blackbird", PUJAL, GPL, False),
        ("animals/birds/crow", PUJAL, GPL, False),
        ("animals/birds/crowned_crane", KENDRICK, GPL, False),
        ("animals/birds/duck", PUJAL, GPL, False),
        ("animals/birds/lark", PUJAL, GPL, False),
        ("animals/birds/magellanic_penguin", KENDRICK, GPL, False),
        ("animals/birds/owl", PUJAL, GPL, False),
        ("animals/birds/peacock", KENDRICK, GPL, False),
        ("animals/birds/pigeon", PUJAL, GPL, True),
        ("animals/birds/pink_flamingo", KENDRICK, GPL, False),
        ("animals/birds/rooster", PUJAL, GPL, False),
        ("animals/birds/seagull", PUJAL, GPL, False),
        ("animals/birds/tucan", PUJAL, GPL, False),
    ),
    "dog": (
        ("animals/mammals/dogs/dog", PUJAL, GPL, True),
        ("animals/mammals/dogs/dingo", GOERNER, GPL, False),
    ),
    "horse": (("animals/mammals/equines/horse", PUJAL, GPL, False),),
    "sheep": (
        ("animals/mammals/bovines/ram", PUJAL, GPL, False),
        ("animals/mammals/bovines/sheep", FORD, GPL, True),
        ("animals/mammals/bovines/sheep_lamb", FORD, GPL, False),
    ),
    "cow": (
        ("animals/mammals/bovines/bull", PUJAL, GPL, False),
        ("animals/mammals/bovines/cow", PUJAL, GPL, True),
        ("animals/mammals/bovines/cow_white", FORD, GPL, False),
        ("animals/mammals/bovines/zebu", PUJAL, GPL, False),
    ),
    "elephant": (("animals/mammals/elephant", PUJAL, GPL, False),),
    "bear": (
        ("animals/mammals/bears/bear", PUJAL, GPL, False),
        ("animals/mammals/bears/european-bear", "Pere Pujal i Carabantes", GPL, True),
    ),
    "zebra": (("animals/mammals/equines/zebra", PUJAL, GPL, False),),
    "giraffe": (("animals/mammals/giraffe", KENDRICK, GPL, False),),
    "sports ball": (
        ("sports/basketball", FORD, GPL, False),
        ("sports/football", CAHALAN, GPL, False),
        ("sports/soccer", CAHALAN, GPL, True),
        ("sports/tennis_ball", FORD, GPL, False),
    ),
    "cup": (("household/dishes/mug", FORD, GPL, False),),
    "orange": (("food/fruit/mandarine", GOERNER, GPL, False),),
    "broccoli": (("food/vegetables/broccoli", "Steve Karg", GPL, False),),
    "toilet": (("household/toilet", CAHALAN, GPL, False),),
    "teddy bear": (("animals/mammals/bears/toys/edward_bear", "Jim Trice", GPL, False),),
    DISTRACTOR: tuple(
        (path, author, licence, False)
        for path, author, licence in (
            ("animals/amphibians/frog", PUJAL, GPL),
            ("animals/insects/mantis", "Pere Pujal i Carabantes", GPL),
            ("animals/lizards/iguana", PUJAL, GPL),
            ("animals/mammals/aquatic/dolphin", PUJAL, GPL),
            ("animals/mammals/camel/camel", PUJAL, GPL),
            ("animals/mammals/cats/tiger", PUJAL, GPL),
            ("animals/mammals/hippopotamus", PUJAL, GPL),
            ("animals/mammals/rodents/rabbit-2", "Pere Pujal i Carabantes", GPL),
            ("animals/mammals/rodents/squirrel", PUJAL, GPL),
            ("animals/fish/seahorse", "U.S. NOAA", "Public domain"),
            ("animals/fish/butterflyfish", SULLIVAN, GPL),
            ("food/fruit/avocado", TUX, GPL),
            ("food/fruit/kiwi", TUX, GPL),
            ("food/fruit/lemon", GOERNER, GPL),
            ("food/spices/ginger", TUX, GPL),
            ("food/vegetables/corn", "Steve Karg", GPL),
            ("hobbies/binoculars", TUX, GPL),
            ("hobbies/camera_35mm", TUX, GPL),
            ("hobbies/music/brass/trumpet", FORD, GPL),
            ("hobbies/music/percussion/drumkit", FORD, GPL),
            ("hobbies/music/string/guitar_classical", FORD, GPL),
            ("hobbies/music/string/violin", FORD, GPL),
            ("household/kettle", FORD, GPL),
            ("household/tools/toolbox", TUX, GPL),
            ("household/wheelie_bin", FORD, GPL),
            ("plants/flowers/anemone_red", TUX, GPL),
            ("plants/flowers/daffodil", FORD, GPL),
            ("plants/flowers/red-gazania", TUX, GPL),
            ("plants/flowers/rose", TUX, GPL),
            ("plants/mushrooms/cep-1", "Pere Pujal i Carabantes", GPL),
            ("town/roadsigns/traffic_cone", FORD, GPL),
            ("vehicles/flight/balloon360", CAHALAN, GPL),
        )
    ),
}
# Stamps with a white fringe, and the number of pixels to take off.
FRINGED = {"edward_bear": 1, "football": 1, "soccer": 1, "basketball": 1, "corn": 1}

# --- Photographs ----------------------------------------------------------------------------------
FARM = "explore_farm_animals:src/activities/explore_farm_animals/resource/animals"
WORLD = "explore_world_animals:src/activities/explore_world_animals/resource/animals"
ERASE = "erase:src/activities/erase/resource"
THINGS = "categorization:src/activities/categorization/resource/images"
MUSIC = "explore_world_music:src/activities/explore_world_music/resource/music"
SKIMAGE = "scikit-image:data"
PD = "Public domain"
CC0 = "CC0-1.0"

Box = tuple[int, int, int, int]
# category: ((name, source, box of the mask in it, author, licence, held out), …)
PHOTOGRAPHS: dict[str, tuple[tuple[str, str, Box, str, str, bool], ...]] = {
    "bird": (
        (
            "aylesbury_duck",
            f"{FARM}/duck.webp",
            (122, 210, 830, 870),
            "Bernard Spragg",
            CC0,
            False,
        ),
        ("kingfisher", f"{ERASE}/kingfisher.webp", (540, 106, 1211, 959), "Frank-2.0", CC0, False),
        (
            "scarlet_macaw",
            f"{WORLD}/scarlet_macaw.webp",
            (232, 103, 928, 793),
            "Dcoetzee",
            CC0,
            False,
        ),
    ),
    "cat": (("kitten", f"{FARM}/cat.webp", (188, 109, 1024, 564), "Loliloli", PD, False),),
    "dog": (
        (
            "german_shepherd",
            f"{FARM}/dog.webp",
            (39, 27, 909, 728),
            "Hans Kemperman",
            PD,
            False,
        ),
    ),
    "horse": (
        ("nokota_horse", f"{FARM}/horse.webp", (583, 227, 912, 559), "Seth Zeigler", CC0, False),
    ),
    "sheep": (
        ("sheep_white", f"{FARM}/sheep.webp", (232, 86, 730, 678), "Rob Mitchell", CC0, False),
    ),
    "cow": (("cow_holstein", f"{FARM}/cow.webp", (234, 294, 930, 692), "Dohduhdah", PD, False),),
    "bear": (
        ("panda", f"{WORLD}/panda.webp", (225, 52, 852, 599), "Jeff Kubina", PD, False),
        ("polar_bear", f"{WORLD}/polar_bear.webp", (244, 253, 858, 578), "anonymous", PD, False),
    ),
    "sports ball": (
        (
            "baseball",
            f"{THINGS}/others/baseball.webp",
            (0, 0, 320, 317),
            "Cody escadron delta",
            PD,
            False,
        ),
        ("volleyball", f"{THINGS}/others/volleyball.webp", (5, 5, 316, 315), "Amada44", PD, False),
    ),
    "cup": (
        ("coffee", f"{SKIMAGE}/coffee.png", (76, 17, 480, 391), "Rachel Michetti", CC0, False),
        (
            "cup_butterfly",
            f"{THINGS}/others/buffetset.webp",
            (53, 92, 263, 210),
            "Rijksmuseum",
            CC0,
            False,
        ),
        ("cup_cream", f"{THINGS}/others/cup.webp", (24, 21, 285, 194), "FA2010", PD, True),
    ),
    "chair": (
        ("chair", f"{THINGS}/others/chair.webp", (31, 25, 212, 289), "Pierre Gencey", PD, False),
    ),
    DISTRACTOR: tuple(
        (name, source, box, author, licence, False)
        for name, source, box, author, licence in (
            (
                "bata_drums",
                f"{MUSIC}/africa.webp",
                (53, 57, 982, 605),
                "Kenneth Ritchards",
                PD,
            ),
            (
                "boarfish",
                f"{THINGS}/fishes/fish18.webp",
                (17, 24, 302, 202),
                "Pierluigi Angioi",
                PD,
            ),
            ("bulb", f"{THINGS}/others/bulb.webp", (59, 75, 179, 286), "Vitaium", CC0),
            ("crab", f"{ERASE}/crab.webp", (102, 260, 1825, 906), "Nosferattus", CC0),
            ("goldfish", f"{THINGS}/fishes/fish25.webp", (0, 9, 317, 262), "Necrophorus", PD),
            ("koala", f"{WORLD}/koala.webp", (103, 240, 646, 879), "BurningWell", PD),
            ("lemur", f"{WORLD}/lemur.webp", (364, 202, 684, 651), "Mathias Appel", CC0),
            (
                "multimeter",
                f"{THINGS}/tools/multimeter2.webp",
                (28, 6, 204, 316),
                "Bougainville",
                PD,
            ),
            ("pan", f"{THINGS}/others/pan.webp", (27, 79, 267, 177), "Suricata", PD),
            ("pig", f"{FARM}/pig.webp", (163, 171, 633, 634), "Teinesavaii", PD),
            (
                "puffer_fish",
                f"{THINGS}/fishes/fish28.webp",
                (38, 57, 232, 171),
                "Bernard Spragg",
                CC0,
            ),
            ("scissors", f"{THINGS}/tools/scissors1.webp", (7, 6, 313, 175), "Evan-Amos", PD),
            (
                "screwdriver",
                f"{THINGS}/tools/screwDriver.webp",
                (15, 36, 303, 207),
                "Oktaeder",
                PD,
            ),
            (
                "seabream",
                f"{THINGS}/fishes/fish16.webp",
                (31, 56, 319, 143),
                "Stefano Guerrieri",
                PD,
            ),
            (
                "spray_bottle",
                f"{THINGS}/tools/spray.webp",
                (108, 25, 209, 307),
                "George Hodan",
                CC0,
            ),
        )
    ),
}

# --- Backgrounds ----------------------------------------------------------------------------------
MONUMENTS = "explore_monuments:src/activities/explore_monuments/resource"
TEMPLATES = "tuxpaint-data:usr/share/tuxpaint/templates"
NATURE = "mate-backgrounds:usr/share/backgrounds/mate/nature"
LOMIRI = "lomiri-wallpapers-16.04:usr/share/backgrounds"
CC_BY = "CC-BY-4.0"

# name: (source, box in it as fractions (x0, y0, x1, y1), kind, floor, author, licence)
WHOLE = (0.0, 0.0, 1.0, 1.0)
Fractions = tuple[float, float, float, float]
BACKGROUNDS: dict[str, tuple[str, Fractions, str, tuple[float, float], str, str]] = {
    "alpine_path": (
        f"{LOMIRI}/picosdeeuropa_by_Aitzol_Berasategi.jpg",
        WHOLE,
        "ground",
        (0.72, 0.97),
        "Aitzol Berasategi",
        CC_BY,
    ),
    "autumn_meadow": (
        f"{LOMIRI}/aitzgorri_by_Aitzol_Berasategi.jpg",
        WHOLE,
        "ground",
        (0.70, 0.97),
        "Aitzol Berasategi",
        CC_BY,
    ),
    "bent_pyramid": (
        f"{MONUMENTS}/egypt/bentPyramid.webp",
        WHOLE,
        "ground",
        (0.68, 0.97),
        "Neithsabes",
        PD,
    ),
    "carcassonne": (
        f"{MONUMENTS}/france/citedeCarcassonne.webp",
        WHOLE,
        "ground",
        (0.80, 0.97),
        "Petitemontagnedujura",
        PD,
    ),
    "chambord": (
        f"{MONUMENTS}/france/chateaudeChambord.webp",
        WHOLE,
        "ground",
        (0.69, 0.97),
        "BjörnT",
        PD,
    ),
    "dune": (f"{NATURE}/Dune.jpg", WHOLE, "ground", (0.80, 0.98), "Marco Cogoni, Hylke Bons", GPL),
    "grass_close": (
        f"{NATURE}/GreenMeadow.jpg",
        (0.0, 0.1, 1.0, 0.9),
        "ground",
        (0.55, 0.97),
        "Timothy Schellhase, Lapo Calamandrei",
        GPL,
    ),
    "great_stupa": (
        f"{MONUMENTS}/india/greatStupa.webp",
        WHOLE,
        "ground",
        (0.80, 0.97),
        "ArnoldBetten",
        PD,
    ),
    "lawn": (f"{SKIMAGE}/grass.png", WHOLE, "ground", (0.40, 0.98), "linolafett", CC0),
    "gravel": (f"{SKIMAGE}/gravel.png", WHOLE, "ground", (0.40, 0.98), "CC0Textures", CC0),
    "meidum_pyramid": (
        f"{MONUMENTS}/egypt/meidumPyramid.webp",
        WHOLE,
        "ground",
        (0.82, 0.98),
        "Neithsabes",
        PD,
    ),
    "mont_st_michel": (
        f"{MONUMENTS}/france/montStMichel.webp",
        WHOLE,
        "ground",
        (0.74, 0.97),
        "Ali Sabbagh",
        CC0,
    ),
    "mudstone": (
        f"{TEMPLATES}/mudstone.jpg",
        WHOLE,
        "ground",
        (0.45, 0.97),
        KENDRICK,
        GPL,
    ),
    "pebbles": (f"{TEMPLATES}/rocks.jpg", WHOLE, "ground", (0.45, 0.97), KENDRICK, GPL),
    "petra": (
        f"{MONUMENTS}/wonders/petra.webp",
        WHOLE,
        "ground",
        (0.95, 0.99),
        "Berthold Werner",
        PD,
    ),
    "red_pyramid": (
        f"{MONUMENTS}/egypt/redPyramid.webp",
        WHOLE,
        "ground",
        (0.74, 0.97),
        "Chipdawes",
        PD,
    ),
    "savannah": (
        f"{WORLD}/giraffe.webp",
        (0.0, 0.28, 0.43, 1.0),
        "ground",
        (0.84, 0.98),
        "Mike and Lara Wolfe",
        CC0,
    ),
    "trier_baths": (
        f"{MONUMENTS}/germany/trierImperialBaths.webp",
        WHOLE,
        "ground",
        (0.80, 0.97),
        "Berthold Werner",
        PD,
    ),
    "victoria_memorial": (
        f"{MONUMENTS}/india/victoriaMemorial.webp",
        (0.05, 0.0, 0.95, 1.0),
        "ground",
        (0.92, 0.99),
        "Anourag",
        CC0,
    ),
    "washington_house": (
        f"{MONUMENTS}/usa/georgeWashingtonBirthplace.webp",
        (0.02, 0.03, 0.94, 0.96),
        "ground",
        (0.86, 0.97),
        "U.S. National Park Service",
        PD,
    ),
    "brandenburg_gate": (
        f"{MONUMENTS}/germany/brandenburgGate.webp",
        (0.0, 0.1, 1.0, 1.0),
        "street",
        (0.93, 0.99),
        "Evans1551",
        PD,
    ),
    "konark": (
        f"{MONUMENTS}/india/konarkSunTemple.webp",
        WHOLE,
        "street",
        (0.82, 0.98),
        "Tetraktys",
        PD,
    ),
    "mysore_palace": (
        f"{MONUMENTS}/india/mysorePalace.webp",
        (0.0, 0.0, 1.0, 1.0),
        "street",
        (0.93, 0.99),
        "Shiva sg",
        PD,
    ),
    "papal_palace": (
        f"{MONUMENTS}/france/palaisdesPapes.webp",
        WHOLE,
        "street",
        (0.92, 0.99),
        "Tognopop",
        CC0,
    ),
    "road": (f"{NATURE}/Storm.jpg", WHOLE, "street", (0.84, 0.98), "Sergey Nazarov", GPL),
    "golden_temple": (
        f"{MONUMENTS}/india/goldenTemple.webp",
        WHOLE,
        "water",
        (0.74, 0.97),
        "Jasdeep Singh",
        CC0,
    ),
    "chenonceau": (
        f"{MONUMENTS}/france/chateaudeChenonceau.webp",
        (0.0, 0.0, 0.75, 0.90),
        "water",
        (0.78, 0.97),
        "Alf van Beem",
        PD,
    ),
    "ocean_waves": (f"{TEMPLATES}/ocean_waves.jpg", WHOLE, "water", (0.25, 0.97), KENDRICK, GPL),
    "schwerin": (
        f"{MONUMENTS}/germany/schwerinPalace.webp",
        (0.3, 0.12, 1.0, 1.0),
        "water",
        (0.88, 0.98),
        "Hermann Luyken",
        CC0,
    ),
    "clouds": (
        f"{TEMPLATES}/sun_behind_clouds.jpg",
        WHOLE,
        "sky",
        (0.15, 0.98),
        KENDRICK,
        GPL,
    ),
    "great_wall": (
        f"{MONUMENTS}/wonders/greatWallofChina.webp",
        WHOLE,
        "sky",
        (0.15, 0.50),
        "Nicolas Perrault III",
        CC0,
    ),
    "machu_picchu": (
        f"{MONUMENTS}/wonders/machuPicchu.webp",
        WHOLE,
        "sky",
        (0.15, 0.60),
        "Guillaume Pascal",
        CC0,
    ),
    "neuschwanstein": (
        f"{MONUMENTS}/germany/neuschwansteinCastle.webp",
        WHOLE,
        "sky",
        (0.12, 0.42),
        "cameralends",
        CC0,
    ),
    "rushmore": (
        f"{MONUMENTS}/usa/mountRushmore.webp",
        WHOLE,
        "sky",
        (0.12, 0.40),
        "Eekim",
        CC0,
    ),
    "treetops": (f"{TEMPLATES}/trees_above.jpg", WHOLE, "sky", (0.20, 0.95), KENDRICK, GPL),
    "wood_grain": (
        f"{NATURE}/Wood.jpg",
        WHOLE,
        "table",
        (0.40, 0.97),
        "Jean-François Fortin Tam",
        GPL,
    ),
}
# A surface in front of a wall: two photographs put together.
# name: (surface, its tint, wall, its tint, blur of the wall, edge, kind, floor)
TABLE = "wood_grain"
ASSEMBLED: dict[str, tuple] = {
    "table_brick": ((196, 140, 92), "brick", (214, 150, 120), 2.0, 0.48, "table", (0.58, 0.97)),
    "table_garden": ((236, 214, 180), "grass_close", None, 14.0, 0.45, "table", (0.55, 0.97)),
    "table_dark": ((134, 88, 60), "brick", (226, 214, 190), 3.0, 0.50, "table", (0.60, 0.97)),
    "room_white": ((206, 160, 112), "brick", (246, 242, 234), 1.0, 0.68, "indoor", (0.78, 0.98)),
    "room_blue": ((150, 112, 82), "brick", (158, 184, 204), 1.0, 0.66, "indoor", (0.76, 0.98)),
}
TINTS = {"lawn": (112, 156, 76), "gravel": (196, 186, 172)}


# --- Reading --------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def resources(file: Path) -> dict[str, bytes]:
    """Return path → content of the files in one of Qt's binary resource files."""
    return qt_resources.read(file)


def photograph(packages: Path, source: str) -> Image.Image:
    """Open the photograph at ``place:path`` as RGB."""
    place, path = source.split(":")
    if place == "scikit-image":
        spec = find_spec("skimage")
        if spec is None or spec.origin is None:
            raise SystemExit("scikit-image is missing: install the project's packages first")
        folder = Path(spec.origin).parent
        return Image.open(folder / path).convert("RGB")
    if (packages / place).is_dir():
        return Image.open(packages / place / path).convert("RGB")
    file = packages / "gcompris-qt-data/usr/share/gcompris-qt/rcc" / f"{place}.rcc"
    return Image.open(io.BytesIO(resources(file)[f"gcompris/{path}"])).convert("RGB")


def origin(source: str) -> dict[str, str]:
    """Return the package and the path of a source inside it."""
    place, path = source.split(":")
    outside = ("scikit-image", "tuxpaint-data", "mate-backgrounds", "lomiri-wallpapers-16.04")
    if place in outside:
        return {"package": place, "path": path}
    return {
        "package": "gcompris-qt-data",
        "path": f"usr/share/gcompris-qt/rcc/{place}.rcc:gcompris/{path}",
    }


# --- Objects --------------------------------------------------------------------------------------


def fit(image: Image.Image, longest: int) -> Image.Image:
    """Shrink an image to its longest side; an image with alpha is weighted by it."""
    factor = longest / max(image.size)
    if factor >= 1:
        return image
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    if image.mode != "RGBA":
        return image.resize(size, Image.Resampling.LANCZOS)
    return image.convert("RGBa").resize(size, Image.Resampling.BOX).convert("RGBA")


def spread(rgb: np.ndarray, known: np.ndarray, radius: float) -> np.ndarray:
    """Return the Gaussian-weighted mean of the known colours around every pixel."""
    weight = ndimage.gaussian_filter(known.astype(float), radius, truncate=4)
    colour = ndimage.gaussian_filter(rgb * known[..., None], (radius, radius, 0), truncate=4)
    return colour / np.maximum(weight, 1e-6)[..., None]


def without_fringe(image: Image.Image, taken_off: int = 0) -> Image.Image:
    """Give the edge of a cut-out the colours from inside it, so that no old background shows.

    The outermost opaque pixels and all translucent pixels near solid ones are recoloured. Parts
    that are too thin for an inside, such as whiskers, keep their colours.
    """
    pixels = np.asarray(image.convert("RGBA")).astype(float)
    rgb, alpha = pixels[..., :3], pixels[..., 3]
    for _ in range(taken_off):
        alpha = ndimage.minimum_filter(alpha, footprint=ndimage.generate_binary_structure(2, 1))
    opaque = alpha >= 245
    inside = ndimage.binary_erosion(np.pad(opaque, 1), np.ones((3, 3)))[1:-1, 1:-1]
    near = ndimage.distance_transform_edt(~inside) <= 2.5
    edge = near & ~inside
    rgb = np.where(edge[..., None], spread(rgb, inside, 1.0), rgb)
    # Interpolation reads the colours just outside.
    visible = alpha > 8
    alpha = np.where(visible, alpha, 0)
    outside = ~visible & (ndimage.distance_transform_edt(~visible) <= 4)
    known = visible & (alpha > 127)
    rgb = np.where(outside[..., None], spread(rgb, known if known.any() else visible, 1.5), rgb)
    rgb = np.where((visible | outside)[..., None], rgb, 0)
    return Image.fromarray(np.dstack([rgb, alpha]).round().clip(0, 255).astype(np.uint8), "RGBA")


def one_piece(image: Image.Image, least: float = 0.02) -> Image.Image:
    """Remove specks: parts smaller than `least` of the largest one."""
    pixels = np.asarray(image).copy()
    labels, count = ndimage.label(pixels[..., 3] > 20, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    pixels[sizes[labels] < least * sizes.max(), 3] = 0
    return Image.fromarray(pixels, "RGBA")


def store(image: Image.Image, category: str, name: str) -> str:
    """Crop a cut-out to what is visible, write it, and return its path in the data set."""
    box = image.getchannel("A").point(lambda value: 255 * (value > 8)).getbbox()
    file = OUT / "objects" / category.replace(" ", "_") / f"{name}.webp"
    file.parent.mkdir(parents=True, exist_ok=True)
    image.crop(box).save(file, lossless=True, quality=80, method=4, exact=True)
    return file.relative_to(OUT).as_posix()


def cut_out(packages: Path, name: str, source: str, box: Box) -> Image.Image:
    """Return a photographed object with its stored mask as alpha channel."""
    image = photograph(packages, source).crop(box)
    image.putalpha(Image.open(MASKS / f"{name}.png").convert("L"))
    return fit(without_fringe(fit(image, 2 * LONGEST_OBJECT)), LONGEST_OBJECT)


def build_objects(packages: Path) -> None:
    """Write all objects and objects.json."""
    shutil.rmtree(OUT / "objects", ignore_errors=True)
    stamps = packages / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    objects = []
    for category in (*CATEGORIES, DISTRACTOR):
        entries = []
        for path, author, licence, held_out in STAMPS.get(category, ()):
            file, name = stamps / f"{path}.png", Path(path).name.replace("-", "_").lower()
            image = one_piece(Image.open(file).convert("RGBA"))
            image = fit(without_fringe(image, FRINGED.get(name, 0)), LONGEST_OBJECT)
            place = {
                "package": "tuxpaint-stamps-default",
                "path": f"usr/share/tuxpaint/stamps/{path}.png",
            }
            entries.append((name, image, place, author, licence, held_out))
        for name, source, box, author, licence, held_out in PHOTOGRAPHS.get(category, ()):
            image = cut_out(packages, name, source, box)
            entries.append((name, image, origin(source), author, licence, held_out))
        for name, image, place, author, licence, held_out in sorted(entries, key=lambda e: e[0]):
            objects.append(
                {
                    "file": store(image, category, name),
                    "category": category,
                    "name": name,
                    "origin": place,
                    "author": author,
                    "licence": licence,
                    "held_out": held_out,
                }
            )
    keys = ("id", "name", "supercategory", "turn", "flip", "hue", "kinds")
    categories = [
        dict(zip(keys, (row[0], name, *row[1:]), strict=True)) for name, row in CATEGORIES.items()
    ]
    write(OUT / "objects.json", {"categories": categories, "objects": objects})


# --- Backgrounds ----------------------------------------------------------------------------------


def tinted(
    image: Image.Image, colour: tuple[int, int, int] | None, darkest: float = 0.25
) -> Image.Image:
    """Return the image's brightness, stretched, in shades of a colour."""
    if colour is None:
        return image
    grey = np.asarray(image.convert("L")).astype(float)
    low, high = np.percentile(grey, (1, 99))
    light = darkest + (1.1 - darkest) * ((grey - low) / (high - low)).clip(0, 1)
    return Image.fromarray((light[..., None] * colour).clip(0, 255).round().astype(np.uint8))


def cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale and crop the middle of an image so that it fills the size."""
    factor = max(size[0] / image.width, size[1] / image.height)
    grown = (
        max(size[0], round(image.width * factor)),
        max(size[1], round(image.height * factor)),
    )
    image = image.resize(grown, Image.Resampling.LANCZOS)
    x, y = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image.crop((x, y, x + size[0], y + size[1]))


def assembled(packages: Path, name: str) -> Image.Image:
    """Put a wooden surface in front of a wall."""
    tint, wall_name, wall_tint, blur, edge, _, _ = ASSEMBLED[name]
    width, height = LONGEST_BACKGROUND, 480
    at = round(edge * height)
    wood = tinted(photograph(packages, BACKGROUNDS[TABLE][0]), tint)
    if wall_name == "brick":
        # The bricks of the photograph stand upright.
        wall = photograph(packages, f"{SKIMAGE}/brick.png").transpose(Image.Transpose.ROTATE_90)
    else:
        wall = photograph(packages, BACKGROUNDS[wall_name][0])
    wall = cover(tinted(wall, wall_tint, darkest=0.6), (width, at + 8))
    wall = wall.filter(ImageFilter.GaussianBlur(blur))
    scene = Image.new("RGB", (width, height))
    scene.paste(wall, (0, 0))
    scene.paste(cover(wood, (width, height - at)), (0, at))
    # The surface is darker towards the wall, as in the shadow of its edge.
    shade = np.ones(height)
    shade[at:] = 0.72 + 0.28 * np.clip(np.arange(height - at) / (0.35 * (height - at)), 0, 1)
    shade[: at + 1] *= 1 - 0.25 * np.exp(-np.arange(at + 1)[::-1] / 30)
    pixels = np.asarray(scene).astype(float) * shade[:, None, None]
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def build_backgrounds(packages: Path) -> None:
    """Write all backgrounds and backgrounds.json."""
    folder = OUT / "backgrounds"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = []

    def add(name: str, image: Image.Image, kind: str, floor: tuple, **source: object) -> None:
        image = fit(image, LONGEST_BACKGROUND)
        image.save(folder / f"{name}.jpg", quality=85, optimize=True)
        rows.append(
            {
                "file": f"backgrounds/{name}.jpg",
                "name": name,
                "kind": kind,
                "floor": floor,
                **source,
            }
        )

    for name, (source, box, kind, floor, author, licence) in BACKGROUNDS.items():
        image = photograph(packages, source)
        sides = np.array([image.width, image.height] * 2)
        image = image.crop(tuple(np.round(np.array(box) * sides).astype(int).tolist()))
        image = tinted(image, TINTS.get(name))
        add(name, image, kind, floor, origin=origin(source), author=author, licence=licence)
    for name, (_, wall, _, _, _, kind, floor) in ASSEMBLED.items():
        wood = BACKGROUNDS[TABLE]
        source, author = f"{SKIMAGE}/brick.png", "CC0Textures"
        if wall in BACKGROUNDS:
            source, author = BACKGROUNDS[wall][0], BACKGROUNDS[wall][4]
        add(
            name,
            assembled(packages, name),
            kind,
            floor,
            origin=origin(wood[0]),
            wall=origin(source),
            author=f"{wood[4]}; {author}",
            licence=GPL,
        )
    write(OUT / "backgrounds.json", rows)


def write(file: Path, content: list | dict[str, list]) -> None:
    """Write JSON with one row a line where it is a list of rows."""

    def rows(entries: list) -> str:
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        return f"[\n{lines}\n]"

    if isinstance(content, dict):
        parts = ",\n".join(f"{json.dumps(key)}: {rows(value)}" for key, value in content.items())
        text = f"{{\n{parts}\n}}\n"
    else:
        text = rows(content) + "\n"
    file.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    build_objects(Path(sys.argv[1]))
    build_backgrounds(Path(sys.argv[1]))
    for part in ("objects", "backgrounds"):
        files = [file for file in (OUT / part).rglob("*") if file.is_file()]
        print(f"{part}: {len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB")
