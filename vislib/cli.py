"""The command line of the course: long computations, and all work without a notebook."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vislib.data import CATEGORIES
from vislib.errors import InputError
from vislib.paths import DATA

if TYPE_CHECKING:
    from typing import TypeAlias

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


class World(NamedTuple):
    """Images of the benchmark, with the networks and categories that the study takes from them.

    Attributes:
        folder: folder in COCO's layout.
        split: name of the split.
        nets: names of networks.
        categories: names of categories; ``("all",)`` for those that data and networks both have.
        class_table: ImageNet classes of the categories; None for the table of the course.
    """

    folder: Path
    split: str
    nets: tuple[str, ...]
    categories: tuple[str, ...]
    class_table: Path | None = None


WORLDS = {
    "pocket": World(
        DATA / "pocket_coco",
        "val",
        ("pocket_alexnet", "pocket_vgg", "pocket_resnet", "pocket_squeezenet"),
        ("bear", "bird", "cup", "dog", "elephant", "sports ball"),
    ),
    "photographs": World(
        DATA / "photographs",
        "val",
        ("efficientnet_lite0",),
        ("all",),
        DATA / "photographs" / "imagenet_classes.json",
    ),
}
"""The data sets that ship with the course."""
REAL = World(Path("coco"), "val2017", ("efficientnet_lite0",), CATEGORIES)
"""Settings for other images in COCO's layout; the folder is the one of `vislib fetch`."""
MAX_SIDE = 2000  # pixels; the feature maps of larger images exceed a laptop's memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words after ``vislib``; None takes them from the command line.

    Returns:
        The exit status: 0, 1 after an error that was explained on stderr, or 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        out = getattr(options, "out", None)
        kept = f" Finished parts are kept in {out}: the" if out else " The"
        print(f"\nStopped.{kept} same command continues.", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        # PyTorch reports a lack of memory as a RuntimeError. All others are faults of the program.
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        message = _message(error, getattr(options, "out", None))
        print(f"vislib {options.command}: {message}", file=sys.stderr)
        return 1
    return 0


def _message(error: Exception, out: Path | None) -> str:
    """Text of an error; errors of memory and of the operating system get a remedy."""
    if isinstance(error, MemoryError | RuntimeError):
        return "the memory is full: close other programs, or ask for less, such as smaller --sizes"
    if isinstance(error, OSError) and error.strerror:
        path = error.filename or out
        prefix = f"{path}: " if path else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some disk space" if full else "choose another path, or make this one usable"
        return f"{prefix}{error.strerror}; {remedy}, and the same command continues"
    return " ".join(str(error).split()) if not isinstance(error, InputError) else str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vislib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_benchmark(commands)
    _add_fetch(commands)
    _add_train(commands)
    _add_notebooks(commands)
    _add_labs(commands)
    _add_doctor(commands)
    return parser


# --- Types of arguments ---------------------------------------------------------------------------


def _size(text: str) -> int | str:
    """Parse the word ``original`` or a number of pixels."""
    if text == "original":
        return text
    if text.isdecimal() and 32 <= int(text) <= MAX_SIDE:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"must be 'original' or a whole number from 32 to {MAX_SIDE}, got {text!r}"
    )


def _count(text: str) -> int:
    """Parse a positive whole number."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")


def _weights(text: str) -> Path:
    """Path of a file of weights, which is given as a path or as a name in data/nets."""
    return Path(text) if Path(text).suffix else DATA / "nets" / f"{text}.safetensors"


# --- vislib benchmark -----------------------------------------------------------------------------


def _add_benchmark(commands: Commands) -> None:
    command = commands.add_parser(
        "benchmark",
        help="measure the fraction of each attribution map's energy that is on the object",
        description="Without options: the study on Pocket COCO, with 6 categories, 30 images of "
        "each, 4 networks and 2 sizes. The command can be stopped at any time: the same command "
        "continues. It writes records.parquet and .csv, table.csv and .md, chart_*.png and .svg, "
        "and skipped.csv to --out.",
    )
    command.set_defaults(run=_benchmark)
    add = command.add_argument
    images = command.add_mutually_exclusive_group()
    images.add_argument(
        "--data",
        choices=WORLDS,
        default="pocket",
        help="images that ship with the course: scenes of Pocket COCO (default), or photographs",
    )
    images.add_argument("--coco", type=Path, help="other images: a folder in COCO's layout")
    add("--split", help="the SPLIT of annotations/instances_SPLIT.json (default: val or val2017)")
    add(
        "--nets",
        nargs="+",
        help="names of networks (default: the four pocket networks for Pocket COCO, otherwise "
        "efficientnet_lite0)",
    )
    add(
        "--methods",
        nargs="+",
        help="names of methods, or 'all' (default: the nine that share one forward pass)",
    )
    add(
        "--categories",
        nargs="+",
        help="names of categories, or 'all' for those that both data and networks have (default: "
        f"{', '.join(WORLDS['pocket'].categories)} for Pocket COCO, all for the photographs, and "
        f"{', '.join(CATEGORIES)} for other images)",
    )
    add(
        "--per-category",
        type=_count,
        help="images of each category (default: 30, or 8 with --methods all)",
    )
    add(
        "--sizes",
        nargs="+",
        type=_size,
        help="'original' or sides in pixels (default: original and the networks' input sizes, 128 "
        "or 224; with --methods all only the input sizes)",
    )
    add("--device", default="cpu", help="cpu (default), cuda or mps")
    add("--class-table", type=Path, help="JSON file: category to a list of ImageNet classes")
    add(
        "--controls",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also measure simple maps and networks with random weights",
    )
    add("--save-maps", action="store_true", help="also save each attribution map as PNG and NPY")
    add("--out", type=Path, default=Path("benchmark"), help="output folder (default: benchmark)")


def _benchmark(options: argparse.Namespace) -> None:
    from vislib import nets
    from vislib.data.coco import Coco
    from vislib.measure import benchmark, report
    from vislib.measure.methods import SHARED_PASS

    world = REAL._replace(folder=options.coco) if options.coco else WORLDS[options.data]
    coco = Coco(world.folder, options.split or world.split)
    names = options.nets or world.nets
    categories = options.categories or world.categories
    own_sizes = sorted({nets.facts(name).input_size for name in names})
    everything = options.methods == ["all"]  # about sixty times the work for each image
    plan = benchmark.Plan(
        nets=names,
        categories=None if list(categories) == ["all"] else categories,
        methods=options.methods or SHARED_PASS,
        sizes=options.sizes or (own_sizes if everything else ["original", *own_sizes]),
        per_category=options.per_category or (8 if everything else 30),
        controls=options.controls,
        class_table=options.class_table or world.class_table,
    )
    records, skipped = benchmark.run(
        coco, options.out, plan, device=options.device, save_maps=options.save_maps
    )
    if not records:
        raise InputError(f"no image could be measured: the first reason is {skipped[0].reason}")
    summary = report.write(records, skipped, options.out)
    print(report.markdown(summary).split("\n\n")[0], end="\n\n")
    print(report.study_markdown(report.frame(records)), end="")
    if skipped:
        print(f"\nSkipped: {len(skipped)} (see skipped.csv), the first because {skipped[0].reason}")
    print(f"\nRecords, table and charts are in {options.out}")


# --- vislib fetch ---------------------------------------------------------------------------------


def _add_fetch(commands: Commands) -> None:
    command = commands.add_parser("fetch", help="download a small part of the real COCO")
    command.set_defaults(run=_fetch)
    add = command.add_argument
    add("what", choices=["coco"])
    add("--split", default="val2017", help="val2017 (default) or train2017")
    add(
        "--categories",
        nargs="+",
        default=CATEGORIES,
        help=f"names of COCO categories (default: {', '.join(CATEGORIES)})",
    )
    add("--per-category", type=_count, default=30, help="images of each category (default: 30)")
    add("--out", type=Path, default=Path("coco"), help="output folder (default: coco)")


def _fetch(options: argparse.Namespace) -> None:
    from vislib.data import coco

    coco.fetch(
        options.out,
        split=options.split,
        categories=options.categories,
        per_category=options.per_category,
    )
    print(f"Now: vislib benchmark --coco {options.out} --split {options.split}")


# --- vislib train ---------------------------------------------------------------------------------


def _add_train(commands: Commands) -> None:
    command = commands.add_parser("train", help="train one of the course's networks")
    command.set_defaults(run=_train)
    add = command.add_argument
    add("name", help="pocket_alexnet, pocket_vgg, ...")
    add("--epochs", type=_count, default=32, help="passes over the scenes (default: 32)")
    add("--scenes", type=_count, default=9000, help="number of training scenes (default: 9000)")
    add("--seed", type=int, default=0, help="seed of all random numbers (default: 0)")
    add(
        "--bfloat16",
        action="store_true",
        help="faster on processors that support this type, slower on all others",
    )
    add("--device", default="cpu", help="cpu (default), cuda or mps")
    add(
        "--snapshots",
        nargs="+",
        type=int,
        default=(),
        metavar="EPOCH",
        help="save the first layers after these epochs, instead of the trained network",
    )
    add(
        "--first-scale",
        type=float,
        default=1.0,
        help="factor on the initial random filters of the first layer (default: 1); with 0.1, the "
        "learnt patterns are visible after the training",
    )
    add(
        "--start",
        type=_weights,
        help="initial weights: a name in data/nets or a file (default: random weights)",
    )
    add(
        "--adversarial",
        type=float,
        default=0,
        metavar="LEVELS",
        help="train on attacked scenes, in which each value changes by at most LEVELS of 255 grey "
        "levels",
    )
    add("--out", type=Path, help="file for the weights (default: in data/nets)")


def _train(options: argparse.Namespace) -> None:
    from vislib.nets.training import Recipe, train

    recipe = Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})
    card = train(recipe, out=options.out, device=options.device)
    print(f"Correct on {float(card['unseen']):.1%} of unseen scenes")


# --- vislib notebooks and vislib labs -------------------------------------------------------------


def _add_notebooks(commands: Commands) -> None:
    command = commands.add_parser(
        "notebooks",
        help="run notebooks and store their outputs, folded solutions and run times",
        description="Outputs that differ between runs are left out. A notebook with a cell that "
        "fails is not changed.",
    )
    command.set_defaults(run=_notebooks)
    command.add_argument("names", nargs="*", metavar="NAME", help="03, or a path (default: all)")
    command.add_argument(
        "--timeout", type=_count, default=600, help="seconds that one cell may take"
    )


def _notebooks(options: argparse.Namespace) -> None:
    from vislib import notebooks

    paths = notebooks.find(options.names)
    for path in paths:
        seconds = notebooks.update(path, timeout=options.timeout)
        print(f"{path.name}: {seconds} s", flush=True)
    if any(path.parent.resolve() == notebooks.FOLDER for path in paths):
        notebooks.write_table()


def _add_labs(commands: Commands) -> None:
    command = commands.add_parser(
        "labs",
        help="write the lab, live and finished versions of notebooks",
        description="For each notebook: NAME.lab.ipynb with stubs for the solutions, "
        "NAME.live.ipynb for live coding in class, and NAME.finished.ipynb for the lecturer. "
        "The last two are also slides for a talk: jupyter nbconvert --to slides "
        "NAME.finished.ipynb",
    )
    command.set_defaults(run=_labs)
    add = command.add_argument
    add("names", nargs="*", metavar="NOTEBOOK", help="03, or a path (default: all)")
    add("--out", type=Path, default=Path("labs"), help="output folder (default: labs)")
    add("--nbgrader", action="store_true", help="also write source/NAME/NAME.ipynb for nbgrader")


def _labs(options: argparse.Namespace) -> None:
    from vislib import notebooks

    paths = notebooks.find(options.names)
    for path in notebooks.labs(paths, options.out, nbgrader=options.nbgrader):
        print(path)


# --- vislib doctor --------------------------------------------------------------------------------


def _add_doctor(commands: Commands) -> None:
    command = commands.add_parser("doctor", help="check this machine and the files of the course")
    command.set_defaults(run=_doctor)
    command.add_argument(
        "--write-checksums",
        action="store_true",
        help="write the checksums of data/ again after a change (for maintainers)",
    )


def _doctor(options: argparse.Namespace) -> None:
    from vislib import doctor

    if options.write_checksums:
        print(f"{doctor.write_checksums()} files are listed in {doctor.SUMS}")
        return
    findings = doctor.examine()
    print(doctor.text(findings, details=True))
    if not all(finding.ok for finding in findings):
        raise InputError(doctor.summary(findings))


if __name__ == "__main__":
    sys.exit(main())
