"""How fast a generator trains, against a plain transformer of its size, and draws with its cache, against drawing without it.

    PYTHONPATH=tests python -m benchmarks.bench_generation

The plain transformer is nanoGPT's shape in the fewest lines: layer norms, learned positions, GELU, PyTorch's causal attention,
AdamW as it comes, gradients clipped, in float32. All take the same batches of 64 tokens in turns, and the fastest step of each
counts. Drawn are 8 images of 256 tokens. Peak memory is that of a process of its own.
"""

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from benchmarks.harness import peak_memory_mib, print_rows, report_memory, row
from torch import Tensor, nn

from vistok import Run
from vistok.generation.generator import UNKNOWN, Autoregressive
from vistok.generation.sampling import Sampling, uniform_numbers
from vistok.generation.trainer import GeneratorTrainer
from vistok.generator_config import SIZES, GeneratorConfig

BATCH_SIZE, NUM_TURNS, SIDE, K, SIZE = 64, 8, 8, 512, "1m"
PLAIN, FLOAT32, AUTO = "plain float32 eager step", "GeneratorTrainer.train_step, float32", "the same, precision auto"


class PlainBlock(nn.Module):
    """A block of nanoGPT's."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.out(mixed))
        return x + self.dropout(self.mlp(self.norm2(x)))


def run() -> list[dict[str, Any]]:
    """Measure training and drawing; returns rows with case, value, unit, goal and peak_memory_mib."""
    seconds = dict.fromkeys((PLAIN, FLOAT32, AUTO), float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        steps = {name: _step(name, Path(folder)) for name in seconds}
        for turn in range(NUM_TURNS):
            tokens = _tokens(turn)
            for name, step in steps.items():
                start = time.perf_counter()
                step(tokens)
                if turn >= 2:  # the first ones choose kernels and allocate
                    seconds[name] = min(seconds[name], time.perf_counter() - start)
    rows = [
        row(f"{name}, {SIZE}", BATCH_SIZE * SIDE**2 / of, "tokens/s", memory=peak_memory_mib(__file__, name))
        for name, of in seconds.items()
    ]
    for name in (FLOAT32, AUTO):
        rows.append(row(f"{name}, against the plain step", seconds[PLAIN] / seconds[name], "x", goal=1.0))
    drawn = {name: min(_seconds(draw) for _ in range(2)) for name, draw in (("with", _with), ("without", _without))}
    rows += [row(f"drawing {name} the cache", 8 * 256 / of, "tokens/s") for name, of in drawn.items()]
    rows.append(row("drawing with the cache, against without", drawn["without"] / drawn["with"], "x", goal=5))
    return rows


def _tokens(seed: int) -> Tensor:
    return torch.randint(K, (BATCH_SIZE, SIDE**2, 1), generator=torch.Generator().manual_seed(seed))


def _step(name: str, folder: Path) -> Callable[[Tensor], Any]:
    if name == PLAIN:
        return _plain()
    tokens = folder / "tokens"
    if not tokens.exists():
        _write_tokens(tokens)
    config = GeneratorConfig(tokens=str(tokens), size=SIZE, batch_size=BATCH_SIZE, precision="float32")
    config = dataclasses.replace(config, precision="auto") if name == AUTO else config
    trainer = GeneratorTrainer(Run.open(folder / name.partition(", ")[2], config), progress=False)
    return lambda places: trainer.train_step((places, None))


def _write_tokens(folder: Path) -> None:
    """Write a file of tokens by hand: what is in it is not trained on here."""
    folder.mkdir()
    rows = _tokens(0).numpy().astype(np.uint16).reshape(BATCH_SIZE, SIDE, SIDE)
    np.save(folder / "tokens.npy", rows)
    header = {
        "format": "vistok tokens 1",
        "shape": list(rows.shape),
        "dtype": "uint16",
        "codebook_sizes": [K],
        "level_shapes": [[SIDE, SIDE]],
        "image_size": 4 * SIDE,
        "flips": False,
        "tokenizer": {"settings": {}, "weights_sha256": ""},
        "dataset": {"name": "random", "split": "train", "num_images": BATCH_SIZE, "fingerprint": ""},
        "num_images_done": BATCH_SIZE,
    }
    (folder / "tokens.json").write_text(json.dumps(header), encoding="utf-8")


def _plain() -> Callable[[Tensor], None]:
    torch.manual_seed(0)
    dim, depth, heads = (SIZES[SIZE][name] for name in ("hidden_dim", "depth", "num_heads"))
    embedding, positions = nn.Embedding(K + 1, dim), nn.Embedding(SIDE**2, dim)
    blocks = nn.Sequential(*(PlainBlock(dim, heads) for _ in range(depth)), nn.LayerNorm(dim))
    head = nn.Linear(dim, K, bias=False)
    model = nn.ModuleList([embedding, positions, blocks, head])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(places: Tensor) -> None:
        tokens = places[..., 0]
        x = torch.cat([torch.full((BATCH_SIZE, 1), K), tokens[:, :-1]], dim=1)
        logits = head(blocks(embedding(x) + positions.weight))
        loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _generator() -> Autoregressive:
    torch.manual_seed(0)
    return Autoregressive(codebook_sizes=[K], level_shapes=[[16, 16]], image_size=64, **SIZES[SIZE]).eval()


def _with() -> Tensor:
    return _generator().sample(range(8))


@torch.no_grad()
def _without() -> Tensor:
    made, how = _generator(), Sampling()
    places, uniform = torch.zeros(8, 0, 1, dtype=torch.int64), uniform_numbers(range(8), (256, 1), torch.device("cpu"))
    for place in range(256):
        state = made.transformer(made.class_numbers(None, 8), places)[:, -1:]
        free = torch.full((8, 1, 1), UNKNOWN)
        places = torch.cat([places, made._draw_place(state, uniform[:, place : place + 1], free, how)[0]], dim=1)
    return made.layout.to_indices(places)


def _seconds(draw: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    draw()
    return time.perf_counter() - start


def _take_steps(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        step = _step(name, Path(folder))
        for turn in range(3):
            step(_tokens(turn))


if __name__ == "__main__":
    if not report_memory(sys.argv, _take_steps):
        print_rows(run())
