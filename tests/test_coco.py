"""Reading COCO's layout: masks against independent oracles, and a clear message for each fault."""

import contextlib
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vislib.data.coco import NAMES, Coco, _decode_runs, imagenet_targets
from vislib.errors import InputError

HEIGHT, WIDTH = 30, 40
SQUARE = [[5, 5, 15, 5, 15, 12, 5, 12]]  # x 5–15, y 5–12
OTHER_SQUARE = [[20, 10, 30, 10, 30, 20, 20, 20]]
REAL = Path(__file__).parents[2] / "shared" / "coco"


def annotation(number: int, image: int, category: int, outline: Any, **more: Any) -> dict:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": outline,
        "iscrowd": 0,
    } | more


def small() -> dict[str, Any]:
    """Image 1: two dogs and a cat. Image 2: a dog. Image 3: a crowd of dogs. Image 4: nothing."""
    crowd = {"size": [HEIGHT, WIDTH], "counts": [100, 200, HEIGHT * WIDTH - 300]}
    return {
        "licenses": [{"id": 3, "name": "Some licence", "url": "http://example.org"}],
        "images": [
            {"id": i, "file_name": f"{i:012}.png", "height": HEIGHT, "width": WIDTH, "license": 3}
            for i in (4, 2, 1, 3)
        ],
        "annotations": [
            annotation(10, 1, 18, SQUARE),
            annotation(11, 1, 18, OTHER_SQUARE),
            annotation(12, 1, 17, SQUARE),
            annotation(13, 2, 18, SQUARE),
            annotation(14, 3, 18, crowd, iscrowd=1),
            annotation(15, 1, 17, crowd, iscrowd=1),
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
    }


def write(folder: Path, data: dict[str, Any]) -> Path:
    file = folder / "annotations" / "instances_val.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path, small())
    (tmp_path / "val").mkdir()
    for i in (1, 2, 3, 4):
        Image.new("RGB", (WIDTH, HEIGHT), (i, 0, 0)).save(tmp_path / "val" / f"{i:012}.png")
    return tmp_path


@pytest.fixture
def changed(folder) -> Callable[..., Coco]:
    """Open the small data set after a change: ``changed("annotations", 0, segmentation=[])``."""

    def change(part: str, position: int, **fields: Any) -> Coco:
        data = small()
        data[part][position] |= fields
        write(folder, data)
        return Coco(folder, "val")

    return change


# --- What is there --------------------------------------------------------------------------------


def test_opening_is_silent(folder, capsys):
    Coco(folder, "val")
    assert capsys.readouterr() == ("", "")


def test_categories_images_and_objects(folder):
    coco = Coco(folder, "val")
    assert list(coco.categories.items()) == [("cat", 17), ("dog", 18)]
    assert coco.images_with("dog") == [1, 2]  # 3 has only a crowd
    assert coco.images_with("cat") == [1]
    assert coco.image_ids() == [1, 2]
    assert coco.objects(1) == ["cat", "dog"]
    assert coco.objects(3) == coco.objects(4) == []
    assert coco.size(1) == (HEIGHT, WIDTH)
    assert coco.licence(1) == "Some licence (http://example.org)"


def test_data_without_licences(folder):
    data = small()
    del data["licenses"]
    write(folder, data)
    assert Coco(folder, "val").licence(1) == "unknown"


def test_present_only(folder):
    coco = Coco(folder, "val")
    coco.path(1).unlink()
    assert coco.images_with("dog") == [1, 2]
    assert coco.images_with("dog", present_only=True) == [2]


def test_present_only_does_not_hide_a_broken_entry(changed):
    coco = changed("images", 2, file_name="../x.png")
    assert coco.images_with("dog", present_only=True) == [1, 2]


def test_image_and_path(folder):
    coco = Coco(str(folder), "val")
    assert coco.path(2) == folder / "val" / "000000000002.png"
    assert coco.image(2).getpixel((0, 0)) == (2, 0, 0)


def test_image_keeps_the_stored_pixel_grid(folder):
    coco = Coco(folder, "val")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn, which the masks do not follow
    Image.new("RGB", (WIDTH, HEIGHT)).save(coco.path(1), exif=exif)
    assert coco.image(1).size == (WIDTH, HEIGHT)


def test_files_may_be_in_subfolders_with_either_separator(changed):
    coco = changed("images", 2, file_name="park\\north/1.png")
    assert coco.path(1) == coco.folder / "val" / "park" / "north" / "1.png"


def test_mask_is_the_union_without_crowds(folder):
    mask = Coco(folder, "val").mask(1, "dog")
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[5:12, 5:15] = True
    expected[10:20, 20:30] = True
    assert mask.dtype == bool
    assert np.array_equal(mask, expected)


def test_cut_off_polygon_is_clipped_to_the_image(changed):
    coco = changed("annotations", 3, segmentation=[[-10, -10, 15, -10, 15, 12, -10, 12]])
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[:12, :15] = True
    assert np.array_equal(coco.mask(2, "dog"), expected)


@pytest.mark.parametrize("seed", range(5))
def test_run_length_masks(changed, seed):
    """Both codes of a random mask come back as the mask."""
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(seed)
    mask = rng.random((HEIGHT, WIDTH)) < rng.random()
    steps = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False)).tolist()
    runs = np.diff([0, *steps, mask.size]).tolist()
    code = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
    assert _decode_runs(code) == runs
    for counts in (runs, code):
        coco = changed("annotations", 3, segmentation={"size": [HEIGHT, WIDTH], "counts": counts})
        assert np.array_equal(coco.mask(2, "dog"), mask)


# --- Faults at opening ----------------------------------------------------------------------------


def test_missing_folder_names_the_layout(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*instances_SPLIT.*fetch coco.*Pocket COCO"):
        Coco(tmp_path / "nowhere", "val")


def test_missing_split_names_the_available_ones(folder):
    with pytest.raises(InputError, match=r"no file .*instances_train\.json.*the splits: val\."):
        Coco(folder, "train")


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_truncated_json(folder, keep):
    file = folder / "annotations" / "instances_val.json"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"instances_val\.json is damaged or cut short"):
        Coco(folder, "val")


def test_json_that_is_not_an_object(folder):
    (folder / "annotations" / "instances_val.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="must contain a JSON object, got a list"):
        Coco(folder, "val")


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_missing_list(folder, part):
    data = small()
    del data[part]
    write(folder, data)
    with pytest.raises(InputError, match=f"no list '{part}'"):
        Coco(folder, "val")


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("images", "id"),
        ("annotations", "id"),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
        ("categories", "id"),
        ("categories", "name"),
    ],
)
def test_missing_or_odd_key(folder, part, key):
    data = small()
    data[part][1][key] = [1]
    write(folder, data)
    with pytest.raises(InputError, match=rf"entry 1 of '{part}' has \[1\] as its '{key}'"):
        Coco(folder, "val")
    del data[part][1][key]
    write(folder, data)
    with pytest.raises(InputError, match=f"entry 1 of '{part}' lacks its '{key}'"):
        Coco(folder, "val")


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_two_entries_with_one_id(changed, folder, part):
    number = small()[part][0]["id"]
    with pytest.raises(InputError, match=f"several entries of '{part}' have the id {number}"):
        changed(part, 1, id=number)


@pytest.mark.parametrize("number", [2**63, 1.0, True, "1"])
def test_an_id_is_a_whole_number_of_64_bits(changed, number):
    with pytest.raises(InputError, match=f"entry 0 of 'images' has {number!r} as its 'id'"):
        changed("images", 0, id=number)


def test_an_object_of_an_unknown_category_is_reported(changed):
    with pytest.raises(InputError, match="has category_id 999, not listed under 'categories'"):
        changed("annotations", 0, category_id=999)


@pytest.mark.parametrize("crowd", ["0", 2, [0]])
def test_iscrowd_must_be_0_or_1(changed, crowd):
    with pytest.raises(InputError, match=r"iscrowd .*; it must be 0 or 1"):
        changed("annotations", 0, iscrowd=crowd)


def test_licences_may_be_null(folder):
    data = small() | {"licenses": None}
    write(folder, data)
    assert Coco(folder, "val").licence(1) == "unknown"


def test_json_with_too_many_brackets(folder):
    (folder / "annotations" / "instances_val.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="is damaged or cut short"):
        Coco(folder, "val")


def test_home_folder_of_an_unknown_user():
    with pytest.raises(InputError, match=r"no home folder for ~no-such-user.x"):
        Coco("~no-such-user/x", "val")


def test_two_categories_with_one_name(changed):
    with pytest.raises(InputError, match="several categories with the name 'cat'"):
        changed("categories", 0, name="cat")


# --- Faults of one image, when it is used ---------------------------------------------------------


def test_unknown_category_gives_the_nearest(folder):
    coco = Coco(folder, "val")
    for use in (coco.images_with, lambda name: coco.mask(1, name)):
        with pytest.raises(InputError, match="no category 'Dogs': did you mean 'dog'"):
            use("Dogs")


def test_unknown_image(folder):
    coco = Coco(folder, "val")
    for use in (coco.image, coco.path, coco.objects, coco.size, lambda i: coco.mask(i, "dog")):
        with pytest.raises(InputError, match="image 99 is not listed"):
            use(99)


def test_annotation_of_an_image_that_is_not_listed(changed):
    coco = changed("annotations", 3, image_id=99)
    assert coco.images_with("dog") == [1, 99]  # reported, not dropped
    for use in (coco.image, lambda i: coco.mask(i, "dog")):
        with pytest.raises(InputError, match="image 99 has annotations but is not listed"):
            use(99)


def test_category_that_is_not_in_the_image(folder):
    with pytest.raises(InputError, match="image 2 shows no 'cat'; it has dog"):
        Coco(folder, "val").mask(2, "cat")
    with pytest.raises(InputError, match="no object at all"):
        Coco(folder, "val").mask(3, "dog")


@pytest.mark.parametrize(
    "name",
    [
        "../x.png",
        "..\\x.png",
        "a/../../x.png",
        "a\\..\\..\\x.png",
        "/etc/x.png",
        "C:\\x.png",
        "C:x.png",
        "\\\\host\\share\\x.png",
    ],
)
def test_file_name_that_leads_out_of_the_folder(changed, name):
    coco = changed("images", 2, file_name=name)
    for use in (coco.path, coco.image):
        with pytest.raises(InputError, match="leads out of"):
            use(1)
    assert coco.image(2).size == (WIDTH, HEIGHT)  # the other images can still be used


@pytest.mark.parametrize("name", [None, "", 7, "a\0.png", "\ud800.png"])
def test_file_name_that_cannot_be_used(changed, name):
    with pytest.raises(InputError, match="no usable file_name"):
        changed("images", 2, file_name=name).path(1)


def test_missing_and_truncated_image(folder):
    coco = Coco(folder, "val")
    coco.path(1).unlink()
    with pytest.raises(InputError, match=r"no file .*000000000001\.png"):
        coco.image(1)
    coco.path(2).write_bytes(coco.path(2).read_bytes()[:60])
    with pytest.raises(InputError, match=r"000000000002\.png is damaged or cut short"):
        coco.image(2)


def test_image_of_another_size(folder):
    coco = Coco(folder, "val")
    Image.new("RGB", (HEIGHT, WIDTH)).save(coco.path(1))
    with pytest.raises(InputError, match=r"is 40×30 pixels, but instances_val\.json says 30×40"):
        coco.image(1)


@pytest.mark.parametrize("height", [None, "30", 0, -5, 30.0, 10**7])
def test_impossible_size(changed, height):
    coco = changed("images", 2, height=height)
    for use in (coco.image, lambda i: coco.mask(i, "dog")):
        with pytest.raises(InputError, match=r"image 1 has (height|10000000×40)"):
            use(1)


@pytest.mark.parametrize("outline", [None, [], {}, "polygon"])
def test_annotation_without_segmentation(changed, outline):
    with pytest.raises(InputError, match="annotation 13 of image 2 has no segmentation"):
        changed("annotations", 3, segmentation=outline).mask(2, "dog")


def test_annotation_without_the_key(folder):
    data = small()
    del data["annotations"][3]["segmentation"], data["annotations"][3]["iscrowd"]
    write(folder, data)
    with pytest.raises(InputError, match="annotation 13 of image 2 has no segmentation"):
        Coco(folder, "val").mask(2, "dog")


@pytest.mark.parametrize(
    "polygon",
    [
        [],
        [1, 1, 5, 5],  # two points: pycocotools takes them for a box
        [1, 1, 5, 5, 9],
        [1, 1, 5, 5, 9, 1, 3],
        [1, 1, 5, 5, 9, None],
        [1, 1, 5, 5, 9, "1"],
        [1, 1, 5, 5, 9, float("nan")],
        7,
    ],
)
def test_malformed_polygon(changed, polygon):
    coco = changed("annotations", 3, segmentation=[*SQUARE, polygon])
    with pytest.raises(InputError, match=r"annotation 13 .* polygon .* at least three points"):
        coco.mask(2, "dog")
    assert coco.mask(1, "dog").any()


@pytest.mark.parametrize("move", [(100, 0), (-100, 0), (0, 100), (0, -100)])
def test_polygon_wholly_outside(changed, move):
    polygon = (np.array(SQUARE[0]).reshape(-1, 2) + move).ravel().tolist()
    with pytest.raises(InputError, match="wholly outside its 30×40 image"):
        changed("annotations", 3, segmentation=[polygon]).mask(2, "dog")


def test_polygon_that_covers_no_pixel(changed):
    with pytest.raises(InputError, match="'dog' of image 2 covers no pixel"):
        changed("annotations", 3, segmentation=[[40, 1, 40, 5, 40, 9]]).mask(2, "dog")


@pytest.mark.parametrize("far", [1e9, 10**400])
def test_polygon_with_a_corner_far_outside(changed, far):
    with pytest.raises(InputError, match="reaches far out"):
        changed("annotations", 3, segmentation=[[1, 1, far, 5, 9, 9]]).mask(2, "dog")


def test_run_lengths_of_another_size(changed):
    outline = {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}
    with pytest.raises(InputError, match=r"a mask of size \[40, 30\], but its image is \[30, 40\]"):
        changed("annotations", 3, segmentation=outline).mask(2, "dog")


@pytest.mark.parametrize(
    "counts",
    [None, [], [10, 20], [-10, 1210], [1200.0], ["1200"], "", "m8?", "zzzz", "é", "P" * 20],
)
def test_damaged_run_lengths(changed, counts):
    """pycocotools shows random memory for some of these, and ends the process for others."""
    outline = {"size": [HEIGHT, WIDTH], "counts": counts}
    with pytest.raises(InputError, match="damaged run-length code"):
        changed("annotations", 3, segmentation=outline).mask(2, "dog")


def test_any_damage_is_an_input_error_or_harmless(folder):
    """Any wrong value at any position of the file raises nothing but `InputError`."""
    nonsense = (None, -1, "x", [], {}, [[]], 1e300, True)

    def positions(value: Any, path: tuple = ()) -> list[tuple]:
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        paths = []
        for key, item in inner:
            paths.append((*path, key))
            if isinstance(item, dict | list):
                paths += positions(item, (*path, key))
        return paths

    whole = small()
    for path in positions(whole):
        for value in nonsense:
            data = copy.deepcopy(whole)
            target: Any = data
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value
            write(folder, data)
            with contextlib.suppress(InputError):
                coco = Coco(folder, "val")
                for category in coco.categories:
                    for image_id in coco.images_with(category, present_only=True):
                        for use in (coco.image, coco.objects, coco.licence):
                            with contextlib.suppress(InputError):
                                use(image_id)
                        with contextlib.suppress(InputError):
                            assert coco.mask(image_id, category).any()


# --- ImageNet's classes ---------------------------------------------------------------------------


def shipped_table() -> dict[str, Any]:
    import vislib

    file = Path(vislib.__file__).parent / "data" / "imagenet_classes.json"
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_comments_of_the_table_are_torchvisions_names():
    from torchvision.models._meta import _IMAGENET_CATEGORIES as CLASSES

    table = shipped_table()
    for name, indices in imagenet_targets().items():
        assert table[f"_{name}"] == ", ".join(CLASSES[i] for i in indices), name


def test_the_table_has_the_right_classes():
    """Classes that a person would choose, among them names that mislead."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES as CLASSES

    names = {k: [CLASSES[i] for i in v] for k, v in imagenet_targets().items()}
    assert len(NAMES) == len(set(NAMES)) == 80
    assert names["airplane"] == ["airliner", "warplane"]  # "plane" is a carpenter's tool
    assert names["traffic light"] == ["traffic light"]
    assert len(names["dog"]) == 118
    assert {"Chihuahua", "Mexican hairless"} <= set(names["dog"])
    assert not {"timber wolf", "dingo", "red fox"} & set(names["dog"])
    assert len(names["bird"]) == 59
    assert {"cock", "kite", "crane bird", "albatross"} <= set(names["bird"])
    assert "Madagascar cat" not in names["cat"]  # a lemur
    assert not {"person", "giraffe", "kite", "fire hydrant"} & set(names)


def test_a_class_belongs_to_one_category():
    indices = [i for classes in imagenet_targets().values() for i in classes]
    assert len(indices) == len(set(indices))


def test_class_table_from_a_file(tmp_path):
    file = tmp_path / "table.json"
    file.write_text('{"_comment": "mine", "airplane": [404, 895], "koala": [105]}')
    assert imagenet_targets(file) == {"airplane": (404, 895), "koala": (105,)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"dog": []}', "'dog' needs a list"),
        ('{"dog": 151}', "'dog' needs a list"),
        ('{"dog": [1000]}', "'dog' has 1000; .* 0 to 999"),
        ('{"dog": [-1]}', "'dog' has -1"),
        ('{"dog": [1.5]}', r"'dog' has 1\.5"),
        ('{"dog": [true]}', "'dog' has True"),
        ('{"dog": ["151"]}', "'dog' has '151'"),
        ('{"_dog": [1]}', "contains no category"),
        ("[404]", "a JSON object"),
        ('{"dog": [15', "damaged or cut short"),
    ],
)
def test_class_table_with_a_fault(tmp_path, text, message):
    file = tmp_path / "table.json"
    file.write_text(text)
    with pytest.raises(InputError, match=rf"table\.json.*{message}"):
        imagenet_targets(file)


def test_missing_class_table(tmp_path):
    with pytest.raises(InputError, match="there is no class table"):
        imagenet_targets(tmp_path / "table.json")


# --- The real COCO --------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real COCO images are not in {REAL}")
def test_real_images_and_masks():
    """All images open, and all masks are the union of what pycocotools gives by itself."""
    from pycocotools.coco import COCO

    coco = Coco(REAL, "train2017")
    with contextlib.redirect_stdout(io.StringIO()):
        peer = COCO(str(coco.file))
    assert list(coco.categories) == list(NAMES)
    for image_id in peer.getImgIds():
        width, height = coco.image(image_id).size
        assert coco.size(image_id) == (height, width)
        for category in coco.objects(image_id):
            numbers = peer.getAnnIds(image_id, coco.categories[category], iscrowd=False)
            masks = [peer.annToMask(a) for a in peer.loadAnns(numbers)]
            assert np.array_equal(coco.mask(image_id, category), np.any(masks, axis=0))
    for category, number in coco.categories.items():
        kept = {
            i for i in peer.getImgIds(catIds=[number]) if peer.getAnnIds(i, number, iscrowd=False)
        }
        assert coco.images_with(category, present_only=True) == sorted(kept)
