import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { addressFollowed, layerBeside } from "../../dashboard/browser/address.js";
import { convscope, ns } from "../../dashboard/browser/namespace.js";

const OPTIONS = [{ value: "stem" }, { value: "one", disabled: true }, { value: "two" }, { value: "head" }];
const NOTHING = {};

const trigger = (...ids) => {
    ns.callback_context = { triggered: ids.map((id) => ({ prop_id: `${id}.n_clicks` })) };
};
const patches = (search) => convscope.layerAddress(null, 1, 1, OPTIONS, { layer: "stem" }, search);

beforeEach(() => {
    addressFollowed();
    ns.no_update = NOTHING;
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
    ns.callback_context.triggered.push({ prop_id: "patches-previous.n_clicks" });
    const layer = { layer: "stem" };
    assert.equal(convscope.layerAddress(null, null, null, OPTIONS, layer, ""), NOTHING);
});
