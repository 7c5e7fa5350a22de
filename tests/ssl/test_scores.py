import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from cs_gan.errors import MetricError
from cs_gan.ssl import knn_accuracy, linear_probe


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    features, labels = torch.from_numpy(found.data).float(), torch.from_numpy(found.target).long()
    return features[:300], labels[:300], features[300:900], labels[300:900]


@pytest.mark.parametrize("k", [1, 7, 200, 1000])
def test_knn_equals_a_vote_counted_by_hand(digits, k):
    bank, bank_labels, test, test_labels = (each.numpy() for each in digits)
    bank, test = (each.astype(np.float64) for each in (bank, test))
    right = 0
    for features, label in zip(test, test_labels, strict=True):
        cosines = bank @ features / np.linalg.norm(bank, axis=1) / np.linalg.norm(features)
        votes = np.zeros(10)
        for i in np.argsort(-cosines)[:k]:
            votes[bank_labels[i]] += np.exp(cosines[i] / 0.07)
        right += votes.argmax() == label
    assert knn_accuracy(*digits, k=k) == pytest.approx(100 * right / len(test), abs=0.2)  # one tie in 600


def test_the_probe_is_scikit_learns_logistic_regression(digits):
    train, train_labels, test, test_labels = (each.numpy() for each in digits)
    mean, deviation = train.mean(0), np.maximum(train.std(0, ddof=1), 1e-6)
    # Its objective is C times the summed cross-entropy plus half the squared weights.
    oracle = LogisticRegression(C=1 / (0.01 * len(train)), max_iter=2000, tol=1e-8)
    oracle.fit((train - mean) / deviation, train_labels)
    expected = 100 * oracle.score((test - mean) / deviation, test_labels)
    assert linear_probe(*digits, decay=0.01) == pytest.approx(expected, abs=0.2)  # one image in 600


def test_scores_are_the_same_twice(digits):
    assert linear_probe(*digits) == linear_probe(*digits)
    assert knn_accuracy(*digits) == knn_accuracy(*digits)


@pytest.mark.parametrize("score", [knn_accuracy, linear_probe])
def test_shapes_that_do_not_fit_are_named(digits, score):
    bank, labels, test, test_labels = digits
    with pytest.raises(MetricError, match=r"\(300, 64\).*\(600, 9\)"):
        score(bank, labels, test[:, :9], test_labels)
    with pytest.raises(MetricError, match=r"\(299,\)"):
        score(bank, labels[1:], test, test_labels)


DTYPES = [torch.int32, torch.int16, torch.int8, torch.uint8]


@pytest.mark.parametrize("score", [knn_accuracy, linear_probe])
class TestLabels:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_of_any_integer_dtype_give_the_same_score(self, digits, score, dtype):
        bank, labels, test, test_labels = digits
        assert score(bank, labels.to(dtype), test, test_labels.to(dtype)) == score(*digits)

    @pytest.mark.parametrize("which", [1, 3])
    def test_that_are_no_class_numbers_are_refused(self, digits, score, which):
        for wrong in (digits[which].float(), digits[which] > 4):
            with pytest.raises(MetricError, match=f"labels of {wrong.dtype}"):
                score(*digits[:which], wrong, *digits[which + 1 :])
        unknown = digits[which].clone()
        unknown[2] = -1
        with pytest.raises(MetricError, match="smallest label is -1"):
            score(*digits[:which], unknown, *digits[which + 1 :])


@pytest.mark.parametrize("score", [knn_accuracy, linear_probe])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:.*aren't finite")
class TestDivergedEncoders:
    def test_are_right_on_nothing(self, score, value):
        # argmax takes NaN for the largest value, so this was 100 %.
        bad, zeros = torch.full((40, 8), value), torch.zeros(40, dtype=torch.int64)
        assert score(bad, zeros, bad, zeros) == 0
        assert score(torch.randn(40, 8), zeros, bad, zeros) == 0

    def test_images_without_features_are_wrong_and_the_others_count(self, digits, score, value):
        bank, labels, test, test_labels = digits
        alone = torch.tensor([score(bank, labels, test[i : i + 1], test_labels[i : i + 1]) for i in range(20)])
        place = int(alone.argmax())  # one that is right
        test = test[:20].clone()
        test[place, 3] = value
        assert score(bank, labels, test, test_labels[:20]) == pytest.approx((alone.sum() - 100).item() / 20)

    def test_training_images_without_features_are_left_out_with_a_warning(self, digits, score, value):
        bank, labels, test, test_labels = digits
        bad = bank.clone()
        bad[7, 1] = value
        kept = torch.arange(300) != 7
        with pytest.warns(UserWarning, match="1 of 300 training images"):
            found = score(bad, labels, test, test_labels)
        assert found == score(bank[kept], labels[kept], test, test_labels)


@pytest.mark.parametrize("score", [knn_accuracy, linear_probe])
class TestPrecision:
    def test_autocast_around_it_changes_nothing(self, digits, score):
        expected = score(*digits)
        with torch.autocast("cpu", torch.bfloat16):
            assert score(*digits) == expected

    def test_inference_mode_changes_nothing(self, digits, score):
        with torch.inference_mode():
            made = [each.clone() for each in digits]
            assert score(*made) == score(*digits)

    def test_features_with_gradients_score_the_same(self, digits, score):
        bank, labels, test, test_labels = digits
        assert score(bank.clone().requires_grad_(), labels, test.clone().requires_grad_(), test_labels) == score(
            *digits
        )


def test_neighbours_in_float64_are_not_rounded():
    # Their cosines differ by 5e-10, which float32 can't tell apart. It then takes the first.
    angles = torch.tensor([0.5 + 1e-9, 0.5], dtype=torch.float64)
    bank = torch.stack([angles.cos(), angles.sin()], 1)
    assert knn_accuracy(bank, torch.tensor([0, 1]), torch.eye(2).double()[:1], torch.tensor([1]), k=1) == 100


def test_a_low_temperature_does_not_overflow(digits):
    # exp(1 / 0.005) is infinite in float32, and infinite votes were class 0. At this temperature the nearest decides.
    assert knn_accuracy(*digits, k=200, temperature=0.0005) == pytest.approx(knn_accuracy(*digits, k=1), abs=0.2)


def test_a_bank_of_one_predicts_its_own_class(digits):
    bank, labels, test, test_labels = digits
    alone = bank[:1], labels[:1], test, test_labels
    share = 100 * (test_labels == labels[0]).double().mean().item()
    assert knn_accuracy(*alone) == pytest.approx(share)
    assert linear_probe(*alone) == pytest.approx(share)


@pytest.mark.parametrize(
    ("score", "options", "message"),
    [
        (knn_accuracy, {"k": 0}, "k=0"),
        (knn_accuracy, {"temperature": 0.0}, "temperature=0.0"),
        (knn_accuracy, {"temperature": float("nan")}, "temperature=nan"),
        (linear_probe, {"decay": -1.0}, "decay=-1.0"),
        (linear_probe, {"decay": float("nan")}, "decay=nan"),
        (linear_probe, {"iterations": 0}, "iterations=0"),
    ],
)
def test_options_that_can_not_work_are_named(digits, score, options, message):
    with pytest.raises(MetricError, match=message):
        score(*digits, **options)
