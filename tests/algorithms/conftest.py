"""What the tests of networks share: images to learn from."""

import pytest

from mpips.dataserver.spec import DataSpec
from tests.images import write_shapes


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of shapes, as a job file has them, and their folder."""
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder)
    names = ("train-images-idx3-ubyte.gz",), ("t10k-images-idx3-ubyte.gz",)
    return DataSpec(format="idx", files=names[0], test_files=names[1], batch=20), folder
