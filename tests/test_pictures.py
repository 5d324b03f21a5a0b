"""Every kind of picture becomes the bytes that the rules say; what is not whole is unreadable, and says why."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scorelab.formats.decoding import decoded
from scorelab.formats.pictures import Picture, Rules, Unreadable, decode, header, picture

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File")
GREY = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(RGB[:3, :4]).resize((32, 24), Image.Resampling.BICUBIC))


def saved(image: Any, kind: str = "PNG", **how: Any) -> bytes:
    held = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(held, kind, **how)
    return held.getvalue()


def read(content: bytes, height: int, width: int, channels: int = 3) -> np.ndarray:
    """As (H, W, C)."""
    return decode(content, Rules((height, width), channels)).permute(1, 2, 0).numpy()


def oriented(number: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return saved(RGB, kind, exif=exif, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_a_grey_picture_of_the_targets_size_is_itself_to_the_byte(kind: str) -> None:
    found = picture(saved(GREY, kind, **({"lossless": True} if kind == "WEBP" else {})), Rules((28, 28), 1))
    assert torch.equal(found.values[0], torch.from_numpy(GREY)) and not found.resized
    assert found.values.dtype == torch.uint8 and found.values.is_contiguous()


def test_a_file_and_its_content_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(saved(RGB))  # a PNG, whatever its name
    assert torch.equal(decode(tmp_path / "x.jpg", Rules((6, 8), 3)), decode(saved(RGB), Rules((6, 8), 3)))


TURNED = {
    1: RGB,
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.transpose(1, 0, 2),
    6: np.rot90(RGB, -1),
    7: np.rot90(RGB, 2).transpose(1, 0, 2),
    8: np.rot90(RGB, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("number", range(1, 9))
def test_exif_says_how_a_picture_is_turned(number: int, kind: str) -> None:
    height, width = TURNED[number].shape[:2]
    content = oriented(number, kind)
    assert (header(content).height, header(content).width) == (height, width)
    assert np.array_equal(read(content, height, width), TURNED[number])


def test_damaged_exif_leaves_a_picture_as_it_stands() -> None:
    content = saved(SMOOTH, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(read(content, 24, 32), np.asarray(Image.open(io.BytesIO(saved(SMOOTH, "JPEG")))))


def clear(mode: str) -> tuple[bytes, np.ndarray]:
    """Three pixels, of which the first is transparent and the third, where it can be, half."""
    if mode == "P":
        image = Image.new("P", (3, 1))
        image.putpalette([10, 20, 30, 40, 50, 60])
        image.putdata([0, 1, 1])
        return saved(image, transparency=0), np.array([[[255] * 3, [40, 50, 60], [40, 50, 60]]])
    if mode == "RGB":
        pixels = np.array([[[1, 2, 3], [9, 9, 9], [9, 8, 7]]], np.uint8)
        return saved(pixels, transparency=(1, 2, 3)), np.array([[[255] * 3, [9, 9, 9], [9, 8, 7]]])
    alpha = np.array([[0, 255, 51]], np.uint8)
    if mode == "LA":
        pixels = np.stack([np.array([[100, 100, 100]], np.uint8), alpha], 2)
        return saved(pixels), np.array([[[255] * 3, [100] * 3, [224] * 3]])
    pixels = np.concatenate([np.array([[[100, 50, 0]] * 3], np.uint8), alpha[..., None]], 2)
    return saved(pixels), np.array([[[255] * 3, [100, 50, 0], [224, 214, 204]]])


@pytest.mark.parametrize("mode", ["P", "RGB", "LA", "RGBA"])
def test_what_is_transparent_lies_over_white(mode: str) -> None:
    content, expected = clear(mode)
    assert np.abs(read(content, 1, 3).astype(int) - expected).max() <= (1 if mode in ("LA", "RGBA") else 0)
    assert read(content, 1, 3)[0, 0].tolist() == [255, 255, 255]


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 250, 0, 7])
    image.putdata([1, 0])
    for kind in ("PNG", "GIF", "BMP"):
        assert read(saved(image, kind), 1, 2).tolist() == [[[250, 0, 7], [1, 2, 3]]]


def test_bilevel_pictures_are_black_and_white() -> None:
    assert read(saved(Image.fromarray(GREY > 99)), 28, 28, 1)[..., 0].tolist() == ((GREY > 99) * 255).tolist()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    levels = np.array([[0, 128, 129, 257, 300, 32896, 65406, 65407, 65535]], np.uint16)
    assert read(saved(levels, kind), 1, 9, 1)[0, :, 0].tolist() == [0, 0, 1, 1, 1, 128, 254, 255, 255]


def test_a_tiff_may_call_its_white_nought() -> None:
    levels = np.array([[0, 65535, 257]], np.uint16)
    assert read(saved(levels, "TIFF", tiffinfo={262: 0}), 1, 3, 1)[0, :, 0].tolist() == [255, 0, 254]
    eight = saved(GREY, "TIFF", tiffinfo={262: 0})  # Pillow inverts these itself, both ways
    assert read(eight, 28, 28, 1)[..., 0].tolist() == GREY.tolist()


@pytest.mark.parametrize(("type_of", "told"), [(np.float32, "floats"), (np.int32, "32-bit integers")])
def test_pixels_without_a_white_that_is_known_are_unreadable(type_of: type, told: str) -> None:
    with pytest.raises(Unreadable, match=rf"^pixels are {told}, whose white is not known$"):
        read(saved(np.zeros((4, 4), type_of), "TIFF"), 4, 4)


def test_cmyk_becomes_rgb_and_an_inverted_jpeg_is_put_right() -> None:
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))  # cyan
    assert read(saved(inks, "TIFF"), 16, 16)[3, 3].tolist() == [0, 255, 255]
    content = saved(inks, "JPEG", quality=100)
    assert b"Adobe" in content
    assert np.abs(read(content, 16, 16)[3, 3].astype(int) - [0, 255, 255]).max() <= 2


def test_grey_is_repeated_and_colours_are_weighted_as_601_says() -> None:
    assert np.array_equal(read(saved(GREY), 28, 28), np.repeat(GREY[..., None], 3, 2))
    expected = RGB.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(read(saved(RGB), 6, 8, 1)[..., 0] - expected).max() <= 0.51


def test_the_longer_side_is_cropped_about_its_centre() -> None:
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = RGB[:4, :4]
    assert np.array_equal(read(saved(wide), 4, 4), RGB[:4, :4])
    assert np.array_equal(read(saved(wide.transpose(1, 0, 2)), 4, 4), RGB[:4, :4].transpose(1, 0, 2))


def test_a_target_that_is_not_square_cuts_what_is_too_long_for_it() -> None:
    tall = np.zeros((12, 4), np.uint8)
    tall[5:7] = [[10, 20, 30, 40], [50, 60, 70, 80]]
    assert read(saved(tall), 2, 4, 1)[..., 0].tolist() == tall[5:7].tolist()


def test_reduced_pictures_are_averaged_so_that_fine_stripes_are_grey() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    found = picture(saved(stripes), Rules((8, 8), 1))
    assert found.resized and (found.values[0, 2:6, 2:6].int() - 128).abs().max() <= 3, "nearest would be black or white"


def test_resizing_is_of_bicubic_weights() -> None:
    step = np.zeros((4, 8), np.uint8)
    step[:, 4:] = 200
    assert read(saved(step), 8, 16, 1)[3, 6:10, 0].tolist() == [
        0,
        41,
        159,
        214,
    ]  # 200 times -0.070, 0.203, 0.797, 1.070
    ramp = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (24, 1))
    assert read(saved(ramp), 12, 12, 1)[5, 2:10, 0].tolist() == list(range(45, 205, 20)), "straight lines stay straight"


def test_one_pixel_is_enlarged_like_others() -> None:
    assert read(saved(np.array([[[7, 8, 9]]], np.uint8)), 5, 3).tolist() == [[[7, 8, 9]] * 3] * 5


def test_a_long_strip_is_cut_before_it_is_enlarged() -> None:
    strip = np.zeros((1, 20001), np.uint8)
    strip[0, 10000] = 99
    assert read(saved(strip), 64, 64, 1)[32, 32, 0] > 90


def test_of_a_moving_picture_the_first_frame_counts() -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    assert np.array_equal(
        read(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), 28, 28, 1)[..., 0], GREY
    )
    content = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(read(content, 28, 28, 1)[..., 0], GREY)


def png(width: int, height: int) -> bytes:
    """A header that tells of so many pixels, and next to no content."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    about = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about) + chunk(b"IDAT", zlib.compress(bytes(10**5))) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "an empty file"),
        (b"<html>404</html>", "no picture of a kind that is known"),
        (b"\x89PNG\r\n\x1a\n", "no picture of a kind that is known"),
        (saved(SMOOTH)[:-60], "Truncated File Read"),
        (saved(SMOOTH, "JPEG")[:-60], "cut off: the file ends before the picture does"),
        (saved(SMOOTH, "JPEG")[:-60] + bytes(60), "cut off: the file ends before the picture does"),
        (saved(SMOOTH, "JPEG")[:-2], "cut off: the file ends before the picture does"),
        (saved(SMOOTH, "GIF")[:-60], "image file is truncated"),
        (saved(SMOOTH, "WEBP")[:-60], "could not create decoder object"),
        (saved(SMOOTH, "BMP")[:-60], "image file is truncated"),
        (saved(SMOOTH, "TIFF")[:-60], "image file is truncated"),
        (png(20_000, 5_001), "20000 x 5001 pixels, more than max_pixels=100000000"),
        (png(100_000, 100_000), "more pixels than Pillow reads"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a kind that is known"),
    ],
    ids=lambda each: each[:8].hex() + str(len(each)) if isinstance(each, bytes) else None,
)
def test_what_is_no_whole_picture_says_why(content: bytes, told: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(content, Rules((24, 32), 3))
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value) and len(str(caught.value)) < 120


def test_a_flipped_bit_is_seen_by_a_pngs_checksum() -> None:
    content = bytearray(saved(SMOOTH, compress_level=0))  # stored, so that the bit is a pixel's
    content[len(content) // 2] ^= 1
    with pytest.raises(Unreadable, match="broken PNG"):
        decode(bytes(content), Rules((24, 32), 3))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "progressive", "GIF", "WEBP", "BMP", "TIFF"])
def test_wherever_a_file_is_cut_it_is_whole_or_unreadable(kind: str) -> None:
    content = saved(SMOOTH, "JPEG", progressive=True) if kind == "progressive" else saved(SMOOTH, kind)
    rules = Rules((24, 32), 3)
    complete, unreadable = decode(content, rules), 0
    for cut in range(0, len(content), 7):
        try:
            assert torch.equal(decode(content[:cut], rules), complete), f"half a picture of {cut} bytes"
        except Unreadable:
            unreadable += 1
    assert unreadable > 0.9 * len(range(0, len(content), 7))


def test_a_jpeg_with_something_behind_its_end_is_whole() -> None:
    content = saved(SMOOTH, "JPEG")
    assert torch.equal(decode(content + b"\xff\xda" * 99, Rules((24, 32), 3)), decode(content, Rules((24, 32), 3)))


def test_a_file_that_is_not_there_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"^no such file or directory$"):
        decode(tmp_path / "x.png", Rules((1, 1), 1))


def test_the_headers_colours(tmp_path: Path) -> None:
    grey, colours = Image.new("P", (2, 3)), Image.new("P", (2, 3))
    grey.putpalette([9, 9, 9, 4, 4, 4])
    colours.putpalette([9, 9, 9, 4, 4, 5])
    for image, expected in [
        (Image.new("L", (2, 3)), True),
        (Image.new("LA", (2, 3)), True),
        (Image.new("I;16", (2, 3)), True),
        (grey, True),
        (colours, False),
        (Image.new("RGB", (2, 3)), False),
    ]:
        found = header(saved(image))
        assert (found.height, found.width, found.grey) == (3, 2, expected)


def test_many_are_decoded_in_their_order_and_what_cannot_be_stands_where_it_was(capsys: Any) -> None:
    each = [saved(np.full((2, 2), k, np.uint8)) if k % 7 else b"" for k in range(200)]
    found = list(decoded(iter(each), Rules((2, 2), 1), len(each)))
    assert [int(one.values.max()) if isinstance(one, Picture) else str(one) for one in found] == [
        k if k % 7 else "an empty file" for k in range(200)
    ]
    assert capsys.readouterr().err == "", "no bar where nobody looks"


def test_threads_end_when_their_reader_does() -> None:
    import threading

    before = threading.active_count()
    reading = decoded((saved(GREY) for _ in range(10**9)), Rules((28, 28), 1))
    next(reading)
    reading.close()
    assert threading.active_count() == before
