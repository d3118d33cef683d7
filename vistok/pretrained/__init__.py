"""Official checkpoints into a `VisualTokenizer`: `load_pretrained`, and what is known of the checkpoints."""

from vistok.pretrained.loading import (
    FORMATS,
    checkpoint_path,
    find_format,
    load_pretrained,
    official_file,
    reference_checkpoints,
)

__all__ = ["FORMATS", "checkpoint_path", "find_format", "load_pretrained", "official_file", "reference_checkpoints"]
