import assert from "node:assert/strict";
import { test } from "node:test";

import { dropped, upload } from "../../dashboard/browser/upload.js";

const PIECE = 4;
const broke = { status: 0, content: null };

/** A server that keeps what it receives; `disturb(path, call)` may return another answer or throw. */
function server(disturb = () => null) {
    const state = { asked: [], files: new Map(), waited: [], deleted: false, atOnce: 0, most: 0, puts: 0 };
    return {
        state,
        async ask(path, { method, body }) {
            state.asked.push([method, path, body]);
            if (method === "DELETE") state.deleted = true;
            return path.endsWith("/labels") ? { file: 7, piece: PIECE } : { upload: "k", piece: PIECE };
        },
        async put(path, piece, sent, signal) {
            state.puts += 1;
            state.most = Math.max(state.most, ++state.atOnce);
            try {
                sent(piece.size);
                await new Promise((done) => setTimeout(done, 1));
                const [, number, offset] = path.match(/files\/(\d+)\?offset=(\d+)$/).map(Number);
                const other = disturb({ call: state.puts, number, offset, signal, piece, keep });
                if (other) return await other;
                return keep(number, offset, await piece.text());
            } finally {
                state.atOnce -= 1;
            }
        },
        async wait(milliseconds) {
            state.waited.push(milliseconds);
        },
    };

    function keep(number, offset, text) {
        const had = state.files.get(number) ?? "";
        if (had.length !== offset) return { status: 409, content: { received: had.length, error: "offset" } };
        state.files.set(number, had + text);
        return { status: 200, content: { received: had.length + text.length } };
    }
}

const named = (...texts) => texts.map((text, at) => ({ name: `${at}.jpg`, file: new Blob([text]) }));

test("files arrive whole, at most three at once, and the bytes sent never exceed the total", async () => {
    const transport = server();
    const reports = [];
    const texts = ["abcdefghij", "", "klm", "nopqrstu", "vwxyz"];
    const sending = upload(
        named(...texts),
        null,
        (sent, total) => reports.push([sent, total]),
        null,
        transport,
    );
    assert.deepEqual(await sending.done, { upload: "k", labels: null });
    assert.deepEqual(Object.fromEntries(transport.state.files), {
        0: texts[0],
        2: texts[2],
        3: texts[3],
        4: texts[4],
    });
    assert.equal(transport.state.most, 3);
    assert.deepEqual(reports.at(-1), [26, 26]);
    assert.ok(reports.every(([sent, total]) => sent <= total && total === 26));
    assert.equal(transport.state.deleted, false);
});

test("a piece that breaks is sent again from where the file ends, after growing pauses", async () => {
    const transport = server(({ call, number, offset, keep }) => {
        if (call === 2) return broke;
        if (call === 3) return { status: 502, content: null };
        if (call === 4) {
            keep(number, offset, "ef"); // half of it arrived, its answer did not
            return broke;
        }
        return null;
    });
    await upload(named("abcdefghij"), null, () => null, null, transport).done;
    assert.equal(transport.state.files.get(0), "abcdefghij");
    assert.deepEqual(transport.state.waited, [500, 1000, 2000]);
});

test("a file that the broken request still holds is tried again", async () => {
    const held = { status: 409, content: { error: "file 0: another piece of it is being received" } };
    const transport = server(({ call }) => (call === 1 ? held : null));
    await upload(named("abc"), null, () => null, null, transport).done;
    assert.equal(transport.state.files.get(0), "abc");
});

for (const [status, content, sentence] of [
    [507, { error: "the disk has no room" }, "the disk has no room"],
    [404, { error: "there is no upload 'k'" }, "there is no upload 'k'"],
    [409, { error: "offset: expected 0", received: 0 }, "offset: expected 0"],
    [413, null, "the server answered 413"],
]) {
    test(`an answer of ${status} ends the upload at once and deletes it`, async () => {
        const transport = server(() => ({ status, content }));
        const outcome = await upload(named("abc"), null, () => null, null, transport).done;
        assert.deepEqual(outcome, { error: sentence, status, stopped: false });
        assert.equal(transport.state.puts, 1);
        assert.equal(transport.state.deleted, true);
    });
}

test("after six attempts the error names the file", async () => {
    const transport = server(() => ({ status: 503, content: { error: "busy" } }));
    const outcome = await upload(named("abc"), null, () => null, null, transport).done;
    assert.deepEqual(outcome, { error: "0.jpg cannot be sent: busy", status: 0, stopped: false });
    assert.equal(transport.state.puts, 6);
});

test("stopping aborts what is under way and deletes the upload", async () => {
    const transport = server(({ signal }) => {
        sending.stop();
        assert.ok(signal.aborted);
        return broke;
    });
    const sending = upload(named("abc", "def", "ghi", "jkl"), null, () => null, null, transport);
    assert.equal((await sending.done).stopped, true);
    assert.ok(transport.state.puts <= 3);
    assert.equal(transport.state.deleted, true);
});

test("stopping ends a pause between attempts", { timeout: 5000 }, async () => {
    const transport = server(() => ({ status: 503, content: null }));
    transport.wait = () => new Promise(() => setTimeout(sending.stop, 0));
    const sending = upload(named("abc"), null, () => null, null, transport);
    assert.equal((await sending.done).stopped, true);
});

test("stopping before the server has answered deletes the upload too", async () => {
    const transport = server();
    const sending = upload(named("", ""), null, () => null, null, transport);
    sending.stop();
    assert.equal((await sending.done).stopped, true);
    assert.equal(transport.state.deleted, true);
});

test("a label table joins an existing upload, which outlives an error", async () => {
    const [table] = named("a,b\n");
    const transport = server();
    const reports = [];
    const { done } = upload(named("abc"), table, (...report) => reports.push(report), "k", transport);
    assert.deepEqual(await done, { upload: "k", labels: 7 });
    assert.deepEqual(transport.state.asked, [["POST", "/api/uploads/k/labels", { name: "0.jpg", size: 4 }]]);
    assert.deepEqual(Object.fromEntries(transport.state.files), { 7: "a,b\n" });
    assert.deepEqual(reports.at(-1), [4, 4]);
    const broken = server(() => ({ status: 507, content: null }));
    assert.equal((await upload(named("abc"), table, () => null, "k", broken).done).status, 507);
    assert.equal(broken.state.deleted, false);
});

test("a dropped folder is read to its depths, a hundred entries at a time", async () => {
    const file = (name) => ({ isFile: true, name, file: (done) => done(new Blob([name])) });
    const folder = (name, entries) => ({
        isFile: false,
        name,
        createReader: () => {
            const left = [...entries];
            return { readEntries: (done) => done(left.splice(0, 100)) };
        },
    });
    const cats = folder(
        "cat",
        Array.from({ length: 250 }, (_, at) => file(`${at}.jpg`)),
    );
    const entries = [folder("pets", [cats, file("list.txt")]), file("one.png"), null];
    const found = await dropped({
        items: entries.map((entry) => ({ webkitGetAsEntry: () => entry })),
        files: [],
    });
    assert.equal(found.length, 252);
    assert.deepEqual(
        [found[0], found[249], found[250], found[251]].map(({ name }) => name),
        ["pets/cat/0.jpg", "pets/cat/249.jpg", "pets/list.txt", "one.png"],
    );
    assert.equal(await found[249].file.text(), "249.jpg");
});

test("dropped files without entries are taken as they are", async () => {
    const files = [{ name: "1.jpg", webkitRelativePath: "" }];
    const items = [{ webkitGetAsEntry: () => null }];
    assert.deepEqual(await dropped({ items, files }), [{ name: "1.jpg", file: files[0] }]);
});
