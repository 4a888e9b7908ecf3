"""Inventory queries: runs, image sets, models, and their layers and graphs.

Every function returns a `Query`: the same value feeds a table, its `Copy SQL` and its download.
"""

from db.atlas.store import Query


def runs() -> Query:
    """All runs, newest first, each with its model's preprocessing and vocabulary."""
    return Query("""
SELECT run, model, image_set, k, dtype, device, layers, r.images, unreadable, seconds, started, finished, version,
       source, architecture, parameters, digest, input_height, input_width, resize_height, resize_width,
       interpolation, crop_rounding, fit, mean, std, vocabulary, classes
FROM runs r JOIN models USING (model)
ORDER BY finished DESC, run DESC""")


def accuracies() -> Query:
    """Runs with labeled images: the number judged, and each run's top-1 accuracy (0 to 1)."""
    return Query("""
SELECT l.run, count(*) AS judged, avg((l.rank = 1)::INTEGER) AS top1
FROM predictions l
WHERE l.is_label
GROUP BY l.run
ORDER BY l.run""")


def image_sets() -> Query:
    """All image sets, newest first."""
    return Query("""
SELECT image_set, source, images, labelled, created
FROM image_sets
ORDER BY created DESC, image_set""")


def layers(model: str) -> Query:
    """Layers of a model in the order of the forward pass."""
    return Query(
        """
SELECT layer, position, label, module, kind, description, stage, block, channels, height, width,
       rf_size_y, rf_size_x, jump_y, jump_x, start_y, start_x, rf_global, rf_exact, erf_size
FROM layers
WHERE model = $model
ORDER BY position""",
        {"model": model},
    )


def keeps_modules() -> Query:
    """One row if the atlas has the table of modules; an older atlas gets it on the next publication."""
    return Query("SELECT 1 AS one FROM duckdb_tables() WHERE table_name = 'modules'")


def modules(model: str, digest: str) -> Query:
    """The modules of a model's network in the network's order; check `keeps_modules` first."""
    return Query(
        """
SELECT m.module, m.kind
FROM modules m JOIN models USING (model)
WHERE m.model = $model AND models.digest = $digest
ORDER BY m.position""",
        {"model": model, "digest": digest},
    )


def has_modules(model: str) -> Query:
    """One row if the modules of a model's network were recorded when it was indexed."""
    return Query("SELECT 1 AS one FROM modules WHERE model = $model LIMIT 1", {"model": model})


def left_out_modules(model: str) -> Query:
    """Layers with channels that are not in a model's index, each with the reason."""
    return Query(
        """
SELECT left_out AS reason, count(*) AS modules, list(module ORDER BY position) AS named
FROM modules
WHERE model = $model AND left_out IS NOT NULL
GROUP BY left_out
ORDER BY min(position)""",
        {"model": model},
    )


def layer_edges(model: str) -> Query:
    """Which layer feeds which, in a stable order."""
    return Query(
        """
SELECT e.source, e.target
FROM layer_edges e
JOIN layers s ON s.model = e.model AND s.layer = e.source
JOIN layers t ON t.model = e.model AND t.layer = e.target
WHERE e.model = $model
ORDER BY s.position, t.position""",
        {"model": model},
    )


def class_counts() -> Query:
    """Number of classes of each indexed model."""
    return Query("SELECT model, digest, classes FROM models ORDER BY model")


def indexed_layers(run: int) -> Query:
    """The layers of a run, with the number of dead channels in each."""
    return Query(
        """
SELECT layer, count(*) FILTER (dead) AS dead
FROM channel_stats
WHERE run = $run
GROUP BY layer
ORDER BY layer""",
        {"run": run},
    )


def classes_of(model: str) -> Query:
    """Classes of a model in the order of its logits."""
    return Query(
        """
SELECT c.class_index, c.wnid, c.name
FROM models m
JOIN classes c USING (vocabulary)
WHERE m.model = $model
ORDER BY c.class_index""",
        {"model": model},
    )
