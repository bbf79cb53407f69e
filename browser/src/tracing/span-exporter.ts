/** `EndUserSpanExporter`: the processor's rule inside the process, on the way to an exporter. */

import type { Attributes } from "@opentelemetry/api";
import { resourceFromAttributes } from "@opentelemetry/resources";
import type { ReadableSpan, SpanExporter } from "@opentelemetry/sdk-trace-base";
import {
  END_USER_ID,
  END_USER_METADATA,
  END_USER_SOURCE,
  isBlank,
  isIdentityKey,
  textOf,
} from "../identity/conventions.js";
import { shown, warnOnce } from "../identity/warnings.js";
import { edited } from "./edited-span.js";
import { leaving } from "./leaving.js";
import { checkedRoots, type Roots } from "./span-processor.js";

/** What `EndUserSpanExporter` takes. */
export interface EndUserSpanExporterOptions {
  /** As for `EndUserSpanProcessor`. */
  readonly roots?: Roots;
  /**
   * With `roots: "entry"`: the `service.name` values whose entry spans carry identity; `undefined` means every service of
   * this process.
   */
  readonly entryServices?: Iterable<string> | undefined;
}

/**
 * Wraps an exporter, so that what it exports has one end user per trace, on the root span.
 *
 * For setups without the processor:
 *
 *     new BatchSpanProcessor(new EndUserSpanExporter(new OTLPTraceExporter()))
 *
 * Identity attributes of child spans, events, links and instrumentation scopes are left out (counted, and said once per
 * place); identity on the resource is a default and goes to root spans without an end user; an integer id becomes text,
 * metadata that is an object becomes JSON, and other values that are no text are left out. Where pseudonyms are asked for
 * (see `init()`), no id leaves as it is. All else passes as it is: a span that needs no change is passed on as the same
 * object, and no span is changed for other exporters.
 *
 * @throws TypeError `roots` is something else than `"trace"` or `"entry"`.
 */
export class EndUserSpanExporter implements SpanExporter {
  readonly #exporter: SpanExporter;
  readonly #entry: boolean;
  readonly #entryServices: ReadonlySet<unknown> | undefined;

  constructor(exporter: SpanExporter, options: EndUserSpanExporterOptions = {}) {
    this.#exporter = exporter;
    this.#entry = checkedRoots(options.roots) === "entry";
    this.#entryServices = options.entryServices === undefined ? undefined : new Set(options.entryServices);
  }

  /** Exports the spans after the rule. */
  export(spans: ReadableSpan[], done: Parameters<SpanExporter["export"]>[1]): void {
    const batch = new Batch();
    const allowed = leaving();
    this.#exporter.export(
      spans.map((span) => allowed.span(batch.enforced(span, this.#ownsIdentity(span)))),
      done,
    );
  }

  /** Shuts the wrapped exporter down. */
  shutdown(): Promise<void> {
    return this.#exporter.shutdown();
  }

  /** Flushes the wrapped exporter. */
  async forceFlush(): Promise<void> {
    await this.#exporter.forceFlush?.();
  }

  #ownsIdentity(span: ReadableSpan): boolean {
    const parent = span.parentSpanContext;
    if (parent === undefined || /^0*$/.test(parent.spanId)) return true;
    if (!this.#entry || !parent.isRemote) return false;
    return this.#entryServices === undefined || this.#entryServices.has(span.resource.attributes["service.name"]);
  }
}

type Resource = ReadableSpan["resource"];
type Scope = ReadableSpan["instrumentationScope"];
type Default = Readonly<Record<string, string>>;

/** The spans of one export; resources and scopes that many of them share are judged once. */
class Batch {
  readonly #resources = new Map<object, [Resource, Default]>();
  readonly #scopes = new Map<object, Scope>();

  /** The span after the rule; the same object where nothing has to change. */
  enforced(span: ReadableSpan, owns: boolean): ReadableSpan {
    const [resource, byDefault] = this.#resource(span.resource);
    const instrumentationScope = this.#scope(span.instrumentationScope);
    const attributes = owns
      ? rootAttributes(span.attributes, byDefault, span.name)
      : withoutIdentity(span.attributes, "child span", span.name);
    const events = changedItems(span.events, (event) => withoutIdentityIn(event, "an event of span", span.name));
    const links = changedItems(span.links, (link) => withoutIdentityIn(link, "a link of span", span.name));
    const isSame =
      attributes === span.attributes &&
      events === span.events &&
      links === span.links &&
      resource === span.resource &&
      instrumentationScope === span.instrumentationScope;
    return isSame ? span : edited(span, { attributes, events, links, resource, instrumentationScope });
  }

  #resource(resource: Resource): [Resource, Default] {
    let known = this.#resources.get(resource);
    if (known === undefined) {
      known = splitResource(resource);
      this.#resources.set(resource, known);
    }
    return known;
  }

  #scope(scope: Scope): Scope {
    let known = this.#scopes.get(scope);
    if (known === undefined) {
      known = cleanScope(scope);
      this.#scopes.set(scope, known);
    }
    return known;
  }
}

/** A root span's attributes with usable identity values, and what it takes of its resource's default. */
function rootAttributes(attributes: Attributes, byDefault: Default, name: string): Attributes {
  if (Object.keys(byDefault).length === 0 && !Object.keys(attributes).some(isIdentityKey)) return attributes;
  const kept: Attributes = {};
  const usable: Record<string, string> = {};
  let changed = false;
  for (const [key, value] of Object.entries(attributes)) {
    if (!isIdentityKey(key)) {
      kept[key] = value;
      continue;
    }
    const text = textOf(key, value);
    changed ||= text !== value;
    if (text === undefined) {
      warnOnce("invalid_identity", `${name} ${key}`, `${key} of span ${shown(name)} is left out: it is no text.`);
    } else {
      kept[key] = usable[key] = text;
    }
  }
  const refused = END_USER_ID in attributes && !(END_USER_ID in usable);
  if (!refused && isBlank(usable[END_USER_ID] ?? "")) {
    const taken = takenFrom(byDefault, usable);
    changed ||= Object.keys(taken).length > 0;
    Object.assign(kept, taken);
  }
  return changed ? kept : attributes;
}

function takenFrom(byDefault: Default, usable: Default): Record<string, string> {
  const taken = Object.fromEntries(
    Object.entries(byDefault).filter(([key]) => key === END_USER_ID || !(key in usable)),
  );
  if (Object.keys(taken).length > 0 && !(END_USER_SOURCE in usable)) taken[END_USER_SOURCE] = "resource";
  return taken;
}

/** The resource without identity, and the default that stood on it: an id, metadata, both or nothing. */
function splitResource(resource: Resource): [Resource, Default] {
  const { attributes } = resource;
  const kept = Object.fromEntries(Object.entries(attributes).filter(([key]) => !isIdentityKey(key)));
  if (Object.keys(kept).length === Object.keys(attributes).length) return [resource, {}];
  const { schemaUrl } = resource;
  return [resourceFromAttributes(kept, schemaUrl === undefined ? {} : { schemaUrl }), defaultIn(attributes)];
}

function defaultIn(attributes: Attributes): Default {
  const id = textOf(END_USER_ID, attributes[END_USER_ID]);
  const metadata = textOf(END_USER_METADATA, attributes[END_USER_METADATA]);
  // An id of no use leaves nobody, not half a default.
  if (END_USER_ID in attributes && id === undefined) return {};
  return {
    ...(id === undefined || isBlank(id) ? {} : { [END_USER_ID]: id }),
    ...(metadata === undefined ? {} : { [END_USER_METADATA]: metadata }),
  };
}

/** Scopes have attributes in the specification; the SDK's type does not show them in every version. */
function cleanScope(scope: Scope): Scope {
  return withoutIdentityIn<Scope & { attributes?: Attributes }>(scope, "instrumentation scope", scope.name);
}

function withoutIdentity(attributes: Attributes, place: string, name: string): Attributes {
  const found = Object.keys(attributes).filter(isIdentityKey);
  if (found.length === 0) return attributes;
  for (const key of found) {
    warnOnce(
      "override_ignored",
      `${place} ${name} ${key}`,
      `${key} on ${place} ${shown(name)} is ignored: one end user per trace, and the root span owns it. Use ` +
        "trace({ endUserId }), span() or setEndUser(), which name it on the trace's root.",
    );
  }
  return Object.fromEntries(Object.entries(attributes).filter(([key]) => !found.includes(key)));
}

/** An event, link or scope without identity; the same object where nothing has to change. */
function withoutIdentityIn<T extends { readonly attributes?: Attributes }>(item: T, place: string, name: string): T {
  if (item.attributes === undefined) return item;
  const attributes = withoutIdentity(item.attributes, place, name);
  return attributes === item.attributes ? item : { ...item, attributes };
}

/** The items after a change; the same array where it changes none. */
function changedItems<T>(items: T[], change: (item: T) => T): T[] {
  const changed = items.map(change);
  return changed.some((item, at) => item !== items[at]) ? changed : items;
}
