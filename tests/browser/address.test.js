import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { addressFollowed, differing, layerBeside } from "../../dashboard/browser/address.js";
import { convscope, ns } from "../../dashboard/browser/namespace.js";

const OPTIONS = [{ value: "stem" }, { value: "one", disabled: true }, { value: "two" }, { value: "head" }];
const NOTHING = {};

const trigger = (...ids) => {
    ns.callback_context = { triggered: ids.map((id) => ({ prop_id: `${id}.value` })) };
};
const patches = (search, values = {}, chosen = { layer: "stem", shown: { k: "10", sort: "index" } }) =>
    convscope.patchesAddress(
        values.tapped ?? null,
        1,
        1,
        values.channels ?? "",
        values.sort ?? "index",
        values.k ?? "10",
        "field",
        "fit",
        OPTIONS,
        chosen,
        search,
    );

beforeEach(() => {
    addressFollowed();
    ns.no_update = NOTHING;
});

test("a control that shows what the server put there writes nothing", () => {
    assert.deepEqual(differing({ k: 10, sort: " index " }, { k: "10", sort: "index" }, {}), {});
    trigger("patches-k");
    assert.equal(patches("?layer=stem"), NOTHING);
});

test("a default is left out of the address, as the number of the page is", () => {
    assert.deepEqual(differing({ k: "10" }, { k: "20" }, { k: "10" }), { k: "" });
    trigger("patches-sort");
    const chosen = { layer: "stem", shown: { sort: "label" } };
    assert.equal(patches("?layer=stem&sort=label&page=3", { sort: "index" }, chosen), "?layer=stem");
});

test("the layer beside another one skips those that are not indexed and stops at the ends", () => {
    assert.equal(layerBeside(OPTIONS, "stem", 1), "two");
    assert.equal(layerBeside(OPTIONS, "one", 1), "two");
    assert.equal(layerBeside(OPTIONS, "stem", -1), undefined);
    assert.equal(layerBeside(OPTIONS, "head", 1), undefined);
});

test("each click on Next counts, also before the address has followed", () => {
    trigger("patches-next");
    assert.equal(patches("?model=m&channels=1"), "?model=m&layer=two");
    assert.equal(patches("?model=m&channels=1"), "?model=m&layer=head");
    addressFollowed();
    assert.equal(patches("?layer=two"), "?layer=head");
});

test("a button that was only drawn changes nothing", () => {
    trigger("patches-next");
    const shown = { layer: "stem", shown: {} };
    const values = ["", "index", "10", "field", "fit", OPTIONS, shown, ""];
    ns.callback_context.triggered.push({ prop_id: "patches-previous.n_clicks" });
    assert.equal(
        convscope.patchesAddress(null, null, null, ...values.with(1, "").with(2, "").with(3, "").with(4, "")),
        NOTHING,
    );
});
