#!/usr/bin/env bash
# DuckDB 2.0.0: `quantile_cont`, `median`, `percentile_cont` and `mad` interpolate a DECIMAL column and then truncate the
# result to the column's scale. Number literals in SQL (0.1, 0.25) are DECIMAL, so the median of 0.1 and 0.2 is
# 0.1, and so is their 90th percentile. The same numbers as DOUBLE, and whole numbers, are interpolated exactly.
#
# Workaround: cast first, median(x::DOUBLE). Columns that come from Python floats are DOUBLE already.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import duckdb
import numpy as np

print("duckdb", duckdb.__version__)
tenths = [0.1, 0.2, 0.3, 0.4]
rows = ", ".join(f"({number})" for number in tenths)
connection = duckdb.connect()


def answers(column: str) -> list:
    return list(
        connection.execute(
            f"SELECT typeof(any_value({column})), median({column}), quantile_cont({column}, 0.9), mad({column})"
            f" FROM (VALUES {rows}) AS t(x)"
        ).fetchall()[0]
    )


deviations = np.abs(np.array(tenths) - np.median(tenths))
right = [np.median(tenths), np.quantile(tenths, 0.9), np.median(deviations)]
print("NumPy              median, 90th percentile, median absolute deviation:", *(f"{value:.3g}" for value in right))
decimal = answers("x")
print(f"DuckDB {decimal[0]}", *decimal[1:])
double = answers("x::DOUBLE")
print(f"DuckDB {double[0]}      ", *(f"{value:.3g}" for value in double[1:]))

assert decimal[0] == "DECIMAL(2,1)" and [str(value) for value in decimal[1:]] == ["0.2", "0.3", "0.1"], decimal
assert np.allclose(double[1:], right), double
whole = connection.execute("SELECT median(x), typeof(median(x)) FROM (VALUES (1), (2)) AS t(x)").fetchall()[0]
print("DuckDB INTEGER     the median of 1 and 2 is", *whole)
assert whole == (1.5, "DOUBLE"), whole
print("Confirmed: quantiles of DECIMAL numbers are truncated to the scale of the column.")
PYTHON
