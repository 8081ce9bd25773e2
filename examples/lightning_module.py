"""A Lightning module on batches from a pack: `gs.Loader` is the loader, batches reach the module as they are.

    python examples/lightning_module.py packs/cora --classes 7 --epochs 20          needs: pip install pytorch-lightning

Lightning moves batches itself where they have `to(device)`, which ours have. For a run that goes on after a kill with
the same weights, use `gs.train`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import gnnsys as gs


class Classifier(lightning.LightningModule):
    """Cross-entropy of any network that takes a `gs.Batch`."""

    def __init__(self, net: nn.Module, loader: gs.Loader, lr: float = 0.01) -> None:
        super().__init__()
        self.net, self.loader, self.lr = net, loader, lr

    def training_step(self, batch: gs.Batch, _index: int) -> Tensor:
        loss = cross_entropy(self.net(batch.x, batch.blocks), batch.y, ignore_index=-1)
        self.log("loss", loss, batch_size=batch.batch_size, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def on_train_epoch_start(self) -> None:
        self.loader.set_epoch(self.current_epoch)  # another order in every epoch


def main(options: argparse.Namespace) -> None:
    lightning.seed_everything(0)
    with gs.Loader(options.pack) as loader:
        first = loader.largest_batch()
        net = gs.build(
            "sage",
            in_channels=first.x.shape[1],
            hidden_channels=64,
            num_layers=len(first.blocks),
            out_channels=options.classes,
        )
        trainer = lightning.Trainer(
            max_epochs=options.epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Classifier(net, loader), loader)
    torch.save(net.state_dict(), options.out)
    print(f"loss {float(trainer.callback_metrics['loss']):.4f}, weights in {options.out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="train with Lightning")
    parser.add_argument("pack", type=Path)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("model.pt"))
    main(parser.parse_args())
