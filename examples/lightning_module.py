"""A Lightning module: digits from 300 labels. Coded-smoothing adds four lines to it:

    self.coded = CodedSmoothing(self, blocks=["network"], ratio=Linear(1.0, 1.5))
    self.coded.set_step(self.global_step, self.trainer.max_steps)
    with self.coded.observe():
    loss = loss + self.weight * self.coded.penalty()

With a constant ratio you don't need the second line. State dict and checkpoints do not change.
"""

import argparse

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from cs_gan import CodedSmoothing, Linear


class Classifier(L.LightningModule):
    """A small network for digits of 8 x 8 pixels."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.penalties: list[float] = []
        self.network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
        self.coded = CodedSmoothing(self, blocks=["network"], ratio=Linear(1.0, 1.5))  # coded 1/4

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """Cross-entropy and the penalty of the logits."""
        x, y = batch
        self.coded.set_step(self.global_step, self.trainer.max_steps)  # coded 2/4
        with self.coded.observe():  # coded 3/4
            logits = self.network(x)
        loss = cross_entropy(logits, y)
        loss = loss + self.weight * self.coded.penalty()  # coded 4/4
        self.log("coded_penalty", self.coded.penalty())
        if self.global_step % max(1, self.trainer.max_steps // 10) == 0:
            self.penalties.append(self.coded.penalty().item())
            print(f"step {self.global_step:4d}  loss {loss:.3f}  coded penalty {self.penalties[-1]:.1e}")
        return loss

    def test_step(self, batch: list[Tensor], index: int) -> None:
        """Accuracy."""
        x, y = batch
        self.log("accuracy", (self.network(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def train(steps: int, seed: int, weight: float) -> nn.Module:
    """Train a classifier, print its progress, and return it."""
    L.seed_everything(seed, verbose=False)
    x, y = load_digits(return_X_y=True)
    data = TensorDataset(torch.from_numpy(x).float() / 16, torch.from_numpy(y))
    few, held_out = torch.utils.data.random_split(data, [300, len(data) - 300])
    # A spline needs at least two samples, so no short last batch.
    loader = DataLoader(few, batch_size=64, shuffle=True, drop_last=True)
    model = Classifier(weight)
    trainer = L.Trainer(max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(model, loader)
    accuracy = trainer.test(model, DataLoader(held_out, batch_size=256), verbose=False)[0]["accuracy"]
    print(f"coded penalty {model.penalties[0]:.1e} -> {model.penalties[-1]:.1e},", end=" ")
    print(f"accuracy on the other {len(held_out)} digits {accuracy:.1%}")
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weight", type=float, default=0.5, help="of the coded penalty; 0 is plain training")
    train(**vars(parser.parse_args()))
