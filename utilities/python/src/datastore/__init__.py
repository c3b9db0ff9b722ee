"""Client of datastore-node: `DatastoreConnector`, and `AsyncDatastoreConnector` for asyncio."""

from .aio import AsyncDatastoreConnector as AsyncDatastoreConnector
from .arguments import NOT_GIVEN as NOT_GIVEN
from .connector import DatastoreConnector as DatastoreConnector
from .errors import *  # noqa: F403 - the names of its __all__
from .pipeline import AsyncPipeline as AsyncPipeline
from .pipeline import Pipeline as Pipeline
from .request import Handle as Handle
from .results import BulkWritten as BulkWritten
from .results import Cluster as Cluster
from .results import Entry as Entry
from .results import Hello as Hello
from .results import Page as Page
from .results import ScanItem as ScanItem
from .results import Snapshot as Snapshot
from .results import VectorEntry as VectorEntry
