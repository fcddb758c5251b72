"""What a choice of labels in a realistic pool is to resemble and to avoid, and what it goes by in place of that."""

from __future__ import annotations

from clsim.pool.exemplars import Exemplars
from clsim.spec import registry
from clsim.spec.run import RunSpec
from clsim.streams.stream import Stream


def roles_of(stream: Stream, position: int, labelled: Exemplars) -> dict[str, Exemplars | None]:
    """Return the roles ``query`` and ``private`` of the pool of a choice.

    Args:
        stream: the stream.
        position: the position of the experience.
        labelled: what is labelled in the experience and in memory.
    """
    private = labelled if stream.roles.private == "labelled" and len(labelled) else stream.private(position)
    return {"query": stream.query(position), "private": private}


def fallbacks(spec: RunSpec, stream: Stream) -> list[str]:
    """Say in which experiences of a pool with rare classes a selector by a query has none; empty if there are none."""
    name, roles = spec.labelling.selector, stream.roles
    needs = " ".join(registry.needs(name).values())
    if not stream.asks or roles.query != "rare" or "query" not in needs:
        return []
    without = [i + 1 for i in stream.schedule if stream.query(i) is None]
    if not without:
        return []
    held = "the held-out share, what is labelled, and else the pool itself"
    where = ", ".join(map(str, without))
    return [f"no rare class in experience {where} of {len(stream)}: there {name} takes as its query {held}"]
