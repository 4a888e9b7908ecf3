"""Gallery of a SQL result: an image and a link for each row that names an image, a patch, a map or an attack."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from dash import html

from dashboard.components.elements import Component, attributes
from dashboard.components.formatting import activation, count
from dashboard.components.sql_table import as_text, shortened
from dashboard.pictures.routes import patch_address, thumbnail_address
from dashboard.security.prefix import local
from dashboard.state.address import AttackAddress, ChannelAddress, ImageAddress
from dashboard.state.context import Catalogue, Context, Record
from dashboard.state.sql_statements import Answer
from db.atlas.image_sets import images_by_id
from db.sql.formats import distinct
from workers.requests.parameters import MAX_NUMBER

MAX_CARDS = 240
MAX_FACTS = 4
# Columns that identify a card's image; the caption shows the others.
IDENTIFYING = frozenset(
    ("run", "image_set", "image_id", "y", "x", "attack", "map", "model", "layer", "channel")
)
Row = Mapping[str, Any]


def has_pictures(names: Sequence[str]) -> bool:
    """Whether rows with these columns can be shown as images."""
    return bool({"image_id", "attack", "map"} & set(names))


def cards(context: Context, rows: Sequence[Row], *, image_set: str) -> list[Record | None]:
    """An image (`src`, `href`, `kind`) for each row; None for a row that refers to nothing that exists.

    Args:
        image_set: the set of images in rows without `image_set` and `run`.
    """
    catalogue = context.catalogue()
    places = [_place(catalogue, row, image_set) for row in rows[:MAX_CARDS]]
    wanted: dict[str, set[int]] = {}
    for place in places:
        if place is not None:
            wanted.setdefault(place[0], set()).add(place[1])
    keys = {
        (name, found["image_id"]): str(found["key"])
        for name, ids in wanted.items()
        for found in context.atlas.fetch(images_by_id(name, sorted(ids)))
    }
    return [_card(catalogue, row, place, keys) for row, place in zip(rows, places, strict=False)]


def _whole(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= MAX_NUMBER else None


def _run(catalogue: Catalogue, row: Row) -> Record | None:
    """The run of a row: by its number, else by model and image set."""
    number = _whole(row.get("run"))
    if number is not None:
        return catalogue.run_numbered(number)
    model, images = row.get("model"), row.get("image_set")
    return catalogue.run(model, images) if isinstance(model, str) and isinstance(images, str) else None


def _place(catalogue: Catalogue, row: Row, image_set: str) -> tuple[str, int] | None:
    """Image set and image id of a row."""
    number = _whole(row.get("image_id"))
    if number is None:
        return None
    if isinstance(row.get("image_set"), str):
        return row["image_set"], number
    run = _run(catalogue, row)
    return (run["image_set"] if run is not None else image_set), number


def _card(
    catalogue: Catalogue, row: Row, place: tuple[str, int] | None, keys: Mapping[tuple[str, int], str]
) -> Record | None:
    attack, number = _whole(row.get("attack")), _whole(row.get("map"))
    if attack is not None:
        # from the attack's number alone: the page finds the rest
        return {
            "kind": "attacked",
            "src": local(f"/api/attacks/{attack}.png"),
            "href": local(AttackAddress.path) + f"?attack={attack}",
        }
    if number is not None:
        url = local(f"/api/maps/{number}.png")
        return {"kind": "map", "src": url, "href": url}
    key = None if place is None else keys.get(place)
    if place is None or key is None:
        return None
    run = _run(catalogue, row)
    layer, channel = row.get("layer"), _whole(row.get("channel"))
    if run is not None and run["image_set"] == place[0] and isinstance(layer, str):
        described = catalogue.layer(run["model"], layer)
        y, x = _whole(row.get("y")), _whole(row.get("x"))
        if described is not None and channel is not None and channel < described["channels"]:
            given = {"model": run["model"], "images": run["image_set"], "layer": layer, "channel": channel}
            href = f"{local(ChannelAddress.path)}?{urlencode(given)}"
            if y is not None and x is not None:
                return {"kind": "patch", "src": patch_address(run, layer, key, y, x), "href": href}
            return {"kind": "image", "src": thumbnail_address(key), "href": href}
    given = {"images": place[0], "id": place[1]}
    return {
        "kind": "image",
        "src": thumbnail_address(quote(key)),
        "href": f"{local(ImageAddress.path)}?{urlencode(given)}",
    }


def answer_cards(context: Context, answer: Answer, *, image_set: str) -> list[Record | None]:
    """The cards of a result's first rows; none if two columns have the same name."""
    if distinct(answer.names) != answer.names:
        return []
    rows = [dict(zip(answer.names, row, strict=True)) for row in answer.rows[:MAX_CARDS]]
    return cards(context, rows, image_set=image_set)


def gallery(answer: Answer, found: Sequence[Record | None]) -> list[Component]:
    """The gallery of a result with its cards."""
    shown = [(card, row) for card, row in zip(found, answer.rows, strict=False) if card is not None]
    notes = []
    if len(answer.rows) > len(found):
        notes.append(f"The first {len(found)} rows.")
    lost = len(found) - len(shown)
    if lost:
        notes.append(f"{count(lost, 'row')} {'names' if lost == 1 else 'name'} no existing image.")
    differs = any(
        name in answer.names and len({as_text(row[answer.names.index(name)]) for row in answer.rows}) > 1
        for name in ("layer", "channel")
    )
    items = [html.Li(_shown_card(answer, card, row, by_channel=differs)) for card, row in shown]
    return [html.P(" ".join(notes), className="quiet"), html.Ul(items, className="thumbnails sql-cards")]


def _shown_card(answer: Answer, card: Record, row: Sequence[Any], *, by_channel: bool) -> Component:
    values = {
        column.name: as_text(shortened(value, column.kind))
        for column, value in zip(answer.columns, row, strict=True)
    }
    if by_channel:
        place = " · ".join(filter(None, (values.get("layer", ""), values.get("channel", ""))))
    else:
        place = f"image {values['image_id']}" if values.get("image_id") else ""
    facts = [
        (column.name, _fact(value))
        for column, value in zip(answer.columns, row, strict=True)
        if column.name not in IDENTIFYING
    ]
    return html.A(
        [
            # the page's script turns data-src into a source that is loaded when it comes into view
            html.Img(
                alt=f"{card['kind']} {place}", width=128, height=128, **attributes(data_src=card["src"])
            ),
            html.Span(html.Span(place, className="name"), className="caption"),
            *(
                html.Span(
                    [html.Span(name, className="name quiet"), html.Span(value, className="num")],
                    className="caption",
                )
                for name, value in facts[:MAX_FACTS]
            ),
        ],
        href=card["href"],
        title="\n".join(f"{name}: {as_text(value)}" for name, value in zip(answer.names, row, strict=True)),
        target="_blank" if card["kind"] == "map" else None,
    )


def _fact(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return activation(value) if isinstance(value, float) else as_text(value)
