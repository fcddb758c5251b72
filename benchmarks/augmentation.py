"""Images per second through the batched augmentation, on one thread.

python -m benchmarks.augmentation
"""

from __future__ import annotations

import statistics
import time

import torch

from clsim.data.augmentation import Transform


def main() -> None:
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    views = ("jitter", "solarize", "equalize")
    for names in (
        (),
        ("crop", "flip"),
        ("crop", "flip", "color"),
        ("large-crop", "flip", *views),
        ("small-crop", "flip", *views),
        ("crop", "flip", "rand-augment", "cutout"),
    ):
        transform = Transform([0.5] * 3, [0.25] * 3, names, device=torch.device("cpu"), channels_last=True)
        for batch in (20, 256):
            x = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8, generator=rng)
            seconds = []
            for _ in range(50):
                started = time.perf_counter()
                transform.train(x, rng)
                seconds.append(time.perf_counter() - started)
            speed = batch / statistics.median(seconds)
            print(f"{' + '.join((*names, 'normalise')):<62} batch {batch:>3}: {speed:>9,.0f} images/s")


if __name__ == "__main__":
    main()
