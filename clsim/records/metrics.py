"""Metrics: pure functions of the accuracy matrix.

``R`` is the accuracy matrix (T, T), an array, a DataFrame or nested lists: R[i, j] is the accuracy in [0, 1] on the
test samples of experience j after training on experience i; NaN = not tested. A metric that needs an entry that was not
tested is NaN. Indices count from 0. ``clsim.metrics`` is this module.

Average accuracy has two definitions, which differ where experiences have unequal numbers of test samples. Where the
task (or the domain) of a sample is a question of its own, every experience counts the same. In class-incremental
streams there is one question, about all classes seen so far, and every test sample counts the same (:func:`weights`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

import numpy as np
from numpy.typing import ArrayLike

from clsim.records import batch_record, natures_record
from clsim.records.batch_record import learnt_before, wrong_trained
from clsim.records.natures_record import accuracy_rare, outsiders_asked, rare_found, unique_share, wrong_in_memory

Matrix = np.ndarray
P = ParamSpec("P")


def of_matrix(metric: Callable[Concatenate[Matrix, P], float]) -> Callable[Concatenate[ArrayLike, P], float]:
    """Let a metric take its accuracies as whatever becomes an array: a DataFrame, or lists with None = not tested."""

    @functools.wraps(metric)
    def taken(R: ArrayLike, /, *args: P.args, **kwargs: P.kwargs) -> float:
        return metric(np.asarray(R, dtype=float), *args, **kwargs)

    return taken


@of_matrix
def final_average_accuracy(R: Matrix, sizes: Sequence[int] | None = None) -> float:
    """Accuracy at the end: (1/T) Σ_j R[T−1, j]; with test sizes n, on all test samples: Σ_j n_j R[T−1, j] / Σ_j n_j.

    Args:
        sizes: number of test samples of each experience, (T,); None: every experience counts the same.

    Source: Lopez-Paz & Ranzato, Gradient Episodic Memory (NeurIPS 2017), ACC; with sizes, the accuracy over all
    classes seen of Rebuffi et al., iCaRL (CVPR 2017).

    >>> final_average_accuracy(np.array([[0.9, 0.0], [0.5, 0.7]]))
    0.6
    >>> final_average_accuracy(np.array([[0.9, 0.0], [0.5, 0.7]]), [100, 300])
    0.65
    """
    return average(R[-1], sizes)


@of_matrix
def average_incremental_accuracy(R: Matrix, sizes: Sequence[int] | None = None) -> float:
    """Mean over time of the accuracy on what was seen so far: (1/T) Σ_i (1/(i+1)) Σ_{j≤i} R[i, j].

    Args:
        sizes: number n of test samples of each experience, (T,), which replaces the inner mean by that over all test
            samples of the classes seen so far, Σ_{j≤i} n_j R[i, j] / Σ_{j≤i} n_j; None: as above.

    Source: Rebuffi et al., iCaRL (CVPR 2017).
    """
    return float(np.mean([average(R[i, : i + 1], sizes) for i in range(len(R))]))


def average(row: np.ndarray, sizes: Sequence[int] | None = None) -> float:
    """Compute the mean accuracy over the first experiences, weighted by their test sizes if these are unequal.

    Args:
        row: accuracies, (t,).
        sizes: number of test samples of each experience, those of later ones included; None: all are equal.
    """
    counted = [] if sizes is None else list(sizes[: len(row)])
    return float(np.average(row, weights=counted) if len(set(counted)) > 1 else np.mean(row))


def weights(record: Mapping[str, Any]) -> list[int] | None:
    """Return the test sizes that weigh the accuracies of a run; None where every experience counts the same.

    They weigh in class-incremental streams. The records of earlier versions do not hold them.
    """
    return record.get("test_sizes") if by_samples(record) else None


def by_samples(record: Mapping[str, Any]) -> bool:
    """Tell whether every test sample of a run's stream counts the same, as in class-incremental streams."""
    return record.get("spec", {}).get("stream", {}).get("setting") == "class"


@of_matrix
def forgetting(R: Matrix) -> float:
    """How far each earlier experience fell from its best: (1/(T−1)) Σ_{j<T−1} max_{j≤i<T−1} R[i, j] − R[T−1, j].

    Source: Chaudhry et al., Riemannian Walk (ECCV 2018), with the maximum over rows that have seen j.

    >>> round(forgetting([[0.9, 0.0], [0.5, 0.7]]), 3)
    0.4
    """
    last = len(R) - 1
    return _mean([np.max(R[j:last, j]) - R[last, j] for j in range(last)])


@of_matrix
def forgetting_survey(R: Matrix) -> float:
    """Accuracy just after learning minus accuracy at the end, over all T: (1/T) Σ_j R[j, j] − R[T−1, j].

    Source: De Lange et al., A Continual Learning Survey (TPAMI 2021). Not Chaudhry's: no maximum, and over T.
    """
    return float(np.mean(np.diag(R) - R[-1]))


@of_matrix
def backward_transfer(R: Matrix) -> float:
    """What later learning did to earlier experiences: (1/(T−1)) Σ_{j<T−1} R[T−1, j] − R[j, j]. Negative = forgotten.

    Source: Lopez-Paz & Ranzato, Gradient Episodic Memory (NeurIPS 2017), BWT.
    """
    last = len(R) - 1
    return _mean([R[last, j] - R[j, j] for j in range(last)])


@of_matrix
def forward_transfer(R: Matrix, initial: np.ndarray) -> float:
    """What earlier learning did for an experience not yet seen: (1/(T−1)) Σ_{j≥1} R[j−1, j] − b_j.

    Args:
        initial: b, accuracy of the untrained net on each experience, (T,).

    Source: Lopez-Paz & Ranzato, Gradient Episodic Memory (NeurIPS 2017), FWT.
    """
    return _mean([R[j - 1, j] - initial[j] for j in range(1, len(R))])


@of_matrix
def intransigence(R: Matrix, joint: np.ndarray) -> float:
    """How much less than joint training an experience was learnt when it came: (1/T) Σ_j joint_j − R[j, j].

    Args:
        joint: accuracy of a jointly trained net on each experience, (T,).

    Source: Chaudhry et al., Riemannian Walk (ECCV 2018); the reference is one joint run over the whole stream.
    """
    return float(np.mean(joint - np.diag(R)))


@of_matrix
def learning_accuracy(R: Matrix) -> float:
    """Accuracy on each experience just after it was learnt: (1/T) Σ_j R[j, j].

    Source: Riemer et al., Learning to Learn without Forgetting (ICLR 2019).
    """
    return float(np.mean(np.diag(R)))


@of_matrix
def minimum_accuracy(R: Matrix) -> float:
    """Mean over earlier experiences of the lowest accuracy that they fell to: (1/(T−1)) Σ_{j<T−1} min_{i>j} R[i, j].

    Source: De Lange, van de Ven & Tuytelaars, Continual Evaluation for Lifelong Learning (ICLR 2023), min-ACC, at the
    resolution of experiences instead of iterations.
    """
    last = len(R) - 1
    return _mean([np.min(R[j + 1 :, j]) for j in range(last)])


@of_matrix
def worst_case_accuracy(R: Matrix) -> float:
    """(1/T) · R[T−1, T−1] + (1 − 1/T) · minimum accuracy: what one can count on, at any time.

    Source: De Lange, van de Ven & Tuytelaars, Continual Evaluation for Lifelong Learning (ICLR 2023), WC-ACC, at the
    resolution of experiences.
    """
    size = len(R)
    return float(R[-1, -1] if size == 1 else R[-1, -1] / size + (1 - 1 / size) * minimum_accuracy(R))


@of_matrix
def accuracy_unlabelled(shares: np.ndarray) -> float:
    """How well an experience's unlabelled samples are predicted at its end: (1/T) Σ_i u_i, where there are any.

    Args:
        shares: u, the share predicted right after experience i of its own unlabelled samples, (T,).
    """
    return _mean(shares[~np.isnan(shares)])


def weights_held(shares: np.ndarray) -> float:
    """Share of the weights that no further experience can move, at the end of the stream.

    Args:
        shares: the share held fast after each experience, (T,); NaN where the learner has none to say.
    """
    return float(shares[-1])


def area_under_budget(labels: Sequence[float], accuracy: Sequence[float]) -> float:
    """Area under the accuracy over the number of labels, by trapezoids, divided by the range of these numbers.

    Σ_i (n_{i+1} − n_i) · (a_i + a_{i+1}) / 2 / (n_last − n_first), over the numbers n of labels that there were: rounds
    of unequal size have unequal widths. NaN where fewer than two numbers differ, or an accuracy is NaN.

    Source: AUBC of Zhan et al., A Comparative Survey: Benchmarking for Pool-based Active Learning (IJCAI 2021).

    >>> area_under_budget([10, 20, 40], [0.5, 0.7, 0.9])
    0.7333...
    """
    n, a = np.asarray(labels, dtype=float), np.asarray(accuracy, dtype=float)
    if len(n) < 2 or n[-1] == n[0]:
        return float("nan")
    return float((np.diff(n) * (a[1:] + a[:-1]) / 2).sum() / (n[-1] - n[0]))


UNSIZED = (
    "Records of earlier versions hold no test sizes: there, accuracy in class-incremental streams is the mean over "
    "experiences, not over test samples."
)
"""What is said of runs whose :func:`weights` are not known."""


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the values; NaN if there are none, as with a single experience."""
    return float(np.mean(values)) if len(values) else float("nan")


@dataclass(frozen=True)
class Metric:
    """A column of a table.

    Attributes:
        label: its heading, without a unit.
        function: the formula, a function of the accuracy matrix R (of pools: of a record on natures, None where
            it says nothing); the call of a metric is that of the formula.
        higher_is_better: the direction of "best" (default: higher is better).
        percent: whether values are shares of 1, shown in percent (default); else they are shown as they are.

    >>> lowest = Metric("lowest accuracy", lambda R: R[-1].min())
    >>> lowest.heading, float(lowest(np.array([[0.9, 0.1], [0.5, 0.7]])))
    ('lowest accuracy, %', 0.5)
    """

    label: str
    function: Callable[..., Any]
    higher_is_better: bool = True
    percent: bool = True

    def __call__(self, *values: Any) -> float:
        """Compute the formula."""
        value: float = self.function(*values)
        return value

    @property
    def heading(self) -> str:
        """The label with the unit."""
        return self.label + ", %" * self.percent


METRICS = {
    "accuracy": Metric("final accuracy", final_average_accuracy),
    "average_incremental_accuracy": Metric("average incremental accuracy", average_incremental_accuracy),
    "forgetting": Metric("forgetting", forgetting, higher_is_better=False),
    "forgetting_survey": Metric("forgetting (survey)", forgetting_survey, higher_is_better=False),
    "backward_transfer": Metric("backward transfer", backward_transfer),
    "forward_transfer": Metric("forward transfer", forward_transfer),
    "intransigence": Metric("intransigence", intransigence, higher_is_better=False),
    "learning_accuracy": Metric("learning accuracy", learning_accuracy),
    "minimum_accuracy": Metric("minimum accuracy", minimum_accuracy),
    "worst_case_accuracy": Metric("worst-case accuracy", worst_case_accuracy),
}
"""Every metric of each run's accuracy matrix, by the name that specs and records use."""

FURTHER = {
    "accuracy_class_means": Metric("final accuracy, nearest class mean", final_average_accuracy),
    "forgetting_class_means": Metric("forgetting, nearest class mean", forgetting, higher_is_better=False),
    "accuracy_neighbours": Metric("final accuracy, nearest neighbours", final_average_accuracy),
    "forgetting_neighbours": Metric("forgetting, nearest neighbours", forgetting, higher_is_better=False),
    "accuracy_unlabelled": Metric("accuracy on unlabelled samples", accuracy_unlabelled),
    "accuracy_validation": Metric("accuracy on held-out samples", accuracy_unlabelled),
    "weights_held": Metric("weights held fast", weights_held, higher_is_better=False),
    "aubc": Metric("area under the budget curve (AUBC)", area_under_budget),
    "rare_found": Metric("rare samples found", rare_found, percent=False),
    "outsiders_asked": Metric("outsiders asked for", outsiders_asked, higher_is_better=False, percent=False),
    "unique_share": Metric("unique images among all that were asked for", unique_share),
    "wrong_in_memory": Metric("wrong labels in memory", wrong_in_memory, higher_is_better=False, percent=False),
    "accuracy_rare": Metric("accuracy of rare classes", accuracy_rare),
    "wrong_trained": Metric("samples of steps with a wrong label", wrong_trained, higher_is_better=False),
    "learnt_before": Metric("samples of steps that were learnt already", learnt_before, higher_is_better=False),
}
"""Metrics that only some runs have: of the readouts of features, of samples without a label, of penalties on weights,
of label rounds (``aubc``, which :func:`clsim.records.budget.aubc` makes of a record), of realistic pools and of batches
that were chosen (from these parts of a record).

The readout by nearest neighbours, a soft vote, is in records of earlier versions alone.
"""

ALL = METRICS | FURTHER
"""Every metric that a report may show."""


def summary(
    accuracy: Sequence[Sequence[float | None]],
    initial: Sequence[float | None],
    joint: Sequence[float | None] | None = None,
    sizes: Sequence[int] | None = None,
) -> dict[str, float | None]:
    """All metrics of one run; None where one is not defined.

    Args:
        accuracy: R, with NaN or None where nothing was tested.
        initial: accuracy of the untrained net.
        joint: last row of a joint run on the same stream, for intransigence.
        sizes: test sizes that weigh the experiences in average accuracies, as :func:`weights` returns them.

    >>> summary([[1.0]], [0.1])["accuracy"], summary([[1.0]], [0.1])["forgetting"]
    (1.0, None)
    """
    R = np.asarray(accuracy, dtype=float)
    further: dict[str, tuple[Any, ...]] = {
        "accuracy": (sizes,),
        "average_incremental_accuracy": (sizes,),
        "forward_transfer": (np.asarray(initial, dtype=float),),
        "intransigence": (np.full(len(R), np.nan) if joint is None else np.asarray(joint, dtype=float),),
    }
    values = {name: metric.function(R, *further.get(name, ())) for name, metric in METRICS.items()}
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def further(record: Mapping[str, Any]) -> dict[str, float | None]:
    """The :data:`FURTHER` metrics of a run's record; None where the record lacks their values.

    >>> print(further({"unlabelled": [0.9, None, 0.6]})["accuracy_unlabelled"])
    0.75
    """
    matrices, diagnostics = record.get("readouts", {}), record.get("diagnostics", {})
    values = dict[str, float | None]()
    sources = {"class_means": "nearest-class-mean", "neighbours": "nearest-neighbour"}
    for name, metric in FURTHER.items():
        kind = name.partition("_")[2]
        source = matrices.get(sources[kind]) if kind in sources else record.get(kind, diagnostics.get(kind))
        sized = (weights(record),) if metric.function is final_average_accuracy and kind in sources else ()
        value = np.nan if source is None else metric.function(np.asarray(source, dtype=float), *sized)
        values[name] = None if np.isnan(value) else value
    return values | natures_record.columns(record) | batch_record.columns(record)
