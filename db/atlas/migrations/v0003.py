"""Version 1 to 3: perceptual hashes of images, and all responses of small sets.

Neither can be derived from a version 1 atlas: hashes are NULL until the images are imported again, and there
are no responses. Three columns were added to version 1 after its first files. Where they are missing, crops
are rounded as most libraries do, receptive fields are only upper bounds (NULL), and a model is identified by
its weights alone.
"""

from collections.abc import Mapping

from db.atlas.migrations.steps import OlderAtlas, no_rows


def tables(older: OlderAtlas) -> Mapping[str, str]:
    """Queries for the tables of version 3 that differ from version 1."""
    added = {
        "models": {"crop_rounding": "'half_even'", "digest": "weights_sha256"},
        "layers": {"rf_exact": "NULL::BOOLEAN"},
        "images": {"dhash": "NULL::UBIGINT"},
    }
    queries = {}
    for table, columns in added.items():
        more = [f"{value} AS {name}" for name, value in columns.items() if not older.has(table, name)]
        queries[table] = f"SELECT {', '.join(['*', *more])} FROM {older.schema}.{table}"
    queries["responses"] = no_rows("run INTEGER, layer VARCHAR, channel INTEGER, activations FLOAT[]")
    return queries
