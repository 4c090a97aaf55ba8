"""What the trainer's settings contradict: the batch, the processes, the hardware, the length of the run."""

from __future__ import annotations

from collections.abc import Iterator

from ddtl.schema.run import Config
from ddtl.utils import ranks, threads
from ddtl.utils.errors import UserError


def hardware(c: Config) -> Iterator[str]:
    """A line for each contradiction."""
    yield from _averages(c)
    parts = c.trainer.devices * c.trainer.num_nodes * c.trainer.accumulate
    if c.dataset.batch_size % parts:
        up, cores = -(-c.dataset.batch_size // parts) * parts, threads.cores()
        fix = f"Set dataset.batch_size={up}."
        if c.trainer.devices > cores:  # then the batch is hardly what is meant
            fix = f"Set fewer trainer.devices: {c.trainer.devices} are more than the {cores} cores of this machine."
        yield (
            f"dataset.batch_size={c.dataset.batch_size} is the whole batch and cannot be shared out evenly over "
            f"trainer.devices × trainer.num_nodes × trainer.accumulate = {parts}. {fix}"
        )
    if c.trainer.num_nodes > 1 and c.trainer.strategy == "auto" and c.trainer.devices == 1:
        yield "trainer.num_nodes > 1 needs trainer.strategy=ddp."
    else:
        try:
            ranks.assign_process(c.trainer.devices, c.trainer.num_nodes)
        except UserError as error:
            yield str(error)
    if c.trainer.precision == "16-mixed" and c.trainer.accelerator == "cpu":
        yield "trainer.precision=16-mixed needs a GPU; on a CPU use trainer.precision=bf16-mixed or 32."


def _averages(c: Config) -> Iterator[str]:
    k, epochs = c.trainer.average_last, c.trainer.max_epochs
    if k is not None and k > epochs:
        yield f"trainer.average_last={k}: there are trainer.max_epochs={epochs} epochs. Set it to fewer."
    if k is not None and c.trainer.ema is not None:
        yield "trainer.average_last and trainer.ema both average the weights; set one of them to null."
    if k is not None and c.trainer.patience is not None:
        yield "trainer.average_last needs to know the last epochs, which trainer.patience leaves open; set one to null."
