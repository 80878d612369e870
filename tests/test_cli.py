"""The command line: stopped, killed, continued, and called with invalid arguments."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_benchmark import CATEGORIES, NETS, break_file, small_coco, write_weights

from vislib import cli, nets, show
from vislib.data import photographs, pocket
from vislib.data.coco import Coco
from vislib.errors import InputError
from vislib.measure import benchmark, comparison
from vislib.measure.methods import STUDY

# The command, with the folder of weights as its first argument. The signal handler is set because a
# shell that runs the tests in the background would make them ignore Ctrl-C.
PROGRAM = (
    "import signal, sys; from pathlib import Path; from vislib import cli, nets; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); "
    "nets.WEIGHTS = Path(sys.argv.pop(1)); sys.exit(cli.main())"
)
# The categories that `vislib fetch coco` downloads.
CATEGORIES_OF_COCO = ("airplane", "boat", "dog", "elephant", "teddy bear", "traffic light")
TABLES = ("records.csv", "table.csv", "table.md", "skipped.csv")


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """A folder with scenes in ``coco`` and weights in ``weights``."""
    folder = tmp_path_factory.mktemp("cli")
    small_coco(folder / "coco", per_category=4)
    (folder / "weights").mkdir()
    for name in NETS:
        write_weights(folder / "weights", name)
    return folder


def arguments(shared: Path, out: Path, *more: str, nets: tuple[str, ...] = NETS[:1]) -> list[str]:
    """The small benchmark; what is in `more` wins over its settings."""
    settings = ["--split", "val", "--coco", str(shared / "coco"), "--out", str(out)]
    settings += ["--nets", *nets, "--categories", *CATEGORIES, "--sizes", "original", "64"]
    return ["benchmark", *settings, *more]


@pytest.fixture
def vislib(shared, tmp_path, monkeypatch, capsys):
    """Run the small benchmark in this process, and return exit status, stdout and stderr."""
    monkeypatch.setattr(nets, "WEIGHTS", shared / "weights")

    def call(*more: str, shared: Path = shared) -> tuple[int, str, str]:
        status = cli.main(arguments(shared, tmp_path / "out", *more))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def start(shared: Path, out: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            PROGRAM,
            str(shared / "weights"),
            *arguments(shared, out, nets=NETS),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )


def finish(shared: Path, out: Path) -> str:
    process = start(shared, out)
    printed, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr.decode()
    return printed.decode()


def finished_parts(out: Path) -> dict[Path, int]:
    """Each finished part, and when it was written."""
    return {f: f.stat().st_mtime_ns for f in out.glob("parts/*.json")}


def wait_for_parts(process: subprocess.Popen, out: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while len(finished_parts(out)) < count:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def uninterrupted(shared) -> Path:
    """The folder of a run that was not stopped."""
    out = shared / "uninterrupted"
    printed = finish(shared, out)
    assert printed.startswith("| method | mean P | 95 % interval | records | undefined |")
    assert str(out) in printed
    # What is printed is in the file, too.
    whole = (out / "table.md").read_text(encoding="utf-8")
    first, _, rest = printed.partition("\n\n")
    assert first in whole and rest.partition("\nRecords, table and charts are in ")[0] in whole
    return out


def test_the_command_prints_networks_at_sizes_orders_and_weights(shared, uninterrupted):
    text = (uninterrupted / "table.md").read_text(encoding="utf-8")
    rows = pd.read_parquet(uninterrupted / "records.parquet")
    study = comparison.study(rows)
    assert len(study) == 2 * len(NETS)
    for net, size in study.index:
        name = f"{show.name(net)} | {'64×64' if size == '64' else 'original size'} | "
        assert text.count(f"| {name}") >= 1
    assert f"{study.predicted.iloc[0]:.0%}".replace("%", " %") in text
    assert "explained class is the prediction" in text
    assert set(rows.weights) == {"none"} | {
        benchmark.weights_digest(nets.load(net, weights=weights))[:12]
        for net in NETS
        for weights in (shared / "weights" / f"{net}.safetensors", False)
    }
    assert all(digest in text for digest in set(rows.weights) - {"none"})


def test_the_folder_contains_all_promised_files(uninterrupted):
    views = ("all", "net", "size", "network_and_size")
    charts = {f"chart_{view}.{end}" for view in views for end in ("png", "svg")}
    expected = {*TABLES, *charts, "records.parquet", "parts"}
    assert {f.name for f in uninterrupted.iterdir()} == expected


# --- stopped and killed ---------------------------------------------------------------------------


def test_after_kills_the_same_command_gives_the_same_table(shared, tmp_path, uninterrupted):
    out, moments = tmp_path / "out", random.Random(0)
    total, done = len(finished_parts(uninterrupted)), {}
    for fraction in (0.1, 0.4, 0.7):
        process = start(shared, out)
        wait_for_parts(process, out, max(len(done) + 1, int(fraction * total)))
        time.sleep(moments.uniform(0, 0.03))
        process.kill()  # SIGKILL; Windows has no softer kill either
        process.communicate()
        assert process.returncode != 0
        now = finished_parts(out)
        assert len(done) < len(now) < total
        assert {f: now[f] for f in done} == done  # finished parts are not computed again
        assert not (out / "records.csv").exists()
        done = now
        (out / "parts" / f"{fraction}.tmp").write_text('{"records": [{"image_')
    finish(shared, out)
    now = finished_parts(out)
    assert {f: now[f] for f in done} == done
    assert {f.name for f in now} == {f.name for f in finished_parts(uninterrupted)}
    for name in TABLES:
        assert (out / name).read_bytes() == (uninterrupted / name).read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to one process")
def test_ctrl_c_says_how_to_continue_and_continuing_works(shared, tmp_path, uninterrupted):
    out = tmp_path / "out"
    process = start(shared, out)
    wait_for_parts(process, out, 2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    message = stderr.decode().splitlines()[-1]
    assert message == f"Stopped. Finished parts are kept in {out}: the same command continues."
    assert "Traceback" not in stderr.decode()
    done = finished_parts(out)
    assert 2 <= len(done) < len(finished_parts(uninterrupted))
    finish(shared, out)
    assert {f: finished_parts(out)[f] for f in done} == done
    for name in TABLES:
        assert (out / name).read_bytes() == (uninterrupted / name).read_bytes()


# --- invalid arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nets", "pocket_vgf"], "no network called 'pocket_vgf': did you mean 'pocket_vgg'"),
        (["--categories", "dogg"], "no category 'dogg': did you mean 'dog'"),
        (["--categories", "giraffe"], "no category 'giraffe'"),
        (["--methods", "guided_backprob"], "did you mean 'guided_backprop'"),
        (
            ["--methods", "all", "smothgrad"],
            "the benchmark has no method 'smothgrad': did you mean",
        ),
        (["--methods", "gradient", "smothgrad"], "did you mean 'smoothgrad'"),
        (["--split", "train"], "This folder has the splits: val"),
        (["--coco", "nowhere"], "there is no folder nowhere"),
        (["--device", "tpu"], "PyTorch cannot compute on 'tpu' here: use cpu"),
        (["--device", "cuda:99"], "PyTorch cannot compute on 'cuda:99' here: use cpu"),
        (["--nets", "squeezenet1_0", "--class-table", "none.json"], "no class table none.json"),
    ],
)
def test_invalid_arguments_get_one_clear_line(vislib, options, message):
    status, printed, stderr = vislib(*options)
    assert status == 1
    assert printed == ""
    assert stderr.startswith("vislib benchmark: ")
    assert len(stderr.splitlines()) == 1
    assert message in stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a cuda device here")
def test_a_device_that_is_not_there(vislib):
    assert vislib("--device", "cuda") == (
        1,
        "",
        "vislib benchmark: PyTorch cannot compute on 'cuda' here: use cpu"
        + (" or mps\n" if torch.backends.mps.is_available() else "\n"),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "0"], "must be 'original' or a whole number from 32 to 2000, got '0'"),
        (["--sizes", "big"], "or a whole number from 32 to 2000, got 'big'"),
        (["--sizes", "224", "-5"], "-5"),
        (["--sizes", "64.5"], "or a whole number from 32 to 2000, got '64.5'"),
        (
            ["--sizes", "100000"],
            "must be 'original' or a whole number from 32 to 2000, got '100000'",
        ),
        (["--per-category", "0"], "must be a whole number of at least 1, got '0'"),
        (["--per-category", "-1"], "-1"),
        (["--per-category", "many"], "must be a whole number of at least 1, got 'many'"),
        (["--nets"], "expected at least one argument"),
        (["--speed", "high"], "unrecognized arguments"),
        (["--data", "emoji"], "invalid choice: 'emoji'"),
        (["--data", "photographs"], "argument --data: not allowed with argument --coco"),
    ],
)
def test_invalid_options_are_refused_at_once(vislib, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        vislib(*options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_class_that_does_not_exist_in_the_class_table(vislib, tmp_path):
    (tmp_path / "table.json").write_text('{"dog": [151, 1000], "cat": [281]}')
    status, _, stderr = vislib(
        "--nets", "squeezenet1_0", "--class-table", str(tmp_path / "table.json")
    )
    assert status == 1
    assert "'dog' has 1000; ImageNet's class indices are the whole numbers from 0 to 999" in stderr


def test_weights_with_nan_are_named(vislib, tmp_path, monkeypatch):
    write_weights(tmp_path, NETS[0], lambda net: net.features[0].bias.fill_(float("nan")))
    monkeypatch.setattr(nets, "WEIGHTS", tmp_path)
    status, _, stderr = vislib()
    assert status == 1
    assert "emoji_alexnet.safetensors" in stderr
    assert "holds NaN" in stderr


def test_out_is_a_file(vislib, tmp_path):
    (tmp_path / "out").write_text("mine")
    status, _, stderr = vislib()
    assert status == 1
    assert f"{tmp_path / 'out'} cannot hold the results" in stderr
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("blocked", ["parts", "records.csv"])
def test_out_cannot_be_written(vislib, tmp_path, blocked):
    # No user can write a file where a folder is, not even root, on any system.
    file = tmp_path / "out" / blocked
    if blocked == "parts":
        file.parent.mkdir()
        file.write_text("in the way")
    else:
        file.mkdir(parents=True)
    status, _, stderr = vislib("--methods", "gradient", "--sizes", "64")
    assert status == 1
    assert str(tmp_path / "out") in stderr
    assert "Traceback" not in stderr


def test_one_bad_image_is_reported_and_repaired(vislib, shared, tmp_path):
    own = tmp_path / "own"
    small_coco(own / "coco", per_category=4)
    small = ("--coco", str(own / "coco"), "--sizes", "64", "--methods", "gradient", "--no-controls")
    before = {f: f.read_bytes() for f in (own / "coco" / "val").iterdir()}
    bad = break_file(own / "coco", "missing")
    status, printed, _ = vislib(*small)
    assert status == 0
    assert "Skipped: " in printed
    assert "there is no file" in printed
    rows = (tmp_path / "out" / "skipped.csv").read_text().splitlines()
    assert rows[0] == "image_id,category,net,size,reason"
    assert all(row.startswith(f"{bad},") and "there is no file" in row for row in rows[1:])
    without = (tmp_path / "out" / "records.csv").read_text().splitlines()

    for file, content in before.items():
        file.write_bytes(content)
    status, printed, _ = vislib(*small)
    assert status == 0
    assert "Skipped" not in printed
    assert (tmp_path / "out" / "skipped.csv").read_text().splitlines() == rows[:1]
    repaired = (tmp_path / "out" / "records.csv").read_text().splitlines()
    assert len(repaired) == len(without) + len(rows) - 1


def test_without_any_record_the_first_reason_is_printed(vislib, tmp_path):
    own = tmp_path / "own"
    small_coco(own / "coco", per_category=1)
    for file in (own / "coco" / "val").iterdir():
        file.write_bytes(b"")
    status, _, stderr = vislib("--coco", str(own / "coco"))
    assert status == 1
    assert "no image could be measured: the first reason is " in stderr
    assert "is empty" in stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left"),
            "out: No space left; free some disk space, and the same",
        ),
        (PermissionError(errno.EACCES, "Denied", "a.txt"), "a.txt: Denied; choose another path"),
        (MemoryError(), "the memory is full"),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), "the memory is full"),
    ],
)
def test_errors_of_the_system_come_with_a_remedy(vislib, monkeypatch, error, message):
    def refused(*arguments, **settings):
        raise error

    monkeypatch.setattr(benchmark, "run", refused)
    status, _, stderr = vislib()
    assert status == 1
    assert message in stderr
    assert len(stderr.splitlines()) == 1


def test_an_error_of_the_program_itself_is_not_hidden(vislib, monkeypatch):
    def wrong(*arguments, **settings):
        raise RuntimeError("a bug")

    monkeypatch.setattr(benchmark, "run", wrong)
    with pytest.raises(RuntimeError, match="a bug"):
        vislib()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_in_place_of_an_image_is_skipped(vislib, tmp_path):
    small_coco(tmp_path / "own" / "coco", per_category=1)
    image = next((tmp_path / "own" / "coco" / "val").iterdir())
    image.unlink()
    os.mkfifo(image)  # reading it would wait forever
    small = ("--coco", str(tmp_path / "own" / "coco"), "--sizes", "64", "--methods", "gradient")
    status, printed, _ = vislib(*small)
    assert status == 0
    assert "Skipped: " in printed


# --- the defaults ---------------------------------------------------------------------------------


@pytest.fixture
def settings_of(tmp_path, monkeypatch):
    """The settings that a command line passes to `benchmark.run`."""

    def ask(*arguments):
        passed = {}

        def note(coco, out, plan, **settings):
            passed.update(vars(plan) | settings | {"coco": coco})
            raise InputError("noted")

        monkeypatch.setattr(benchmark, "run", note)
        assert cli.main(["benchmark", *arguments, "--out", str(tmp_path)]) == 1
        return passed

    return ask


def test_the_default_is_one_forward_pass_at_the_networks_size(settings_of):
    passed = settings_of()
    assert passed["methods"] == (
        "gradient",
        "deconvnet",
        "guided_backprop",
        "grad_cam",
        "guided_grad_cam",
        "gradient_x_input",
        "grad_cam_pp",
        "xgrad_cam",
        "layer_cam",
    )
    assert passed["sizes"] == ["original", 128]
    # The design of the study: 6 categories, 30 images of each, 4 networks, 2 sizes.
    assert passed["nets"] == (
        "pocket_alexnet",
        "pocket_vgg",
        "pocket_resnet",
        "pocket_squeezenet",
    )
    assert passed["categories"] == pocket.STUDIED
    assert len(passed["categories"]) == 6
    assert passed["per_category"] == 30
    assert passed["class_table"] is None
    assert (passed["coco"].folder, passed["coco"].split) == (pocket.FOLDER, "val")


def test_photographs_are_explained_with_a_network_trained_on_photographs(settings_of):
    passed = settings_of("--data", "photographs")
    assert passed["nets"] == ("efficientnet_lite0",)
    assert passed["categories"] is None
    assert passed["sizes"] == ["original", 224]
    assert passed["class_table"] == photographs.CLASS_TABLE
    assert passed["coco"].folder == photographs.FOLDER
    assert passed["coco"].split == photographs.SPLIT
    shown = Coco(photographs.FOLDER, photographs.SPLIT)
    assert max(len(shown.images_with(name)) for name in shown.categories) <= passed["per_category"]


def test_other_images_are_a_folder(settings_of, shared):
    passed = settings_of("--coco", str(shared / "coco"), "--split", "val")
    assert passed["nets"] == ("efficientnet_lite0",)
    assert passed["categories"] == CATEGORIES_OF_COCO
    assert passed["class_table"] is None
    assert passed["coco"].folder == shared / "coco"
    passed = settings_of("--coco", str(shared / "coco"), "--split", "val", "--categories", "all")
    assert passed["categories"] is None


def test_all_methods_run_on_fewer_images_by_default(settings_of):
    passed = settings_of("--methods", "all")
    assert (passed["methods"], passed["sizes"], passed["per_category"]) == (["all"], [128], 8)
    passed = settings_of("--methods", "all", "--sizes", "original", "--per-category", "30")
    assert (passed["sizes"], passed["per_category"]) == (["original"], 30)
    passed = settings_of("--methods", "lrp", "--nets", "alexnet", "pocket_gap")
    assert (passed["sizes"], passed["per_category"]) == (["original", 128, 224], 30)


@pytest.mark.skipif(
    not (nets.WEIGHTS / "pocket_vgg.safetensors").is_file(),
    reason="the pocket networks are still being trained",
)
def test_the_command_as_it_ships(tmp_path):
    """The shipped data and networks, and the smallest part of the default run."""
    command = [sys.executable, "-m", "vislib.cli", "benchmark", "--per-category", "1"]
    command += ["--categories", "dog", "--sizes", "128", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    rows = (tmp_path / "records.csv").read_text().splitlines()
    assert len(rows) == 1 + 4 * (9 * 2 + 4) + 3


def test_the_photographs_as_they_ship(tmp_path, capsys):
    command = ["benchmark", "--data", "photographs", "--categories", "koala", "--sizes", "224"]
    command += ["--methods", *STUDY, "--no-controls", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    rows = pd.read_parquet(tmp_path / "records.parquet").set_index("method")
    assert len(rows) == len(STUDY)
    assert set(rows.score_rank) == {1}
    assert rows.P["guided_grad_cam"] > rows.P["deconvnet"]
    assert "| EfficientNet-Lite0 | 224×224 | 1 | " in capsys.readouterr().out
