/** Pseudonyms in Node: what leaves the process, on every way on which an identity comes in. */

import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Attributes, ROOT_CONTEXT, trace as traceApi } from "@opentelemetry/api";
import { InMemorySpanExporter, type ReadableSpan } from "@opentelemetry/sdk-trace-node";
import { afterEach, beforeEach, describe, expect, it, test } from "vitest";
import * as keys from "../../src/identity/conventions.js";
import { endUserFrom } from "../../src/identity/end-user.js";
import { setProcessDefault } from "../../src/identity/process-default.js";
import {
  currentEndUser,
  EndUserSpanExporter,
  identify,
  init,
  setEndUser,
  shutdown,
  span,
  trace,
  wrap,
} from "../../src/node/index.js";
import { AddingExporter } from "../../src/node/own-export.js";
import { chosenLeaving, Leaving, setLeaving } from "../../src/tracing/leaving.js";
import { parseKeys } from "../../src/tracing/pseudonyms.js";
import { type Recording, recorded, said, saidOnce, startUnused } from "../support/recording.js";

const { keys: KEYS } = JSON.parse(
  readFileSync(new URL("../../../tests/data/pseudonyms.json", import.meta.url), "utf8"),
) as { keys: string };
const METADATA = { email: "ali@example.com", plan: "pro" };
const BY_HAND = { [keys.END_USER_ID]: "u_812", [keys.END_USER_METADATA]: JSON.stringify(METADATA) };

const pseudonym = (id: string) => parseKeys(KEYS).pseudonym(id);
const hidden = (source: string, id = "u_812") => ({
  [keys.END_USER_ID]: pseudonym(id),
  [keys.END_USER_METADATA]: '{"plan":"pro"}',
  [keys.END_USER_SOURCE]: source,
});

function identityOf(recording: Recording, name: string): Attributes {
  const { attributes } = recording.named(name);
  return Object.fromEntries(Object.entries(attributes).filter(([key]) => keys.isIdentityKey(key)));
}

let folder: string;
let keyFile: string;

startUnused();

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "neatlogs-"));
  keyFile = join(folder, "keys");
  writeFileSync(keyFile, KEYS, { mode: 0o600 });
  delete process.env.NEATLOGS_PSEUDONYMIZE_KEY_FILE;
  delete process.env.NEATLOGS_METADATA_ALLOW;
  setLeaving(chosenLeaving({ pseudonymizeKeyFile: keyFile, metadataAllow: "plan" }, {}));
});

afterEach(() => {
  setLeaving(undefined);
  delete process.env.NEATLOGS_PSEUDONYMIZE_KEY_FILE;
  delete process.env.NEATLOGS_METADATA_ALLOW;
  rmSync(folder, { recursive: true });
});

describe("on every way a pseudonym leaves, with the allowed metadata", () => {
  const named = { endUserId: "u_812", endUserMetadata: METADATA };
  const ways: Record<string, (recording: Recording) => unknown> = {
    trace: () => trace({ name: "root", ...named }, () => undefined),
    span: () => span({ name: "root", ...named }, () => undefined)(),
    identify: (recording) => identify(named, () => recording.tracer.startSpan("root").end()),
    set_end_user: (recording) =>
      recording.tracer.startActiveSpan("root", (root) => {
        expect(setEndUser("u_812", METADATA)).toBe(true);
        root.end();
      }),
    "by hand": (recording) =>
      recording.tracer.startSpan("root", { attributes: { ...BY_HAND, [keys.END_USER_SOURCE]: "by hand" } }).end(),
    init: (recording) => {
      setProcessDefault({ endUser: endUserFrom("init", "u_812", METADATA, "init()") });
      recording.tracer.startSpan("root").end();
    },
  };

  test.each(Object.entries(ways))("%s", (source, way) => {
    const recording = recorded();
    way(recording);
    expect(identityOf(recording, "root")).toEqual(hidden(source));
    expect(said).toEqual([]);
  });

  it("wrap", () => {
    const recording = recorded();
    const client = wrap({ ask: () => setEndUser("u_812", METADATA) });
    expect(client.ask()).toBe(true);
    const [root] = recording.spans;
    expect(root?.attributes).toMatchObject(hidden("set_end_user"));
  });

  it("a default on the resource", () => {
    const recording = recorded({ resource: BY_HAND });
    recording.tracer.startSpan("root").end();
    expect(identityOf(recording, "root")).toEqual(hidden("resource"));
  });
});

describe("what was set by hand", () => {
  /** A root named late, a child, an event, a link, on a resource that names somebody. */
  function handwritten(): Recording {
    const recording = recorded({ resource: BY_HAND });
    const root = recording.tracer.startSpan("root");
    const inRoot = traceApi.setSpan(ROOT_CONTEXT, root);
    const links = [{ context: root.spanContext(), attributes: BY_HAND }];
    const child = recording.tracer.startSpan("child", { attributes: BY_HAND, links }, inRoot);
    child.addEvent("said", { ...BY_HAND, "neatlogs.end_user.name": "Ali" });
    child.end();
    root.setAttributes({ [keys.END_USER_ID]: 812, "neatlogs.end_user.name": "Ali" }).end();
    return recording;
  }

  function exported(
    recording: Recording,
    wrapped: (inner: InMemorySpanExporter) => { export: AddingExporter["export"] },
  ) {
    const inner = new InMemorySpanExporter();
    wrapped(inner).export([...recording.spans], () => undefined);
    const spans = inner.getFinishedSpans();
    const texts = JSON.stringify(spans.map((one) => [one.attributes, one.events, one.links, one.resource.attributes]));
    for (const raw of ["u_812", "ali@example.com", "Ali", "812,"]) expect(texts).not.toContain(raw);
    return (name: string) => spans.find((one) => one.name === name) as ReadableSpan;
  }

  it("leaves through our exporter as pseudonyms", () => {
    const named = exported(handwritten(), (inner) => new AddingExporter(inner, "url", {}, undefined));
    const child = named("child");
    const inside = { [keys.END_USER_ID]: pseudonym("u_812"), [keys.END_USER_METADATA]: '{"plan":"pro"}' };
    for (const attributes of [child.attributes, child.events[0]?.attributes, child.links[0]?.attributes]) {
      expect(attributes).toEqual(inside);
    }
    expect(child.resource.attributes).toMatchObject(inside);
    expect(named("root").attributes[keys.END_USER_ID]).toBe(pseudonym("812"));
  });

  it("leaves through the exporter of the rule as pseudonyms, on roots alone", () => {
    const named = exported(handwritten(), (inner) => new EndUserSpanExporter(inner));
    expect(named("child").attributes).toEqual({});
    expect(named("root").attributes[keys.END_USER_ID]).toBe(pseudonym("812"));
  });

  it("is said where it came late, without the id", () => {
    handwritten();
    saidOnce('"root"', "set by hand", "setEndUser()");
    expect(said[0]).not.toContain("812");
  });

  it("costs a span without identity nothing: it passes as the same object", () => {
    const recording = recorded();
    recording.tracer
      .startSpan("root", { attributes: { kept: true } })
      .addEvent("said", { kept: true })
      .end();
    const [one] = recording.spans;
    const allowed = setLeaving(undefined);
    expect(one && allowed?.span(one)).toBe(one);
  });
});

describe("the application", () => {
  it("goes on with the id that it gave", () => {
    recorded();
    trace({ name: "root", endUserId: "u_812", endUserMetadata: METADATA }, () => {
      expect(currentEndUser()).toMatchObject({ id: "u_812", metadata: METADATA });
      expect(setEndUser("u_812", METADATA)).toBe(true);
      expect(setEndUser("u_2")).toBe(false);
    });
  });

  it("may give a pseudonym, which stays", () => {
    const recording = recorded();
    trace({ name: "root", endUserId: pseudonym("u_812") }, () => undefined);
    expect(recording.idOf("root")).toBe(pseudonym("u_812"));
  });

  it("keeps its id where metadata is over a limit, and a pseudonym that does not fit is no identity", () => {
    setLeaving(chosenLeaving({ pseudonymizeKeyFile: keyFile, metadataAllow: ["*"] }, {}));
    const roomy = recorded({ limits: { attributeValueLengthLimit: 67 } });
    trace({ name: "root", endUserId: "x".repeat(200), endUserMetadata: { plan: "y".repeat(100) } }, () => {
      expect(currentEndUser()).toMatchObject({ id: "x".repeat(200), metadataJson: undefined });
    });
    expect(roomy.idOf("root")).toBe(pseudonym("x".repeat(200)));
    const tight = recorded({ limits: { attributeValueLengthLimit: 66 } });
    trace({ name: "root", endUserId: "u_812" }, () => undefined);
    expect(identityOf(tight, "root")).toEqual({});
  });
});

describe("of metadata", () => {
  it("nothing leaves with a key file alone, and metadata alone leaves no trace of itself", () => {
    setLeaving(chosenLeaving({ pseudonymizeKeyFile: keyFile }, {}));
    const recording = recorded();
    trace({ name: "named", endUserId: "u_812", endUserMetadata: METADATA }, () => undefined);
    trace({ name: "unnamed", endUserMetadata: METADATA }, () => undefined);
    expect(identityOf(recording, "named")).toEqual({
      [keys.END_USER_ID]: pseudonym("u_812"),
      [keys.END_USER_SOURCE]: "trace",
    });
    expect(identityOf(recording, "unnamed")).toEqual({});
  });

  it("an allow-list works without keys, too", () => {
    setLeaving(chosenLeaving({ metadataAllow: new Set(["plan"]) }, {}));
    const recording = recorded();
    trace({ name: "root", endUserId: "u_812", endUserMetadata: METADATA }, () => undefined);
    expect(recording.identity("root")).toEqual(["u_812", { plan: "pro" }, "trace"]);
  });

  it("what is no JSON does not leave, with a warning", () => {
    const recording = recorded();
    recording.tracer.startActiveSpan(
      "root",
      { attributes: { [keys.END_USER_METADATA]: "ali@example.com" } },
      (root) => {
        setEndUser("u_812");
        root.end();
      },
    );
    expect(recording.identity("root")).toEqual([pseudonym("u_812"), {}, "set_end_user"]);
    saidOnce("only a part may leave is refused", "no JSON object");
  });
});

describe("the keys come from", () => {
  it("the variables; blank ones count as unset", () => {
    process.env.NEATLOGS_PSEUDONYMIZE_KEY_FILE = keyFile;
    process.env.NEATLOGS_METADATA_ALLOW = " plan , region ";
    setLeaving(undefined);
    const recording = recorded();
    trace({ name: "root", endUserId: "u_812", endUserMetadata: METADATA }, () => undefined);
    expect(identityOf(recording, "root")).toEqual(hidden("trace"));
    process.env.NEATLOGS_PSEUDONYMIZE_KEY_FILE = "  ";
    process.env.NEATLOGS_METADATA_ALLOW = " ";
    setLeaving(undefined);
    trace({ name: "raw", endUserId: "u_812", endUserMetadata: METADATA }, () => undefined);
    expect(recording.identity("raw")).toEqual(["u_812", METADATA, "trace"]);
  });

  it("the options of init(), which beat the variables", async () => {
    process.env.NEATLOGS_PSEUDONYMIZE_KEY_FILE = join(folder, "missing");
    const recording = recorded();
    setLeaving(undefined);
    init({ export: false, pseudonymizeKeyFile: keyFile, metadataAllow: ["plan"] });
    trace({ name: "root", endUserId: "u_812", endUserMetadata: METADATA }, () => undefined);
    expect(identityOf(recording, "root")).toEqual(hidden("trace"));
    await shutdown();
  });

  test.each([
    { pseudonymizeKeyFile: "missing", message: /^pseudonymizeKeyFile: cannot read missing \(ENOENT\)$/ },
    { content: "h1 short", message: /keys: line 1: a secret/ },
    { content: Buffer.from([0xff, 0xfe]), message: /cannot read .* \(TypeError|ERR_ENCODING_INVALID_ENCODED_DATA/ },
    { pseudonymizeKeyFile: 7 as never, message: /must be a string, not a number/ },
    { metadataAllow: 7 as never, message: /metadataAllow must be strings/ },
    { metadataAllow: [7] as never, message: /metadataAllow must be strings/ },
  ])("nowhere where init() is given what cannot be used: it throws and changes nothing ($message)", (given) => {
    const { content, message, ...options } = given;
    if (content !== undefined) writeFileSync(keyFile, content);
    const before = new Leaving();
    setLeaving(before);
    expect(() => init({ export: false, ...(content ? { pseudonymizeKeyFile: keyFile } : options) })).toThrow(message);
    expect(setLeaving(before)).toBe(before);
  });

  it("nowhere where a variable names what cannot be read: no identity leaves at all, and one warning says why", () => {
    process.env.NEATLOGS_PSEUDONYMIZE_KEY_FILE = join(folder, "missing");
    setLeaving(undefined);
    const recording = recorded({ resource: BY_HAND });
    trace({ name: "root", endUserId: "u_812", endUserMetadata: METADATA, sessionId: "s_1" }, () => {
      expect(setEndUser("u_812", METADATA)).toBe(true);
    });
    recording.tracer.startSpan("by hand", { attributes: BY_HAND }).addEvent("said", BY_HAND).end();
    const inner = new InMemorySpanExporter();
    new AddingExporter(inner, "url", {}, undefined).export([...recording.spans], () => undefined);
    const sent = inner.getFinishedSpans().map((one) => [one.attributes, one.events, one.resource.attributes]);
    for (const raw of ["u_812", "ali@example.com", "pro"]) expect(JSON.stringify(sent)).not.toContain(raw);
    expect(recording.named("root").attributes[keys.SESSION_ID]).toBe("s_1");
    saidOnce("No end user leaves this process", "NEATLOGS_PSEUDONYMIZE_KEY_FILE", "ENOENT");
  });

  it("a file that everybody can read, with a warning", () => {
    chmodSync(keyFile, 0o644);
    chosenLeaving({ pseudonymizeKeyFile: keyFile }, {});
    saidOnce("Every user of this machine can read");
  });
});
