"""Image data sets: what they hold, and that a bad network, file or folder ends in a sentence."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import socket
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowlib.data import (
    DATASETS,
    DENSITIES,
    TwoMoons,
    cifar,
    cifar10,
    download,
    folder,
    idx,
    load_dataset,
    mnist,
    patches,
)

# --- a small internet ------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Serves ``files`` from loopback and notes which bytes were asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.files: dict[str, bytes] = {}
        self.asked: list[str | None] = []  # the Range header of each request
        self.cuts = 0  # so many answers break off half-way
        self.ranges = True


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        content = self.server.files.get(self.path[1:])
        if content is None:
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if asked and self.server.ranges else 200)
        # stored as it is: a client that unpacks it on the way gets another checksum
        self.send_header("Content-Encoding", "gzip")
        rest = content[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fetch(server: Server, root: Path, content: bytes, serve: bytes | None = None) -> Path:
    """Fetch ``data.gz``, which is published as ``content``."""
    server.files["data.gz"] = content if serve is None else serve
    return download.fetch(server.url + "data.gz", sha256(content), root)


CONTENT = gzip.compress(np.random.RandomState(0).bytes(300_000))

# --- downloads -------------------------------------------------------------------------------


def test_a_file_is_fetched_once(server, tmp_path):
    for _ in range(2):
        path = fetch(server, tmp_path / "new" / "folder", CONTENT)
        assert path.read_bytes() == CONTENT
    assert server.asked == [None]
    assert {file.name for file in path.parent.iterdir()} == {"data.gz", ".lock"}


def test_the_folder_is_root_or_the_environment_variable_or_the_cache(server, tmp_path, monkeypatch):
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("FLOWLIB_DATA", raising=False)
    assert fetch(server, None, CONTENT).parent == tmp_path / "cache" / "flowlib"
    monkeypatch.setenv("FLOWLIB_DATA", str(tmp_path / "shared"))
    assert fetch(server, None, CONTENT).parent == tmp_path / "shared"
    assert fetch(server, tmp_path / "root", CONTENT).parent == tmp_path / "root"


def test_a_broken_connection_is_resumed(server, tmp_path):
    server.cuts = 2
    assert fetch(server, tmp_path, CONTENT).read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.asked == [None, f"bytes={half}-", f"bytes={half + (len(CONTENT) - half) // 2}-"]


def test_a_later_call_goes_on_where_an_earlier_one_stopped(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server.cuts = 1
    with pytest.raises(
        ConnectionError, match=r"the connection broke\. What arrived is kept, and the next call"
    ):
        fetch(server, tmp_path, CONTENT)
    assert (tmp_path / "data.gz.part").read_bytes() == CONTENT[: len(CONTENT) // 2]
    assert fetch(server, tmp_path, CONTENT).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={len(CONTENT) // 2}-"]


@pytest.mark.parametrize(
    ("part", "ranges", "requests"),
    [
        (CONTENT[:1000], False, 1),  # a server that does not resume
        (b"other" * 200, True, 2),  # the part of another file
        (CONTENT + b"more", True, 2),  # longer than the file
        (CONTENT, True, 1),  # killed just before the end
        (b"", True, 1),
    ],
    ids=["no ranges", "foreign", "too long", "whole", "empty"],
)
def test_whatever_part_was_left_the_file_comes_out_right(server, tmp_path, part, ranges, requests):
    server.ranges = ranges
    (tmp_path / "data.gz.part").write_bytes(part)
    assert fetch(server, tmp_path, CONTENT).read_bytes() == CONTENT
    assert len(server.asked) == requests
    assert not (tmp_path / "data.gz.part").exists()


@pytest.mark.parametrize("serve", [b"<html>Log in</html>", CONTENT[:-1]], ids=["another", "truncated"])
def test_a_wrong_checksum_is_not_kept(server, tmp_path, serve):
    with pytest.raises(
        ValueError, match=rf"(?s)not the published one.*{sha256(CONTENT)}.*try again, or put the"
    ):
        fetch(server, tmp_path, CONTENT, serve)
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_a_file_damaged_later_is_fetched_anew_or_reported(server, tmp_path):
    path = fetch(server, tmp_path, CONTENT)
    damaged = CONTENT[:5000] + bytes([CONTENT[5000] ^ 1]) + CONTENT[5001:]
    path.write_bytes(damaged)
    assert fetch(server, tmp_path, CONTENT).read_bytes() == CONTENT
    path.write_bytes(damaged)
    server.files.clear()
    with pytest.raises(ConnectionError, match=r"data\.gz is damaged, and .* could not be fetched"):
        download.fetch(server.url + "data.gz", sha256(CONTENT), tmp_path)


def test_no_file_and_no_server_are_sentences(server, tmp_path):
    with pytest.raises(
        ConnectionError, match=r"answered 404 Not Found\. Try again later, or put the file at .*none"
    ):
        download.fetch(server.url + "none", "0" * 64, tmp_path)
    with socket.socket() as nobody:  # bound and not listening: refuses connections
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/data.gz"
        with pytest.raises(ConnectionError, match="the server cannot be reached"):
            download.fetch(url, "0" * 64, tmp_path)


def test_a_folder_that_cannot_be_written_is_a_sentence(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        OSError, match=r"cannot be read or written.*root=… or by the environment variable FLOWLIB_"
    ):
        fetch(server, tmp_path / "file", CONTENT)


def test_callers_at_the_same_time_do_not_spoil_each_others_download(server, tmp_path):
    server.files["data.gz"] = CONTENT
    arguments = (server.url + "data.gz", sha256(CONTENT), tmp_path)
    others = [threading.Thread(target=download.fetch, args=arguments) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert (tmp_path / "data.gz").read_bytes() == CONTENT
    assert server.asked == [None]


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pooch"):
        mnist(root=tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    for load in (patches, lambda: folder(tmp_path)):
        with pytest.raises(ModuleNotFoundError, match="pip install pillow"):
            load()


# --- MNIST -----------------------------------------------------------------------------------


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def small_mnist(server, monkeypatch):
    """Serve MNIST with 5 training and 2 test images; returns a function that changes one of its files."""

    def publish(file: str, content: bytes) -> None:
        server.files[file] = content
        monkeypatch.setitem(idx.MNIST_SHA256, file, sha256(content))

    pixels = np.arange(7 * 28 * 28).reshape(7, 28, 28) % 256
    monkeypatch.setattr(idx, "MNIST_URL", server.url)
    publish("train-images-idx3-ubyte.gz", idx_bytes(pixels[:5]))
    publish("train-labels-idx1-ubyte.gz", idx_bytes(np.array([5, 0, 4, 1, 9])))
    publish("t10k-images-idx3-ubyte.gz", idx_bytes(pixels[5:]))
    publish("t10k-labels-idx1-ubyte.gz", idx_bytes(np.array([7, 2])))
    return publish


def test_mnist_has_the_pixels_it_came_with(small_mnist, tmp_path):
    images, labels = mnist("all", tmp_path)
    assert images.shape == (7, 1, 28, 28)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert torch.equal(images.flatten().long(), torch.arange(7 * 28 * 28) % 256)
    assert labels.tolist() == [5, 0, 4, 1, 9, 7, 2]
    assert torch.equal(mnist("test", tmp_path)[0], images[5:])
    data = load_dataset("mnist", root=tmp_path)
    assert torch.equal(data.train, images[:5])
    assert torch.equal(data.test_labels, labels[5:])
    assert data.levels == 256


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"not gzip", r"train-images-idx3-ubyte\.gz is not a whole gzip file .*delete it and load it again"),
        (idx_bytes(np.zeros((5, 28, 28)))[:-9], "is not a whole gzip file .*delete it"),
        (gzip.compress(b"\0\0\x0d\x03" + bytes(100)), "starts with 00 00 0d 03, where 00 00 08 .*delete it"),
        (gzip.compress(b""), "starts with nothing"),
        (gzip.compress(b"\0\0\x08\x03\0\0"), "announces an array .*and holds 0; delete it"),
        (
            gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc"),
            r"announces an array of shape \(5,\), 5 bytes, and holds 3",
        ),
        (
            gzip.compress(b"\0\0\x08\x01\0\0\0\x02abc"),
            r"announces an array of shape \(2,\), 2 bytes, and holds 3",
        ),
        (idx_bytes(np.zeros((4, 28, 28))), r"shapes \(4, 28, 28\) and \(5,\) where .*delete both"),
    ],
    ids=["no gzip", "truncated gzip", "magic", "nothing", "header", "short", "long", "lengths"],
)
def test_a_bad_idx_file_is_a_sentence(small_mnist, tmp_path, content, sentence):
    small_mnist("train-images-idx3-ubyte.gz", content)
    with pytest.raises(ValueError, match=sentence):
        mnist("train", tmp_path)


# --- CIFAR-10 --------------------------------------------------------------------------------

RECORD = 1 + 3 * 32 * 32


def cifar_bytes(batches: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in batches.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def small_batches() -> dict[str, bytes]:
    """Two images a batch: the label is the batch's number, the channels are filled with 10, 20 and 30."""
    pixels = b"".join(bytes([10 * k]) * 1024 for k in (1, 2, 3))
    names = ["batches.meta.txt", "test_batch.bin", *(f"data_batch_{k}.bin" for k in (2, 1, 3, 4, 5))]
    return {
        f"cifar-10-batches-bin/{name}": 2 * (bytes([int(name[11]) if name[0] == "d" else 0]) + pixels)
        for name in names
    }


@pytest.fixture
def publish_cifar(server, monkeypatch):
    def publish(content: bytes) -> None:
        server.files["cifar.tar.gz"] = content
        monkeypatch.setattr(cifar, "CIFAR10_URL", server.url + "cifar.tar.gz")
        monkeypatch.setattr(cifar, "CIFAR10_SHA256", sha256(content))

    return publish


def test_cifar_has_the_pixels_it_came_with(publish_cifar, tmp_path):
    publish_cifar(cifar_bytes(small_batches()))
    images, labels = cifar10("train", tmp_path)
    assert images.shape == (10, 3, 32, 32)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert labels.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]  # in the order of the names
    assert all((images[:, k] == 10 * (k + 1)).all() for k in range(3))
    assert cifar10("test", tmp_path)[1].tolist() == [0, 0]
    assert len(cifar10("all", tmp_path)[0]) == 12
    assert repr(load_dataset("cifar10", tmp_path)) == (
        "Dataset(cifar10: 10 + 2 images of 256 levels, each (3, 32, 32))"
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"data_batch_3.bin": None},
            r"lacks cifar-10-batches-bin/data_batch_3\.bin, .*delete it and load it again",
        ),
        (
            {"data_batch_3.bin": bytes(RECORD - 1)},
            r"data_batch_3\.bin in .* not consist of records of 3073 bytes",
        ),
        ({"data_batch_3.bin": b""}, "not consist of records"),
        ({"data_batch_3.bin": b"\x0a" + bytes(RECORD - 1)}, "labels from 0 to 9; delete the archive"),
    ],
    ids=["missing", "short", "empty", "label"],
)
def test_a_bad_batch_is_a_sentence(publish_cifar, tmp_path, change, sentence):
    batches = small_batches() | {f"cifar-10-batches-bin/{name}": batch for name, batch in change.items()}
    publish_cifar(cifar_bytes({name: batch for name, batch in batches.items() if batch is not None}))
    with pytest.raises(ValueError, match=sentence):
        cifar10("train", tmp_path)


@pytest.mark.parametrize("cut", [0, 1, 10, 200])
def test_a_truncated_archive_is_a_sentence(publish_cifar, tmp_path, cut):
    publish_cifar(cifar_bytes(small_batches())[:cut])
    with pytest.raises(ValueError, match=r"is not a whole tar\.gz archive .*delete it and load it again"):
        cifar10("train", tmp_path)


# --- patches ---------------------------------------------------------------------------------


def test_patches_are_places_of_the_photographs():
    from sklearn.datasets import load_sample_images

    photographs = [torch.tensor(image).permute(2, 0, 1) for image in load_sample_images().images]
    size = 100  # large: few windows to search
    for split, columns in (("train", range(0, 301, 50)), ("test", [400])):
        images, labels = patches(size, split)
        step = 50 if split == "train" else 100
        places = [(k, r, c) for k in (0, 1) for r in range(0, 328, step) for c in columns]
        expected = {
            (k, photographs[k][:, r : r + size, c : c + size].numpy().tobytes()) for k, r, c in places
        }
        assert len(images) == len(expected)
        assert {
            (int(k), image.numpy().tobytes()) for image, k in zip(images, labels, strict=True)
        } == expected


@pytest.mark.parametrize(("size", "counts"), [(8, (23520, 1696)), (16, (5824, 416)), (64, (336, 24))])
def test_patches_are_as_many_as_announced_and_shuffled(size, counts):
    train, test = patches(size), patches(size, "test")
    assert (len(train[0]), len(test[0])) == counts
    assert set(train[1][:20].tolist()) == {0, 1}
    assert torch.equal(patches(size, "all")[0], torch.cat([train[0], test[0]]))


# --- folders ---------------------------------------------------------------------------------


def save(
    path: Path, colour: object = (10, 20, 30), mode: str = "RGB", size: tuple[int, int] = (8, 8)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def test_a_folder_is_split_by_its_sorted_names(tmp_path):
    for k in range(10):
        save(tmp_path / f"{k}.png", (k, 0, 0))
    (tmp_path / "notes.txt").write_text("no image")
    save(tmp_path / ".hidden.png")
    images, labels = folder(tmp_path, 4, "all")
    assert images.shape == (10, 3, 4, 4)
    assert (images.dtype, labels.tolist()) == (torch.uint8, [0] * 10)
    assert images[:, 0, 0, 0].tolist() == list(range(10))
    found = [folder(tmp_path, 4, split)[0][:, 0, 0, 0].tolist() for split in ("train", "test")]
    assert found == [[2, 8, 4, 9, 1, 6, 7, 3], [0, 5]]  # pinned: a resumed training relies on it


def test_sub_folders_are_classes(tmp_path):
    for k, name in enumerate(["b/1.png", "a/deeper/2.PNG", "c/3.jpeg", "a/4.webp"]):
        save(tmp_path / name, (50 * k,) * 3)
    (tmp_path / "empty").mkdir()
    images, labels = folder(tmp_path, 8, "all")
    assert labels.tolist() == [0, 0, 1, 2]
    assert images[:, 0, 4, 4].tolist() == pytest.approx(
        [150, 50, 0, 100], abs=2
    )  # webp and jpeg lose a little
    data = load_dataset(f"folder:{tmp_path}", size=8)
    assert (data.train.shape, len(data.test), data.levels) == ((3, 3, 8, 8), 1, 256)


def test_the_centre_is_kept_and_resized(tmp_path):
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 10:30] = 200  # the central square
    image[:10, 20:30, 1] = 100  # one corner of it, in one channel
    Image.fromarray(image).save(tmp_path / "wide.png")
    whole, small = (folder(tmp_path, size, "all")[0][0] for size in (20, 4))
    assert torch.equal(whole, torch.tensor(image[:, 10:30]).permute(2, 0, 1))
    assert (small[[0, 2]] == 200).all()
    corners = small[1, ::3, ::3].flatten().tolist()
    assert corners == pytest.approx([200, 100, 200, 200], abs=5)  # the filter rings a little


def test_photographs_are_turned_upright(tmp_path):
    image = Image.new("RGB", (8, 8))
    image.paste((255, 255, 255), (0, 0, 8, 4))  # the upper half is white
    exif = image.getexif()
    exif[0x0112] = 3  # the camera was upside down
    image.save(tmp_path / "1.png", exif=exif)
    assert folder(tmp_path, 8, "all")[0][0, 0, :, 0].tolist() == [0] * 4 + [255] * 4


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("L", 7, [7, 7, 7]), ("1", 1, [255] * 3), ("RGBA", (0, 0, 0, 0), [255] * 3), ("LA", (9, 255), [9] * 3)],
)
def test_every_kind_of_image_becomes_colour_on_white(tmp_path, mode, colour, expected):
    save(tmp_path / "1.png", colour, mode)
    assert folder(tmp_path, 4, "all")[0][0, :, 0, 0].tolist() == expected


def test_palettes_with_transparency_are_read(tmp_path):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([1, 2, 3, 4, 5, 6])
    image.save(tmp_path / "1.png", transparency=b"\x00\xff")
    assert folder(tmp_path, 4, "all")[0].min() == 255


def test_a_bad_folder_is_a_sentence(tmp_path):
    with pytest.raises(NotADirectoryError, match="is no folder; give the path of a folder"):
        folder(tmp_path / "none")
    with pytest.raises(ValueError, match=r"holds no images; their names must end in \.bmp"):
        folder(tmp_path)
    save(tmp_path / "one.png")
    with pytest.raises(ValueError, match=r'holds one image, one\.png, .*add more, or take split="all"'):
        folder(tmp_path)
    save(tmp_path / "class" / "two.png")
    with pytest.raises(ValueError, match=r"images beside them, such as one\.png, .*move those"):
        folder(tmp_path)


def test_a_bad_image_is_named(tmp_path):
    file = tmp_path / "1.png"
    Image.frombytes("RGB", (200, 200), np.random.RandomState(0).bytes(3 * 200**2)).save(file)
    whole = file.read_bytes()
    last = whole.rindex(b"IDAT")  # pillow raises a SyntaxError for a later part whose name is none
    contents = [b"", b"no image", whole[: len(whole) // 2], whole[:last] + b"\0" + whole[last + 1 :]]
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"1\.png cannot be read as an image .*repair, replace or remove it"
        ):
            folder(tmp_path, 8, "all")
    save(file, 40_000, "I;16")
    with pytest.raises(ValueError, match=r"1\.png .*more than 8 bits a channel; save it with 8"):
        folder(tmp_path, 8, "all")


# --- one door --------------------------------------------------------------------------------


def test_every_density_is_a_data_set_that_stays_the_same():
    assert list(DATASETS)[: len(DENSITIES)] == [
        "eight_gaussians", "two_moons", "rings", "checkerboard", "u1", "u2", "u3", "u4",
    ]  # fmt: skip
    torch.manual_seed(1)
    first = load_dataset("two_moons")
    torch.set_default_dtype(torch.float64)
    second = load_dataset("two_moons")
    assert (first.train.dtype, second.train.dtype) == (torch.float32, torch.float64)
    assert first.train.shape == (20_000, 2)
    assert first.test.shape == (5_000, 2)
    assert torch.equal(first.train, second.train.float())
    assert first.levels is first.train_labels is first.test_labels is None
    # the test points go on with the generator's draws, and do not start over with those of the training
    assert not torch.equal(second.test, TwoMoons().sample(5_000, torch.Generator().manual_seed(0)))


def test_images_come_with_their_levels_and_labels():
    data = load_dataset("digits")
    assert int(data.train.max()) == 16
    assert data.levels == 17
    assert len(data.train_labels) == len(data.train) == 1437
    data = load_dataset("patches", size=64)
    assert data.test.shape == (24, 3, 64, 64)
    assert data.levels == 256
    assert len(data.test_labels) == 24


@pytest.mark.parametrize("name", ["imagenet", "Digits", "folder", ""])
def test_an_unknown_name_lists_the_names(name):
    with pytest.raises(
        ValueError, match=rf"no data set '{name}'; choose one of eight_gaussians, .*cifar10, or folder:"
    ):
        load_dataset(name)


def test_a_folder_without_path_is_refused():
    with pytest.raises(ValueError, match="lacks the path"):
        load_dataset("folder:")


@pytest.mark.parametrize("load", [patches, mnist, cifar10, folder])
def test_another_split_is_refused(load, tmp_path):
    arguments = {"path": tmp_path} if load is folder else {"root": tmp_path} if load is not patches else {}
    with pytest.raises(ValueError, match=r'"train", "test" or "all" and came as \'valid\''):
        load(split="valid", **arguments)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "8"])
def test_another_size_is_refused(size, tmp_path):
    for load in (lambda: patches(size), lambda: folder(tmp_path, size)):
        with pytest.raises(ValueError, match="size must be a whole number of pixels"):
            load()
    with pytest.raises(ValueError, match="size is at most 128"):
        patches(129)
