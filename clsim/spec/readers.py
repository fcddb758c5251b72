"""Which selectors of a run read the pool's embedding, or irreducible losses, and what to say of it before the run."""

from __future__ import annotations

from clsim.spec import abilities
from clsim.spec.run import RunSpec


def readers(spec: RunSpec) -> list[str]:
    """List the selectors of a run that choose by the embedding where there is one: of labels, and of the memory.

    >>> from clsim.spec.labelling import LabellingSpec
    >>> readers(RunSpec(labelling=LabellingSpec("typiclust", budget=10))), readers(RunSpec())
    (['typiclust'], [])
    """
    return [name for name in _choosers(spec) if abilities.reads_embedding(name)]


def about_embedding(spec: RunSpec) -> list[str]:
    """Say which selectors of a run read the embedding, and which net the others read; nothing without an embedding."""
    if spec.embedding.name == "none":
        return []
    found = readers(spec)
    others = [name for name in _choosers(spec) if name not in found and name not in ("random", "reservoir")]
    what = f"the embedding {spec.embedding.name}"
    if not spec.embedding.of_rows and found:
        what += f" ({spec.embedding.model}, trained on the images of each experience before its first choice)"
    lines = [f"{', '.join(found)} chooses by {what}"] if found else []
    if others:
        lines.append(f"{', '.join(others)} chooses by the learner's net")
    if not found:
        lines.append(f"no selector of this run reads {what}: it is not made")
    return lines


def irreducible_readers(spec: RunSpec) -> list[str]:
    """List the selectors of a run that need irreducible losses: of batches, of the memory, of what is replayed."""
    memory = (spec.memory.buffer, spec.memory.retrieval) if spec.memory.buffer != "none" else ()
    return [name for name in dict.fromkeys((spec.batch.selector, *memory)) if abilities.reads_irreducible(name)]


def _choosers(spec: RunSpec) -> list[str]:
    """List the selectors of a run, each once."""
    labelling, memory = spec.labelling, spec.memory
    found = {memory.buffer: None, memory.retrieval: None} if memory.buffer != "none" else {}
    if labelling.asks:
        first = labelling.initial_count and labelling.initial not in ("random", "class")
        found = {**({labelling.initial: None} if first else {}), labelling.selector: None, **found}
    return [name for name in found if name != "none"]
