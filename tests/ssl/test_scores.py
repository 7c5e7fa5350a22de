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
