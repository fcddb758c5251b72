"""What a choice of labels goes by where a realistic pool names nothing that it is to resemble."""

from __future__ import annotations

from clsim.spec import abilities
from clsim.spec.run import RunSpec
from clsim.streams.stream import Stream


def fallbacks(spec: RunSpec, stream: Stream) -> list[str]:
    """Say in which experiences of a pool with rare classes a selector by a query has none; empty if there are none."""
    name, roles = spec.labelling.selector, stream.roles
    needs = " ".join(abilities.needs(name).values())
    if not stream.asks or roles.query != "rare" or "query" not in needs:
        return []
    without = [i + 1 for i in stream.schedule if stream.query(i) is None]
    if not without:
        return []
    held = "the held-out share, what is labelled, and else the pool itself"
    where = ", ".join(map(str, without))
    return [f"no rare class in experience {where} of {len(stream)}: there {name} takes as its query {held}"]
