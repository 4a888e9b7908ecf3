/* Writes codemirror.js: what entry.mjs exports, with the packages in it and their licence at its beginning. */
import { readdirSync, readFileSync } from "node:fs";

import { build } from "esbuild";

const { packages } = JSON.parse(readFileSync("package-lock.json", "utf8"));
const options = { entryPoints: ["entry.mjs"], bundle: true, format: "esm", minify: true, target: "es2022" };
const { metafile } = await build({ ...options, metafile: true, write: false });
const inputs = Object.keys(metafile.inputs);
const bundled = Object.keys(packages).filter((path) => inputs.some((input) => input.startsWith(`${path}/`)));

const holders = new Set();
const terms = new Set();
for (const path of bundled) {
    const file = readdirSync(path).find((name) => name.startsWith("LICENSE"));
    const [, holder, rest] = /^(Copyright.*)\n([^]*)$/m.exec(readFileSync(`${path}/${file}`, "utf8"));
    holders.add(holder);
    terms.add(rest.trim().replace(/\s+/g, " ").replace("THE SOFTWARE IS", "\n\nTHE SOFTWARE IS"));
}
if (terms.size > 1) throw new Error(`expected one licence text, got ${terms.size}`);
const names = bundled.map(
    (path) => `${path.replace("node_modules/", "")} ${packages[path].version} (${packages[path].license})`,
);
const banner = ["Built by `npm run build`, see README.md, from:", ...names, "", ...holders, ...terms].join(
    "\n",
);
await build({
    ...options,
    outfile: "codemirror.js",
    legalComments: "none",
    banner: { js: `/*\n${banner}\n*/` },
});
