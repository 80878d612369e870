"""Fetching COCO from a server on the loopback interface that can misbehave."""

import http.server
import io
import json
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vislib.data import download
from vislib.data.coco import Coco, fetch
from vislib.errors import InputError

HEIGHT, WIDTH = 24, 32
ZIP = "/annotations/annotations_trainval2017.zip"
DOG, ZEBRA = 18, 24


def jpeg(number: int, *, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def annotations() -> bytes:
    """Images 1 to 6; dogs in 1 to 4, zebras in 4 to 6."""
    outline = [[2, 2, 20, 2, 20, 20, 2, 20]]
    shows = [*((i, DOG) for i in (1, 2, 3, 4)), *((i, ZEBRA) for i in (4, 5, 6))]
    return json.dumps(
        {
            "images": [
                {"id": i, "file_name": f"{i:012}.jpg", "height": HEIGHT, "width": WIDTH}
                for i in range(1, 7)
            ],
            "annotations": [
                {"id": n, "image_id": i, "category_id": c, "segmentation": outline, "iscrowd": 0}
                for n, (i, c) in enumerate(shows)
            ],
            "categories": [{"id": DOG, "name": "dog"}, {"id": ZEBRA, "name": "zebra"}],
        }
    ).encode()


def annotations_zip(member: str = "annotations/instances_val2017.json") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr(member, annotations())
        zipped.writestr(
            "annotations/captions_val2017.json", np.random.default_rng(0).bytes(400_000)
        )
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """COCO's host, small: `files` by path, `asked` is the list of (path, first byte) so far."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files = {f"/val2017/{i:012}.jpg": jpeg(i) for i in range(1, 7)}
        self.files[ZIP] = annotations_zip()
        self.asked: list[tuple[str, int]] = []
        self.knows_ranges = True
        self.breaks: dict[str, int] = {}  # path → how often to hang up half-way
        self.status: dict[str, list[int]] = {}  # path → the status codes to send first
        self.headers: dict[str, str] = {}  # to send with every answer

    def images_asked(self) -> list[int]:
        return [int(p.split("/")[-1].split(".")[0]) for p, _ in self.asked if p != ZIP]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server, body = self.server, self.server.files.get(self.path)
        asked_range = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked_range[1]) if asked_range and server.knows_ranges else 0
        server.asked.append((self.path, start))
        if server.status.get(self.path):
            self.answer(server.status[self.path].pop(0), b"")
        elif body is None:
            self.answer(404, b"")
        elif start and start >= len(body):
            self.answer(416, b"")
        elif server.breaks.get(self.path):
            server.breaks[self.path] -= 1
            rest = body[start:]
            self.answer(206 if start else 200, rest, send=len(rest) // 2)
            self.close_connection = True
        else:
            self.answer(206 if start else 200, body[start:])

    def answer(self, status: int, body: bytes, send: int | None = None) -> None:
        self.send_response(status)
        if "Content-Length" not in self.server.headers:
            self.send_header("Content-Length", str(len(body)))
        for header in self.server.headers.items():
            self.send_header(*header)
        self.close_connection |= "Content-Length" in self.server.headers
        self.end_headers()
        self.wfile.write(body[:send])


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def run(server: Server, folder: Path, *categories: str, per_category: int = 2) -> Coco:
    return fetch(
        folder,
        categories=categories or ("dog", "zebra"),
        per_category=per_category,
        base_url=server.url,
    )


def present(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


FETCHED = [
    "000000000001.jpg",
    "000000000002.jpg",
    "000000000004.jpg",
    "000000000005.jpg",
    "annotations_trainval2017.zip",
    "instances_val2017.json",
]


# --- All goes well --------------------------------------------------------------------------------


def test_fetches_the_annotations_and_only_the_images_needed(server, tmp_path):
    coco = run(server, tmp_path)
    assert present(tmp_path) == FETCHED
    assert coco.file.read_bytes() == annotations()
    assert coco.path(1).read_bytes() == jpeg(1)
    assert coco.images_with("dog") == [1, 2, 3, 4]
    # zebra's image 4 shows a dog too, and is the third: the first two are the same as before
    assert coco.images_with("dog", present_only=True) == [1, 2, 4]
    assert coco.images_with("zebra", present_only=True) == [4, 5]
    assert Coco(tmp_path, "val2017").mask(4, "zebra").sum() == 18 * 18


def test_a_second_run_sends_no_request(server, tmp_path):
    run(server, tmp_path)
    server.asked.clear()
    run(server, tmp_path)
    assert server.asked == []


def test_more_categories_or_images_fetch_only_the_new_ones(server, tmp_path):
    run(server, tmp_path, "dog")
    server.asked.clear()
    run(server, tmp_path, "dog", "zebra", per_category=3)
    assert server.images_asked() == [3, 4, 5, 6]


def test_another_split_uses_the_same_zip(server, tmp_path):
    run(server, tmp_path, "dog")
    (tmp_path / "annotations" / "instances_val2017.json").unlink()
    server.asked.clear()
    run(server, tmp_path, "dog")
    assert server.asked == []


def test_fewer_images_than_per_category_are_all_fetched(server, tmp_path):
    run(server, tmp_path, "zebra", per_category=100)
    assert server.images_asked() == [4, 5, 6]


# --- Stopped and continued ------------------------------------------------------------------------


def test_zip_that_breaks_off_is_continued_in_the_same_run(server, tmp_path):
    server.breaks[ZIP] = 1
    run(server, tmp_path)
    first, second = [start for path, start in server.asked if path == ZIP]
    assert first == 0
    assert second > len(server.files[ZIP]) / 4
    assert (tmp_path / ZIP[1:]).read_bytes() == server.files[ZIP]


def test_zip_that_keeps_breaking_off_is_resumed_by_the_next_run(server, tmp_path):
    server.breaks[ZIP] = download.TRIES
    with pytest.raises(InputError, match=r"Are you offline.* are kept; the same command continues"):
        run(server, tmp_path)
    assert present(tmp_path) == ["annotations_trainval2017.zip.part"]
    kept = (tmp_path / f"{ZIP[1:]}.part").stat().st_size
    assert kept > len(server.files[ZIP]) / 2
    server.asked.clear()
    run(server, tmp_path)
    assert server.asked[0] == (ZIP, kept)
    assert present(tmp_path) == FETCHED


def test_without_ranges_the_download_starts_again(server, tmp_path):
    server.knows_ranges = False
    server.breaks[ZIP] = 2
    run(server, tmp_path)
    assert [start for path, start in server.asked if path == ZIP] == [0, 0, 0]
    assert (tmp_path / ZIP[1:]).read_bytes() == server.files[ZIP]


def test_a_part_that_was_complete_is_used(server, tmp_path):
    """Killed between the last byte and the renaming."""
    part = tmp_path / f"{ZIP[1:]}.part"
    part.parent.mkdir()
    part.write_bytes(server.files[ZIP])
    run(server, tmp_path)
    assert present(tmp_path) == FETCHED


def test_image_that_breaks_off_is_continued(server, tmp_path):
    server.breaks["/val2017/000000000002.jpg"] = 2
    coco = run(server, tmp_path)
    assert coco.path(2).read_bytes() == jpeg(2)


def test_stopped_by_the_user(server, tmp_path, monkeypatch):
    """What was fetched before Ctrl-C is there, and whole; the rest comes with the next run."""
    stop_at = 4
    real = Coco._load

    def load(self: Coco, image_id: int, path: Path) -> Image.Image:
        if image_id == stop_at:
            raise KeyboardInterrupt
        return real(self, image_id, path)

    monkeypatch.setattr(Coco, "_load", load)
    with pytest.raises(KeyboardInterrupt):
        run(server, tmp_path)
    monkeypatch.undo()
    server.asked.clear()
    run(server, tmp_path)
    assert server.images_asked() == [4, 5]
    assert present(tmp_path) == FETCHED


def test_temporary_server_error(server, tmp_path):
    server.status["/val2017/000000000001.jpg"] = [503, 500]
    run(server, tmp_path)
    assert present(tmp_path) == FETCHED


# --- Bad answers ----------------------------------------------------------------------------------


def damaged_answers() -> dict[str, bytes | None]:
    return {
        "cut short": jpeg(2)[:500],
        r"24×20 .*says 24×32": jpeg(2, size=(20, HEIGHT)),
        "not an image": b"<html>log in to the hotel's network</html>",
        "empty": b"",
        "404": None,
    }


@pytest.mark.parametrize("message", damaged_answers())
def test_one_bad_image_does_not_stop_the_others(server, tmp_path, message):
    bad = "/val2017/000000000002.jpg"
    good = server.files.pop(bad)
    answer = damaged_answers()[message]
    if answer is not None:
        server.files[bad] = answer
    with pytest.raises(InputError, match=rf"(?s)1 of 4 images .*tries again.*0002.jpg.*{message}"):
        run(server, tmp_path)
    assert present(tmp_path) == [name for name in FETCHED if name != "000000000002.jpg"]

    server.files[bad] = good
    server.asked.clear()
    run(server, tmp_path)
    assert server.asked == [(bad, 0)]
    assert present(tmp_path) == FETCHED


@pytest.mark.parametrize("damage", ["cut short", "of another size"])
def test_damaged_image_on_disk_is_fetched_again(server, tmp_path, damage):
    coco = run(server, tmp_path)
    coco.path(1).write_bytes(jpeg(1)[:300] if damage == "cut short" else jpeg(1, size=(8, 8)))
    server.asked.clear()
    run(server, tmp_path)
    assert server.images_asked() == [1]
    assert coco.path(1).read_bytes() == jpeg(1)


def bad_zips() -> dict[str, bytes]:
    damaged = bytearray(annotations_zip())
    damaged[5000] ^= 255  # within a member: only its checksum can tell
    return {
        "not a zip": b"<html>log in to the hotel's network</html>",
        "wrong checksum": bytes(damaged),
    }


@pytest.mark.parametrize("kind", bad_zips())
def test_damaged_zip_is_not_kept(server, tmp_path, kind):
    good, server.files[ZIP] = server.files[ZIP], bad_zips()[kind]
    with pytest.raises(InputError, match=r"download of .*trainval2017\.zip is damaged"):
        run(server, tmp_path)
    assert present(tmp_path) == []
    server.files[ZIP] = good
    run(server, tmp_path)
    assert present(tmp_path) == FETCHED


def test_zip_without_the_split(server, tmp_path):
    server.files[ZIP] = annotations_zip("annotations/instances_other.json")
    with pytest.raises(InputError, match=r"zip is damaged .*instances_val2017.* delete it"):
        run(server, tmp_path)
    assert present(tmp_path) == ["annotations_trainval2017.zip"]


@pytest.mark.parametrize("offset", [8, 10])  # how it is packed, and whether with a password
def test_zip_with_a_wrong_bit_in_a_header(server, tmp_path, offset):
    for start in (b"PK\x03\x04", b"PK\x01\x02"):
        damaged = bytearray(annotations_zip())
        damaged[damaged.index(start) + offset] ^= 1
        archive = tmp_path / "annotations" / "annotations_trainval2017.zip"
        archive.parent.mkdir(exist_ok=True)
        archive.write_bytes(damaged)
        try:
            run(server, tmp_path)
        except InputError as error:
            assert "delete it" in str(error)
        (archive.parent / "instances_val2017.json").unlink(missing_ok=True)


def test_damaged_annotations_on_disk_have_a_remedy(server, tmp_path):
    run(server, tmp_path)
    (tmp_path / "annotations" / "instances_val2017.json").write_text("{")
    with pytest.raises(InputError, match="get it again: delete the file and run the same command"):
        run(server, tmp_path)
    (tmp_path / "annotations" / "instances_val2017.json").unlink()
    run(server, tmp_path)
    assert present(tmp_path) == FETCHED


def test_the_rest_of_a_file_must_begin_where_it_broke_off(server, tmp_path):
    run(server, tmp_path)
    image = tmp_path / "val2017" / "000000000001.jpg"
    part = image.with_name(image.name + ".part")
    part.write_bytes(image.read_bytes()[:100])
    image.unlink()
    server.headers["Content-Range"] = "bytes 7-99/100"
    server.asked.clear()
    run(server, tmp_path)
    assert [start for _, start in server.asked] == [100, 0]
    assert image.read_bytes() == jpeg(1)


def test_a_length_that_is_not_a_number(server, tmp_path):
    server.headers["Content-Length"] = "long"
    run(server, tmp_path)
    assert present(tmp_path) == FETCHED


def test_a_redirect_to_nonsense(server, tmp_path):
    server.headers["Location"] = "http://[::x"
    server.status[ZIP] = [302] * download.TRIES
    with pytest.raises(InputError, match=r"trainval2017\.zip does not answer"):
        run(server, tmp_path)


def test_wrong_host(server, tmp_path):
    del server.files[ZIP]
    with pytest.raises(InputError, match="404"):
        run(server, tmp_path)


# --- Offline, wrong arguments ---------------------------------------------------------------------


def test_offline(server, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(InputError, match=r"does not answer .*offline.*command continues"):
            fetch(tmp_path, base_url=nobody)
        run(server, tmp_path, "dog")
        with pytest.raises(InputError, match=r"0004\.jpg does not answer .*offline"):
            fetch(tmp_path, categories=["zebra"], base_url=nobody)
    assert "000000000001.jpg" in present(tmp_path)
    server.asked.clear()
    run(server, tmp_path)
    assert server.images_asked() == [4, 5]


def test_arguments_are_checked_before_the_network_is_used(server, tmp_path):
    with pytest.raises(InputError, match="no category 'zebras': did you mean 'zebra'"):
        run(server, tmp_path, "zebras")
    with pytest.raises(InputError, match="no split 'val2O17' to fetch: did you mean 'val2017'"):
        fetch(tmp_path, split="val2O17", base_url=server.url)
    with pytest.raises(InputError, match="at least 1, got 0"):
        run(server, tmp_path, "dog", per_category=0)
    assert server.asked == []
