import assert from "node:assert/strict";
import { test } from "node:test";

import { UploadStopped, upload } from "../../dashboard/browser/upload.js";

const PIECE = 4;

/** A server that keeps what it receives; `disturb(path, call)` may return another answer or throw. */
function server(disturb = () => null) {
    const state = { asked: [], files: new Map(), waited: [], deleted: false, atOnce: 0, most: 0, puts: 0 };
    return {
        state,
        async ask(path, method, body) {
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
    const sending = upload(named(...texts), null, (sent, total) => reports.push([sent, total]), transport);
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
        if (call === 2) throw new Error("the connection broke");
        if (call === 3) return { status: 502, content: null };
        if (call === 4) {
            keep(number, offset, "ef"); // half of it arrived, its answer did not
            throw new Error("the connection broke");
        }
        return null;
    });
    await upload(named("abcdefghij"), null, () => null, transport).done;
    assert.equal(transport.state.files.get(0), "abcdefghij");
    assert.deepEqual(transport.state.waited, [500, 1000, 2000]);
});

test("a file that the broken request still holds is tried again", async () => {
    const held = { status: 409, content: { error: "file 0: another piece of it is being received" } };
    const transport = server(({ call }) => (call === 1 ? held : null));
    await upload(named("abc"), null, () => null, transport).done;
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
        await assert.rejects(upload(named("abc"), null, () => null, transport).done, { message: sentence });
        assert.equal(transport.state.puts, 1);
        assert.equal(transport.state.deleted, true);
    });
}

test("after six attempts the error names the file", async () => {
    const transport = server(() => ({ status: 503, content: { error: "busy" } }));
    await assert.rejects(upload(named("abc"), null, () => null, transport).done, {
        message: "0.jpg cannot be sent: busy",
    });
    assert.equal(transport.state.puts, 6);
});

test("stopping aborts what is under way and deletes the upload", async () => {
    const transport = server(({ signal }) => {
        sending.stop();
        assert.ok(signal.aborted);
        throw new Error("aborted");
    });
    const sending = upload(named("abc", "def", "ghi", "jkl"), null, () => null, transport);
    await assert.rejects(sending.done, UploadStopped);
    assert.ok(transport.state.puts <= 3);
    assert.equal(transport.state.deleted, true);
});

test("stopping ends a pause between attempts", { timeout: 5000 }, async () => {
    const transport = server(() => ({ status: 503, content: null }));
    transport.wait = () => new Promise(() => setTimeout(sending.stop, 0));
    const sending = upload(named("abc"), null, () => null, transport);
    await assert.rejects(sending.done, UploadStopped);
});

test("stopping before the server has answered deletes the upload too", async () => {
    const transport = server();
    const sending = upload(named("", ""), null, () => null, transport);
    sending.stop();
    await assert.rejects(sending.done, UploadStopped);
    assert.equal(transport.state.deleted, true);
});

test("a label table joins an existing upload, which outlives an error", async () => {
    const [table] = named("a,b\n");
    const transport = server();
    const reports = [];
    const { done } = upload(named("abc"), table, (...report) => reports.push(report), transport, "k");
    assert.deepEqual(await done, { upload: "k", labels: 7 });
    assert.deepEqual(transport.state.asked, [["POST", "/api/uploads/k/labels", { name: "0.jpg", size: 4 }]]);
    assert.deepEqual(Object.fromEntries(transport.state.files), { 7: "a,b\n" });
    assert.deepEqual(reports.at(-1), [4, 4]);
    const broken = server(() => ({ status: 507, content: null }));
    await assert.rejects(upload(named("abc"), table, () => null, broken, "k").done);
    assert.equal(broken.state.deleted, false);
});
