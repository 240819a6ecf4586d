import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpips.checkpoint import direct
from mpips.checkpoint.column import Column, fletcher32
from mpips.checkpoint.layout import LIBVER


def hdf5_fletcher32(words, folder):
    """The checksum that HDF5 itself stores behind a chunk."""
    with h5py.File(folder / "peer.h5", "w") as file:
        dataset = file.create_dataset("x", data=words, chunks=words.shape, fletcher32=True)
        file.flush()
        _, raw = dataset.id.read_direct_chunk((0,))
    return int(np.frombuffer(raw[-4:], "<u4")[0])


@pytest.mark.parametrize("fill", [0, 1, 0xFF00, 0x00FF, 0xFFFF, "random"])
@pytest.mark.parametrize("size", [2, 128, 130, 65_535, 100_000])
def test_checksum_is_the_one_hdf5_computes(fill, size, tmp_path):
    words = np.full(size, 0 if fill == "random" else fill, "<u2")
    if fill == "random":
        words = np.random.default_rng(size).integers(0, 65_536, size, dtype=np.uint16)
    assert fletcher32(words) == hdf5_fletcher32(words, tmp_path)


@pytest.fixture(params=["directly", "by h5py"], scope="module")
def written(request):
    """How chunks are written: without Python's lock, or as where HDF5's library can't be found."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "by h5py":
            patch.setattr(direct, "_write_chunk", lambda: None)
        else:
            assert direct._write_chunk() is not None
        yield


@pytest.mark.usefixtures("written")
@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 25), max_size=12), st.sampled_from([(), (1,), (3,), (2, 2)]), st.sampled_from([0, 1, 9]))
def test_rows_appended_in_any_pieces_are_read_back(tmp_path_factory, pieces, row, compression):
    path = tmp_path_factory.mktemp("column") / "x.h5"
    rows = np.random.default_rng(0).standard_normal((sum(pieces), *row))
    with h5py.File(path, "w", libver=LIBVER) as file:
        column = Column(file, "x", row, "<f8", 8, compression)
        lo = 0
        for n in pieces:
            column.append(rows[lo : lo + n])
            lo += n
        assert column.rows == len(rows)
        column.close()
    with h5py.File(path) as file:
        assert file["x"].fletcher32
        assert file["x"].compression_opts == (compression or None)
        np.testing.assert_array_equal(file["x"][:], rows)


def test_zeros_take_little_room_when_compressed(tmp_path):
    rows = np.zeros(100_000)
    rows[::1000] = np.random.default_rng(0).standard_normal(100)
    sizes = []
    for compression in (0, 1):
        path = tmp_path / f"{compression}.h5"
        with h5py.File(path, "w", libver=LIBVER) as file:
            column = Column(file, "x", (), "<f8", 20_000, compression)
            column.append(rows)
            column.close()
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["x"][:], rows)
        sizes.append(path.stat().st_size)
    assert sizes[1] < sizes[0] / 20


def test_a_chunk_that_cannot_be_written_is_said(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("x", (4,), "<f4", chunks=(4,))
        with pytest.raises(OSError, match=r"chunk|offset"):
            direct.write_chunk(dataset, 3, np.zeros(16, np.uint8))  # no chunk begins there
