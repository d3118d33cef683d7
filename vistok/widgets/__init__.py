"""Widgets of the notebooks: what one can look into and change, with a picture where no kernel runs.

encoded = open_encoded("runs/my-run", "photos")   # a tokenizer and images; or why there is nothing to look at
CodebookExplorer(encoded)
"""

from vistok.widgets.coarse_to_fine import CoarseToFine
from vistok.widgets.comparison import RunComparison
from vistok.widgets.curves import RunCurves
from vistok.widgets.dashboard import TrainingDashboard
from vistok.widgets.editor import TokenEditor
from vistok.widgets.explorer import CodebookExplorer, show_maps
from vistok.widgets.gallery import QuantizerGallery
from vistok.widgets.places import PlaceExplorer
from vistok.widgets.plane import PlaneExplorer
from vistok.widgets.reconstructions import ReconstructionViewer
from vistok.widgets.sampler import Sampler
from vistok.widgets.sortable import SortableTable
from vistok.widgets.space import CodebookSpace
from vistok.widgets.try_picture import TryPicture
from vistok.widgets.view import Refusal, open_encoded

__all__ = [
    "CoarseToFine",
    "CodebookExplorer",
    "CodebookSpace",
    "PlaceExplorer",
    "PlaneExplorer",
    "QuantizerGallery",
    "ReconstructionViewer",
    "Refusal",
    "RunComparison",
    "RunCurves",
    "Sampler",
    "SortableTable",
    "TokenEditor",
    "TrainingDashboard",
    "TryPicture",
    "open_encoded",
    "show_maps",
]
