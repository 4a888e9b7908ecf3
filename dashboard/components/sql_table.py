"""A SQL result as a table: rows in, columns and rows of dash-ag-grid out."""

import hashlib
import json
from typing import Any

from dashboard.state.sql_statements import Answer, Column

# The grid uses the page's CSS variables, so it follows the theme.
GRID: dict[str, Any] = {
    "theme": {
        "function": "themeQuartz.withParams({"
        "backgroundColor: 'var(--panel)', foregroundColor: 'var(--text)', borderColor: 'var(--line)', "
        "headerBackgroundColor: 'var(--sunken)', headerTextColor: 'var(--quiet)', accentColor: 'var(--accent)', "
        "oddRowBackgroundColor: 'var(--panel)', rowHoverColor: 'var(--sunken)', "
        "browserColorScheme: 'inherit', fontFamily: 'inherit', fontSize: 13, headerFontSize: 12, spacing: 5, "
        "wrapperBorderRadius: 8})"
    },
    "pagination": True,
    "paginationPageSize": 100,
    "paginationPageSizeSelector": [20, 100, 1000],
    "enableCellTextSelection": True,
    "ensureDomOrder": True,
    "suppressFieldDotNotation": True,
    "domLayout": "autoHeight",
    "tooltipShowDelay": 500,
}


def shortened(value: Any, kind: str) -> Any:
    """A number with the digits worth reading: a FLOAT has seven, a DOUBLE twelve; other values unchanged."""
    return float(f"{value:.{7 if kind == 'FLOAT' else 12}g}") if isinstance(value, float) else value


def as_text(value: Any) -> str:
    """A JSON value as text: nothing for null, JSON for lists and structs."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _fields(columns: tuple[Column, ...]) -> list[str]:
    """Names of the grid's fields.

    The grid keeps order, filter and width of a column by this name: the same columns have the same names, others
    have new ones, so nothing of an earlier result remains.
    """
    shape = hashlib.sha256(repr(columns).encode()).hexdigest()[:8]
    return [f"r{shape}c{place}" for place in range(len(columns))]


def column_definitions(answer: Answer) -> list[dict[str, Any]]:
    """The grid's columns.

    They have no data type: the grid would write "Invalid Number" for NaN, infinities and numbers that are too
    large for JSON.
    """
    return [
        {
            "field": field,
            "headerName": column.name,
            "headerTooltip": f"{column.name}: {column.kind.lower()}",
            "filter": "agNumberColumnFilter" if column.is_number else "agTextColumnFilter",
            "maxWidth": 460,
            "cellDataType": False,
        }
        | ({"type": "rightAligned"} if column.is_number else {})
        for field, column in zip(_fields(answer.columns), answer.columns, strict=True)
    ]


def grid_rows(answer: Answer) -> list[dict[str, Any]]:
    """The grid's rows."""
    fields = _fields(answer.columns)
    cells: list[list[Any]] = []
    for place, column in enumerate(answer.columns):
        if column.is_number:
            cells.append([shortened(row[place], column.kind) for row in answer.rows])
        else:
            cells.append([as_text(row[place]) for row in answer.rows])
    return [dict(zip(fields, row, strict=True)) for row in zip(*cells, strict=True)]
