"""The taxonomy of acquisitions: each stands in one leaf, and each leaf has one that runs."""

from __future__ import annotations

from collections import Counter

from clsim.execution.plan import find_study
from clsim.spec import abilities, components
from clsim.spec.components import STREAM_POLICIES
from clsim.spec.taxonomy import TAXONOMY, leaves


def test_whatever_can_choose_labels_stands_in_one_leaf() -> None:
    counts = Counter(name for _, _, names in leaves() for name in names)
    can = {name for name in components.COMPONENTS["selectors"] if abilities.acquires(name)}
    assert set(counts) == can | set(components.COMPONENTS["acquisitions"])
    assert set(counts.values()) == {1}
    assert all(names for _, _, names in leaves())
    assert sum(len(of) for of in TAXONOMY.values()) == len(leaves())


def test_the_study_of_the_survey_has_the_first_of_each_leaf() -> None:
    first = [names[0] for _, _, names in leaves()]
    assert list(find_study("deep-al-survey").label) == [name for name in first if name not in STREAM_POLICIES]
