"""The data sets: generators against their closed form, files against every way to be broken."""

import gzip
import hashlib
import io
import struct
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from ngem_tutorial import datasets
from ngem_tutorial.datasets import DatasetError

# --------------------------------------------------------------------------------- generators


@pytest.mark.parametrize(
    ("weights", "size", "expected"),
    [
        ((0.5, 0.5), 200, (100, 100)),
        ((0.9, 0.1), 200, (180, 20)),
        ((0.9, 0.1), 30, (27, 3)),
        ((0.5, 0.5), 3, (2, 1)),
        ((0.55, 0.3, 0.15), 10, (6, 3, 1)),  # quotas 5.5, 3, 1.5: a tie goes to the first
        ((0.41, 0.34, 0.25), 7, (3, 2, 2)),  # quotas 2.87, 2.38, 1.75
        ((0.5, 0.5), 1, (1, 0)),
    ],
)
def test_counts_follow_the_largest_remainder(weights, size, expected):
    means = [(100.0 * k, 0.0) for k in range(len(weights))]
    sample = datasets.two_gaussians(jax.random.key(0), size, weights=weights, means=means)
    nearest = np.rint(np.asarray(sample.y[:, 0]) / 100.0).astype(int)
    assert tuple(np.bincount(nearest, minlength=len(weights))) == expected


def test_two_gaussians_has_the_moments_of_its_truth():
    means, scale = np.array([[-2.0, 1.0], [2.0, 3.0]]), np.array([0.5, 0.25])
    y, truth = datasets.two_gaussians(
        jax.random.key(1), 40_000, weights=(0.7, 0.3), means=means.tolist(), scale=scale.tolist()
    )
    assert y.shape == (40_000, 2)
    component = (np.asarray(y) @ np.array([4.0, 2.0]) > 4.0).astype(int)  # nearer to which mean?
    for k in range(2):
        points = np.asarray(y)[component == k]
        assert len(points) == (28_000, 12_000)[k]
        for d in range(2):
            test = stats.kstest(points[:, d], stats.norm(means[k, d], scale[k]).cdf)
            assert test.pvalue > 1e-3
        assert abs(np.corrcoef(points.T)[0, 1]) < 4 / np.sqrt(len(points))
    np.testing.assert_allclose(np.exp(truth.logits), [0.7, 0.3], rtol=1e-6)
    np.testing.assert_allclose(truth.means, means)
    np.testing.assert_allclose(truth.scales, [[0.5, 0.5], [0.25, 0.25]])


def test_two_gaussians_defaults_are_well_separated_and_shuffled():
    y, truth = datasets.two_gaussians(jax.random.key(2))
    assert y.shape == (200, 2)
    distance = np.linalg.norm(truth.means[0] - truth.means[1])
    assert distance > 10 * np.max(truth.scales)
    component = np.asarray(y[:, 0] > 0)
    runs = 1 + np.sum(component[1:] != component[:-1])  # mean 101, deviation 7 if shuffled
    assert 101 - 5 * 7 < runs < 101 + 5 * 7


@pytest.mark.parametrize(
    ("noise_is", "deviation"), [("variance", np.sqrt(0.1)), ("deviation", 0.1)]
)
def test_two_sinusoids_follows_its_formula(noise_is, deviation):
    x, y, _ = datasets.two_sinusoids(
        jax.random.key(3), 20_000, weights=(0.8, 0.2), noise=0.1, noise_is=noise_is
    )
    assert x.shape == y.shape == (20_000, 1)
    x, y = np.asarray(x, np.float64)[:, 0], np.asarray(y, np.float64)[:, 0]
    assert stats.kstest(x, stats.uniform(0, 4 * np.pi).cdf).pvalue > 1e-3
    apart = np.abs(np.sin(x)) > 0.7  # there the waves are at least 4.4 apart
    first = np.sign(y[apart]) == np.sign(np.sin(x[apart]))
    assert abs(first.mean() - 0.8) < 4 * np.sqrt(0.16 / apart.sum())
    residual = y[apart] - np.pi * np.where(first, 1.0, -1.0) * np.sin(x[apart])
    assert stats.kstest(residual, stats.norm(0, deviation).cdf).pvalue > 1e-3


def test_two_sinusoids_fixes_the_number_of_points_on_each_wave():
    x, y, _ = datasets.two_sinusoids(jax.random.key(4), 501, weights=(0.9, 0.1), noise=1e-12)
    on_first = np.isclose(y, np.pi * np.sin(x), atol=1e-4)
    on_second = np.isclose(y, -np.pi * np.sin(x), atol=1e-4)
    ambiguous = on_first & on_second
    assert np.all(on_first | on_second)
    assert 451 - ambiguous.sum() <= np.sum(on_first & ~ambiguous) <= 451
    assert 50 - ambiguous.sum() <= np.sum(on_second & ~ambiguous) <= 50


@pytest.mark.parametrize("shape", [(1,), (5, 1), (2, 3, 1)])
def test_conditional_truth_is_batched_and_is_the_density(shape):
    _, _, truth = datasets.two_sinusoids(jax.random.key(5), 4, weights=(0.25, 0.75))
    x = jnp.linspace(0.1, 12.0, int(np.prod(shape))).reshape(shape)
    mixture = truth(x)
    assert mixture.logits.shape == (*shape[:-1], 2)
    assert mixture.means.shape == mixture.scales.shape == (*shape[:-1], 2, 1)
    density = sum(
        weight * stats.norm(np.pi * np.sin(np.asarray(x) + phase), np.sqrt(0.1)).pdf(0.3)
        for weight, phase in ((0.25, 0.0), (0.75, np.pi))
    )
    got = jnp.exp(mixture.log_prob(jnp.full(shape, 0.3)))
    np.testing.assert_allclose(got, density[..., 0], rtol=2e-4, atol=1e-7)


def position(speed, distance, pace, turn_rate):
    """The car four seconds on, by solving the equations of motion in two parts."""
    before = min(distance / speed, 4.0)
    state = [0.0, 0.0, 0.0]
    for seconds, pace_now, rate_now in ((before, 1.0, 0.0), (4.0 - before, pace, turn_rate)):
        speed_now = pace_now * speed

        def motion(_, state, speed_now=speed_now, rate_now=rate_now):
            return [speed_now * np.cos(state[2]), speed_now * np.sin(state[2]), rate_now]

        if seconds > 0.0:
            path = integrate.solve_ivp(motion, (0.0, seconds), state, rtol=1e-9, atol=1e-9)
            state = path.y[:, -1]
    return state[:2]


@pytest.mark.parametrize("pair", [(6.0, 0.0), (10.0, 5.0), (14.0, 10.0), (8.0, 50.0)])
def test_junction_is_the_motion_of_a_car(pair):
    truth = datasets.junction(jax.random.key(10), 1).truth
    mixture = truth(jnp.array(pair))
    rate = np.pi / 8.0
    expected = [position(*pair, *future) for future in ((1.0, 0.0), (0.5, rate), (0.5, -rate))]
    np.testing.assert_allclose(mixture.means, expected, rtol=1e-5, atol=1e-5)
    before = min(pair[1], 4.0 * pair[0])
    rest = 4.0 * pair[0] - before
    path = before + rest * np.array([1.0, 0.5, 0.5])
    np.testing.assert_allclose(mixture.scales, path[:, None] * [0.08, 0.02], rtol=1e-5)


def test_junction_draws_the_inputs_that_it_names():
    x = np.asarray(datasets.junction(jax.random.key(11), 20_000).x)
    assert x.shape == (20_000, 2)
    for column, (low, width) in enumerate(((6.0, 8.0), (0.0, 10.0))):
        assert stats.kstest(x[:, column], stats.uniform(low, width).cdf).pvalue > 1e-3
    np.testing.assert_allclose(x.mean(axis=0), [10.0, 5.0], atol=0.1)
    np.testing.assert_allclose(x.std(axis=0), [2.3, 2.9], atol=0.05)


def test_junction_turns_as_often_as_its_weights_say():
    weights, slope = np.array([0.7, 0.2, 0.1]), -0.2
    x, y, truth = datasets.junction(
        jax.random.key(12), 40_000, weights=tuple(weights), slope=slope, noise=(0.001, 0.001)
    )
    distances = np.linalg.norm(y[:, None] - truth(x).means, axis=-1)
    future = distances.argmin(axis=1)
    assert distances.min(axis=1).max() < 0.5  # no doubt which: the means are 6 m apart or more
    speed = np.asarray(x[:, 0], np.float64)
    odds = weights[1:] / weights[0] * np.exp(slope * (speed[:, None] - 10.0))
    expected = np.column_stack([np.ones_like(speed), odds]) / (1.0 + odds.sum(1, keepdims=True))
    np.testing.assert_allclose(truth(x).weights, expected, rtol=1e-4)
    for low in range(6, 14):  # one bin for each m/s
        here = (low <= speed) & (speed < low + 1)
        counts, mean = np.bincount(future[here], minlength=3), expected[here].sum(axis=0)
        deviation = np.sqrt((expected[here] * (1.0 - expected[here])).sum(axis=0))
        assert np.all(np.abs(counts - mean) < 4.5 * deviation), low


def test_junction_by_default_has_unequal_futures():
    x, _, truth = datasets.junction(jax.random.key(13), 20_000)
    np.testing.assert_allclose(truth(jnp.array([10.0, 3.0])).weights, [0.8, 0.15, 0.05], rtol=1e-5)
    np.testing.assert_allclose(truth(x).weights.mean(axis=0), [0.78, 0.165, 0.055], atol=0.01)


def test_junction_residuals_are_standard_normal():
    x, y, truth = datasets.junction(jax.random.key(14), 20_000)
    mixture = truth(x)
    future = np.asarray(mixture.responsibilities(y)).argmax(axis=1)
    z = np.asarray(mixture.standardize(y))
    for k in range(3):
        own = z[future == k, k]
        for d in range(2):
            assert stats.kstest(own[:, d], stats.norm.cdf).pvalue > 1e-3
        assert abs(np.corrcoef(own.T)[0, 1]) < 4 / np.sqrt(len(own))


def test_junction_log_likelihood_is_the_entropy_that_its_futures_have():
    x, y, truth = datasets.junction(jax.random.key(15), 40_000)
    mixture = truth(x)
    # The futures hardly overlap: the entropy is that of the choice and of each Gaussian.
    weights, scales = np.asarray(mixture.weights), np.asarray(mixture.scales)
    gaussian = np.log(2.0 * np.pi * np.e) + np.log(scales).sum(axis=-1)
    entropy = (weights * (gaussian - np.log(weights))).sum(axis=-1)
    surprise = -np.asarray(mixture.log_prob(y)) - entropy
    assert abs(surprise.mean()) < 4 * surprise.std() / np.sqrt(len(surprise))
    assert surprise.std() < 1.5


@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 4, 2)])
def test_junction_truth_is_batched_and_differentiable(shape):
    truth = datasets.junction(jax.random.key(16), 1).truth
    x = jnp.linspace(3.0, 9.0, int(np.prod(shape))).reshape(shape)
    mixture = truth(x)
    assert mixture.logits.shape == (*shape[:-1], 3)
    assert mixture.means.shape == mixture.scales.shape == (*shape[:-1], 3, 2)
    assert jnp.isfinite(jax.grad(lambda x: jax.jit(truth)(x).means.sum())(x)).all()
    with pytest.raises(ValueError, match=r"x must have shape \(..., 2\).* got \(7, 1\)"):
        truth(jnp.ones((7, 1)))


@pytest.mark.parametrize(
    "generator", [datasets.two_gaussians, datasets.two_sinusoids, datasets.junction]
)
def test_a_key_determines_the_sample(generator):
    first, again = generator(jax.random.key(7)), generator(jax.random.key(7))
    other = generator(jax.random.key(8))
    np.testing.assert_array_equal(first.y, again.y)
    assert np.mean(np.asarray(first.y) == np.asarray(other.y)) < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": (0.5, 0.6)}, r"weights must be .* add up to 1, got \(0.5, 0.6\)"),
        ({"weights": (1.0, 0.0)}, "weights must be positive"),
        ({"weights": (0.5, float("nan"))}, "weights must be positive"),
        ({"size": 0}, "size must be a whole number, at least 1, got 0"),
        ({"size": 2.5}, "size must be a whole number"),
        ({"means": ((0.0, 0.0),)}, r"means must be .* K = 2"),
        ({"means": ((0.0, float("inf")), (0.0, 0.0))}, "means must be finite"),
        ({"scale": 0.0}, "scale must be .* got 0.0"),
        ({"scale": (1.0, 1.0, 1.0)}, "scale must be"),
    ],
)
def test_two_gaussians_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.two_gaussians(jax.random.key(0), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": (0.2, 0.3, 0.5)}, "weights must be two numbers"),
        ({"noise": -0.1}, "noise must be a positive number, got -0.1"),
        ({"noise_is": "precision"}, "noise_is must be 'variance' or 'deviation', got 'precision'"),
        ({"size": -1}, "size must be"),
    ],
)
def test_two_sinusoids_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.two_sinusoids(jax.random.key(0), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": (0.5, 0.5)}, r"weights must be three numbers.* got \(0.5, 0.5\)"),
        ({"weights": (0.5, 0.3, 0.3)}, "weights must be .* add up to 1"),
        ({"slope": float("nan")}, "slope must be a finite number, got nan"),
        ({"slope": (0.1, 0.2)}, "slope must be a finite number"),
        ({"noise": (0.1, 0.0)}, r"noise must be two positive numbers.* got \(0.1, 0.0\)"),
        ({"noise": (0.1,)}, "noise must be two positive"),
        ({"size": 0}, "size must be a whole number, at least 1, got 0"),
    ],
)
def test_junction_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.junction(jax.random.key(0), **arguments)


# ------------------------------------------------------------------------------------- digits


def test_digits_are_scikit_learns_in_the_unit_interval():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    bundled = sklearn_datasets.load_digits()
    images, labels = datasets.digits()
    assert images.dtype == np.float32
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(np.rint(images * 16), bundled.data)
    np.testing.assert_array_equal(labels, bundled.target)
    assert (images.min(), images.max()) == (0.0, 1.0)


def test_digits_split_is_a_partition():
    pytest.importorskip("sklearn")
    everything, train, test = (datasets.digits(split) for split in ("all", "train", "test"))
    assert (len(train.labels), len(test.labels)) == (1438, 359)
    np.testing.assert_array_equal(test.images, everything.images[4::5])
    rows = np.vstack([train.images, test.images])
    np.testing.assert_array_equal(
        rows[np.lexsort(rows.T)], everything.images[np.lexsort(everything.images.T)]
    )
    np.testing.assert_array_equal(datasets.images("digits", "test").images, test.images)


def test_unknown_names_and_splits_are_rejected():
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="'mnist' or 'digits', got 'cifar'"):
        datasets.images("cifar")
    with pytest.raises(ValueError, match=r"split must be one of \['test', 'train'\], got 'valid'"):
        datasets.mnist("valid")
    with pytest.raises(ValueError, match=r"split must be one of .* got 'valid'"):
        datasets.digits("valid")


# ------------------------------------------------------------------------ MNIST, the real one


@pytest.mark.needs("mnist")
@pytest.mark.parametrize(
    ("split", "per_class", "mean", "deviation"),
    [  # as published with the data and in every tutorial on it
        ("train", (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), 0.1307, 0.3081),
        ("test", (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009), 0.1325, 0.3105),
    ],
)
def test_real_mnist_has_its_known_facts(split, per_class, mean, deviation):
    images, labels = datasets.mnist(split)
    assert images.shape == (sum(per_class), 784)
    assert images.dtype == np.float32
    assert labels.dtype == np.int32
    assert tuple(np.bincount(labels)) == per_class
    assert images.mean(dtype=np.float64) == pytest.approx(mean, abs=5e-5)
    assert images.std(dtype=np.float64) == pytest.approx(deviation, abs=5e-5)
    assert (images.min(), images.max()) == (0.0, 1.0)
    rows = images.reshape(-1, 28, 28)
    assert rows[:, :, :2].mean() < 1e-4 < rows[:, 10:18, 10:18].mean()  # upright, centred


# ---------------------------------------------------------- MNIST, small files in its formats


def idx(array):
    """Encode unsigned bytes as IDX, by the format's own description."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


class Tiny:
    """A tiny MNIST: arrays, and the content of the four files."""

    def __init__(self):
        generator = np.random.default_rng(0)
        self.arrays = {
            "train-images-idx3-ubyte": generator.integers(0, 256, (6, 4, 3)),
            "train-labels-idx1-ubyte": generator.integers(0, 10, (6,)),
            "t10k-images-idx3-ubyte": generator.integers(0, 256, (2, 4, 3)),
            "t10k-labels-idx1-ubyte": generator.integers(0, 10, (2,)),
        }
        self.files = {name: idx(a.astype(np.uint8)) for name, a in self.arrays.items()}

    def expected(self):
        """Describe the files as the package describes the real ones."""
        files = [
            datasets._IdxFile(name, self.arrays[name].shape, hashlib.sha256(content).hexdigest())
            for name, content in self.files.items()
        ]
        return {"train": (files[0], files[1]), "test": (files[2], files[3])}

    def write(self, folder, compressed):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The package expects the tiny MNIST; the cache is empty and no folder is named."""
    tiny = Tiny()
    monkeypatch.setattr(datasets, "_MNIST", tiny.expected())
    monkeypatch.delenv("NGEM_DATA_DIR", raising=False)
    monkeypatch.setenv("NGEM_CACHE_DIR", str(tmp_path / "cache"))
    return tiny


def assert_is_tiny(result, tiny, split="train"):
    prefix = {"train": "train", "test": "t10k"}[split]
    pixels = tiny.arrays[f"{prefix}-images-idx3-ubyte"].reshape(-1, 12)
    np.testing.assert_array_equal(result.images, (pixels / 255).astype(np.float32))
    np.testing.assert_array_equal(result.labels, tiny.arrays[f"{prefix}-labels-idx1-ubyte"])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_files_are_found_plain_and_compressed(
    tiny, tmp_path, monkeypatch, split, compressed, subfolder
):
    tiny.write(tmp_path / "data" / subfolder, compressed)
    assert_is_tiny(datasets.mnist(split, tmp_path / "data"), tiny, split)
    monkeypatch.setenv("NGEM_DATA_DIR", str(tmp_path / "data"))
    assert_is_tiny(datasets.mnist(split), tiny, split)
    assert_is_tiny(datasets.images("mnist", split), tiny, split)


def test_the_argument_goes_before_the_environment(tiny, tmp_path, monkeypatch):
    tiny.write(tmp_path / "data", compressed=True)
    monkeypatch.setenv("NGEM_DATA_DIR", str(tmp_path / "nowhere"))
    assert_is_tiny(datasets.mnist(data_dir=tmp_path / "data"), tiny)


def test_missing_files_are_an_error_even_with_a_full_cache(tiny, tmp_path, monkeypatch):
    tiny.write(tmp_path / "cache" / "mnist", compressed=False)
    assert_is_tiny(datasets.mnist(), tiny)
    monkeypatch.setenv("NGEM_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="and so is the folder"):
        datasets.mnist()
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(DatasetError) as caught:
        datasets.mnist()
    for part in (str(tmp_path / "nowhere"), "train-images-idx3-ubyte", "NGEM_DATA_DIR", "Put the"):
        assert part in str(caught.value)


def test_one_missing_file_is_named(tiny, tmp_path):
    tiny.write(tmp_path / "data", compressed=True)
    (tmp_path / "data" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetError, match="the MNIST file train-labels-idx1-ubyte is missing"):
        datasets.mnist(data_dir=tmp_path / "data")
    assert_is_tiny(datasets.mnist("test", tmp_path / "data"), tiny, "test")


def flip(content, position):
    changed = bytearray(content)
    changed[position] ^= 0x40
    return bytes(changed)


@pytest.mark.parametrize(
    ("compressed", "damage", "message"),
    [
        (False, lambda c: c[:-1], r"truncated: 87 bytes where its header announces 88"),
        (False, lambda c: c[:9], r"truncated: 9 bytes are less than its header of 16"),
        (False, lambda c: b"", r"truncated: 0 bytes"),
        (False, lambda c: c + b"\0", r"more than 88 bytes"),
        (False, lambda c: b"GIF8" + c[4:], r"not the expected IDX file: starts with 0x47494638"),
        (False, lambda c: flip(c, 7), r"has the shape \(70, 4, 3\), not \(6, 4, 3\)"),
        (False, lambda c: flip(c, 40), r"corrupted: the SHA-256 of its content is [0-9a-f]{64},"),
        (True, lambda c: gzip.compress(c)[:-12], r"truncated: its gzip stream has no end"),
        (True, lambda c: gzip.compress(c)[:5], r"truncated: its gzip stream has no end"),
        (True, lambda c: c, r"corrupted gzip file \(Not a gzipped file"),
        (True, lambda c: flip(gzip.compress(c), -6), r"corrupted gzip file \(CRC check failed"),
        (True, lambda c: flip(gzip.compress(c), 12), r"corrupted"),
        (True, lambda c: gzip.compress(c + bytes(99)), r"more than 88 bytes"),
        (True, lambda c: gzip.compress(flip(c, 40)), r"corrupted: the SHA-256"),
        (True, lambda c: gzip.compress(c) + b"rubbish", r"corrupted gzip file"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong_and_what_to_do(
    tiny, tmp_path, compressed, damage, message
):
    tiny.write(tmp_path / "data", compressed)
    name = "train-images-idx3-ubyte"
    path = tmp_path / "data" / (f"{name}.gz" if compressed else name)
    path.write_bytes(damage(tiny.files[name]))
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.mnist(data_dir=tmp_path / "data")
    assert str(path) in str(caught.value)
    assert "Replace it by an intact copy" in str(caught.value)


def test_a_label_file_in_the_place_of_the_images_is_noticed(tiny, tmp_path):
    tiny.write(tmp_path, compressed=False)
    labels = tiny.files["train-labels-idx1-ubyte"]
    (tmp_path / "train-images-idx3-ubyte").write_bytes(labels + bytes(20))
    with pytest.raises(DatasetError, match="starts with 0x0801, not 0x0803"):
        datasets.mnist(data_dir=tmp_path)


def test_a_folder_in_the_place_of_a_file_is_an_error(tiny, tmp_path):
    tiny.write(tmp_path, compressed=False)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    (tmp_path / "train-labels-idx1-ubyte").mkdir()
    with pytest.raises(DatasetError, match=r"train-labels-idx1-ubyte: cannot be read \(Is a dir"):
        datasets.mnist(data_dir=tmp_path)


# ----------------------------------------------------------------------------------- download


class Network:
    """Stands in for the lowest layer of tensorflow-datasets' downloads: serves local bytes."""

    def __init__(self, contents):
        self.contents = contents
        self.requests = []
        self.lock = threading.Lock()

    def send(self, request):
        import requests

        name = request.url.rpartition("/")[2]
        with self.lock:
            self.requests.append((request.method, name))
        if name not in self.contents:
            raise requests.exceptions.ConnectionError("no route to host")
        response = requests.Response()
        response.status_code = 200
        response.url = request.url
        response.request = request
        response.raw = io.BytesIO(b"" if request.method == "HEAD" else self.contents[name])
        return response

    def downloads(self):
        return sorted(name for method, name in self.requests if method == "GET")


@pytest.fixture
def network(tiny, monkeypatch):
    """A network that serves the tiny MNIST under the addresses of the real one."""
    adapters = pytest.importorskip("requests.adapters")
    pytest.importorskip("tensorflow_datasets")
    network = Network({f"{name}.gz": gzip.compress(c) for name, c in tiny.files.items()})
    monkeypatch.setattr(
        adapters.HTTPAdapter, "send", lambda adapter, request, **_: network.send(request)
    )
    return network


@pytest.fixture
def registered(network, monkeypatch):
    """tensorflow-datasets expects the checksums of the tiny MNIST instead of the real ones."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    builder = tfds.builder_cls("mnist")
    tiny_infos = {}
    for address in builder.url_infos:
        content = network.contents[Path(address).name]
        digest = hashlib.sha256(content).hexdigest()
        tiny_infos[address] = checksums.UrlInfo(len(content), digest, Path(address).name)
    registry = checksums.get_all_url_infos()  # one dictionary for all, which managers change
    before = dict(registry)
    monkeypatch.setattr(builder, "url_infos", tiny_infos)
    yield
    registry.clear()
    registry.update(before)


@pytest.mark.usefixtures("registered")
def test_download_fills_the_cache_once(tiny, network, tmp_path):
    assert_is_tiny(datasets.mnist(), tiny)
    assert network.downloads() == sorted(f"{name}.gz" for name in tiny.files)
    cache = tmp_path / "cache"
    assert {path.name: path.read_bytes() for path in (cache / "mnist").iterdir()} == tiny.files
    assert [path.name for path in cache.iterdir()] == ["mnist"]  # no leftovers

    network.requests.clear()
    network.contents.clear()
    assert_is_tiny(datasets.mnist(), tiny)
    assert_is_tiny(datasets.mnist("test"), tiny, "test")
    assert network.requests == []


@pytest.mark.usefixtures("registered")
def test_download_needs_no_tensorflow(tiny, network):
    import sys

    datasets.mnist()
    assert "tensorflow" not in sys.modules


@pytest.mark.usefixtures("registered")
def test_a_damaged_cache_is_an_error_and_is_repaired_once_deleted(tiny, network, tmp_path):
    datasets.mnist()
    path = tmp_path / "cache" / "mnist" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"train-labels.* truncated.* Delete it, and it will be"):
        datasets.mnist()
    path.unlink()
    assert_is_tiny(datasets.mnist(), tiny)


@pytest.mark.parametrize("stage", ["connection", "one file"])
@pytest.mark.usefixtures("registered")
def test_offline_says_what_to_do_and_leaves_nothing(tiny, network, tmp_path, stage):
    if stage == "connection":
        network.contents.clear()
    else:
        del network.contents["t10k-images-idx3-ubyte.gz"]
    with pytest.raises(DatasetError, match=r"no route to host.*NGEM_DATA_DIR") as caught:
        datasets.mnist()
    assert str(tmp_path / "cache" / "mnist") in str(caught.value)
    if stage == "connection":  # noticed before the manager tries again and again, for minutes
        assert network.downloads() == []
        assert len(network.requests) == 1
    assert list((tmp_path / "cache").iterdir()) == []


def test_files_other_than_registered_are_refused(tiny, network, tmp_path):
    import tensorflow_datasets as tfds

    addresses = tfds.builder_cls("mnist").url_infos
    assert {Path(address).name for address in addresses} == set(network.contents)
    with pytest.raises(DatasetError, match="NonMatchingChecksumError"):
        datasets.mnist()
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("registered")
def test_files_with_the_right_name_and_the_wrong_content_are_refused(
    tiny, network, tmp_path, monkeypatch
):
    expected = tiny.expected()
    images, labels = expected["test"]
    expected["test"] = (images, labels._replace(sha256="0" * 64))
    monkeypatch.setattr(datasets, "_MNIST", expected)
    with pytest.raises(DatasetError, match=r"corrupted: the SHA-256.*, not 0{64}"):
        datasets.mnist()
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("tensorflow_datasets", datasets.mnist),
        ("sklearn.datasets", datasets.digits),
    ],
)
def test_a_missing_package_names_the_extra(tiny, monkeypatch, module, call):
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"ngem-tutorial\[data\]"):
        call()


def test_the_default_cache_is_in_the_users_cache_folder(tiny, monkeypatch, tmp_path):
    monkeypatch.delenv("NGEM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    tiny.write(tmp_path / "xdg" / "ngem_tutorial" / "mnist", compressed=False)
    assert_is_tiny(datasets.mnist(), tiny)
