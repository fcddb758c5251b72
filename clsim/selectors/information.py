"""Submodular information measures: samples like the query set, unlike the private set.

V is the pool, with gradients at predicted labels; Q is the query set and P the private set, with gradients at their own
labels. s = ½ + ½·cos compares last-layer gradients.

Q is the first of these that exists: ``pool.query``; the labelled samples of the classes in the option ``query``;
``pool.reference``, where labelled samples, or else candidates by their predictions, stand for known classes without
reference samples; the pool itself. P is ``pool.private``, or else the labelled samples of the classes in the option
``private``. Labelled samples are those of ``pool.labelled``, or where there are none, the candidates that have labels.
A set of more than 1,000 samples is represented by 1,000 drawn ones.

In a choice of labels both sets grow with what was labelled, as in the paper. For rare classes: mutual information with
the rare classes as ``query``. Against redundancy: conditional gain, whose P is all of ``pool.labelled`` unless another
is given. Against outsiders: conditional mutual information, whose Q is then ``pool.reference`` with what was labelled
as of a class, and whose P is what was labelled as of none. Without P a measure has no condition.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clsim.errors import at_least
from clsim.pool.pool import Pool, Selection
from clsim.selectors.facilities import Dense
from clsim.selectors.functions import Concave, Concavity, Difference, LogDet, Quadratic, concave
from clsim.selectors.greedy import maximise
from clsim.selectors.reference import outsiders, told
from clsim.selectors.similarity import represented
from clsim.selectors.submodular import cut, located
from clsim.selectors.targets import eliminated, most_like, private_set, query_set, share, summed
from clsim.spec.kinds import Positive


def flvmi(pool: Pool, budget: int, *, rng: torch.Generator, query: Sequence[int] = (), eta: float = 1.0) -> Selection:
    """Keep samples that stand for the pool as far as the pool is like the query (FLVMI).

    f(A) = Σ_{i∈V} min(max_{j∈A} s_ij, η·max_{q∈Q} s_iq).

    Args:
        query: classes whose labelled samples form Q, where the pool has no query set; see the module.
        eta: η, from 0; the larger it is, the less the query matters.

    Needs: gradients, query.
    Cost: O(n²·d) time, O(n²) memory up to half a gigabyte, then O(n).
    Source: Kothawade et al., SIMILAR: Submodular Information Measures Based Active Learning in Realistic Scenarios
        (NeurIPS 2021), table 1.
    """
    at_least(0, eta=eta)
    samples, q = represented(pool, "hypothetical"), query_set(pool, query, rng)
    function = located(samples, budget, "auto", None, None, rng, cap=eta * most_like(samples, q))
    return Selection(maximise(function, budget, rng=rng))


def flqmi(pool: Pool, budget: int, *, rng: torch.Generator, query: Sequence[int] = (), eta: float = 1.0) -> Selection:
    """Keep samples that stand for the query, and are like it (FLQMI).

    f(A) = Σ_{q∈Q} max_{j∈A} s_jq + η·Σ_{j∈A} max_{q∈Q} s_jq.

    Args:
        query: classes whose labelled samples form Q, where the pool has no query set; see the module.
        eta: η, from 0; the larger it is, the more each pick must be like the query, and the less the picks spread.

    Needs: gradients, query.
    Cost: O(n·|Q|·(d + b)) time, O(n·|Q|) memory.
    Source: Kothawade et al., SIMILAR (NeurIPS 2021), table 1.
    """
    at_least(0, eta=eta)
    samples, q = represented(pool, "hypothetical"), query_set(pool, query, rng)
    function = Dense(q.similarity(samples), modular=eta * most_like(samples, q))
    return Selection(maximise(function, budget, rng=rng))


def gcmi(pool: Pool, budget: int, *, rng: torch.Generator, query: Sequence[int] = ()) -> Selection:
    """Keep samples that are like the whole query, even if they are like each other (GCMI).

    f(A) = 2λ·Σ_{j∈A} Σ_{q∈Q} s_jq is modular, so the b samples with the largest sums are chosen, for any λ > 0.

    Args:
        query: classes whose labelled samples form Q, where the pool has no query set; see the module.

    Needs: gradients, query.
    Cost: O(n·|Q|·d) time, O(n) memory.
    Source: Kothawade et al., SIMILAR (NeurIPS 2021), table 1.
    """
    samples, q = represented(pool, "hypothetical"), query_set(pool, query, rng)
    return Selection(maximise(Quadratic(2 * summed(samples, q), samples.column, 0.0), budget, rng=rng))


def logdetmi(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    query: Sequence[int] = (),
    eta: float = 1.0,
    ridge: Positive = 1.0,
) -> Selection:
    """Keep diverse samples within the span of the query (LOGDETMI).

    f(A) = logdet S_A − logdet(S_A − η²·S_AQ S_Q⁻¹ S_QA), with S + λ·I for S_A and S_Q; not submodular, so the naive
    greedy optimiser is used.

    Args:
        query: classes whose labelled samples form Q, where the pool has no query set; see the module.
        eta: η, from 0 to 1, so that the second matrix stays positive definite.
        ridge: λ, what is added to the diagonal, above 0.

    Needs: gradients, query.
    Cost: O(n·(b + |Q|)·(d + b + |Q|)) time, O(n·(b + |Q|)) memory.
    Source: Kothawade et al., SIMILAR (NeurIPS 2021), table 1.
    """
    samples, q = represented(pool, "hypothetical"), query_set(pool, query, rng)
    free = LogDet(samples.diagonal(), samples.column, ridge)
    beside = LogDet(samples.diagonal(), samples.column, ridge, eliminated(samples, ridge, (q, share(eta, "eta"))))
    return Selection(maximise(Difference(free, beside), budget, rng=rng))


def com(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    query: Sequence[int] = (),
    eta: float = 1.0,
    psi: Concavity = "sqrt",
) -> Selection:
    """Keep samples that are like the query, with diminishing returns: concave over modular (COM).

    f(A) = η·Σ_{j∈A} ψ(Σ_{q∈Q} s_jq) + Σ_{q∈Q} ψ(Σ_{j∈A} s_jq).

    Args:
        query: classes whose labelled samples form Q, where the pool has no query set; see the module.
        eta: η, from 0; the larger it is, the more each pick must be like the query.
        psi: ψ, ``sqrt``, ``log`` (log(1 + x)) or ``inverse`` (x/(1 + x)).

    Needs: gradients, query.
    Cost: O(n·|Q|·(d + b)) time at most, lazily far less, O(n·|Q|) memory.
    Source: Kothawade et al., SIMILAR (NeurIPS 2021), table 1.
    """
    at_least(0, eta=eta)
    samples, q = represented(pool, "hypothetical"), query_set(pool, query, rng)
    s = samples.similarity(q)
    function = Concave(s, psi, eta * concave(psi)(s.double().sum(1)))
    return Selection(maximise(function, budget, rng=rng))


def flcg(pool: Pool, budget: int, *, rng: torch.Generator, private: Sequence[int] = (), nu: float = 1.0) -> Selection:
    """Keep samples that stand for the part of the pool that the private set does not (FLCG).

    f(A) = Σ_{i∈V} max(max_{j∈A} s_ij − ν·max_{p∈P} s_ip, 0).

    Args:
        private: classes whose labelled samples form P, where the pool has no private set; empty: all of what is
            labelled already.
        nu: ν, from 0: how strongly the private set is avoided.

    Needs: gradients, private.
    Cost: O(n²·d) time, O(n²) memory up to half a gigabyte, then O(n).
    Source: Kothawade et al., SIMILAR (NeurIPS 2021), table 1.
    """
    at_least(0, nu=nu)
    samples, p = represented(pool, "hypothetical"), private_set(pool, private, rng, otherwise=pool.labelled)
    floor = nu * most_like(samples, p)
    return Selection(maximise(located(samples, budget, "auto", None, None, rng, floor), budget, rng=rng))


def gccg(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    private: Sequence[int] = (),
    nu: float = 1.0,
    penalty: float = 0.5,
) -> Selection:
    """Keep samples that are like the pool, unlike each other and unlike the private set (GCCG).

    f(A) = Σ_{i∈V} Σ_{j∈A} s_ij − λ·Σ_{i,j∈A} s_ij − 2λν·Σ_{j∈A} Σ_{p∈P} s_jp.

    Args:
        private: classes whose labelled samples form P, where the pool has no private set; empty: all of what is
            labelled already.
        nu: ν, from 0: how strongly the private set is avoided.
        penalty: λ, from 0; up to ½ graph cut itself is monotone.

    Needs: gradients, private.
    Cost: O(n·(b + |P|)·d) time, O(n) memory.
    Source: Kothawade et al., SIMILAR (NeurIPS 2021), table 1.
    """
    at_least(0, penalty=penalty, nu=nu)
    samples, p = represented(pool, "hypothetical"), private_set(pool, private, rng, otherwise=pool.labelled)
    function = cut(samples, penalty, 2 * penalty * nu * summed(samples, p))
    return Selection(maximise(function, budget, rng=rng))


def logdetcg(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    private: Sequence[int] = (),
    nu: float = 1.0,
    ridge: Positive = 1.0,
) -> Selection:
    """Keep diverse samples outside the span of the private set (LOGDETCG).

    f(A) = logdet(S_A − ν²·S_AP S_P⁻¹ S_PA), with S + λ·I for S_A and S_P. Without a private set, all samples alone
    have the same value; the first pick is then the one with the largest Σ_i s_ij.

    Args:
        private: classes whose labelled samples form P, where the pool has no private set; empty: all of what is
            labelled already.
        nu: ν, from 0 to 1, so that the matrix stays positive definite.
        ridge: λ, what is added to the diagonal, above 0.

    Needs: gradients, private.
    Cost: O(n·(b + |P|)·(d + b + |P|)) time, O(n·(b + |P|)) memory.
    Source: Kothawade et al., SIMILAR (NeurIPS 2021), table 1.
    """
    samples, p = represented(pool, "hypothetical"), private_set(pool, private, rng, otherwise=pool.labelled)
    function = LogDet(samples.diagonal(), samples.column, ridge, eliminated(samples, ridge, (p, share(nu, "nu"))))
    start = samples.typical() if p is None else None
    return Selection(maximise(function, budget, rng=rng, start=start))


def flcmi(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    query: Sequence[int] = (),
    private: Sequence[int] = (),
    eta: float = 1.0,
    nu: float = 1.0,
) -> Selection:
    """Keep samples that stand for those like the query and unlike the private set (FLCMI).

    f(A) = Σ_{i∈V} max(min(max_{j∈A} s_ij, η·max_{q∈Q} s_iq) − ν·max_{p∈P} s_ip, 0).

    Args:
        query, private: classes whose labelled samples form Q and P, where the pool has no such set; empty: all that
            were labelled as of a class, and as of none; see the module.
        eta, nu: η and ν, from 0: how little the query matters, and how strongly the private set is avoided.

    Needs: gradients, query, private.
    Cost: O(n²·d) time, O(n²) memory up to half a gigabyte, then O(n).
    Source: Kothawade et al., SIMILAR (NeurIPS 2021), table 1.
    """
    at_least(0, nu=nu, eta=eta)
    samples = represented(pool, "hypothetical")
    q = query_set(pool, query, rng, otherwise=told(pool))
    p = private_set(pool, private, rng, otherwise=outsiders(pool))
    floor, cap = nu * most_like(samples, p), eta * most_like(samples, q)
    return Selection(maximise(located(samples, budget, "auto", None, None, rng, floor, cap), budget, rng=rng))


def logdetcmi(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    query: Sequence[int] = (),
    private: Sequence[int] = (),
    eta: float = 1.0,
    nu: float = 1.0,
    ridge: Positive = 1.0,
) -> Selection:
    """Keep diverse samples within the span of the query, outside that of the private set (LOGDETCMI).

    f(A) = logdet S_AP + logdet S_QP − logdet S_P − logdet S_APQ, S with λ on its diagonal, S_AQ times η and S_AP
    times ν; not submodular, so the naive greedy optimiser is used.

    Args:
        query, private: classes whose labelled samples form Q and P, where the pool has no such set; empty: all that
            were labelled as of a class, and as of none; see the module.
        eta, nu: η and ν, from 0 to 1, so that the matrices stay positive definite.
        ridge: λ, what is added to the diagonal, above 0.

    Needs: gradients, query, private.
    Cost: O(n·m·(d + m)) time, O(n·m) memory, with m = b + |Q| + |P|.
    Source: Kothawade et al., SIMILAR (NeurIPS 2021), table 1.
    """
    samples = represented(pool, "hypothetical")
    q = query_set(pool, query, rng, otherwise=told(pool))
    p = private_set(pool, private, rng, otherwise=outsiders(pool))
    apart, within = (p, share(nu, "nu")), (q, share(eta, "eta"))
    outside = LogDet(samples.diagonal(), samples.column, ridge, eliminated(samples, ridge, apart))
    both = LogDet(samples.diagonal(), samples.column, ridge, eliminated(samples, ridge, apart, within))
    return Selection(maximise(Difference(outside, both), budget, rng=rng))
