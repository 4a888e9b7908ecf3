#!/usr/bin/env bash
# DuckDB 2.0.0: `//`, the operator for integer division, divides whole numbers to a whole number (7 // 2 = 3) and anything
# else like `/` (7.5 // 2 = 3.75). `fdiv(7.5, 2)`, the same division of DOUBLE values, is 3.0. Binning by `x // width`
# therefore gives every value its own bin as soon as x is not a whole number.
#
# Workaround: floor(x / width).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import duckdb

print("duckdb", duckdb.__version__)
connection = duckdb.connect()


expressions = ["7 // 2", "7.5 // 2", "7.5::DOUBLE // 2", "fdiv(7.5, 2)"]
found = {text: connection.execute(f"SELECT {text}").fetchall()[0][0] for text in expressions}
for text, value in found.items():
    print(f"{text:18} = {value}   (Python: {7.5 // 2 if '7.5' in text else 7 // 2})")
assert found == {"7 // 2": 3, "7.5 // 2": 3.75, "7.5::DOUBLE // 2": 3.75, "fdiv(7.5, 2)": 3.0}, found
bins = connection.execute("SELECT count(DISTINCT (i / 8.0) // 1) FROM range(32) AS r(i)").fetchall()[0][0]
print("32 numbers from 0 to 3.875 fall into", bins, "bins of width 1 by //; there are 4")
assert bins == 32, bins
print("Confirmed: // is integer division for whole numbers only.")
PYTHON
