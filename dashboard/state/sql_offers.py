"""What the SQL page offers: values that exist for a parameter, and words that the editor completes."""

import functools
from typing import Any

from dashboard.state.context import current
from db.queries.images import image_classes
from db.sql.catalog import catalogue


def _words(text: str) -> list[str]:
    return text.split()


KEYWORDS = _words(
    "SELECT FROM WHERE GROUP BY ORDER BY HAVING LIMIT OFFSET JOIN LEFT JOIN USING DISTINCT QUALIFY FILTER OVER "
    "PARTITION BY WITH AS CASE WHEN THEN ELSE END AND OR NOT IN IS NULL LIKE ILIKE BETWEEN UNION ALL DESC ASC NULLS "
    "LAST DESCRIBE SUMMARIZE EXPLAIN"
)
FUNCTIONS = _words(
    "count sum avg min max median stddev quantile_cont any_value arg_max arg_min round floor coalesce nullif"
)


@functools.cache
def words() -> list[dict[str, Any]]:
    """What the editor completes; a higher `boost` comes first. A column has its table."""
    found: list[dict[str, Any]] = []
    for table in catalogue():
        for column in table.columns:
            about = f"{column.kind.lower()}\n{column.comment}"
            found.append(
                {"label": column.name, "detail": table.name, "info": about, "type": "property", "boost": 0}
                | {"table": table.name}
            )
    for table in catalogue():
        about = table.comment
        found.append({"label": table.name, "detail": table.place, "info": about, "type": "type", "boost": 10})
    found += [{"label": name, "type": "function", "boost": -10} for name in FUNCTIONS]
    found += [{"label": name, "type": "keyword", "boost": -20} for name in dict.fromkeys(KEYWORDS)]
    return found


def offers(name: str, values: dict[str, str]) -> list[str]:
    """Values that exist for a parameter of this name, given those of the others; none for unknown names."""
    context = current()
    catalogue = context.catalogue()
    if name == "model":
        return sorted({run["model"] for run in catalogue.runs})
    if name == "images":
        return sorted(found["image_set"] for found in catalogue.image_sets)
    if name == "layer":
        return [layer["layer"] for layer in catalogue.layers.get(values.get("model", ""), ())]
    if name in ("label", "first", "second") and catalogue.image_sets:
        rows = context.atlas.fetch(image_classes(values.get("images", "")))
        return list(dict.fromkeys(row["label"] for row in rows if row["label"] is not None))
    return []
