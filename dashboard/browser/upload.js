/* Sends files to /api/uploads in pieces, a few files at a time; a broken piece is resumed where the server's
   file ends. Reads what a user drops or chooses. */
import { RequestError, ask, local } from "./base.js";

const AT_ONCE = 3;
const ATTEMPTS = 6;

const wait = (/** @type {number} */ milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const HTTP = { ask, put, wait };

/**
 * Starts to send files, or a label table for files that the upload `existing` already has. If it fails or is
 * stopped, a new upload is deleted.
 *
 * @param {NamedFile[]} files @param {NamedFile | null} labels
 * @param {(sent: number, total: number) => void} report Called with bytes.
 * @param {string | null} [existing]
 * @returns {{ done: Promise<Sent | SendingFailed>, stop: () => void }}
 */
export function upload(files, labels, report, existing = null, transport = HTTP) {
    const queue = existing ? [] : files.map((one, number) => ({ ...one, number }));
    const total = [...queue, ...(labels ? [labels] : [])].reduce((sum, { file }) => sum + file.size, 0);
    const control = new AbortController();
    const { signal } = control;
    /** @type {Promise<void>} */
    const aborted = new Promise((done) => signal.addEventListener("abort", () => done()));
    /** @type {Map<number, number>} bytes of the piece under way, by file */
    const partial = new Map();
    let key = existing ?? "";
    let complete = 0;
    let stopped = false;
    const progress = () => report(complete + [...partial.values()].reduce((sum, n) => sum + n, 0), total);

    async function run() {
        progress();
        /** @type {any} */
        let begun;
        if (!existing) {
            const listed = files.map(({ name, file }) => ({ name, size: file.size }));
            begun = await transport.ask("/api/uploads", { method: "POST", body: { files: listed } });
            key = begun.upload;
        }
        if (labels) {
            const body = { name: labels.name, size: labels.file.size };
            begun = await transport.ask(`/api/uploads/${key}/labels`, { method: "POST", body });
            queue.unshift({ ...labels, number: begun.file });
        }
        const lane = async () => {
            for (let next = queue.shift(); next; next = queue.shift()) await sendFile(next, begun.piece);
        };
        await Promise.all(Array.from({ length: AT_ONCE }, lane));
        signal.throwIfAborted();
        return { upload: key, labels: labels ? begun.file : null };
    }

    /** @param {NumberedFile} part @param {number} length */
    async function sendFile(part, length) {
        for (let offset = 0; offset < part.file.size; progress()) {
            const end = await sendPiece(part, offset, part.file.slice(offset, offset + length));
            complete += end - offset;
            offset = end;
        }
    }

    /**
     * Returns where the server's file ends after the piece.
     * @param {NumberedFile} part @param {number} offset @param {Blob} piece
     */
    async function sendPiece({ name, number }, offset, piece) {
        const path = `/api/uploads/${key}/files/${number}?offset=${offset}`;
        /** @type {ReportBytes} */
        const sent = (bytes) => {
            partial.set(number, bytes);
            progress();
        };
        for (let attempt = 1; ; attempt++) {
            signal.throwIfAborted();
            const { status, content } = await transport.put(path, piece, sent, signal);
            partial.delete(number);
            const received = content?.received;
            // 409: all or part of the piece arrived, but the answer did not
            const reached = status === 200 || (status === 409 && Number(received) > offset);
            if (reached && received !== undefined) return received;
            const trouble =
                content?.error ?? (status ? `the server answered ${status}` : "the connection broke");
            // without a number, the request that broke still holds the file
            const busy = status === 409 && received === undefined;
            if (status === 507 || (status >= 400 && status < 500 && !busy))
                throw new RequestError(trouble, status);
            if (attempt === ATTEMPTS) throw new Error(`${name} cannot be sent: ${trouble}`);
            await Promise.race([transport.wait(250 * 2 ** attempt), aborted]);
        }
    }

    const done = run().catch(async (error) => {
        control.abort();
        if (key && !existing)
            await transport.ask(`/api/uploads/${key}`, { method: "DELETE" }).catch(() => null);
        return { error: error.message, status: error.status ?? 0, stopped };
    });
    const stop = () => {
        stopped = true;
        control.abort();
    };
    return { done, stop };
}

/** By XMLHttpRequest, because fetch reports no progress. @type {PutPiece} */
function put(path, piece, sent, signal) {
    return new Promise((resolve) => {
        const request = new XMLHttpRequest();
        const abort = () => request.abort();
        signal.addEventListener("abort", abort);
        request.open("PUT", local(path));
        request.setRequestHeader("Content-Type", "application/octet-stream");
        request.responseType = "json"; // null for an error page of a proxy
        request.upload.onprogress = (event) => sent(event.loaded);
        request.onloadend = () => {
            signal.removeEventListener("abort", abort);
            resolve({ status: request.status, content: request.response });
        };
        request.send(piece);
    });
}

/** Files of a drop, also in folders. @param {DataTransfer} transfer @returns {Promise<NamedFile[]>} */
export async function dropped(transfer) {
    const entries = [...transfer.items].flatMap((item) => item.webkitGetAsEntry() ?? []);
    if (!entries.length) return chosen(transfer.files);
    return (await Promise.all(entries.map((entry) => filesBelow(entry, "")))).flat();
}

/** @param {FileSystemEntry} entry @param {string} folder @returns {Promise<NamedFile[]>} */
async function filesBelow(entry, folder) {
    if (entry.isFile) {
        const one = /** @type {FileSystemFileEntry} */ (entry);
        return [{ name: folder + one.name, file: await new Promise((done, fail) => one.file(done, fail)) }];
    }
    const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
    const found = [];
    for (;;) {
        /** @type {FileSystemEntry[]} at most a hundred at a time */
        const some = await new Promise((done, fail) => reader.readEntries(done, fail));
        if (!some.length) return found;
        for (const one of some) found.push(...(await filesBelow(one, `${folder}${entry.name}/`)));
    }
}

/** The files of a file input. @param {FileList} list @returns {NamedFile[]} */
export const chosen = (list) =>
    [...list].map((file) => ({ name: file.webkitRelativePath || file.name, file }));
