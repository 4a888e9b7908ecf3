"""The network as Graphviz text."""

from workers.layers.drawing import to_dot
from workers.layers.taps import Tap


def tap(layer: str, label: str, stage: str | None, block: str | None) -> Tap:
    return Tap(
        layer=layer,
        label=label,
        module=layer,
        call=0,
        kind="conv",
        description='3x3 "conv"',
        stage=stage,
        block=block,
        layout="NCHW",
        prefix_tokens=0,
        channels=1,
        height=1,
        width=1,
        position=0,
    )


def test_stages_and_blocks_are_nested_clusters_and_quotes_are_escaped() -> None:
    taps = [
        tap("stem", "stem", None, None),
        tap("stage1.block1.a", "stage 1 > block 1 > a", "stage 1", "block 1"),
        tap("stage1.block1.b", "stage 1 > block 1 > b", "stage 1", "block 1"),
    ]
    drawn = to_dot('my "net"', taps, [("stem", "stage1.block1.a"), ("stage1.block1.a", "stage1.block1.b")])
    assert drawn == (
        'digraph "my \\"net\\"" {\n'
        "  rankdir=TB;\n"
        '  node [shape=box, fontname="sans-serif"];\n'
        '  "stem" [label="stem\\n3x3 \\"conv\\""];\n'
        '  subgraph "cluster stage 1" {\n'
        '    label="stage 1";\n'
        '    subgraph "cluster stage 1/block 1" {\n'
        '      label="block 1";\n'
        '      "stage1.block1.a" [label="a\\n3x3 \\"conv\\""];\n'
        '      "stage1.block1.b" [label="b\\n3x3 \\"conv\\""];\n'
        "    }\n"
        "  }\n"
        '  "stem" -> "stage1.block1.a";\n'
        '  "stage1.block1.a" -> "stage1.block1.b";\n'
        "}\n"
    )
