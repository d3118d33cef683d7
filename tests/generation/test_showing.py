"""Tables of what was measured: numbers in their columns, and a dash where there is none."""

import torch

from vistok.generation.rate import Rate
from vistok.generation.showing import quality_markdown, rate_markdown


def test_a_rate_stands_beside_the_nominal_one() -> None:
    rate = Rate(torch.tensor([40.0, 44.0], dtype=torch.float64), num_tokens=16, nominal_bits=64.0, num_pixels=256)
    heading, _, nominal, found = rate_markdown(rate).splitlines()
    assert heading == "| 2 images | bits an image | bits a token | bits a pixel |"
    assert nominal == "| nominal | 64 | 4.00 | 0.250 |"
    assert found == "| under the generator | 42 | 2.62 | 0.164 |"


def test_samples_stand_above_their_controls() -> None:
    values = {"swd": 44.95, "precision": 0.5, "recall": 0.25, "nearest_distance": 39.5, "nearer_share": 0.06}
    controls = {"real": values | {"swd": None}, "shuffled": None}
    record = {"samples": values, "controls": controls, "settings": {"quantile": 0.1}}
    heading, rule, samples, real, shuffled = quality_markdown(record).splitlines()
    assert heading.endswith("| nearer to one than 90% of test images |") and heading.count("|") == rule.count("|") == 7
    assert samples == "| samples | 45.0 | 0.500 | 0.250 | 39.5 | 6.0% |"
    assert real == "| real | – | 0.500 | 0.250 | 39.5 | 6.0% |"
    assert shuffled == "| shuffled | – | – | – | – | – |"
