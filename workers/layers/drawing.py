"""The architecture in Graphviz format: nested stages and blocks, one node per layer."""

from collections.abc import Iterable, Sequence

from workers.layers.taps import Tap


def to_dot(name: str, taps: Sequence[Tap], edges: Iterable[tuple[str, str]]) -> str:
    """The network's layers in the DOT language (https://graphviz.org/doc/info/lang.html).

    Stages and the blocks inside them are clusters; an edge leads from a layer to each layer that it feeds.
    """
    lines = [f"digraph {_quoted(name)} {{", "  rankdir=TB;", '  node [shape=box, fontname="sans-serif"];']
    groups: dict[str | None, dict[str | None, list[Tap]]] = {}
    for tap in taps:
        groups.setdefault(tap.stage, {}).setdefault(tap.block, []).append(tap)
    for stage, blocks in groups.items():
        indent = _open_cluster(lines, "  ", stage, identity=f"{stage}")
        for block, members in blocks.items():
            inner = _open_cluster(lines, indent, block, identity=f"{stage}/{block}")
            lines.extend(f"{inner}{_quoted(tap.layer)} [label={_quoted(_caption(tap))}];" for tap in members)
            if block is not None:
                lines.append(f"{indent}}}")
        if stage is not None:
            lines.append("  }")
    lines.extend(f"  {_quoted(source)} -> {_quoted(target)};" for source, target in edges)
    lines.append("}")
    return "\n".join(lines) + "\n"


def _open_cluster(lines: list[str], indent: str, label: str | None, *, identity: str) -> str:
    if label is None:
        return indent
    lines.append(f"{indent}subgraph {_quoted('cluster ' + identity)} {{")
    lines.append(f"{indent}  label={_quoted(label)};")
    return indent + "  "


def _caption(tap: Tap) -> str:
    return f"{tap.label.rsplit(' > ', 1)[-1]}\n{tap.description}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
