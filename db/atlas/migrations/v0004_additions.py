"""Later additions to version 4: the fit of a resize, gray models, image colors, network modules.

Before `fit` was recorded, every resize was to exactly the stated size. Colors require the images: they are
NULL until these are imported again. Modules require the network: they are missing until the model is indexed
again.
"""

from collections.abc import Mapping

from db.atlas.migrations.steps import OlderAtlas, no_rows


def tables(older: OlderAtlas) -> Mapping[str, str]:
    """Queries for the tables of version 4 in which something is missing; empty if nothing is."""
    queries = {}
    if not older.has("models", "fit"):
        # mean and std used to be FLOAT[3]; a gray model has one value
        queries["models"] = (
            "SELECT * REPLACE (mean::FLOAT[] AS mean, std::FLOAT[] AS std), 'exact' AS fit "
            f"FROM {older.schema}.models"
        )
    if not older.has("images", "colors"):
        queries["images"] = f"SELECT *, NULL::UTINYINT[] AS colors FROM {older.schema}.images"
    if not older.has("modules", "model"):
        queries["modules"] = no_rows(
            "model VARCHAR, position INTEGER, module VARCHAR, kind VARCHAR, left_out VARCHAR"
        )
    return queries
