"""Groups of processes that train and measure, and leave in a folder what came of it; `laws/test_processes.py` compares.

python process_group.py <folder> <folder of images> <float64, float32 or differ> <number of processes>:<port> ...

One group after the other, forked from this process, which has imported all they need.
"""

import functools
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "vq": {"quantizer_options": {"entropy_temperature": 0.1}, "entropy_weight": 0.05},
    "ema": {"quantizer": "ema"},
    "ibq": {"quantizer": "ibq", "entropy_weight": 0.05},
    "lfq": {"quantizer": "lfq"},
    "bsq": {"quantizer": "bsq"},
    "gan": {
        "discriminator": "patchgan",
        "discriminator_options": {"hidden_dim": 8, "num_layers": 1, "norm": "none"},
        "adversarial_weight": 0.5,
        "adversarial_adaptive": True,
        "adversarial_start": 5,
        "lecam_weight": 0.01,
        "lecam_logits": "mean",
        "r1_weight": 0.1,
        "r1_every": 4,
        "ema_decay": 0.9,
        "accumulate": 2,
        "gradient_clip": 1.0,
    },
}
STEPS, STOPPED_AT = 30, 10


def compute_in_float64() -> None:
    """Make what asks for float32 get float64, before the package is imported."""
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float64
    torch.Tensor.float = torch.Tensor.double


def config(images: str, **settings: Any) -> Any:
    from vistok import TrainConfig

    small = {
        "dataset": "folder",
        "data_root": images,
        "image_size": 16,
        "hidden_dim": 8,
        "num_res_blocks": 1,
        "seed": 0,
    }
    small |= {
        "codebook_size": 16,
        "codebook_dim": 4,
        "batch_size": 12,
        "steps": STEPS,
        "lr": 1e-3,
        "precision": "float32",
    }
    return TrainConfig(**(small | {"report_every": 5, "checkpoint_every": 1000} | settings))


def train(out: Path, images: str) -> None:
    from vistok import Run, Trainer

    world = os.environ["WORLD_SIZE"]
    for kind, settings in KINDS.items():
        trainer = Trainer(Run.open(out / f"{kind}-{world}", config(images, **settings)), progress=False)
        for _ in trainer:
            pass
        assert (
            int(trainer.counts[0].sum()) == 5 * 12 * 16
        )  # of all processes: steps, images and tokens since the last report
    # Begun by two and ended by three; the second of them is asked to stop, and all end at one step.
    trainer = Trainer(Run.open(out / "resumed", config(images)), progress=False)
    take = trainer.train_step

    def train_step(batch: torch.Tensor) -> Any:
        if os.environ["RANK"] == "1" and trainer.step == STOPPED_AT - 5:
            trainer.stop()
        return take(batch)

    if world == "2":
        trainer.train_step = train_step
    if world in "23":
        begun = trainer.step
        for _ in trainer:
            pass
        if world == "2":  # they agree on it within 10 steps, where these are fast
            assert begun == 0 and STOPPED_AT - 5 < trainer.step <= STOPPED_AT
        else:
            assert STOPPED_AT - 5 < begun <= STOPPED_AT and trainer.step == STEPS


def first_gradients(out: Path, images: str) -> None:
    """Save the gradients of the first step, of both sides."""
    from vistok import Run, Trainer

    for kind in ("vq", "ema", "gan"):
        at_once = {"adversarial_start": 0, "gradient_clip": None} if kind == "gan" else {}
        trainer = Trainer(Run.open(None, config(images, **(KINDS[kind] | at_once | {"steps": 1}))), progress=False)
        gradients: dict[str, torch.Tensor] = {}
        keep_gradients(trainer.tokenizer, trainer.optimizer, gradients)
        if trainer.adversary:
            keep_gradients(trainer.adversary.discriminator, trainer.adversary.optimizer, gradients)
        for _ in trainer:
            pass
        if os.environ["RANK"] == "0":
            torch.save(gradients, out / f"gradients-{kind}-{os.environ['WORLD_SIZE']}.pt")


def keep_gradients(model: torch.nn.Module, optimizer: Any, into: dict[str, torch.Tensor]) -> None:
    """Make an optimiser's step keep the gradients that it is taken with."""
    step = optimizer.step

    def keeping() -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                into[f"{type(model).__name__}.{name}"] = parameter.grad.clone()
        step()

    optimizer.step = keeping


def measure(out: Path, images: str) -> None:
    """Save the record of 17 images in batches of 4, which nothing shares evenly, and of 2: fewer than processes."""
    import vistok.evaluation.measuring
    from vistok import VisualTokenizer, evaluate
    from vistok.data import open_dataset, to_float

    measuring = vistok.evaluation.measuring
    measuring.CodebookUsage = functools.partial(measuring.CodebookUsage, queue_size=75)
    torch.manual_seed(0)
    tokenizer = VisualTokenizer.from_config(config(images))
    first = to_float(open_dataset("folder", "train", 16, data_root=images).images(range(1)))
    with torch.no_grad():  # codes are tokens of the first image, so that most are chosen
        tokenizer.quantizer.weight.copy_(tokenizer.encoder(first)[0].flatten(1).T)
    for number in (17, 2):
        record = evaluate(
            tokenizer,
            "folder",
            data_root=images,
            split="train",
            max_images=number,
            batch_size=4,
            rfid_weights=out / "inception.pth" if (out / "inception.pth").is_file() else None,
            rfid=(out / "inception.pth").is_file(),
            lpips="off",
            progress=False,
        )
        if os.environ["RANK"] == "0":
            values = record.to_dict() | {"counts": [of_codes.tolist() for of_codes in record.counts]}
            (out / f"metrics-{number}-{os.environ['WORLD_SIZE']}.json").write_text(json.dumps(values))


def differ(out: Path, images: str) -> None:
    """Save what each process says where they do not have the same: a checkpoint, a metric's weights."""
    from vistok import Run, Trainer, VisualTokenizer, evaluate

    rank = os.environ["RANK"]
    for _ in Trainer(Run.open(out / "together", config(images, steps=5)), progress=False):
        pass
    mine = out / f"alone-{rank}"  # as on a disk of each machine's own
    if rank == "0":
        shutil.copytree(out / "together", mine)
    try:
        for _ in Trainer(Run.open(mine, config(images, steps=5)), progress=False):
            pass
        (out / f"said-{rank}.txt").write_text("trained")
    except ValueError as error:
        (out / f"said-{rank}.txt").write_text(str(error))

    options = {"rfid": True, "rfid_weights": out / "inception.pth"} if rank == "0" else {"rfid": False}
    tokenizer = VisualTokenizer.from_config(config(images))
    record = evaluate(tokenizer, "folder", data_root=images, split="train", lpips="off", progress=False, **options)
    (out / f"metrics-{rank}.json").write_text(json.dumps(record.to_dict()))


def work(folder: Path, images: str, kind: str) -> None:
    """Do as one process of a group."""
    from vistok.system.processes import process_state

    state = process_state()
    assert state.num_processes == int(os.environ["WORLD_SIZE"])
    if kind == "float64":
        train(folder, images)
    elif kind == "float32":
        first_gradients(folder, images)
        measure(folder, images)
    else:
        differ(folder, images)
    state.destroy_process_group()


def forked(act: Callable[[], None], environment: dict[str, str]) -> int:
    """Start a child that acts; return its process id."""
    if (child := os.fork()) == 0:
        os.environ.update(environment)
        status = 1
        try:
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)
    return child


if __name__ == "__main__":
    folder, images, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    if kind == "float64":
        compute_in_float64()
    import torch._dynamo  # the first optimiser imports it

    for group in sys.argv[4:]:
        world, port = group.split(":")
        shared = {"WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        shared["VISTOK_RUNS"] = str(folder / f"runs-{world}")
        ranks = [
            forked(lambda: work(folder, images, kind), shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(int(world))
        ]
        ended = [os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks]
        assert not any(ended), f"the processes ended with {ended}"
