"""The atlas's tables, columns and views, each with a comment for users.

The atlas stores facts that are computed once: images, models, runs and their top-k activations. Boxes are not
stored: the view `patches` derives them from a layer's receptive field and a position, so they cannot
disagree.
"""

from collections.abc import Mapping

from db.atlas.migrations import latest_version

_TABLES = """
CREATE TABLE image_sets (image_set VARCHAR, source VARCHAR, images INTEGER, labelled INTEGER, created TIMESTAMP);
CREATE TABLE images (
    image_set VARCHAR, image_id INTEGER, key VARCHAR, name VARCHAR, path VARCHAR, width INTEGER, height INTEGER,
    bytes BIGINT, split VARCHAR, wnid VARCHAR, label_index INTEGER, label VARCHAR, dhash UBIGINT,
    colors UTINYINT[]);
CREATE TABLE classes (vocabulary VARCHAR, class_index INTEGER, wnid VARCHAR, name VARCHAR, description VARCHAR);
CREATE TABLE models (
    model VARCHAR, source VARCHAR, architecture VARCHAR, parameters BIGINT, weights_sha256 VARCHAR, digest VARCHAR,
    input_height INTEGER, input_width INTEGER, resize_height INTEGER, resize_width INTEGER,
    interpolation VARCHAR, crop_rounding VARCHAR, fit VARCHAR, mean FLOAT[], std FLOAT[],
    vocabulary VARCHAR, classes INTEGER);
CREATE TABLE layers (
    model VARCHAR, layer VARCHAR, position INTEGER, label VARCHAR, module VARCHAR, kind VARCHAR,
    description VARCHAR, stage VARCHAR, block VARCHAR, channels INTEGER, height INTEGER, width INTEGER,
    rf_size_y INTEGER, rf_size_x INTEGER, jump_y DOUBLE, jump_x DOUBLE, start_y DOUBLE, start_x DOUBLE,
    rf_global BOOLEAN, rf_exact BOOLEAN, erf_size INTEGER);
CREATE TABLE layer_edges (model VARCHAR, source VARCHAR, target VARCHAR);
CREATE TABLE runs (
    run INTEGER, model VARCHAR, image_set VARCHAR, k INTEGER, dtype VARCHAR, device VARCHAR, layers INTEGER,
    images INTEGER, unreadable INTEGER, seconds DOUBLE, started TIMESTAMP, finished TIMESTAMP, version VARCHAR);
CREATE TABLE activations (
    run INTEGER, layer VARCHAR, channel INTEGER, rank INTEGER, image_id INTEGER, activation FLOAT,
    y INTEGER, x INTEGER);
CREATE TABLE activations_by_image (
    run INTEGER, image_id INTEGER, layer VARCHAR, channel INTEGER, rank INTEGER, activation FLOAT,
    y INTEGER, x INTEGER);
CREATE TABLE predictions (
    run INTEGER, image_id INTEGER, rank INTEGER, class_index INTEGER, probability FLOAT, logit FLOAT,
    is_label BOOLEAN);
CREATE TABLE channel_stats (
    run INTEGER, layer VARCHAR, channel INTEGER, mean DOUBLE, std DOUBLE, min FLOAT, max FLOAT,
    dead BOOLEAN, nonfinite BIGINT);
CREATE TABLE channel_histograms (
    run INTEGER, layer VARCHAR, channel INTEGER, low FLOAT, high FLOAT, images INTEGER);
CREATE TABLE responses (run INTEGER, layer VARCHAR, channel INTEGER, activations FLOAT[]);
CREATE TABLE label_matches (
    run INTEGER, label VARCHAR, wnid VARCHAR, images INTEGER, how VARCHAR, class_index INTEGER, candidates INTEGER[]);
CREATE TABLE label_choices (model VARCHAR, image_set VARCHAR, label VARCHAR, class_index INTEGER);
CREATE TABLE modules (model VARCHAR, position INTEGER, module VARCHAR, kind VARCHAR, left_out VARCHAR);
CREATE SEQUENCE run_numbers;
CREATE TABLE atlas_info (schema_version INTEGER);
"""

# Parameters of probe images (`convscope images make stimuli`), which are encoded in their names.
_STIMULUS_NUMBERS = (
    "orientation", "angle", "frequency", "phase", "contrast", "hue", "saturation", "value", "size", "x", "y",
    "exponent", "bandwidth", "draw",
)  # fmt: skip
_STIMULUS_WORDS = ("colour", "polarity", "symbol")
_STIMULUS_COLUMNS = ",\n    ".join(
    [
        *(
            f"TRY_CAST(regexp_extract(encoded, '[/,]{name}=([^,]*)', 1) AS DOUBLE) AS {name}"
            for name in _STIMULUS_NUMBERS
        ),
        *(
            f"nullif(regexp_extract(encoded, '[/,]{name}=([^,]*)', 1), '') AS {name}"
            for name in _STIMULUS_WORDS
        ),
    ]
)

_NEAR_DUPLICATES = """
CREATE VIEW near_duplicates AS
-- A hash with few bits set is shared by all images that hardly brighten, or hardly darken, from left to right.
WITH hashed AS (
    SELECT image_set, image_id, dhash, colors, list_avg(colors) AS mean,
           row_number() OVER (PARTITION BY image_set, dhash ORDER BY image_id) AS place
    FROM images
    WHERE bit_count(dhash::BIT) BETWEEN 4 AND 60 AND colors IS NOT NULL),
-- Among equal hashes the first 32 are compared with all, so that thousands of them do not make millions of pairs.
same_hash AS MATERIALIZED (
    SELECT a.image_set, a.image_id AS image_a, b.image_id AS image_b, a.colors AS colors_a, a.mean AS mean_a,
           b.colors AS colors_b, b.mean AS mean_b
    FROM hashed a JOIN hashed b ON a.image_set = b.image_set AND a.dhash = b.dhash
    WHERE a.place <= 32 AND a.image_id < b.image_id),
same AS (
    SELECT image_set, min(image_a) AS image_a, image_b, 0 AS distance
    FROM same_hash
    WHERE list_cosine_similarity(list_transform(colors_a, lambda x: x - mean_a),
                                 list_transform(colors_b, lambda x: x - mean_b)) >= 0.95
    GROUP BY image_set, image_b),
firsts AS (
    SELECT * FROM hashed ANTI JOIN same ON hashed.image_set = same.image_set AND hashed.image_id = same.image_b
    WHERE place <= 32),
-- Hashes within 5 bits of each other agree in at least one of 6 stretches of bits.
stretches AS (
    SELECT image_set, image_id, dhash, part, (dhash >> (11 * part)) & 2047 AS bits
    FROM firsts, (SELECT unnest(range(6))::UBIGINT AS part)),
near_hash AS MATERIALIZED (
    SELECT DISTINCT a.image_set, a.image_id AS image_a, b.image_id AS image_b,
           bit_count(xor(a.dhash, b.dhash)::BIT)::INTEGER AS distance
    FROM stretches a JOIN stretches b ON a.image_set = b.image_set AND a.part = b.part AND a.bits = b.bits
    WHERE a.image_id < b.image_id AND a.dhash <> b.dhash AND bit_count(xor(a.dhash, b.dhash)::BIT) <= 5),
near AS (
    SELECT n.image_set, n.image_a, n.image_b, n.distance
    FROM near_hash n
    JOIN hashed a ON a.image_set = n.image_set AND a.image_id = n.image_a
    JOIN hashed b ON b.image_set = n.image_set AND b.image_id = n.image_b
    WHERE list_cosine_similarity(list_transform(a.colors, lambda x: x - a.mean),
                                 list_transform(b.colors, lambda x: x - b.mean)) >= 0.95),
-- The same file, whatever its hash.
files AS (
    SELECT i.image_set, f.image_id AS image_a, i.image_id AS image_b, 0 AS distance
    FROM images i
    JOIN (SELECT image_set, key, min(image_id) AS image_id FROM images GROUP BY ALL) f
         ON f.image_set = i.image_set AND f.key = i.key
    WHERE f.image_id < i.image_id),
pairs AS (FROM same UNION FROM near UNION FROM files)
SELECT p.image_set, p.image_a, p.image_b, p.distance::INTEGER AS distance, a.key = b.key AS identical
FROM pairs p
JOIN images a ON a.image_set = p.image_set AND a.image_id = p.image_a
JOIN images b ON b.image_set = p.image_set AND b.image_id = p.image_b;"""

_VIEWS = """
CREATE VIEW patches AS
WITH boxed AS (
    SELECT
        a.run, r.model, r.image_set, a.layer, a.channel, a.rank, a.activation, a.image_id, a.y, a.x,
        l.rf_global, m.input_height AS h, m.input_width AS w,
        l.start_y + a.y * l.jump_y AS top, l.start_x + a.x * l.jump_x AS "left",
        l.rf_size_y AS size_y, l.rf_size_x AS size_x,
        -- a global field has no size: start and jump give the center of its local part; where there is no
        -- there is none its effective field sits over its grid cell's centre
        coalesce(l.start_y + a.y * l.jump_y + coalesce(l.rf_size_y, 0) / 2.0,
                 (a.y + 0.5) * m.input_height / l.height) AS centre_y,
        coalesce(l.start_x + a.x * l.jump_x + coalesce(l.rf_size_x, 0) / 2.0,
                 (a.x + 0.5) * m.input_width / l.width) AS centre_x,
        l.erf_size
    FROM activations a
    JOIN runs r USING (run)
    JOIN models m USING (model)
    JOIN layers l USING (model, layer))
SELECT
    b.run, b.model, b.image_set, b.layer, b.channel, b.rank, b.activation, b.image_id, b.y, b.x,
    -- a field wholly in the padding is an empty box at the edge
    {'y0': CASE WHEN b.rf_global THEN 0 ELSE least(b.h, greatest(0, floor(b.top)))::INTEGER END,
     'x0': CASE WHEN b.rf_global THEN 0 ELSE least(b.w, greatest(0, floor(b."left")))::INTEGER END,
     'y1': CASE WHEN b.rf_global THEN b.h ELSE greatest(0, least(b.h, ceil(b.top + b.size_y)))::INTEGER END,
     'x1': CASE WHEN b.rf_global THEN b.w ELSE greatest(0, least(b.w, ceil(b."left" + b.size_x)))::INTEGER END
    } AS box,
    {'y0': least(b.h, greatest(0, floor(b.centre_y - b.erf_size / 2.0)))::INTEGER,
     'x0': least(b.w, greatest(0, floor(b.centre_x - b.erf_size / 2.0)))::INTEGER,
     'y1': greatest(0, least(b.h, floor(b.centre_y - b.erf_size / 2.0) + b.erf_size))::INTEGER,
     'x1': greatest(0, least(b.w, floor(b.centre_x - b.erf_size / 2.0) + b.erf_size))::INTEGER} AS erf_box,
    i.label, i.label_index, i.wnid, i.name
FROM boxed b
JOIN images i USING (image_set, image_id);

CREATE VIEW selectivity AS
-- model and image set are keys of every step, so that a condition on them reaches the scan
WITH counted AS (
    SELECT a.run, r.model, r.image_set, a.layer, a.channel, coalesce(i.wnid, i.label) AS class,
           any_value(i.label) AS label, count(*) AS n
    FROM activations a
    JOIN runs r USING (run)
    JOIN images i USING (image_set, image_id)
    WHERE coalesce(i.wnid, i.label) IS NOT NULL
    GROUP BY ALL)
SELECT
    run, model, image_set, layer, channel, sum(n)::INTEGER AS labelled, count(*)::INTEGER AS classes,
    -- of shares n / sum(n); 0 exactly where all agree
    CASE WHEN count(*) = 1 THEN 0.0 ELSE log2(sum(n)) - sum(n * log2(n)) / sum(n) END AS entropy_bits,
    arg_min(class, (-n, class)) AS majority_class,
    arg_min(label, (-n, class)) AS majority_label,
    max(n) / sum(n) AS majority_share
FROM counted
GROUP BY ALL;

CREATE VIEW stimuli AS
WITH named AS (
    SELECT image_set, image_id, split_part(name, '/', 1) AS kind, '/' || left(split_part(name, '/', 2), -4) AS encoded
    FROM images WHERE regexp_full_match(name, '[a-z]+/([a-z]+=[^=,/]+,)*[a-z]+=[^=,/]+[.]png'))
SELECT
    image_set, image_id, kind,
    {stimulus columns}
FROM named;

CREATE VIEW image_responses AS
SELECT r.run, r.model, r.image_set, a.layer, a.channel, unnest(range(len(a.activations)))::INTEGER AS image_id,
       unnest(a.activations) AS activation
FROM responses a JOIN runs r USING (run);

CREATE VIEW grating_responses AS
-- the gratings of `stimuli.design`: full contrast, grey, two phases of which the stronger counts
SELECT r.run, r.model, r.image_set, a.layer, a.channel, s.orientation, s.frequency,
       max(a.activations[s.image_id + 1]) AS response, arg_max(s.image_id, a.activations[s.image_id + 1]) AS image_id
FROM responses a JOIN runs r USING (run) JOIN stimuli s USING (image_set)
WHERE s.kind = 'grating' AND s.contrast = 1 AND s.colour = 'luminance' AND s.phase IN (0, 90)
GROUP BY ALL;

CREATE VIEW hue_responses AS
SELECT r.run, r.model, r.image_set, a.layer, a.channel, s.hue, a.activations[s.image_id + 1] AS response, s.image_id
FROM responses a JOIN runs r USING (run) JOIN stimuli s USING (image_set)
WHERE s.kind = 'colour' AND s.saturation = 1 AND s.value = 1;

CREATE VIEW tuning AS
-- Responses count from the channel's weakest, so that the sums are of what is not negative.
WITH gratings AS (
    SELECT *, response - min(response) OVER channels AS raised,
           arg_max(frequency, response) OVER channels AS best_frequency
    FROM grating_responses WINDOW channels AS (PARTITION BY run, layer, channel)),
by_grating AS (
    SELECT run, model, image_set, layer, channel,
           arg_max(orientation, response) AS orientation, arg_max(frequency, response) AS frequency,
           sqrt(pow(sum(raised * cos(radians(2 * orientation))) FILTER (frequency = best_frequency), 2)
                + pow(sum(raised * sin(radians(2 * orientation))) FILTER (frequency = best_frequency), 2))
           / nullif(sum(raised) FILTER (frequency = best_frequency), 0) AS orientation_selectivity
    FROM gratings GROUP BY ALL),
hues AS (
    SELECT *, response - min(response) OVER (PARTITION BY run, layer, channel) AS raised FROM hue_responses),
by_hue AS (
    SELECT run, layer, channel, arg_max(hue, response) AS hue,
           sqrt(pow(sum(raised * cos(radians(hue))), 2) + pow(sum(raised * sin(radians(hue))), 2))
           / nullif(sum(raised), 0) AS hue_selectivity
    FROM hues GROUP BY ALL)
SELECT g.*, h.hue, h.hue_selectivity FROM by_grating g JOIN by_hue h USING (run, layer, channel);
""".replace("{stimulus columns}", _STIMULUS_COLUMNS)

# Comments shown in SQL clients; `test_every_table_and_column_is_explained` keeps this complete.
COMMENTS: dict[str, tuple[str, dict[str, str]]] = {
    "image_sets": (
        "Imported image sets.",
        {
            "image_set": "Name of the set.",
            "source": "Source of the images, as given by the user.",
            "images": "Number of images.",
            "labelled": "Number of images with a label.",
            "created": "Time of the first import, UTC.",
        },
    ),
    "images": (
        "Every image of every set.",
        {
            "image_set": "Set the image belongs to.",
            "image_id": "Number within the set: dense, from 0, never reassigned.",
            "key": "SHA-256 of the file's bytes, in hexadecimal.",
            "name": "Path of the image inside its source.",
            "path": "File with the original bytes; relative to CONVSCOPE_HOME where Convscope keeps a copy.",
            "width": "Width in pixels after EXIF rotation.",
            "height": "Height in pixels after EXIF rotation.",
            "bytes": "Size of the original file.",
            "split": "`train`, `val` or `test` where the source has splits.",
            "wnid": "WordNet id of the label, where known.",
            "label_index": "Index of the label in ImageNet-1k's 1,000 sorted WNIDs, where it is one of them.",
            "label": "Name of the label; names repeat, so join on wnid.",
            "dhash": "Perceptual hash of 64 bits: images that look alike differ in few of them (see near_duplicates).",
            "colors": "Mean red, green and blue of 8 x 8 cells, row by row: 192 numbers; NULL for images "
            "imported before this was stored.",
        },
    ),
    "classes": (
        "Classes of the models, by vocabulary.",
        {
            "vocabulary": "Name of the vocabulary.",
            "class_index": "Index of the class's logit.",
            "wnid": "WordNet id, where the class has one.",
            "name": "Short name; names repeat.",
            "description": "All names, or a definition.",
        },
    ),
    "label_matches": (
        "Which class of the model each label of a run's image set matches, and how it was matched.",
        {
            "run": "Run the row belongs to.",
            "label": "Label in the image set.",
            "wnid": "WordNet id of the label, where known.",
            "images": "Images of the set with this label.",
            "how": "How it was matched: `settled` (label_choices), `wnid`, `exact`, `unicode`, "
            "`separators`, `case` or `synonym`; `ambiguous` where several classes are possible; `none`.",
            "class_index": "Class in the model's vocabulary; NULL where there is no match or it is ambiguous.",
            "candidates": "Candidate classes of an ambiguous label.",
        },
    ),
    "label_choices": (
        "Matches set by users with `convscope models map-labels`; the next indexing of the set applies them.",
        {
            "model": "Name of the model.",
            "image_set": "Name of the set.",
            "label": "WordNet id of the label, or its name if it has none.",
            "class_index": "Class in the model's vocabulary; NULL where the label is not a class.",
        },
    ),
    "models": (
        "Indexed models, with the preprocessing their weights require.",
        {
            "model": "Name of the model.",
            "source": "Specification it was loaded from.",
            "architecture": "Class or architecture name.",
            "parameters": "Number of parameters.",
            "weights_sha256": "SHA-256 over all weights and buffers in name order.",
            "digest": "SHA-256 over weights, preprocessing and classes: everything its results depend on. "
            "Equal to weights_sha256 in rows written before it was stored.",
            "input_height": "Height of the model's input in pixels.",
            "input_width": "Width of the model's input in pixels.",
            "resize_height": "Height before the center crop; NULL where resize_width sets the shortest side.",
            "resize_width": "Width before the center crop, or length of the shortest side.",
            "interpolation": "Resampling filter of the resize.",
            "crop_rounding": "How the center crop rounds an odd margin: half_even or down.",
            "fit": "How the resize fits height and width: exact changes the aspect ratio; cover and contain "
            "preserve it.",
            "mean": "Subtracted from pixels in [0, 1], per channel R, G, B; one number for a gray model.",
            "std": "Divides after the mean is subtracted, per channel R, G, B; one number for a gray model.",
            "vocabulary": "Vocabulary of its classes.",
            "classes": "Number of logits.",
        },
    ),
    "layers": (
        "Layers of each indexed model in the order of the forward pass, with their receptive fields.",
        {
            "model": "Name of the model.",
            "layer": "Name of the layer, unique within the model.",
            "position": "Position in the forward pass, from 0.",
            "label": "The readable name: `stage 2 > block 1 > dwconv`.",
            "module": "Dotted path of the module in the network.",
            "kind": "What the layer is: dwconv, pwconv1, conv, linear, ...",
            "description": "Kernel, channels, stride: `d7x7 conv, 192, stride 1`.",
            "stage": "Stage it belongs to.",
            "block": "Block within the stage.",
            "channels": "Number of channels.",
            "height": "Rows of its feature map.",
            "width": "Columns of its feature map.",
            "rf_size_y": "Height of the theoretical receptive field in input pixels; NULL where global.",
            "rf_size_x": "Width of the theoretical receptive field in input pixels; NULL where global.",
            "jump_y": "Input pixels between adjacent rows of the feature map.",
            "jump_x": "Input pixels between adjacent columns of the feature map.",
            "start_y": "Top edge of row 0's field in input pixels, negative in padding; its center where global.",
            "start_x": "Left edge of column 0's field in input pixels, negative in padding; its center where global.",
            "rf_global": "True where every position sees the whole image.",
            "rf_exact": "False where the field is an upper bound of what a unit sees; NULL where unknown.",
            "erf_size": "Side of the centered box that contains 95 % of the mean absolute input gradient, in pixels.",
        },
    ),
    "modules": (
        "Modules of each model's network, in the order the network defines them; a layer is the output of one.",
        {
            "model": "Name of the model.",
            "position": "Position in the network's order, from 0.",
            "module": "Path of the module inside the network.",
            "kind": "The module's class.",
            "left_out": "Why a module with channels is not a layer here; NULL for all others.",
        },
    ),
    "layer_edges": (
        "Which layer feeds which, as the drawing of the network shows it.",
        {
            "model": "Name of the model.",
            "source": "Layer the data comes from.",
            "target": "Layer the data goes to.",
        },
    ),
    "runs": (
        "One pass of a model over an image set: the latest for each pair.",
        {
            "run": "Number of the run, never reused.",
            "model": "Model of the run.",
            "image_set": "Image set of the run.",
            "k": "Images kept per channel.",
            "dtype": "Precision of the forward pass.",
            "device": "Device it ran on.",
            "layers": "Number of layers indexed.",
            "images": "Number of images in the set at that time.",
            "unreadable": "Number of images that could no longer be read.",
            "seconds": "Duration of the pass over the images in seconds, without loading the model.",
            "started": "Start, UTC.",
            "finished": "End, UTC.",
            "version": "Version of Convscope.",
        },
    ),
    "activations": (
        "The k top-activating images of each channel: one row per run, layer, channel and rank.",
        {
            "run": "Run the row belongs to.",
            "layer": "Layer.",
            "channel": "Channel, from 0.",
            "rank": "1 is the strongest; ties go to the lowest image id.",
            "image_id": "Image.",
            "activation": "Value at the image's best position in this channel.",
            "y": "Row of that position in the feature map; the lowest position on ties.",
            "x": "Column of that position in the feature map.",
        },
    ),
    "activations_by_image": (
        "The rows of `activations`, ordered by image: fast for `which channels does this image activate`.",
        {
            "run": "Run the row belongs to.",
            "image_id": "Image.",
            "layer": "Layer.",
            "channel": "Channel, from 0.",
            "rank": "1 is the strongest.",
            "activation": "Value at the image's best position in this channel.",
            "y": "Row of that position in the feature map.",
            "x": "Column of that position in the feature map.",
        },
    ),
    "predictions": (
        "The five most probable classes of each image and its labeled class, whatever its rank.",
        {
            "run": "Run the row belongs to.",
            "image_id": "Image.",
            "rank": "1 is the prediction; the labeled class keeps its rank even beyond 5.",
            "class_index": "Class in the model's vocabulary.",
            "probability": "Softmax of the logits.",
            "logit": "The network's output for the class.",
            "is_label": "True for the labeled class; an image without such a row is unlabeled for this model.",
        },
    ),
    "channel_stats": (
        "Statistics of each channel's best activation per image.",
        {
            "run": "Run the row belongs to.",
            "layer": "Layer.",
            "channel": "Channel, from 0.",
            "mean": "Mean over images of the image's best activation.",
            "std": "Standard deviation over images (population).",
            "min": "Smallest.",
            "max": "Largest.",
            "dead": "True where all images (two or more) give exactly the same value.",
            "nonfinite": "Number of images whose best value is NaN or infinite; they are excluded from "
            "ranks and statistics.",
        },
    ),
    "channel_histograms": (
        "Histogram of each channel's best activation per image, with the same bins for all channels.",
        {
            "run": "Run the row belongs to.",
            "layer": "Layer.",
            "channel": "Channel, from 0.",
            "low": "Lower edge of the bin.",
            "high": "Upper edge of the bin; bins are half-open.",
            "images": "Number of images in the bin; empty bins have no row.",
        },
    ),
    "atlas_info": (
        "Information about this file.",
        {"schema_version": "Version of these tables."},
    ),
    "patches": (
        "Activations joined with images and layers: what the Patches page shows.",
        {
            "run": "Run.",
            "model": "Model.",
            "image_set": "Image set.",
            "layer": "Layer.",
            "channel": "Channel, from 0.",
            "rank": "1 is the strongest.",
            "activation": "Value at the image's best position.",
            "image_id": "Image.",
            "y": "Row in the feature map.",
            "x": "Column in the feature map.",
            "box": "Theoretical receptive field: half-open box in model-input pixels, cut at the input's edge.",
            "erf_box": "Effective receptive field: half-open box in model-input pixels, cut at the input's edge.",
            "label": "Name of the image's label.",
            "label_index": "ImageNet-1k index of the label.",
            "wnid": "WordNet id of the label.",
            "name": "Path of the image inside its source.",
        },
    ),
    "selectivity": (
        "How strongly the labeled images in a channel's top-k agree on one class.",
        {
            "run": "Run.",
            "model": "The run's model.",
            "image_set": "The run's image set.",
            "layer": "Layer.",
            "channel": "Channel, from 0.",
            "labelled": "Number of labeled images in the top-k.",
            "classes": "Number of distinct classes among them.",
            "entropy_bits": "Entropy of the classes in bits: 0 where all agree.",
            "majority_class": "WordNet id (or name, if it has none) of the most frequent class.",
            "majority_label": "Its name.",
            "majority_share": "Its share of the labeled images.",
        },
    ),
    "near_duplicates": (
        "Pairs of images of a set that look alike: perceptual hashes that differ in at most 5 bits of 64, and colors "
        "of 8 x 8 cells that correlate by 0.95 or more. An image that hardly changes from left to right, "
        "for which the hash is no evidence, pairs only with the same file.",
        {
            "image_set": "Set both belong to.",
            "image_a": "The lower image id; of images with equal hashes that look alike, the lowest represents all.",
            "image_b": "The higher image id.",
            "distance": "Bits in which their hashes differ.",
            "identical": "True where the files hold the same bytes.",
        },
    ),
    "responses": (
        "Every image's best activation in each channel, of runs over small sets; `image_responses` has a row for each.",
        {
            "run": "Run the row belongs to.",
            "layer": "Layer.",
            "channel": "Channel, from 0.",
            "activations": "Entry image_id + 1 belongs to that image; NULL where it could not be read or is "
            "not finite.",
        },
    ),
    "image_responses": (
        "Every image's best activation in each channel, of runs over small sets.",
        {
            "run": "Run the row belongs to.",
            "model": "Model of the run.",
            "image_set": "Image set of the run.",
            "layer": "Layer.",
            "channel": "Channel, from 0.",
            "image_id": "Image.",
            "activation": "Value at the image's best position in this channel.",
        },
    ),
    "grating_responses": (
        "Responses of a channel to gray gratings of full contrast, by orientation and frequency.",
        {
            "run": "Run the row belongs to.",
            "model": "Model of the run.",
            "image_set": "Set of probe images.",
            "layer": "Layer.",
            "channel": "Channel, from 0.",
            "orientation": "Direction of the stripes in degrees, counter-clockwise from x.",
            "frequency": "Cycles per image.",
            "response": "Best activation, for the stronger of the two phases.",
            "image_id": "Image with that phase.",
        },
    ),
    "hue_responses": (
        "Responses of a channel to plain saturated colors.",
        {
            "run": "Run the row belongs to.",
            "model": "Model of the run.",
            "image_set": "Set of probe images.",
            "layer": "Layer.",
            "channel": "Channel, from 0.",
            "hue": "Hue in degrees: 0 red, 120 green, 240 blue.",
            "response": "Best activation.",
            "image_id": "Picture.",
        },
    ),
    "tuning": (
        "Preferred grating and hue of each channel, and its selectivity (1 - circular variance).",
        {
            "run": "Run the row belongs to.",
            "model": "Model of the run.",
            "image_set": "Set of probe images.",
            "layer": "Layer.",
            "channel": "Channel, from 0.",
            "orientation": "Orientation of the grating with the strongest response, in degrees.",
            "frequency": "Its frequency in cycles per image.",
            "orientation_selectivity": "|sum R exp(2i orientation)| / sum R at that frequency, R from the weakest up.",
            "hue": "Hue with the strongest response, in degrees.",
            "hue_selectivity": "|sum R exp(i hue)| / sum R: 0 where all hues respond alike, 1 where only one responds.",
        },
    ),
    "stimuli": (
        "Probe images with the parameters encoded in their names: `grating/orientation=30,frequency=8.png`.",
        {
            "image_set": "Set the image belongs to.",
            "image_id": "Image.",
            "kind": "What the image shows: grating, plaid, checkerboard, rings, letter, ...",
            "orientation": "Direction of stripes and bars, of a wedge or an arc, in degrees, counter-clockwise from x.",
            "angle": "Angle between a plaid's gratings, or of a corner, in degrees.",
            "frequency": "Cycles per image; for spokes, per turn; for dots and checks, along a side.",
            "phase": "Phase at the center in degrees.",
            "contrast": "Michelson contrast; for noise and textures, the root mean square over the mean.",
            "hue": "Hue in degrees: 0 red, 120 green, 240 blue.",
            "saturation": "Saturation of a plain color, 0 to 1 (HSV).",
            "value": "Value of a plain color, 0 to 1 (HSV).",
            "size": "Width, diameter or radius of an arc in image widths; for dots, in units of their spacing.",
            "x": "Horizontal offset from the center in image widths, positive to the right.",
            "y": "Vertical offset from the center in image widths, positive upwards.",
            "exponent": "Exponent with which the amplitude of noise falls with frequency: 0 is white, 1 is "
            "as in natural scenes.",
            "bandwidth": "Bandwidth of a texture in octaves.",
            "draw": "Seed of noise and textures.",
            "colour": "Color axis: luminance, red-green or blue-yellow.",
            "polarity": "Polarity: light on dark, or dark on light.",
            "symbol": "Letter, or name of a shape.",
        },
    ),
}


VIEW_NAMES = frozenset(
    {"patches", "selectivity", "near_duplicates", "stimuli", "image_responses"}
    | {"grating_responses", "hue_responses", "tuning"}
)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def comment_on(name: str, about: str, columns: Mapping[str, str], *, view: bool) -> list[str]:
    """Statements that set the comments of a table or view and of its columns."""
    return [
        f"COMMENT ON {'VIEW' if view else 'TABLE'} {name} IS {_literal(about)};",
        *(f'COMMENT ON COLUMN {name}."{column}" IS {_literal(text)};' for column, text in columns.items()),
    ]


def ddl() -> str:
    """All statements that create an empty atlas, comments included."""
    comments = [
        statement
        for table, (about, columns) in COMMENTS.items()
        for statement in comment_on(table, about, columns, view=table in VIEW_NAMES)
    ]
    info = f"INSERT INTO atlas_info VALUES ({latest_version()});"
    return "\n".join([_TABLES, _NEAR_DUPLICATES, _VIEWS, info, *comments])
