"""rFID and the inception score as torch-fidelity computes them on two folders of PNG files."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys, torch_fidelity
images, others, weights, *metrics = sys.argv[1:]
print(json.dumps(torch_fidelity.calculate_metrics(
    input1=images, input2=others, feature_extractor_weights_path=weights,
    cuda=False, cache=False, save_cpu_ram=True, verbose=False, **dict.fromkeys(metrics, True),
)))
"""


def measured_by_torch_fidelity(
    images: str | Path, others: str | Path, weights: Path, *metrics: str
) -> dict[str, float]:
    """In a process of its own with one thread for numpy: on busy cores its eigenvalues take a minute with two."""
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, images, others, weights, *metrics],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout.splitlines()[-1])


def rfid_of_torch_fidelity(images: str | Path, reconstructions: str | Path, weights: Path) -> float:
    """The Frechet distance."""
    return measured_by_torch_fidelity(images, reconstructions, weights, "fid")["frechet_inception_distance"]
