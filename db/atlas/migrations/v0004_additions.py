"""What came to version 4 after its first files: how a resize fits, gray models, colors of images, modules of networks.

What was before `fit` resized to exactly the size that it names. Colors need the images: they are NULL until these are
imported again. Modules need the network: there are none until the model is indexed the next time.
"""

from collections.abc import Mapping

from db.atlas.migrations.steps import OlderAtlas, no_rows


def tables(older: OlderAtlas) -> Mapping[str, str]:
    """Queries for the tables of version 4 that lack something; none where all is there."""
    queries = {}
    if not older.has("models", "fit"):
        # mean and std were FLOAT[3]: three numbers, where a gray model has one
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
