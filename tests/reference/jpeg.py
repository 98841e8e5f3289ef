"""Small JPEGs of every kind that the decoder of src/data/decode/baseline takes, made by Pillow 13.0 (libjpeg-turbo).

    python tests/reference/jpeg.py      # writes tests/reference/jpeg/*.jpg
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "jpeg"


def picture(width, height, channels):
    """Soft shapes in saturated and in dull colors, with an edge and a little noise."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = [0.5 + 0.5 * np.sin(5 * x + 2 * y + c * 2.1) * np.cos(3 * y - c) for c in range(channels)]
    image = np.stack(planes, -1) * 255
    image[(x + y) > 1.3] *= 0.4
    image += np.random.default_rng(width * 1000 + height).normal(0, 3, image.shape)
    image = image.clip(0, 255).astype(np.uint8)
    return Image.fromarray(image[..., 0] if channels == 1 else image)


def encoded(width, height, channels=3, **options):
    buffer = io.BytesIO()
    picture(width, height, channels).save(buffer, "JPEG", quality=options.pop("quality", 88), **options)
    return buffer.getvalue()


def upright(jpeg):
    """4:2:2 as 4:4:0, of a square picture: the same blocks, in other places."""
    at = jpeg.index(b"\xff\xc0") + 11
    assert jpeg[at] == 0x21
    return jpeg[:at] + b"\x12" + jpeg[at + 1 :]


FILES = {
    "444_65x33": encoded(65, 33, subsampling=0),
    "444_optimized_40x56": encoded(40, 56, subsampling=0, optimize=True, quality=97),
    "444_coarse_48x48": encoded(48, 48, subsampling=0, quality=12),
    "422_33x41": encoded(33, 41, subsampling=1),
    "420_1x1": encoded(1, 1, subsampling=2),
    "420_17x16": encoded(17, 16, subsampling=2),
    "420_65x33": encoded(65, 33, subsampling=2),
    "420_restarts_70x50": encoded(70, 50, subsampling=2, restart_marker_blocks=3),
    "440_32x32": upright(encoded(32, 32, subsampling=1)),
    "gray_31x47": encoded(31, 47, channels=1),
    "gray_restarts_50x20": encoded(50, 20, channels=1, restart_marker_rows=1),
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, data in FILES.items():
        (FOLDER / f"{name}.jpg").write_bytes(data)
        print(f"{name} {len(data)} bytes")
