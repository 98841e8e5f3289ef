"""A whole program: some epochs of masked pre-training on a folder, from exec to the checkpoint at the end, as `epoch.rhai`.

Images are those of the MAE release's `main_pretrain.py`: PIL, a random crop of [0.2, 1] resized bicubically, a flip, ImageNet's
statistics, in torchvision's transforms behind PyTorch's DataLoader.
"""

import argparse
import math
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from mae import SIZES
from training import Trainer

ENDINGS = {".jpg", ".jpeg", ".png"}
LR = 1e-3
LOG_EVERY = 10


class Folder(Dataset):
    """All images below a folder, at any depth."""

    def __init__(self, folder, count, side):
        paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in ENDINGS)
        self.paths = paths[: count or None]
        self.transform = transforms.Compose([
            transforms.RandomResizedCrop(side, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ])

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


def main():
    parser = argparse.ArgumentParser(description="Pre-trains a masked autoencoder on a folder of images")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=0, help="how many of them; 0 is all")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--patch-size", type=int, default=8)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--decorrelate", action="store_true")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    SIZES[args.size].update(image_size=args.image_size, patch_size=args.patch_size)
    images = Folder(args.data, args.images, args.image_size)
    loader = DataLoader(images, args.batch, shuffle=True, drop_last=True, num_workers=args.workers,
                        persistent_workers=args.workers > 0)
    trainer = Trainer(args.size, args.batch, decorrelate=args.decorrelate, lr=LR)
    total, step = args.epochs * len(loader), 0
    for _ in range(args.epochs):
        for batch in loader:
            for group in trainer.optimizer.param_groups:
                group["lr"] = 0.5 * LR * (1 + math.cos(math.pi * step / total))
            loss = trainer.step([batch])
            if step == 0:
                print("first step", flush=True)
            if step % LOG_EVERY == 0:
                print(f"loss {loss.item():.4f}", flush=True)
            step += 1
    torch.save(dict(model=trainer.model.state_dict(), optimizer=trainer.optimizer.state_dict(), step=step), args.checkpoint)
    print(f"steps {total}", flush=True)


if __name__ == "__main__":
    main()
