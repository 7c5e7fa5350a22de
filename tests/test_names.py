"""Hints for misspelt names."""

import pytest

from cs_gan.names import did_you_mean, nearest_or_all

KNOWN = ["mixup", "cutmix", "manifold mixup", "erm"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mixupp", "Did you mean mixup?"),
        ("mix", "Did you mean mixup or cutmix?"),  # similar by 2 * 3 / (3 + 5) and 2 * 3 / (3 + 6)
        ("zzz", ""),
    ],
)
def test_names_are_near_by_the_share_of_letters_that_match(name, hint):
    assert did_you_mean(name, KNOWN) == hint


def test_a_caller_chooses_how_many_names_are_shown_and_how():
    assert did_you_mean("mix", KNOWN, most=1, show=repr) == "Did you mean 'mixup'?"


def test_all_names_are_listed_if_none_is_near():
    assert nearest_or_all("zzz", ["a", "b"], repr) == "There are 'a', 'b'."
    assert nearest_or_all("zzz", []) == "There are none."
    assert nearest_or_all("ermm", KNOWN) == "Did you mean erm?"
