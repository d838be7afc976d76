"""Fogs under fogs: who stands under whom, in a run and in the plan of a round.

A run names the edges directly under each fog, and in ``above`` the fog over each fog that does not stand
under the cloud itself. A plan brings, in ``tree``, the fogs at and under its addressee with their children;
it is empty where all of the cohort stands under the addressee itself. Nothing here does I/O.

>>> above = {"north": "firm", "south": "firm"}
>>> tree = tree_under("firm", {"firm": ("kiln",), "north": ("a", "b"), "south": ("c",)}, above)
>>> tree
{'firm': ('kiln', 'north', 'south'), 'north': ('a', 'b'), 'south': ('c',)}
>>> edges_under(tree, "north"), edges_under(tree, "firm"), height(tree, "firm")
(('a', 'b'), ('a', 'b', 'c', 'kiln'), 2)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from reuna.core.errors import PlanError

MOST_LEVELS = 8  #: fogs one above the other
LATER = 0.25  #: of the deadline: so much longer a parent waits for each level of fogs beneath it
Tree = Mapping[str, tuple[str, ...]]  #: fog -> its children, edges and fogs
Above = Mapping[str, str]  #: fog -> the fog over it; none for one directly under the cloud
Drawn = Mapping[str, Iterable[Any]]  #: fog -> names of edges, and further such tables of the fogs under it


def tops(fogs: Iterable[str], above: Above) -> tuple[str, ...]:
    """Fogs directly under the cloud, sorted."""
    return tuple(sorted(fog for fog in fogs if fog not in above))


def tree_under(top: str, fogs: Mapping[str, Iterable[str]], above: Above) -> dict[str, tuple[str, ...]]:
    """The fogs at and under ``top`` with their children, each sorted; ``fogs``: fog -> its own edges."""
    found: dict[str, tuple[str, ...]] = {}
    waiting = [top]
    while waiting:
        fog = waiting.pop()
        below = [each for each in above if above[each] == fog]
        found[fog] = tuple(sorted((*fogs.get(fog, ()), *below)))
        waiting += [each for each in below if each not in found]
    return dict(sorted(found.items()))


def edges_under(tree: Tree, name: str) -> tuple[str, ...]:
    """All edges under a fog, sorted; those of a fog that is not in the tree are none."""
    found, waiting, left = list[str](), [name] if name in tree else [], len(tree)
    while waiting and left:  # a tree that leads back to itself ends too
        left -= 1
        for child in tree[waiting.pop()]:
            (waiting if child in tree else found).append(child)
    return tuple(sorted(found))


def fogs_under(tree: Tree, name: str) -> tuple[str, ...]:
    """A fog and all fogs under it, sorted; none of one that is not in the tree."""
    found, waiting = set[str](), [name] if name in tree else []
    while waiting:
        fog = waiting.pop()
        waiting += [child for child in tree[fog] if child in tree and child not in found]
        found.add(fog)
    return tuple(sorted(found))


def pruned(tree: Tree, edges: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What is left of a tree with these of its edges alone; fogs with none of them are left out.

    >>> pruned({"firm": ("kiln", "north"), "north": ("a", "b")}, ["kiln"])
    {'firm': ('kiln',)}
    """
    asked = set(edges)
    kept = {fog for fog in tree if not asked.isdisjoint(edges_under(tree, fog))}
    return {
        fog: tuple(each for each in tree[fog] if each in asked or each in kept) for fog in tree if fog in kept
    }


def over(tree: Tree, name: str) -> str:
    """The fog directly over a node; '' when the tree has none."""
    return next((fog for fog, children in tree.items() if name in children), "")


def height(tree: Tree, name: str, most: int = MOST_LEVELS) -> int:
    """Levels of fogs at and under a node, at most ``most``: 0 for an edge, 1 for a fog with edges alone."""
    if name not in tree or not most:
        return 0
    return 1 + max((height(tree, child, most - 1) for child in tree[name]), default=0)


def patience(levels: int) -> float:
    """How many deadlines a parent waits with so many levels of fogs under it, itself not counted.

    Each level closes before the one over it, so that what came in below is not too late above.
    """
    return 1.0 + LATER * levels


def laid_out(tree: Drawn) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Fog -> the edges directly under it, and the fogs over fogs, of a tree drawn as nested tables.

    Raises `PlanError` for a name that stands in it twice, and for what is no tree.

    >>> laid_out({"firm": ["kiln", {"north": ["a", "b"]}], "lab": ["c"]})
    ({'firm': ('kiln',), 'lab': ('c',), 'north': ('a', 'b')}, {'north': 'firm'})
    """
    fogs: dict[str, tuple[str, ...]] = {}
    above: dict[str, str] = {}
    waiting: list[tuple[str, object, int]] = [("", tree, 0)]
    for fog, part, level in waiting:
        if not isinstance(part, Mapping) or level >= MOST_LEVELS:
            raise PlanError(
                f"under {fog or 'the cloud'} stands {part!r:.80}, which is no table of fogs",
                f"Write fogs as NAME: [edges, ...], at most {MOST_LEVELS} one under the other.",
            )
        for name, children in part.items():
            if name in fogs or isinstance(children, str) or not isinstance(children, Iterable):
                raise PlanError(f"fog {name!r:.80} stands in the tree twice, or has no list of children")
            of = tuple(children)
            fogs[name] = tuple(child for child in of if isinstance(child, str))
            if fog:
                above[name] = fog
            waiting += [(name, child, level + 1) for child in of if not isinstance(child, str)]
    edges = Counter(edge for of_fog in fogs.values() for edge in of_fog)
    twice = sorted(edge for edge, times in edges.items() if times > 1 or edge in fogs)
    if twice:
        raise PlanError(f"{twice[0]} stands in the tree twice", "Give every node one place.")
    return dict(sorted(fogs.items())), above


def top_of(name: str, sites: Mapping[str, str], above: Above) -> str:
    """The fog directly under the cloud over a node, or that fog itself; ``sites``: edge -> its fog."""
    found = sites.get(name, name)
    for _ in range(MOST_LEVELS):
        found = above.get(found, found)
    return found


def with_edges(
    fogs: Mapping[str, Iterable[str]], above: Above
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Fogs that have edges under them, and those between them and the cloud; and the fogs over these."""
    kept = {fog for fog in fogs if edges_under(tree_under(fog, fogs, above), fog)}
    over_kept = {fog: over for fog, over in sorted(above.items()) if fog in kept}
    return {fog: tuple(fogs[fog]) for fog in sorted(kept)}, over_kept


def check_tree(fogs: Mapping[str, Iterable[str]], above: Above) -> None:
    """Every fog has one way up to the cloud, not too long, and edges under it. Raises `PlanError`."""
    for fog in sorted(above):
        wrong = next((each for each in (fog, above[fog]) if each not in fogs), "")
        if wrong:
            raise PlanError(f"{wrong} stands in the tree of fogs and is no fog of the run")
        at, levels = fog, 1
        while at in above and levels < MOST_LEVELS:
            at, levels = above[at], levels + 1
        if at in above:
            raise PlanError(
                f"fog {fog} has no way up to the cloud of at most {MOST_LEVELS} fogs",
                "Place fogs under each other in fewer levels, and none under itself.",
            )
        if not edges_under(tree_under(fog, fogs, above), fog):
            raise PlanError(f"fog {fog} has no edge under it", "Leave it out of the run.")
