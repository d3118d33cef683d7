"""rFID as torch-fidelity computes it on two folders of PNG files."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys, torch_fidelity
images, reconstructions, weights = sys.argv[1:]
print(json.dumps(torch_fidelity.calculate_metrics(
    input1=images, input2=reconstructions, feature_extractor_weights_path=weights,
    fid=True, cuda=False, cache=False, save_cpu_ram=True, verbose=False,
)))
"""


def rfid_of_torch_fidelity(images: str | Path, reconstructions: str | Path, weights: Path) -> float:
    """In a process of its own with one thread for numpy: on busy cores its eigenvalues take a minute with two."""
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, images, reconstructions, weights],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout.splitlines()[-1])["frechet_inception_distance"]
