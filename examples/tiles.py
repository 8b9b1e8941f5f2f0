"""A picture of the Mandelbrot set, computed in tiles by the workers and put together here.

    python examples/tiles.py --size 768 --tiles 6 --output mandelbrot.png

The script finds the yard by the environment (`set -a; . ./.env; set +a`); with `--here` it
computes the tiles in its own process instead. One tile alone, numbered row by row from 0:

    taskyard submit tiles:tile --arg '[[768, 6, 0]]' --wait
"""

import argparse
import struct
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

LEFT, TOP, SIDE = -2.25, 1.5, 3.0  # the square of the complex plane that is shown
DEPTH = 255  # iterations after which a point counts as inside: one byte a pixel
LARGEST = 1024  # pixels along a tile: its value stays within the payload limit, 1 MiB

Tile = tuple[int, int, int]  # picture size in pixels, tiles along a side, number of the tile


def tile(spec: Sequence[int]) -> bytes:
    """One tile as a byte a pixel, row by row: 0 inside the set, else iterations until escape."""
    size, across, number = spec
    left, top, right, bottom = box(size, across, number)
    step = SIDE / size
    return bytes(
        escape(LEFT + (x + 0.5) * step, TOP - (y + 0.5) * step)
        for y in range(top, bottom)
        for x in range(left, right)
    )


def box(size: int, across: int, number: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom pixel of a tile; tiles differ by a pixel where they must."""
    if not (0 < across <= size and 0 <= number < across * across):
        raise ValueError(f"no tile {number} in a picture of {size} pixels in {across} x {across} tiles")
    row, column = divmod(number, across)
    return (
        size * column // across,
        size * row // across,
        size * (column + 1) // across,
        size * (row + 1) // across,
    )


def escape(real: float, imaginary: float) -> int:
    """Iterations until the point leaves the circle of radius 2, from 1; 0 if it never does."""
    shifted = real - 0.25
    q = shifted * shifted + imaginary * imaginary
    if q * (q + shifted) <= 0.25 * imaginary * imaginary or (real + 1) ** 2 + imaginary**2 <= 0.0625:
        return 0  # in the two largest bulbs, where iterating would take longest
    point, z = complex(real, imaginary), 0j
    for count in range(1, DEPTH + 1):
        z = z * z + point
        if z.real * z.real + z.imag * z.imag > 4.0:
            return count
    return 0


def assemble(size: int, across: int, tiles: Iterable[tuple[int, bytes]]) -> bytes:
    """The whole picture, a byte a pixel, from numbered tiles in any order."""
    picture = bytearray(size * size)
    for number, pixels in tiles:
        left, top, right, bottom = box(size, across, number)
        width = right - left
        if len(pixels) != width * (bottom - top):
            raise ValueError(f"tile {number} has {len(pixels)} bytes, not {width * (bottom - top)}")
        for row in range(bottom - top):
            start = (top + row) * size + left
            picture[start : start + width] = pixels[row * width : (row + 1) * width]
    return bytes(picture)


def png(size: int, picture: bytes) -> bytes:
    """A square PNG with a palette: blue over sand to red, the set itself black."""
    colours = bytearray(3)
    for count in range(1, 256):
        t = (count / DEPTH) ** 0.45
        colour = (min(1.0, 12.6 * (1 - t) * t**2), 6 * (1 - t) ** 2 * t, (1 - t) ** 0.7)
        colours += bytes(round(255 * part) for part in colour)
    rows = b"".join(b"\0" + picture[start : start + size] for start in range(0, size * size, size))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 3, 0, 0, 0)),
            (b"PLTE", bytes(colours)),
            (b"IDAT", zlib.compress(rows, 9)),
            (b"IEND", b""),
        )
    )


# ---------------------------------------------------------------- the script


def _by_yard(inputs: list[Tile]) -> Iterator[tuple[int, bytes]]:
    from taskyard import Yard

    with Yard.from_env() as yard:
        job = yard.submit("tiles:tile", inputs, name="tiles")
        for outcome in job.results(follow=True):
            if outcome.state == "completed":
                yield outcome.index, outcome.value


def _draw(size: int, across: int, output: Path, *, here: bool) -> int:
    inputs: list[Tile] = [(size, across, number) for number in range(across * across)]
    began = time.monotonic()
    source = ((number, tile(spec)) for number, spec in enumerate(inputs)) if here else _by_yard(inputs)
    tiles = {}
    for number, pixels in source:
        tiles[number] = pixels
        sys.stderr.write(f"\r{len(tiles)} of {len(inputs)} tiles")
    sys.stderr.write("\n")
    if len(tiles) < len(inputs):
        missing = len(inputs) - len(tiles)
        sys.stderr.write(f"tiles: {missing} tiles did not complete; see `taskyard results tiles --failed`\n")
        return 1
    output.write_bytes(png(size, assemble(size, across, tiles.items())))
    sys.stderr.write(f"{output}: {size} x {size} pixels, {time.monotonic() - began:.1f} s\n")
    return 0


def _main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tiles", description="Draw the Mandelbrot set in tiles.")
    parser.add_argument("--size", type=int, default=768, help="pixels along a side (%(default)s)")
    parser.add_argument("--tiles", type=int, default=6, help="tiles along a side (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("mandelbrot.png"), help="PNG file (%(default)s)")
    parser.add_argument("--here", action="store_true", help="compute in this process, without a yard")
    given = parser.parse_args(arguments)
    if not 0 < given.tiles <= given.size <= given.tiles * LARGEST:
        parser.error(f"--size must be from --tiles to {LARGEST} times --tiles: a tile is 1 MiB at most")
    if not given.output.parent.is_dir():
        parser.error(f"--output: there is no folder {given.output.parent}")
    if given.here:
        return _draw(given.size, given.tiles, given.output, here=True)
    try:
        from taskyard.errors import TaskyardError
    except ImportError:
        parser.error("taskyard is not installed in this Python: run `make setup`, or give --here")
    try:
        return _draw(given.size, given.tiles, given.output, here=False)
    except TaskyardError as error:
        sys.stderr.write(f"tiles: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(_main())
