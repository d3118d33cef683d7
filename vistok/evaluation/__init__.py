"""A tokenizer and a dataset to a record of metrics: measured in one pass, recorded, and filed beside a run or a checkpoint."""

from typing import TYPE_CHECKING

from vistok.system.lazy import lazily

if TYPE_CHECKING:
    from vistok.evaluation.codecs import CodecPoint, measure_codec
    from vistok.evaluation.measuring import check_options, evaluate
    from vistok.evaluation.record import Evaluation
    from vistok.evaluation.run_records import check_results, evaluate_run, images_of_run, save_record
    from vistok.evaluation.subjects import Subject, open_subject

__all__ = [
    "CodecPoint",
    "Evaluation",
    "Subject",
    "check_options",
    "check_results",
    "evaluate",
    "evaluate_run",
    "images_of_run",
    "measure_codec",
    "open_subject",
    "save_record",
]
__getattr__, __dir__ = lazily(
    __name__,
    {
        "vistok.evaluation.codecs": ["CodecPoint", "measure_codec"],
        "vistok.evaluation.measuring": ["check_options", "evaluate"],
        "vistok.evaluation.record": ["Evaluation"],
        "vistok.evaluation.run_records": ["check_results", "evaluate_run", "images_of_run", "save_record"],
        "vistok.evaluation.subjects": ["Subject", "open_subject"],
    },
)
