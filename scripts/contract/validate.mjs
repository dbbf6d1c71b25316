// Reads an AsyncAPI document with its public parser; every error and warning but those named below is a failure.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const [file] = process.argv.slice(2);
const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
// Advice on contact data and on newer versions of AsyncAPI.
const advice = new Set(["asyncapi-info-contact", "asyncapi-latest-version", "asyncapi3-tags", "asyncapi-id"]);
const found = diagnostics.filter(({ code, severity }) => severity <= 1 && !advice.has(code));
for (const { code, message, path } of found) console.error(`${file}: ${code}: ${message} (${path.join("/")})`);
if (found.length > 0 || !document) process.exit(1);
const messages = document.allMessages().length;
if (messages < 20) throw new Error(`${file}: ${messages} messages only`);
console.log(`${file}: OK, ${document.allChannels().length} channels, ${messages} messages`);
