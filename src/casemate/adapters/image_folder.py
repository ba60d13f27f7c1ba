"""Folders of pictures, one for each class, as float32 images."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.archives import memory
from casemate.adapters.extras import need
from casemate.errors import DataError

__all__ = ["PICTURES", "class_folders", "read_image_folder"]

Array = NDArray[Any]
PICTURES = (".png", ".jpg", ".jpeg")
"""Suffixes of the files that are read."""

_PIXELS = 1 << 25  # of one picture; more than most cameras take
_BYTES = 1 << 27  # of one picture's file
_GREY, _COLOUR = ("1", "L"), ("RGB", "P")
_FORMATS = ("PNG", "JPEG")


def read_image_folder(path: Path, bounds: tuple[float, float] = (0.0, 1.0)) -> tuple[Array, Array]:
    """The pictures in the folders of `path` as float32 `(n, c, h, w)` within `bounds`, and their classes `(n,)`.

    A class is the name of a folder; the order is that of names. One channel where all pictures are grey, else three.
    What a picture says of how it should be turned (EXIF) is left aside, as loaders for training do. Sizes are checked
    before anything is decoded. Raises `DataError` that names the file for another size than most have, for
    transparency, 16 bits or other colours, for a file that is no picture or too large; `Unavailable` without pillow.
    """
    need("PIL", f"read the images in {path.name}")
    files = _pictures(path)
    sizes, modes = zip(*[_header(file, path) for _, file in files], strict=True)
    width, height = _one_size([file for _, file in files], sizes, path)
    mode = "L" if set(modes) <= set(_GREY) else "RGB"
    channels = len(mode)
    wanted = len(files) * channels * height * width * 4
    if wanted > memory():
        raise DataError(f"expected images that fit into memory in {path.name}, got {wanted:,} bytes: give fewer")
    lo, hi = bounds
    x = np.empty((len(files), channels, height, width), dtype=np.float32)
    for row, (_, file) in enumerate(files):
        pixels = _decoded(file, mode, path).reshape(height, width, channels).transpose(2, 0, 1)
        x[row] = lo + (hi - lo) * (pixels / np.float32(255))
    return x, np.array([name for name, _ in files])


def class_folders(path: Path) -> list[Path]:
    """The folders in a folder, in order of name; hidden ones are passed over."""
    return sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))


def _pictures(path: Path) -> list[tuple[str, Path]]:
    """Class and file of every picture, in order of class and name."""
    found: list[tuple[str, Path]] = []
    empty: list[str] = []
    around = (item for item in sorted(path.iterdir()) if not item.is_dir() and not item.name.startswith("."))
    loose = next((item for item in around if item.suffix.lower() in PICTURES or not item.exists()), None)
    if loose is not None:
        raise DataError(
            f"expected pictures in folders of their classes, got {loose.name} beside them in {path.name}: move it"
        )
    for folder in class_folders(path):
        _check_name(folder)
        inside = sorted(item for item in folder.iterdir() if not item.name.startswith("."))
        odd = next((item for item in inside if item.suffix.lower() not in PICTURES or not item.is_file()), None)
        if odd is not None:
            raise DataError(
                f"expected PNG and JPEG files in {path.name}/{folder.name}, got {odd.name}: convert it or move it away"
            )
        found += [(folder.name, item) for item in inside]
        empty += [] if inside else [folder.name]
    if not found:
        raise DataError(f"expected a folder of pictures for each class in {path.name}, got none: sort them by class")
    if empty:  # every class behind it would have another index than in the model
        raise DataError(f"expected pictures in {path.name}/{empty[0]}, got none: add some or remove the folder")
    return found


def _check_name(folder: Path) -> None:
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"expected a class named in UTF-8, got the folder {folder.name!a}: rename it") from error


def _header(file: Path, root: Path) -> tuple[tuple[int, int], str]:
    """Width and height, and the mode, of a picture that is safe to decode."""
    name = file.relative_to(root)
    if file.stat().st_size > _BYTES:
        raise DataError(f"expected pictures of at most {_BYTES:,} bytes, got {name} with more: make it smaller")
    with _opened(file, root) as image:
        size, mode, clear = image.size, image.mode, "transparency" in image.info
        deep = any(";16" in str(tile[3]) for tile in image.tile)  # pillow would drop the lower half of each value
    if size[0] * size[1] > _PIXELS:
        raise DataError(
            f"expected pictures of at most {_PIXELS:,} pixels, got {size[0]} x {size[1]} in {name}: resize it"
        )
    if clear or deep or mode not in (*_GREY, *_COLOUR):
        told = f"{mode} with transparency" if clear else f"{mode} of 16 bits" if deep and ";" not in mode else mode
        raise DataError(f"expected grey or RGB pictures of 8 bits, got {told} in {name}: convert it")
    return size, mode


def _opened(file: Path, root: Path) -> Any:
    image = need("PIL.Image", "read images")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", image.DecompressionBombWarning)  # the size is checked before decoding
            return image.open(file, formats=_FORMATS)
    except Exception as error:  # bytes from outside
        raise _broken(file, root, error) from error


def _decoded(file: Path, mode: str, root: Path) -> Array:
    with _opened(file, root) as image:
        try:
            return np.asarray(image.convert(mode), dtype=np.float32)
        except Exception as error:  # bytes from outside: cut short, or damaged in one of many ways
            raise _broken(file, root, error) from error


def _broken(file: Path, root: Path, error: Exception) -> DataError:
    return DataError(
        f"expected a PNG or JPEG picture in {file.relative_to(root)}, got one that cannot be read "
        f"({type(error).__name__}): save it again or move it away"
    )


def _one_size(files: Sequence[Path], sizes: Sequence[tuple[int, int]], root: Path) -> tuple[int, int]:
    (width, height), _ = Counter(sizes).most_common(1)[0]
    odd = next((at for at, size in enumerate(sizes) if size != (width, height)), None)
    if odd is not None:
        raise DataError(
            f"expected pictures of one size, {width} x {height} as most in {root.name}, got {sizes[odd][0]} x "
            f"{sizes[odd][1]} in {files[odd].relative_to(root)}: resize it"
        )
    return width, height
