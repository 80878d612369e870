"""``vislib``: the commands for what takes long or runs without a notebook."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from pathlib import Path

from vislib.errors import InputError
from vislib.paths import DATA

NETS = ("pocket_alexnet", "pocket_vgg", "pocket_resnet", "pocket_squeezenet")
MAX_SIDE = 2000  # of an image at a fixed size: more does not fit into a laptop's memory
CATEGORIES = ("airplane", "boat", "dog", "elephant", "teddy bear", "traffic light")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for an error that was explained, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        out = getattr(options, "out", None)
        kept = f" What is done is kept in {out}: the" if out else " The"
        print(f"\nStopped.{kept} same command continues.", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):  # PyTorch's MemoryError
            raise
        told = _told(error, getattr(options, "out", None))
        print(f"vislib {options.command}: {told}", file=sys.stderr)
        return 1
    return 0


def _told(error: Exception, out: Path | None) -> str:
    """The error in one line; what the system refuses comes with what to do."""
    if isinstance(error, MemoryError | RuntimeError):
        return "the memory is full: close other programs, or ask for less, such as smaller --sizes"
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or out
        place = f"{where}: " if where else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room" if full else "choose another place, or make this one usable"
        return f"{place}{error.strerror}; {remedy}, and the same command continues"
    return " ".join(str(error).split()) if not isinstance(error, InputError) else str(error)


def _benchmark(options: argparse.Namespace) -> None:
    from vislib import nets
    from vislib.data.coco import Coco
    from vislib.measure import benchmark, report

    folder = options.coco or DATA / "pocket_coco"
    coco = Coco(folder, options.split or ("val2017" if options.coco else "val"))
    own_sizes = sorted({nets.load(name, weights=False).input_size for name in options.nets})
    everything = options.methods == ["all"]  # some sixty times the work for each image
    records, skipped = benchmark.run(
        coco,
        options.out,
        net_names=options.nets,
        categories=None if options.categories == ["all"] else options.categories,
        methods=options.methods or benchmark.METHODS,
        sizes=options.sizes or (own_sizes if everything else ["original", *own_sizes]),
        per_category=options.per_category or (8 if everything else 30),
        device=options.device,
        class_table=options.class_table,
        controls=options.controls,
        save_maps=options.save_maps,
    )
    if not records:
        raise InputError(f"not one record could be made; the first reason: {skipped[0].reason}")
    report.write(records, skipped, options.out)
    print((options.out / "table.md").read_text(encoding="utf-8").split("\n\n")[0])
    if skipped:
        print(f"\nSkipped: {len(skipped)} (see skipped.csv), the first because {skipped[0].reason}")
    print(f"\nRecords, table and charts are in {options.out}")


def _fetch(options: argparse.Namespace) -> None:
    from vislib.data import coco

    coco.fetch(
        options.out,
        split=options.split,
        categories=options.categories,
        per_category=options.per_category,
    )
    print(f"Now: vislib benchmark --coco {options.out} --split {options.split} --nets alexnet")


def _train(options: argparse.Namespace) -> None:
    from vislib.nets import training

    card = training.train(
        options.name,
        epochs=options.epochs,
        scenes=options.scenes,
        seed=options.seed,
        out=options.out,
        device=options.device,
        bfloat16=options.bfloat16,
        snapshots=options.snapshots,
        first_scale=options.first_scale,
        start=options.start,
        adversarial=options.adversarial,
    )
    print(f"Right on {float(card['unseen']):.1%} of unseen scenes")


def _notebooks(options: argparse.Namespace) -> None:
    from vislib import notebooks

    paths = notebooks.find(options.names)
    for path in paths:
        seconds = notebooks.update(path, timeout=options.timeout)
        print(f"{path.name}: {seconds} s", flush=True)
    if any(path.parent.resolve() == notebooks.FOLDER for path in paths):
        notebooks.write_table()


def _labs(options: argparse.Namespace) -> None:
    from vislib import notebooks

    paths = notebooks.find(options.names)
    for path in notebooks.labs(paths, options.out, nbgrader=options.nbgrader):
        print(path)


def _doctor(options: argparse.Namespace) -> None:
    from vislib import doctor

    if options.write_checksums:
        print(f"{doctor.write_checksums()} files are listed in {doctor.SUMS}")
        return
    findings = doctor.examine()
    print(doctor.text(findings, details=True))
    if not all(finding.ok for finding in findings):
        raise InputError("something is wrong: what stands behind ✗ says what to do")


def _size(text: str) -> int | str:
    if text == "original":
        return text
    if text.isdecimal() and 32 <= int(text) <= MAX_SIDE:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither 'original' nor a whole number from 32 to {MAX_SIDE}"
    )


def _weights(text: str) -> Path:
    """A file of weights by its path, or by its name in data/nets."""
    return Path(text) if Path(text).suffix else DATA / "nets" / f"{text}.safetensors"


def _count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vislib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser(
        "benchmark",
        help="measure what share of each explanation's energy falls on the object",
        description="Stop it when you like: the same command continues. The results lie in --out: "
        "records.parquet and .csv, table.csv and .md, chart_*.png and .svg, and skipped.csv.",
    )
    command.set_defaults(run=_benchmark)
    command.add_argument("--coco", type=Path, help="folder in COCO's layout (default: Pocket COCO)")
    command.add_argument("--split", help="the SPLIT of annotations/instances_SPLIT.json")
    command.add_argument("--nets", nargs="+", default=NETS, help="names of vislib.nets")
    command.add_argument(
        "--methods",
        nargs="+",
        help="names of functions, or 'all' (default: the nine that share one forward pass)",
    )
    command.add_argument(
        "--categories", nargs="+", default=CATEGORIES, help="or 'all' that data and nets share"
    )
    command.add_argument(
        "--per-category", type=_count, help="images (default: 30, and 8 with --methods all)"
    )
    command.add_argument(
        "--sizes",
        nargs="+",
        type=_size,
        help="'original' and sides in pixels (default: original, which --methods all leaves out, "
        "and the nets' own: 128 or 224)",
    )
    command.add_argument("--device", default="cpu", help="cpu (default), cuda or mps")
    command.add_argument("--class-table", type=Path, help="JSON: category to ImageNet classes")
    command.add_argument(
        "--controls",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also simple maps and nets with random weights",
    )
    command.add_argument("--save-maps", action="store_true", help="each map as PNG and NPY")
    command.add_argument("--out", type=Path, default=Path("benchmark"), help="(default: benchmark)")

    command = commands.add_parser("fetch", help="download a small part of the real COCO")
    command.set_defaults(run=_fetch)
    command.add_argument("what", choices=["coco"])
    command.add_argument("--split", default="val2017", help="val2017 (default) or train2017")
    command.add_argument("--categories", nargs="+", default=CATEGORIES)
    command.add_argument("--per-category", type=_count, default=30, help="images (default: 30)")
    command.add_argument("--out", type=Path, default=Path("coco"), help="(default: coco)")

    command = commands.add_parser("train", help="train one of the course's nets again")
    command.set_defaults(run=_train)
    command.add_argument("name", help="pocket_alexnet, pocket_vgg, ...")
    command.add_argument("--epochs", type=_count, default=16, help="(default: 16)")
    command.add_argument("--scenes", type=_count, default=8000, help="(default: 8000)")
    command.add_argument("--seed", type=int, default=0, help="(default: 0)")
    command.add_argument(
        "--bfloat16", action="store_true", help="faster on processors made for it, slower on others"
    )
    command.add_argument("--device", default="cpu", help="cpu (default), cuda or mps")
    command.add_argument(
        "--snapshots",
        nargs="+",
        type=int,
        default=(),
        metavar="EPOCH",
        help="keep the first layers as they are after these epochs, and not the trained net",
    )
    command.add_argument(
        "--first-scale",
        type=float,
        default=1.0,
        help="factor on the first filters' random start; 0.1 lets what is learned be seen",
    )
    command.add_argument(
        "--start",
        type=_weights,
        help="weights to go on from: a name in data/nets or a file (default: random ones)",
    )
    command.add_argument(
        "--adversarial",
        type=float,
        default=0,
        metavar="LEVELS",
        help="learn from attacked scenes, changed by at most so many grey levels of 255",
    )
    command.add_argument("--out", type=Path, help="where the weights go (default: data/nets)")

    command = commands.add_parser(
        "notebooks",
        help="run notebooks and store their outputs, folded solutions and run times",
        description="What differs from run to run is left out. A notebook in which a cell fails "
        "stays as it was.",
    )
    command.set_defaults(run=_notebooks)
    command.add_argument("names", nargs="*", metavar="NAME", help="03, or a path (default: all)")
    command.add_argument("--timeout", type=_count, default=600, help="seconds a cell may take")

    command = commands.add_parser(
        "labs",
        help="make the versions for teaching",
        description="For each notebook: NAME.lab.ipynb with stubs for the solutions, "
        "NAME.live.ipynb to be typed before a class, and NAME.finished.ipynb for the lecturer. "
        "The last two are also talks: jupyter nbconvert --to slides NAME.finished.ipynb",
    )
    command.set_defaults(run=_labs)
    command.add_argument(
        "names", nargs="*", metavar="NOTEBOOK", help="03, or a path (default: all)"
    )
    command.add_argument("--out", type=Path, default=Path("labs"), help="(default: labs)")
    command.add_argument(
        "--nbgrader", action="store_true", help="also source/NAME/NAME.ipynb for nbgrader"
    )

    command = commands.add_parser("doctor", help="check that everything the course needs is there")
    command.set_defaults(run=_doctor)
    command.add_argument(
        "--write-checksums", action="store_true", help="for maintainers, after a change of the data"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
