"""From batches of images to features and logits, in one process or shared among several."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from cs_gan.errors import MetricError
from cs_gan.metrics.extractors import LoadedExtractor
from cs_gan.metrics.images import as_rgb
from cs_gan.metrics.sharding import Processes


@dataclass(frozen=True)
class FeatureReader:
    """An extractor at work on images of one size.

    Attributes:
        extractor: what reads them.
        device: where it is.
        image_size: (H, W) of every image.
        batch_size: images per forward pass.
        progress: show a bar; of several processes only the first does.
    """

    extractor: LoadedExtractor
    device: torch.device
    image_size: tuple[int, ...]
    batch_size: int
    progress: bool

    def read(
        self, batches: Iterable[Tensor], count: int, title: str, quiet: bool = False
    ) -> tuple[Tensor, ...]:  # of uint8 (B, C, H, W) -> (count, d) and, if it has classes, (count, classes)
        """Features and, if the extractor has them, logits of ``count`` images, on the CPU.

        Raises:
            MetricError: images of another size.
        """
        if count == 0:  # an empty share: the widths are unknown, and no one asks for them
            return (torch.empty(0, 0),) * (2 if self.extractor.spec.logit_layer else 1)
        outputs = []
        module: Callable[[Tensor], tuple[Tensor, ...]] = self.extractor.module
        with tqdm(total=count, desc=title, unit="img", leave=False, disable=quiet or not self.progress) as bar:
            for batch in batches:
                if tuple(batch.shape[2:]) != self.image_size:
                    raise MetricError(
                        f"images of {tuple(batch.shape[2:])} pixels against reference images of {self.image_size}: "
                        "extractors resize, so scores across sizes would measure the resizing too"
                    )
                # Autocast around the training loop must not reach the scores.
                with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                    outputs.append([output.cpu() for output in module(as_rgb(batch.to(self.device)))])
                bar.update(len(batch))
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))

    def read_together(
        self, processes: Processes, batches: Callable[[range], Iterable[Tensor]], count: int, title: str
    ) -> tuple[Tensor, ...] | None:
        """Collective: each process reads its share; the first returns the outputs of all, the others None.

        Args:
            processes: who takes part.
            batches: the images at consecutive positions, in batches of ``batch_size``.
            count: how many images there are in all.
            title: what the progress bar says.

        Raises:
            MetricError: images of another size, or a failure in any process.
        """
        share = processes.share(count, self.batch_size)
        with processes.together():
            part = self.read(batches(share), len(share), title, quiet=processes.rank > 0)
        gathered = [processes.gather(each, count, self.batch_size) for each in part]
        return tuple(each for each in gathered if each is not None) if processes.rank == 0 else None
