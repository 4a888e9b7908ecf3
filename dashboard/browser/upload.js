/* Sends files to /api/uploads in pieces, some at a time; a piece that breaks off is asked for again where the file ends. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const AT_ONCE = 3;
const TRIES = 6;

class Stopped extends Error {}
convscope.UploadStopped = Stopped;

/* `files` are { name, file }; `labels` is the file of a table of labels for them, or null; `tell` hears (bytes sent,
   bytes in all); `there` is the upload that has the files already, or null. Gives { done, stop }: a promise of
   { upload, labels }, its key and the number of the labels file in it; and what ends it and takes away a new upload. */
convscope.upload = function (files, labels, tell, there = null) {
    const parts = there ? [] : files.map(({ name, file }, number) => ({ name, file, number }));
    const total = [...parts, ...(labels ? [{ file: labels }] : [])].reduce(
        (sum, one) => sum + one.file.size,
        0,
    );
    const under = new Set();
    let key = there,
        stopped = false,
        sent = 0;
    const partly = new Map();
    const say = () => tell(sent + [...partly.values()].reduce((sum, bytes) => sum + bytes, 0), total);

    async function run() {
        say();
        const post = (path, body) => convscope.ask(path, { method: "POST", body });
        let begun = null;
        if (!there) {
            begun = await post("/api/uploads", {
                files: files.map(({ name, file }) => ({ name, size: file.size })),
            });
            key = begun.upload;
        }
        const table = labels
            ? await post(`/api/uploads/${key}/labels`, { name: labels.name, size: labels.size })
            : null;
        if (table) parts.unshift({ name: labels.name, file: labels, number: table.file });
        const piece = (begun || table || {}).piece;
        let next = 0;
        const lane = async () => {
            while (next < parts.length) {
                if (stopped) throw new Stopped();
                await one(parts[next++], piece);
            }
        };
        await Promise.all(Array.from({ length: AT_ONCE }, lane));
        if (stopped) throw new Stopped();
        return { upload: key, labels: table ? table.file : null };
    }

    async function one({ name, file, number }, piece) {
        let offset = 0;
        while (offset < file.size) {
            const reached = await again(number, file.slice(offset, offset + piece), offset, name);
            sent += reached - offset;
            offset = reached;
            say();
        }
    }

    /* Where the file ends after the piece; tried anew while the connection breaks. */
    async function again(number, blob, offset, name) {
        for (let attempt = 1; ; attempt++) {
            if (stopped) throw new Stopped();
            try {
                const answer = await put(
                    `/api/uploads/${key}/files/${number}?offset=${offset}`,
                    blob,
                    number,
                );
                if (answer.status === 200) return answer.content.received;
                // what broke off may have come whole
                if (answer.status === 409 && answer.content.received > offset) return answer.content.received;
                const error = new Error(
                    (answer.content && answer.content.error) || `the server answered ${answer.status}`,
                );
                error.final = answer.status < 500 || answer.status === 507;
                throw error;
            } catch (error) {
                if (error instanceof Stopped || error.final) throw error;
                if (attempt === TRIES) throw new Error(`${name} cannot be sent: ${error.message}`);
                await new Promise((done) => setTimeout(done, 250 * 2 ** attempt));
            }
        }
    }

    function put(path, blob, number) {
        return new Promise((resolve, reject) => {
            const request = new XMLHttpRequest(); // fetch does not tell how much was sent
            under.add(request);
            const end = () => {
                under.delete(request);
                partly.delete(number);
            };
            request.open("PUT", convscope.local(path));
            request.setRequestHeader("Content-Type", "application/octet-stream");
            request.upload.onprogress = (event) => {
                partly.set(number, event.loaded);
                say();
            };
            request.onload = () => {
                end();
                let content = null;
                try {
                    content = JSON.parse(request.responseText);
                } catch (error) {
                    /* an error page */
                }
                resolve({ status: request.status, content });
            };
            request.onerror = () => {
                end();
                reject(new Error("the connection broke"));
            };
            request.onabort = () => {
                end();
                reject(new Stopped());
            };
            request.send(blob);
        });
    }

    async function stop() {
        stopped = true;
        for (const request of [...under]) request.abort();
        await done.catch(() => null);
        if (key && !there) await convscope.ask(`/api/uploads/${key}`, { method: "DELETE" }).catch(() => null);
    }

    const done = run().catch(async (error) => {
        const mine = stopped;
        stopped = true;
        for (const request of [...under]) request.abort();
        if (!mine && key && !there)
            await convscope.ask(`/api/uploads/${key}`, { method: "DELETE" }).catch(() => null);
        throw error;
    });
    done.catch(() => null);
    return { done, stop };
};

/* The files of a drop, folders walked through, as { name, file }. */
convscope.dropped = async function (transfer) {
    const entries = [...transfer.items]
        .map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry())
        .filter(Boolean);
    if (!entries.length) return [...transfer.files].map((file) => ({ name: file.name, file }));
    const found = [];
    const walk = async (entry, prefix) => {
        if (entry.isFile) {
            const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
            found.push({ name: prefix + file.name, file });
            return;
        }
        const reader = entry.createReader();
        for (;;) {
            // gives a hundred at a time
            const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
            if (!some.length) return;
            for (const one of some) await walk(one, `${prefix}${entry.name}/`);
        }
    };
    for (const entry of entries) await walk(entry, "");
    return found;
};

convscope.chosen = (list) => [...list].map((file) => ({ name: file.webkitRelativePath || file.name, file }));

convscope.bytes = function (size) {
    for (const unit of ["bytes", "kB", "MB"]) {
        if (size < 1000) return `${unit === "bytes" ? size : size.toFixed(size < 10 ? 1 : 0)} ${unit}`;
        size /= 1000;
    }
    return `${size.toFixed(1)} GB`;
};
