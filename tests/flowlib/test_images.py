"""Image data sets: what they hold, and that a bad network, file or folder ends in a sentence."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from flowlib.data import DATASETS, DENSITIES, TwoMoons, cifar10, folder, images, load_dataset, mnist, patches

# --- a small internet ------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Serves ``files`` from loopback and counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.files: dict[str, bytes] = {}
        self.asked = 0
        self.cuts = 0  # so many answers break off half-way


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        content = self.server.files.get(self.path[1:])
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        # stored as it is: a client that unpacks it on the way gets another checksum
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    import pooch

    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)  # between two attempts
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


CONTENT = gzip.compress(np.random.RandomState(0).bytes(300_000))


def fetch(server: Server, root: Path | None, serve: bytes | None = CONTENT) -> Path:
    """Fetch ``data.gz``, which is published as ``CONTENT``."""
    server.files = {} if serve is None else {"data.gz": serve}
    return images._fetch(server.url, "data.gz", {"data.gz": sha256(CONTENT)}, root)


# --- downloads -------------------------------------------------------------------------------


def test_a_file_is_fetched_once_into_the_folder_that_was_named(server, tmp_path, monkeypatch):
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("FLOWLIB_DATA", raising=False)
    assert fetch(server, None).parent == tmp_path / "cache" / "flowlib"
    monkeypatch.setenv("FLOWLIB_DATA", str(tmp_path / "shared"))
    assert fetch(server, None).parent == tmp_path / "shared"
    path = fetch(server, tmp_path / "a new" / "root")
    assert fetch(server, tmp_path / "a new" / "root") == path == tmp_path / "a new" / "root" / "data.gz"
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert server.asked == 3


def test_a_broken_connection_is_tried_again(server, tmp_path):
    server.cuts = 2
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == 3


@pytest.mark.parametrize("serve", [b"<html>Log in</html>", CONTENT[:-1]], ids=["another", "truncated"])
def test_a_wrong_checksum_is_not_kept(server, tmp_path, serve):
    with pytest.raises(ValueError, match=rf"hash of downloaded file \(data.gz\).*{sha256(CONTENT)}"):
        fetch(server, tmp_path, serve)
    assert list(tmp_path.iterdir()) == []


def test_a_file_damaged_later_is_fetched_anew_or_reported(server, tmp_path):
    damaged = CONTENT[:5000] + bytes([CONTENT[5000] ^ 1]) + CONTENT[5001:]
    (tmp_path / "data.gz").write_bytes(damaged)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    (tmp_path / "data.gz").write_bytes(CONTENT[:-1])
    with pytest.raises(ConnectionError, match=r"data\.gz could not be fetched \(404.*or put the file into /"):
        fetch(server, tmp_path, serve=None)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pooch"):
        mnist(root=tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    for load in (patches, lambda: folder(tmp_path)):
        with pytest.raises(ModuleNotFoundError, match="pip install pillow"):
            load()


# --- MNIST and CIFAR-10 ----------------------------------------------------------------------


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def test_mnist_has_the_pixels_it_came_with(server, tmp_path, monkeypatch):
    pixels = np.arange(7 * 28 * 28).reshape(7, 28, 28) % 256
    server.files = {
        "train-images-idx3-ubyte.gz": idx_bytes(pixels[:5]),
        "train-labels-idx1-ubyte.gz": idx_bytes(np.array([5, 0, 4, 1, 9])),
        "t10k-images-idx3-ubyte.gz": idx_bytes(pixels[5:]),
        "t10k-labels-idx1-ubyte.gz": idx_bytes(np.array([7, 2])),
    }
    monkeypatch.setattr(images, "MNIST_URL", server.url)
    monkeypatch.setattr(images, "MNIST_SHA256", {file: sha256(c) for file, c in server.files.items()})
    x, labels = mnist("all", tmp_path)
    assert x.shape == (7, 1, 28, 28)
    assert (x.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert torch.equal(x.flatten().long(), torch.arange(7 * 28 * 28) % 256)
    assert labels.tolist() == [5, 0, 4, 1, 9, 7, 2]
    assert torch.equal(mnist("test", tmp_path)[0], x[5:])
    data = load_dataset("mnist", root=tmp_path)
    assert torch.equal(data.train, x[:5])
    assert torch.equal(data.test_labels, labels[5:])
    assert data.levels == 256


def test_cifar_has_the_pixels_it_came_with(server, tmp_path, monkeypatch):
    """Two images a batch: the label is the batch's number, the channels are filled with 10, 20 and 30."""
    pixels = b"".join(bytes([10 * k]) * 1024 for k in (1, 2, 3))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name in ["batches.meta.txt", "test_batch.bin", *(f"data_batch_{k}.bin" for k in (2, 1, 3, 4, 5))]:
            content = 2 * (bytes([int(name[11]) if name[0] == "d" else 0]) + pixels)
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (name,) = images.CIFAR10_SHA256
    server.files = {name: file.getvalue()}
    monkeypatch.setattr(images, "CIFAR10_URL", server.url)
    monkeypatch.setattr(images, "CIFAR10_SHA256", {name: sha256(file.getvalue())})
    x, labels = cifar10("train", tmp_path)
    assert x.shape == (10, 3, 32, 32)
    assert (x.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert labels.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]  # in the order of the names
    assert all((x[:, k] == 10 * (k + 1)).all() for k in range(3))
    assert cifar10("test", tmp_path)[1].tolist() == [0, 0]
    assert len(cifar10("all", tmp_path)[0]) == 12
    assert repr(load_dataset("cifar10", tmp_path)) == (
        "Dataset(cifar10: 10 + 2 images of 256 levels, each (3, 32, 32))"
    )


# --- patches ---------------------------------------------------------------------------------


def test_patches_are_places_of_the_photographs():
    from sklearn.datasets import load_sample_images

    photographs = [torch.tensor(image).permute(2, 0, 1) for image in load_sample_images().images]
    size = 100  # large: few windows to search
    for split, step, columns in (
        ("train", 50, range(0, 201, 50)),
        ("validation", 100, [300]),
        ("test", 100, [400]),
    ):
        x, labels = patches(size, split)
        places = [(k, r, c) for k in (0, 1) for r in range(0, 328, step) for c in columns]
        expected = {
            (k, photographs[k][:, r : r + size, c : c + size].numpy().tobytes()) for k, r, c in places
        }
        assert len(x) == len(expected)
        assert {(int(k), image.numpy().tobytes()) for image, k in zip(x, labels, strict=True)} == expected


@pytest.mark.parametrize(("size", "counts"), [(8, (16800, 1696)), (32, (1000, 104)), (64, (240, 24))])
def test_no_pixel_is_in_two_splits(size, counts, monkeypatch):
    """Whoever holds patches out of the training ones measures what was learned by heart."""
    import sklearn.datasets

    row, column = np.indices((427, 640))
    places = [np.stack([row // 2, column // 4, 8 * k + 4 * (row % 2) + column % 4], -1) for k in (0, 1)]
    found = SimpleNamespace(images=[image.astype(np.uint8) for image in places])  # a pixel tells its place
    monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: found)
    data = load_dataset("patches", size=size).hold_out(5)
    assert (len(data.train), len(data.validation), len(data.test)) == (*counts, counts[1])
    seen = []
    for x in (data.train, data.validation, data.test):
        high, middle, low = x.long().transpose(0, 1).flatten(1)
        seen.append(torch.unique((high << 16) + (middle << 8) + low))
    assert len(torch.unique(torch.cat(seen))) == sum(map(len, seen))
    assert set(data.train_labels[:20].tolist()) == {0, 1}  # shuffled
    assert len(data.validation_labels) == len(data.validation)
    assert len(patches(size, "all")[0]) == counts[0] + 2 * counts[1]


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
    with pytest.raises(ValueError, match=r'holds a single image, .*add more, or take split="all"'):
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


def test_what_was_held_out_is_not_trained_on():
    data = load_dataset("digits")
    parts = data.hold_out(100)
    assert (len(parts.train), len(parts.validation), parts.test is data.test) == (1337, 100, True)
    for whole, train, held in (
        (data.train, parts.train, parts.validation),
        (data.train_labels[:, None], parts.train_labels[:, None], parts.validation_labels[:, None]),
    ):
        rows = torch.cat([train, held]).flatten(1).tolist()
        assert sorted(rows) == sorted(whole.flatten(1).tolist())
    assert torch.equal(parts.validation, data.hold_out(100).validation)
    assert data.hold_out(0) is data
    with pytest.raises(ValueError, match="n must be 0 or more and less than"):
        data.hold_out(-5)
    assert load_dataset("u1").hold_out(10).validation.shape == (10, 2)


def test_an_unknown_name_lists_the_names():
    for name in ("imagenet", "Digits", "folder", "folder:", ""):
        with pytest.raises(
            ValueError, match=rf"no data set '{name}'; choose one of eight_gaussians, .*cifar10, or folder:"
        ):
            load_dataset(name)


@pytest.mark.parametrize("load", [patches, mnist, cifar10, folder])
def test_another_split_is_refused(load, tmp_path):
    arguments = {"path": tmp_path} if load is folder else {"root": tmp_path} if load is not patches else {}
    with pytest.raises(ValueError, match=r"split must be one of train, .*all and came as 'valid'"):
        load(split="valid", **arguments)


def test_another_size_is_refused(tmp_path):
    for load in (patches, lambda size: folder(tmp_path, size)):
        for size in (0, -1, 2.0, True, "8"):
            with pytest.raises(ValueError, match="size must be a whole number of pixels"):
                load(size)
    with pytest.raises(ValueError, match="size is at most 128"):
        patches(129)
