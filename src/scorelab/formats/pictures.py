"""One picture in a file becomes bytes (C, H, W), by rules that are the same on every machine."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from scorelab.errors import Refusal

VERSION = 1  # of the rules below; another one gives other bytes
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")  # none that would run a program
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # of a JPEG, between its coded pixels


class Unreadable(ValueError):
    """A file that is no whole picture; says why in a few words."""


def sides_of(size: Any, max_pixels: int) -> tuple[int, int] | None:
    """Height and width as they were asked for: by one number or two; None where nothing was.

    Raises:
        Refusal: for what is no size, or one that no picture may have.
    """
    if size is None:
        return None
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise Refusal(f"size is one number of pixels or two, [height,width], got {size}")
    if sides[0] * sides[1] > max_pixels:
        raise Refusal(f"size={size} is more pixels than max_pixels={max_pixels}")
    return sides[0], sides[1]


@dataclass(frozen=True)
class Rules:
    """How a picture becomes bytes.

    - It is turned as its EXIF orientation says. Of several frames the first counts. Colour profiles are not applied.
    - What is transparent lies over white. Palettes, CMYK (in a JPEG inverted, as Adobe's are) and YCbCr become RGB.
    - 16-bit greys v become round(v / 257), 12-bit ones round(v / 16.06); of 16-bit colours the high byte counts.
      Floats and 32-bit integers have no white that is known: unreadable.
    - RGB becomes grey by Rec. 601, 0.299 R + 0.587 G + 0.114 B; grey becomes RGB by three times the same.
    - The largest part in the middle that has the target's proportions is resized to the target by Pillow's bicubic
      filter, widened by the factor of reduction (so without aliasing). That is: the shorter side, in relation to the
      target, is made the target's, and the other is cropped about its centre. What has the target's size stays as it
      is, to the byte.

    Args:
        size: height and width.
        channels: 1 for grey, 3 for RGB.
        max_pixels: a file whose header tells of more is not decoded; above 178,956,970 Pillow refuses by itself.
    """

    size: tuple[int, int]
    channels: Literal[1, 3]
    max_pixels: int = 100_000_000

    def key(self) -> dict[str, Any]:
        """All that the bytes depend on, beside the file's content, as plain values."""
        return {
            "size": list(self.size),
            "channels": self.channels,
            "max_pixels": self.max_pixels,
            "rules": VERSION,
            "pillow": PIL.__version__,
        }

    def told(self) -> str:
        """In a few words, for the records."""
        height, width = self.size
        colours = "grey" if self.channels == 1 else "RGB"
        return f"{height}x{width} {colours}: turned by EXIF, over white, centre crop, bicubic with antialiasing"


@dataclass(frozen=True)
class Header:
    """What a file says of itself: height and width as they are seen, and whether it is grey."""

    height: int
    width: int
    grey: bool


@dataclass(frozen=True)
class Picture:
    """Bytes (C, H, W), and whether it was resized for them."""

    values: Tensor
    resized: bool


def decode(data: bytes | Path, rules: Rules) -> Tensor:
    """A picture as uint8 (C, H, W), from a file or from its content.

    Raises:
        Unreadable: for what is no picture, is not whole, or is larger than ``rules.max_pixels``.
    """
    return picture(data, rules).values


def picture(data: bytes | Path, rules: Rules) -> Picture:
    """As ``decode``, and says whether it was resized.

    Raises:
        Unreadable: as ``decode``.
    """
    with _opened(data, rules.max_pixels) as (file, image):
        _see_whole(file, image)
        image.load()
        seen = _coloured(image, rules.channels)
        if (turn := TURNS.get(_orientation(image))) is not None:
            seen = seen.transpose(turn)
        height, width = rules.size
        resized = seen.size != (width, height)
        if resized:
            scale = max(height / seen.height, width / seen.width)
            across, down = width / scale, height / scale
            left, top = (seen.width - across) / 2, (seen.height - down) / 2
            box = (max(left, 0), max(top, 0), min(left + across, seen.width), min(top + down, seen.height))
            seen = seen.resize((width, height), Image.Resampling.BICUBIC, box)
        array = np.array(seen)
    values = torch.from_numpy(array).reshape(height, width, rules.channels)
    return Picture(values.permute(2, 0, 1).contiguous(), resized)


def header(data: bytes | Path, max_pixels: int = Rules.max_pixels) -> Header:
    """What a file says of itself, by its header alone.

    Raises:
        Unreadable: for what is no picture, or is larger than ``max_pixels``.
    """
    with _opened(data, max_pixels) as (_, image):
        width, height = image.size
        if image.format != "TIFF" and _orientation(image) >= 5:  # Pillow turns a TIFF's size itself
            width, height = height, width
        palette = image.getpalette("RGB") if image.mode in ("P", "PA") else None
        grey = image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")
        if palette is not None:
            grey = palette[0::3] == palette[1::3] == palette[2::3]
        return Header(height, width, grey)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what Pillow warns of to itself: for whoever decodes many, around the threads that do it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@contextmanager
def _opened(data: bytes | Path, max_pixels: int) -> Iterator[tuple[IO[bytes], Image.Image]]:
    """A file and its image, its header read; whatever goes wrong with it is told as ``Unreadable``."""
    try:
        with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as file:
            if not file.read(1):
                raise Unreadable("an empty file")
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise Unreadable(f"{width} x {height} pixels, more than max_pixels={max_pixels}")
                yield file, image
    except (Unreadable, MemoryError):
        raise
    except PIL.UnidentifiedImageError as error:
        raise Unreadable("no picture of a kind that is known") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable("more pixels than Pillow reads") from error
    except OSError as error:
        raise Unreadable(error.strerror.lower() if error.strerror else _few_words(error)) from error
    except Exception as error:  # Pillow's readers raise whatever damaged content leads them into
        raise Unreadable(_few_words(error)) from error


def _see_whole(file: IO[bytes], image: Image.Image) -> None:
    """Look for what Pillow does not see: a JPEG that ends before its end, a PNG whose checksums are wrong.

    Raises:
        Unreadable: where it is so.
    """
    place = file.tell()
    if image.format in ("JPEG", "MPO"):
        file.seek(0)
        if not _ends(file.read()):
            raise Unreadable("cut off: the file ends before the picture does")
    elif image.format == "PNG":
        file.seek(0)
        with Image.open(file, formats=("PNG",)) as again:
            again.verify()
    file.seek(place)


def _ends(content: bytes) -> bool:
    """Whether a JPEG's end marker follows its coded pixels; where it is missing, decoders fill up with grey."""
    place = 2
    while (found := MARKER.search(content, place)) is not None:
        kind, place = found[1][0], found.end()
        if kind == 0xD9:
            return True
        if kind != 0x01:  # every other marker stands before a segment, which says its length
            place += int.from_bytes(content[place : place + 2], "big")
    return False


def _orientation(image: Image.Image) -> int:
    """By EXIF; 1, as it stands, where that is damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # as above: the picture is whole all the same
        return 1


def _coloured(image: Image.Image, channels: int) -> Image.Image:
    """In mode L or RGB."""
    if image.mode.startswith("I;16"):
        seen = _eight_bits(image)
    elif image.mode in ("F", "I"):
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise Unreadable(f"pixels are {kind}, whose white is not known")
    elif image.has_transparency_data:
        clear = image.convert("RGBA")
        seen = Image.alpha_composite(Image.new("RGBA", image.size, "white"), clear).convert("RGB")
    else:
        seen = image
    return seen.convert("L" if channels == 1 else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit greys, of which a TIFF may use 12, and may call its white 0."""
    tags: Any = getattr(image, "tag_v2", {})
    white = 4095 if tags.get(258) == (12,) else 65535
    levels = np.asarray(image).astype(np.uint32)
    grey = ((2 * 255 * levels + white) // (2 * white)).astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(262) == 0 else grey)


def _few_words(error: BaseException) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
