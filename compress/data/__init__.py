"""Sources of rows, and the `Dataset` that they produce."""

from compress.data.dataset import Dataset, Split
from compress.data.files import Files
from compress.data.hub import Hub
from compress.data.source import Data
from compress.data.tweets import Tweets

__all__ = ["Data", "Dataset", "Files", "Hub", "Split", "Tweets"]
