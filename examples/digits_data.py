"""Handwritten digits for the examples: MNIST, verified, or the small set that needs no network."""

import argparse
import gzip
import hashlib
import os
import struct
import sys
import tempfile
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits

# SHA-256 of the DEcompressed bytes: mirrors compress the same four files differently.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)


class DataError(Exception):
    """The data is missing or is not what it should be; the message says what to do."""


class Digits(NamedTuple):
    """Images are uint8 of shape (n, 28, 28, 1); labels are int32 of shape (n,)."""

    name: str
    source: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `load`."""
    add = parser.add_argument
    add("--data", choices=("auto", "mnist", "digits"), default="auto", help="mnist may download")
    add("--data-dir", type=Path, help="the four IDX files of MNIST; default $MNIST_DIR")


def of_options(args: argparse.Namespace, who: str) -> Digits:
    """What these options say; what is missing is said, and ends the program."""
    try:
        return load(args.data, args.data_dir)
    except DataError as error:
        print(f"{who}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def load(data: str = "auto", data_dir: str | os.PathLike[str] | None = None) -> Digits:
    """Load MNIST or the embedded digits.

    Args:
        data: "mnist", "digits", or "auto": MNIST if its files are already here (`data_dir`,
            $MNIST_DIR, the cache), else the embedded digits. Only "mnist" may download.
        data_dir: Where the four IDX files are, compressed or not.

    Raises:
        DataError: If a file is missing, truncated or altered, or if no mirror answers.
    """
    data_dir = data_dir or os.environ.get("MNIST_DIR")
    if data == "digits":
        return embedded()
    if data_dir:
        return mnist(Path(data_dir))
    if all(_find(cache_dir(), name) for name in SHA256):
        return mnist(cache_dir())
    return mnist(download(cache_dir())) if data == "mnist" else embedded()


def embedded() -> Digits:
    """The 1,797 digits of 8x8 pixels of scikit-learn, enlarged to the format of MNIST.

    Every pixel becomes 3x3 and a border of 2 is added, which makes 28x28. A fifth is for testing.
    """
    raw, labels = load_digits(return_X_y=True)
    images = np.round(raw * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    images = images.repeat(3, axis=1).repeat(3, axis=2)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None]
    # Neighbours in the file come from one writer: shuffle before the split.
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order].astype(np.int32)
    cut = len(images) * 4 // 5
    source = f"the {len(images):,} digits of scikit-learn, 8x8 enlarged to 28x28"
    return Digits("digits", source, images[:cut], labels[:cut], images[cut:], labels[cut:])


def mnist(folder: Path) -> Digits:
    """Read and verify the four files of MNIST in `folder`."""
    arrays = []
    for name in SHA256:
        path = _find(folder, name)
        if path is None:
            raise DataError(
                f"{folder} holds neither {name}.gz nor {name}. MNIST is these four files, as .gz "
                f"or decompressed: {', '.join(SHA256)}. `--data mnist` without `--data-dir` and "
                "without $MNIST_DIR downloads them."
            )
        arrays.append(_parse(_decompressed(path), path, name))
    train_images, train_labels, test_images, test_labels = arrays
    return Digits(
        "mnist", f"MNIST from {folder}", train_images, train_labels, test_images, test_labels
    )


def cache_dir() -> Path:
    """Where downloads are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "optax_adaptive" / "mnist"


def download(folder: Path, mirrors: Sequence[str] = MIRRORS) -> Path:
    """Fetch the missing files of MNIST into `folder`; what fails the checks is never kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHA256:
        if _find(folder, name):
            continue
        failures = []
        for mirror in mirrors:
            url = f"{mirror}{name}.gz"
            # A temporary name, then a rename: a killed download leaves no half file behind.
            part = tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False)  # noqa: SIM115
            try:
                with part, urllib.request.urlopen(url, timeout=30) as answer:
                    part.write(answer.read(20_000_000))  # the largest file has half as much
                _parse(_decompressed(Path(part.name)), Path(part.name), name)
                os.replace(part.name, folder / f"{name}.gz")
                break
            except (OSError, DataError) as error:
                failures.append(f"{url}: {error}")
            finally:
                Path(part.name).unlink(missing_ok=True)
        else:
            raise DataError(
                f"No mirror gave {name}.gz ({'; '.join(failures)}). Put the four files of MNIST "
                "in a folder and name it with --data-dir, or use --data digits: no network needed."
            )
    return folder


def _find(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}.gz", folder / name)
    return next((path for path in paths if path.is_file()), None)


def _decompressed(path: Path) -> bytes:
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b" and path.suffix not in (".gz", ".part"):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path} ({len(data):,} bytes) is not a complete gzip file: {error}. Delete it and get "
            "it again."
        ) from error


def _parse(data: bytes, path: Path, name: str) -> np.ndarray:
    """The array in the IDX bytes of the file `name`, after checking all there is to check."""
    images = "images" in name
    magic, header = (0x803, 16) if images else (0x801, 8)
    found = struct.unpack(">I", data[:4])[0] if len(data) >= 4 else None
    if found != magic:
        shown = "nothing" if found is None else f"{found:#x}"
        raise DataError(
            f"{path} starts with {shown}; an IDX file of {'images' if images else 'labels'} starts "
            f"with {magic:#x}. Is it another file under this name? Get {name}.gz again."
        )
    shape = struct.unpack(f">{header // 4 - 1}I", data[4:header].ljust(header - 4, b"\0"))
    if len(data) != header + np.prod(shape, dtype=np.int64):
        raise DataError(
            f"{path} holds {len(data):,} bytes, but its header promises "
            f"{header + np.prod(shape, dtype=np.int64):,}: it is truncated or altered. Get "
            f"{name}.gz again."
        )
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256[name]:
        raise DataError(
            f"{path} is not the canonical MNIST file: SHA-256 {digest}, expected {SHA256[name]}. "
            f"Get {name}.gz again."
        )
    values = np.frombuffer(data, np.uint8, offset=header)
    return values.reshape(*shape, 1) if images else values.astype(np.int32)
