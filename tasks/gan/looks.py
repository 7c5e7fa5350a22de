"""Pictures for the report besides samples: real images, interpolations, and the nearest training images.

They are made in the main process, from seeds of their own, in evaluation mode. Nothing that training uses changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt

import torch
from torch import Tensor, nn

from cs_gan.data import ImageStore
from cs_gan.gan import conditioned
from cs_gan.metrics import to_uint8
from cs_gan.randomness import derive_seed, stream
from cs_gan.report import save_grid, save_neighbours
from cs_gan.restore import evaluation_mode, isolated_rng
from cs_gan.runs import RunFolder
from models.latents import slerp

ROWS, STEPS = 4, 8  # of the interpolation strip
QUERIES, NEIGHBOURS = 6, 5
CHEAP = 2**26  # bytes of images that are searched at every grid; more are searched only after the last step
CHUNK = 2**24  # bytes of images at a time; as float32 they take four times that


@dataclass(frozen=True)
class Looks:
    """Writes the pictures of a run folder.

    Attributes:
        store: the training images.
        folder: of the run.
        seed: of the run.
        flip: whether training mirrors images, so that a copy may be mirrored.
        samples: the number of images in a grid.
    """

    store: ImageStore
    folder: RunFolder
    seed: int
    flip: bool
    samples: int

    def save(
        self, generator: nn.Module, z: Tensor, labels: Tensor | None, device: torch.device, step: int, last: bool
    ) -> None:
        """Write what is due at this step: real images once, the strip of nearest images if it is cheap or ``last``.

        Args:
            generator: whose images are shown.
            z: (n, latent_dim), the latents of the grid.
            labels: (n,), its classes on the device, or None without classes. Each row of the interpolation has one.
            device: of the generator.
            step: number of steps done.
            last: whether no more follow.
        """
        if not self.folder.real.exists():
            classes = 0 if labels is None else len(labels.unique())
            save_grid(self.folder.real, self.store.images[self._some(classes)], classes or None)
        # no_grad, not inference_mode: values that the generator caches here must stay usable in training.
        with evaluation_mode(generator), isolated_rng(derive_seed(self.seed, "looks"), device), torch.no_grad():
            ends = torch.randn(ROWS + 1, z.shape[1], generator=stream(self.seed, "interpolation"))
            t = torch.linspace(0, 1, STEPS)
            way = torch.cat([slerp(start, end, t) for start, end in pairwise(ends)])
            by_row = None if labels is None else labels[:ROWS].repeat_interleave(STEPS)
            images = to_uint8(conditioned(generator, by_row)(way.to(device))).cpu()
            some = None if labels is None else labels[:QUERIES]
            made = to_uint8(conditioned(generator, some)(z[:QUERIES].to(device))).cpu()
        about = {"step": str(step)}
        save_grid(self.folder.interpolation, images, STEPS, about=about)
        if last or self.store.images.nbytes <= CHEAP:
            self._save_nearest(made, about)

    def _some(self, classes: int) -> Tensor:  # -> (n,)
        """Positions of real images for a grid like that of the samples: a square of them, or a column per class."""
        rows = torch.randperm(len(self.store), generator=stream(self.seed, "real images"))
        if not classes or self.store.labels is None:
            return rows[: isqrt(min(self.samples, len(self.store))) ** 2].sort().values
        of_class = [rows[self.store.labels[rows] == number] for number in range(classes)]
        # A class with few images shows them again; one without shows any.
        high = torch.arange(isqrt(self.samples))
        return torch.stack([(own if len(own) else rows)[high % max(1, len(own))] for own in of_class], 1).flatten()

    def _save_nearest(self, made: Tensor, about: dict[str, str]) -> None:
        k = min(NEIGHBOURS, len(self.store) - 1)
        if k < 1:
            return
        chosen = torch.linspace(0, len(self.store) - 1, min(QUERIES, len(self.store))).long()
        distances, rows = nearest_pixels(
            torch.cat([made, self.store.images[chosen]]), self.store.images, k + 1, self.flip
        )
        others = torch.where(rows[len(made) :, 0] == chosen, distances[len(made) :, 1], distances[len(made) :, 0])
        generated, usual = distances[: len(made), 0].median().item(), others.median().item()
        unit = "the difference per pixel in grey levels (0 to 255)" + (", mirrored or not" if self.flip else "")
        remark = (
            f"Median difference to the nearest of {len(self.store):,}: {generated:.3g} for generated images, "
            f"{usual:.3g} from training images to each other. A first number far below the second means copies."
        )
        pictures = self.store.images[rows[: len(made), :k]]
        save_neighbours(self.folder.nearest, made, pictures, distances[: len(made), :k], unit, remark, about)


def nearest_pixels(
    images: Tensor, among: Tensor, k: int, mirrored: bool = False
) -> tuple[Tensor, Tensor]:  # uint8 (n, C, H, W), (m, C, H, W) -> (n, k), (n, k)
    """The ``k`` images of ``among`` whose pixels differ least: root mean square differences, ascending, and indices.

    Args:
        images: the queries.
        among: the images to search, in memory or mapped.
        k: at most m.
        mirrored: also compare with the mirror image of each query, and take the smaller difference.
    """
    views = torch.stack([images, images.flip(-1)] if mirrored else [images]).flatten(2)  # (v, n, d)
    best, rows = torch.empty(len(images), 0), torch.empty(len(images), 0, dtype=torch.long)
    for start, part in _parts(among):
        # A matrix product is fast. It errs by less than a tenth of a grey level, so k more are kept than are asked for.
        squares = torch.stack([_squares(view, part) for view in views]).amin(0)
        best = torch.cat([best, squares], 1)
        rows = torch.cat([rows, torch.arange(start, start + len(part)).expand(len(images), -1)], 1)
        best, order = best.topk(min(2 * k, best.shape[1]), largest=False)
        rows = rows.gather(1, order)
    candidates = among[rows].flatten(2).double()  # (n, 2 k, d)
    exact = torch.stack([(candidates - view[:, None].double()).square().mean(-1) for view in views]).amin(0).sqrt()
    distances, order = exact.topk(min(k, exact.shape[1]), largest=False)
    return distances, rows.gather(1, order)


def _squares(images: Tensor, among: Tensor) -> Tensor:  # (n, d), (m, d) -> (n, m)
    left, right = images.float() - 127.5, among.float() - 127.5  # smaller numbers round less
    return left.square().sum(1)[:, None] + right.square().sum(1) - 2 * left @ right.T


def _parts(images: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Position and pixels of a few images at a time."""
    size = max(1, CHUNK // images[0].nbytes)
    for start in range(0, len(images), size):
        yield start, images[start : start + size].flatten(1)
