"""A metric of your own: a number that is computed from a run's accuracy matrix, whenever a record is read."""

import numpy as np


def NAME(R: np.ndarray) -> float:
    """Accuracy on the worst experience at the end."""
    # R[i, j] is the accuracy, from 0 to 1, on experience j after training on experience i; NaN: not tested.
    # Of joint training, all rows but the last are NaN.
    # CHANGE THIS, and the line above, which is the heading. Return NaN where the metric is not defined.
    return float(R[-1].min())


# A plain function is shown in percent, and higher is better. For another unit or direction, make a clsim.Metric:
# drop = clsim.Metric("largest drop", lambda R: (R.max(0) - R[-1]).max(), higher_is_better=False, percent=True)
