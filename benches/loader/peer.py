"""What people use in place of the loader: Pillow or torchvision's decoder, torchvision's transforms, PyTorch's DataLoader.

`main.rs` starts it and writes a line of JSON at a time; answers are lines, those of `pixels` raw bytes.
"""

import json
import sys
import time

import PIL
import torch
import torchvision
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALE = (0.2, 1.0)


class Pil(Dataset):
    """Pillow, and the transforms of MAE's `main_pretrain.py`."""

    def __init__(self, files, size):
        self.files = files
        self.transform = v1.Compose([
            v1.RandomResizedCrop(size, scale=SCALE, interpolation=InterpolationMode.BICUBIC),
            v1.RandomHorizontalFlip(),
            v1.ToTensor(),
            v1.Normalize(MEAN, STD),
        ])

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        with Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB"))


class Tensors(Pil):
    """torchvision's JPEG decoder, and transforms of 8-bit tensors: the quickest that torchvision itself offers."""

    def __init__(self, files, size):
        self.files = files
        self.transform = v2.Compose([
            v2.RandomResizedCrop(size, scale=SCALE, interpolation=InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ])

    def __getitem__(self, index):
        return self.transform(decode_jpeg(read_file(self.files[index]), mode=ImageReadMode.RGB))


def epoch(images, batch, workers):
    """Wall and processor seconds of one pass in a new order, in whole batches. Those of workers are not in the latter."""
    if workers:
        loader = DataLoader(images, batch, shuffle=True, num_workers=workers, drop_last=True)
        batches = iter(loader)
    else:
        order = torch.randperm(len(images)).split(batch)
        batches = (torch.stack([images[i] for i in part.tolist()]) for part in order if len(part) == batch)
    wall, cpu = time.perf_counter(), time.process_time()
    total = sum(float(part[0, 0, 0, 0]) for part in batches)
    assert total == total
    return time.perf_counter() - wall, time.process_time() - cpu


def pixels(path, size, left, top, width, height):
    """A part of an image as Pillow resizes it, or the whole as evaluation crops it."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    if width:
        image = image.crop((left, top, left + width, top + height)).resize((size, size), Image.BICUBIC)
    else:
        image = v1.CenterCrop(size)(v1.Resize(size, InterpolationMode.BICUBIC)(image))
    return image.tobytes()


def main():
    torch.set_num_threads(1)
    print(f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}", flush=True)
    files, size, kinds = [], 224, {}
    for line in sys.stdin:
        command = json.loads(line)
        match command["do"]:
            case "open":
                files, size = command["files"], command["size"]
                kinds = {"pil": Pil(files, size), "tensors": Tensors(files, size)}
                print("ready", flush=True)
            case "epoch":
                wall, cpu = epoch(kinds[command["kind"]], command["batch"], command["workers"])
                print(f"{wall} {cpu}", flush=True)
            case "pixels":
                region = (command[key] for key in ("left", "top", "width", "height"))
                sys.stdout.buffer.write(pixels(files[command["index"]], size, *region))
                sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
