"""The families by the names of their formats: the next one is a file, and a line here."""

import re
from collections.abc import Collection

from vistok.pretrained import ibq, llamagen, maskgit, open_magvit2, taming, titok, visual_tokenizer_pytorch
from vistok.pretrained.formats import Format

# One whose files are also named as another's stands below that one: they are asked from the last to the first.
FORMATS: dict[str, Format] = {
    "taming": taming.FORMAT,
    "llamagen": llamagen.FORMAT,
    "ibq": ibq.FORMAT,
    "maskgit": maskgit.FORMAT,
    "open-magvit2": open_magvit2.FORMAT,
    "titok": titok.FORMAT,
    "visual-tokenizer-pytorch": visual_tokenizer_pytorch.FORMAT,
}
_LOSSES_AND_AVERAGES = r"^(loss|model_ema)\."  # losses with their networks; moving averages, which are chosen before


def find_format(names: Collection[str]) -> str | None:
    """Return the format of a file with tensors of these names; None where it is none of `FORMATS`."""
    return next((name for name in reversed(FORMATS) if FORMATS[name].has(names)), None)


def is_beside_the_tokenizer(name: str) -> bool:
    """Return whether files hold a tensor of this name that is not of the tokenizer, in whichever format."""
    patterns = [_LOSSES_AND_AVERAGES, *(pattern for form in FORMATS.values() for pattern in form.ignored)]
    return any(re.search(pattern, name) for pattern in patterns)
