import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpips.kernels.hashing import hash_bytes, mix64


def test_mix64_is_the_finaliser_of_splitmix64():
    golden = 0x9E3779B97F4A7C15  # the generator's state after one step from the seed 0
    assert mix64(np.uint64(golden)) == 0xE220A8397B1DCDAF


def test_mix64_is_one_to_one_on_small_numbers():
    assert len({mix64(np.uint64(i)) for i in range(10_000)}) == 10_000


@given(cells=st.sets(st.binary(max_size=40), min_size=2), seed=st.integers(0, 9), shift=st.integers(0, 9))
def test_cells_differ_in_their_hash_and_only_their_bytes_count(cells, seed, shift):
    def hashed(cell: bytes, before: int) -> int:
        return hash_bytes(np.frombuffer(b"." * before + cell + b"?", np.uint8), before, before + len(cell), seed)

    assert len({hashed(cell, 0) for cell in cells}) == len(cells)
    assert [hashed(cell, 0) for cell in cells] == [hashed(cell, shift) for cell in cells]
