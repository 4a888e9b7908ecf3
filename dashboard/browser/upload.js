/* Sends files to /api/uploads in pieces, a few files at a time; a broken piece is resumed where the server's
   file ends. Reads what a user drops or chooses. */

const AT_ONCE = 3;
const ATTEMPTS = 6;

/**
 * @typedef {{ name: string, file: Blob }} Named A file with its path as the user sees it.
 * @typedef {{ status: number, content: { received?: number, error?: string } | null }} Answer
 * @typedef {(path: string, piece: Blob, sent: Sent, signal: AbortSignal) => Promise<Answer>} Put
 * @typedef {(bytes: number) => void} Sent
 * @typedef {object} Transport
 * @property {(path: string, method: string, body?: object) => Promise<any>} ask
 *     A JSON request; rejects with the server's sentence.
 * @property {Put} put Sends one piece; rejects if the connection breaks.
 * @property {(milliseconds: number) => Promise<unknown>} wait
 */

/** The user stopped the upload. */
export class UploadStopped extends Error {}

/** The server's final word: another attempt would not help. */
class Refused extends Error {}

/**
 * Starts to send files, or a label table (`labels`) for files that the upload `existing` already has.
 *
 * `done` resolves to the upload's key and the number of the label table in it; `stop` makes it reject with
 * UploadStopped. If it rejects, a new upload is deleted.
 *
 * @param {Named[]} files
 * @param {Named | null} labels
 * @param {(sent: number, total: number) => void} report Called with bytes.
 * @param {Transport} transport
 * @param {string | null} [existing]
 * @returns {{ done: Promise<{ upload: string, labels: number | null }>, stop: () => void }}
 */
export function upload(files, labels, report, transport, existing = null) {
    const queue = existing ? [] : files.map((one, number) => ({ ...one, number }));
    const total = [...queue, ...(labels ? [labels] : [])].reduce((sum, one) => sum + one.file.size, 0);
    const control = new AbortController();
    const stopped = new Promise((_, reject) =>
        control.signal.addEventListener("abort", () => reject(control.signal.reason)),
    );
    stopped.catch(() => null);
    /** @type {Map<number, number>} bytes of the piece under way, by file */
    const partial = new Map();
    let key = existing ?? "";
    let complete = 0;
    const progress = () => report(complete + [...partial.values()].reduce((sum, n) => sum + n, 0), total);

    async function run() {
        progress();
        const listed = files.map(({ name, file }) => ({ name, size: file.size }));
        const begun = existing ? null : await transport.ask("/api/uploads", "POST", { files: listed });
        key = begun?.upload ?? key;
        const table =
            labels &&
            (await transport.ask(`/api/uploads/${key}/labels`, "POST", {
                name: labels.name,
                size: labels.file.size,
            }));
        if (labels) queue.unshift({ ...labels, number: table.file });
        const length = (begun ?? table)?.piece;
        await Promise.all(
            Array.from({ length: AT_ONCE }, async () => {
                for (let next = queue.shift(); next; next = queue.shift()) await sendFile(next, length);
            }),
        );
        control.signal.throwIfAborted();
        return { upload: key, labels: table ? table.file : null };
    }

    /** @param {Named & { number: number }} part @param {number} length */
    async function sendFile(part, length) {
        for (let offset = 0; offset < part.file.size;) {
            const end = await sendPiece(part, offset, part.file.slice(offset, offset + length));
            complete += end - offset;
            offset = end;
            progress();
        }
    }

    /**
     * Returns where the server's file ends after the piece.
     * @param {Named & { number: number }} part @param {number} offset @param {Blob} piece
     */
    async function sendPiece({ name, number }, offset, piece) {
        const path = `/api/uploads/${key}/files/${number}?offset=${offset}`;
        /** @type {Sent} */
        const sent = (count) => {
            partial.set(number, count);
            progress();
        };
        for (let attempt = 1; ; attempt++) {
            control.signal.throwIfAborted();
            let trouble;
            try {
                const { status, content } = await transport.put(path, piece, sent, control.signal);
                const received = content?.received;
                if (status === 200 && received !== undefined) return received;
                // all or part of a piece arrived, but its answer did not
                if (status === 409 && received !== undefined && received > offset) return received;
                trouble = content?.error ?? `the server answered ${status}`;
                // the request that broke may still hold the file
                const busy = status === 409 && received === undefined;
                if (status === 507 || (status < 500 && !busy)) throw new Refused(trouble);
            } catch (error) {
                if (control.signal.aborted || error instanceof Refused) throw error;
                trouble = /** @type {Error} */ (error).message;
            } finally {
                partial.delete(number);
            }
            if (attempt === ATTEMPTS) throw new Error(`${name} cannot be sent: ${trouble}`);
            await Promise.race([transport.wait(250 * 2 ** attempt), stopped]);
        }
    }

    const done = run().catch(async (error) => {
        const reason = control.signal.aborted ? control.signal.reason : error;
        control.abort(reason);
        if (key && !existing) await transport.ask(`/api/uploads/${key}`, "DELETE").catch(() => null);
        throw reason;
    });
    done.catch(() => null);
    return { done, stop: () => control.abort(new UploadStopped()) };
}

/** By XMLHttpRequest, because fetch does not report how much was sent. @type {Put} */
export function put(path, piece, sent, signal) {
    return new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        const abort = () => request.abort();
        signal.addEventListener("abort", abort);
        request.open("PUT", path);
        request.setRequestHeader("Content-Type", "application/octet-stream");
        request.upload.onprogress = (event) => sent(event.loaded);
        request.onloadend = () => {
            signal.removeEventListener("abort", abort);
            if (request.status === 0) return reject(new Error("the connection broke"));
            let content = null;
            try {
                content = JSON.parse(request.responseText);
            } catch (error) {
                /* an error page of a proxy */
            }
            return resolve({ status: request.status, content });
        };
        request.send(piece);
    });
}

/** The files of a drop, also those in folders. @param {DataTransfer} transfer @returns {Promise<Named[]>} */
export async function dropped(transfer) {
    const entries = [...transfer.items].flatMap((item) => item.webkitGetAsEntry() ?? []);
    if (!entries.length) return chosen(transfer.files);
    return (await Promise.all(entries.map((entry) => filesBelow(entry, "")))).flat();
}

/** @param {FileSystemEntry} entry @param {string} folder @returns {Promise<Named[]>} */
async function filesBelow(entry, folder) {
    if (entry.isFile) {
        const { file } = /** @type {FileSystemFileEntry} */ (entry);
        return [{ name: folder + entry.name, file: await new Promise(file.bind(entry)) }];
    }
    const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
    const found = [];
    for (;;) {
        // a hundred entries at a time
        /** @type {FileSystemEntry[]} */
        const some = await new Promise(reader.readEntries.bind(reader));
        if (!some.length) return found;
        for (const one of some) found.push(...(await filesBelow(one, `${folder}${entry.name}/`)));
    }
}

/** The files of a file input. @param {FileList} list @returns {Named[]} */
export const chosen = (list) =>
    [...list].map((file) => ({ name: file.webkitRelativePath || file.name, file }));
