import time

import numpy as np
import pytest
from scipy import interpolate

from cs_gan.core import bands
from cs_gan.core.nodes import coded_nodes, data_nodes

FAMILIES = ("chebyshev", "uniform", "random")
# Every small n, then sizes where windows are narrower than the matrix, and points both fewer and many more.
SIZES = [(n, m) for n in (*range(2, 12), 31, 64, 129, 300) for m in (2, 3, n, n + 1, 3 * n // 2, 4 * n)]


def increasing(family, n, m):
    """Both ways of using a code: from data nodes to coded nodes, and back."""
    alpha, beta = -data_nodes(family, n), -coded_nodes(family, m)
    return [(alpha, beta), (beta, alpha)]


@pytest.mark.parametrize("family", FAMILIES)
def test_natural_equals_scipys_spline_of_the_unit_vectors(family):
    for n, m in SIZES:
        for nodes, points in increasing(family, n, m):
            expected = interpolate.CubicSpline(nodes, np.eye(len(nodes)), bc_type="natural")(points)
            # Both are a few dozen roundings of numbers below 2; 1.6e-15 was the worst seen.
            np.testing.assert_allclose(bands.natural(nodes, points).dense(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("family", FAMILIES)
def test_linear_equals_numpys(family):
    for n, m in SIZES:
        for nodes, points in increasing(family, n, m):
            inside = points.clip(nodes[0], nodes[-1])  # numpy does not extrapolate
            expected = np.stack([np.interp(inside, nodes, unit) for unit in np.eye(len(nodes))], axis=1)
            found = bands.linear(nodes, points).dense()
            np.testing.assert_allclose(found[points == inside], expected[points == inside], rtol=0, atol=1e-14)
            np.testing.assert_allclose(found @ nodes, points, rtol=0, atol=1e-13)  # a line goes on


def test_a_large_batch_equals_scipys_too():
    for nodes, points in increasing("chebyshev", 512, 768):
        expected = interpolate.CubicSpline(nodes, np.eye(len(nodes)), bc_type="natural")(points)
        np.testing.assert_allclose(bands.natural(nodes, points).dense(), expected, rtol=0, atol=1e-14)


def test_nodes_that_are_far_from_even_are_exact_as_well():
    nodes = np.concatenate([np.geomspace(1e-6, 1, 40), 1 + np.arange(1, 40)])
    points = np.random.default_rng(0).uniform(-0.1, 41, 200)
    expected = interpolate.CubicSpline(nodes, np.eye(len(nodes)), bc_type="natural")(points)
    found = bands.natural(nodes, points).dense()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max())


def test_encoder_and_decoder_of_4096_samples_take_a_fraction_of_a_second_and_no_dense_matrix():
    seconds = []
    for _ in range(3):
        start = time.process_time()
        pair = [bands.natural(nodes, points) for nodes, points in increasing("chebyshev", 4096, 6144)]
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3  # 0.05 measured; scipy on the unit vectors takes 10
    assert all(matrix.narrow and matrix.weights.shape[1] < 100 for matrix in pair)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("height", [1, 7, 64, 1000])
@pytest.mark.parametrize(("n", "m"), [(5, 9), (200, 300), (300, 12)])
def test_blocks_put_together_are_the_matrix(n, m, height, transposed):
    for nodes, points in increasing("chebyshev", n, m):
        for build in (bands.natural, bands.linear):
            matrix = build(nodes, points)
            expected = matrix.dense().T if transposed else matrix.dense()
            found, next_row = np.zeros_like(expected), 0
            for block in matrix.blocks(height, 1e-10, transposed):
                top, bottom, low, high = block.window
                assert (top, bottom - top) == (next_row, min(height, len(expected) - top))
                found[top:bottom, low:high], next_row = block.weights, bottom
            assert next_row == len(expected)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_blocks_leave_out_most_of_a_large_matrix():
    (nodes, points), _ = increasing("chebyshev", 1024, 1536)
    for transposed in (False, True):
        blocks = list(bands.natural(nodes, points).blocks(32, 2e-9, transposed))
        assert sum(block.weights.size for block in blocks) < 0.06 * 1024 * 1536  # 0.049


def test_a_dense_matrix_is_all_window():
    matrix = np.random.default_rng(0).normal(size=(6, 9))
    assert not bands.Bands.of(matrix).narrow
    np.testing.assert_array_equal(bands.Bands.of(matrix).dense(), matrix)
    blocks = list(bands.Bands.of(matrix).blocks(4, 0.0, transposed=True))
    np.testing.assert_array_equal(np.concatenate([block.weights for block in blocks]), matrix.T)
