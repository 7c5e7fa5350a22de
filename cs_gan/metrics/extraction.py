"""From batches of images to features and logits, in one or several processes."""

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
    """An extractor for images of one size."""

    extractor: LoadedExtractor
    device: torch.device
    image_size: tuple[int, ...]  # (H, W)
    batch_size: int  # images per forward pass
    progress: bool  # show a progress bar (only in the first process)

    def read(
        self, batches: Iterable[Tensor], count: int, title: str, quiet: bool = False
    ) -> tuple[Tensor, ...]:  # of uint8 (B, C, H, W) -> (count, d) and, if it has classes, (count, classes)
        """Features and, if the extractor has them, logits of ``count`` images, on the CPU.

        Raises:
            MetricError: images of another size.
        """
        if count == 0:  # an empty share: the widths are unknown, and nobody needs them
            return (torch.empty(0, 0),) * (2 if self.extractor.spec.logit_layer else 1)
        outputs = []
        module: Callable[[Tensor], tuple[Tensor, ...]] = self.extractor.module
        with tqdm(total=count, desc=title, unit="img", leave=False, disable=quiet or not self.progress) as bar:
            for batch in batches:
                if tuple(batch.shape[2:]) != self.image_size:
                    raise MetricError(
                        f"images of {tuple(batch.shape[2:])} pixels against reference images of {self.image_size}: "
                        "extractors resize, so the score would also measure the resizing"
                    )
                # Autocast around the training loop must not reach the scores.
                with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                    outputs.append([output.cpu() for output in module(as_rgb(batch.to(self.device)))])
                bar.update(len(batch))
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))

    def read_together(
        self, processes: Processes, batches: Callable[[range], Iterable[Tensor]], count: int, title: str
    ) -> tuple[Tensor, ...] | None:
        """Collective: each process reads its share. The first returns the outputs of all, the others None.

        ``batches`` returns the images at the given positions, in batches of ``batch_size``; ``count`` is their total
        number.

        Raises:
            MetricError: images of another size, or a failure in any process.
        """
        share = processes.share(count, self.batch_size)
        with processes.together():
            part = self.read(batches(share), len(share), title, quiet=processes.rank > 0)
        gathered = [processes.gather(output, count, self.batch_size) for output in part]
        return tuple(output for output in gathered if output is not None) if processes.rank == 0 else None
