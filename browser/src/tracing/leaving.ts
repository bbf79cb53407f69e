/**
 * What of an identity leaves the process: the id or its pseudonym, all metadata or what an allow-list names.
 *
 * The application keeps working with the ids that it gave. What is written on spans, and what our own exporters send, is
 * what this module lets out; where a pseudonym was asked for and cannot be made, nothing is.
 */

import { readFileSync, statSync } from "node:fs";
import type { Attributes, AttributeValue } from "@opentelemetry/api";
import { resourceFromAttributes } from "@opentelemetry/resources";
import type { ReadableSpan } from "@opentelemetry/sdk-trace-base";
import {
  END_USER_ID,
  END_USER_METADATA,
  END_USER_SOURCE,
  isBlank,
  isIdentityKey,
  textOf,
} from "../identity/conventions.js";
import { EndUser, warnMetadata } from "../identity/end-user.js";
import { errorName, reason } from "../identity/refused.js";
import { warnOnce } from "../identity/warnings.js";
import { AllowedMetadata } from "./allowed-metadata.js";
import { edited } from "./edited-span.js";
import { type PseudonymKeys, parseKeys } from "./pseudonyms.js";

const KEY_FILE_VARIABLE = "NEATLOGS_PSEUDONYMIZE_KEY_FILE";
const METADATA_VARIABLE = "NEATLOGS_METADATA_ALLOW";
/** What stands on a span in place of metadata that must go: OpenTelemetry cannot delete an attribute. */
const NO_METADATA = "{}";

type Resource = ReadableSpan["resource"];

/** What of an identity leaves this process. */
export class Leaving {
  readonly #keys: PseudonymKeys | undefined;
  readonly #metadata: AllowedMetadata | undefined;
  readonly #nobody: boolean;

  /**
   * @param keys Ids leave as pseudonyms of these; `undefined`: as they are.
   * @param metadata What of metadata leaves; `undefined`: all of it.
   * @param nobody No identity leaves at all, because the keys could not be read.
   */
  constructor(keys?: PseudonymKeys, metadata?: AllowedMetadata, nobody = false) {
    this.#keys = keys;
    this.#metadata = metadata;
    this.#nobody = nobody;
  }

  /** Whether everything leaves as it is. */
  get changesNothing(): boolean {
    return this.#keys === undefined && this.#metadata === undefined && !this.#nobody;
  }

  /** The end user as spans carry it. Never throws. */
  of(endUser: EndUser): EndUser {
    if (this.changesNothing || endUser.refused) return endUser;
    if (this.#nobody) return new EndUser(undefined, undefined, endUser.source, true);
    const id = endUser.id === undefined ? undefined : this.#id(endUser.id);
    return new EndUser(id, this.#allowed(endUser.metadataJson), endUser.source);
  }

  /**
   * Attributes of a span, an event, a link, a scope or a resource as they may leave; the same object where nothing has
   * to change. Of the identity namespace only the id, the metadata and the source leave, as text.
   */
  attributes(attributes: Attributes): Attributes {
    if (this.changesNothing || !Object.keys(attributes).some(isIdentityKey)) return attributes;
    const left: Attributes = {};
    let changed = false;
    for (const [key, value] of Object.entries(attributes)) {
      const allowed = isIdentityKey(key) ? this.#value(key, value) : value;
      changed ||= allowed !== value;
      if (allowed !== undefined) left[key] = allowed;
    }
    return changed ? left : attributes;
  }

  /** A span as it may leave; the same object where nothing has to change. */
  span(span: ReadableSpan): ReadableSpan {
    if (this.changesNothing) return span;
    const attributes = this.attributes(span.attributes);
    const resource = this.#resource(span.resource);
    const events = span.events.map((event) => this.#within(event));
    const links = span.links.map((link) => this.#within(link));
    // Scopes have attributes in the specification; the SDK's type does not show them in every version.
    const instrumentationScope = this.#within<ReadableSpan["instrumentationScope"] & { attributes?: Attributes }>(
      span.instrumentationScope,
    );
    const isSame =
      attributes === span.attributes &&
      resource === span.resource &&
      instrumentationScope === span.instrumentationScope &&
      events.every((event, at) => event === span.events[at]) &&
      links.every((link, at) => link === span.links[at]);
    return isSame ? span : edited(span, { attributes, resource, events, links, instrumentationScope });
  }

  #resource(resource: Resource): Resource {
    const own = resource.attributes;
    const left = this.attributes(own);
    const { schemaUrl } = resource;
    return left === own ? resource : resourceFromAttributes(left, schemaUrl === undefined ? {} : { schemaUrl });
  }

  #within<T extends { readonly attributes?: Attributes }>(item: T): T {
    if (item.attributes === undefined) return item;
    const attributes = this.attributes(item.attributes);
    return attributes === item.attributes ? item : { ...item, attributes };
  }

  /** The value of an identity attribute as it may leave; `undefined` where it may not. */
  #value(key: string, value: AttributeValue | undefined): AttributeValue | undefined {
    if (key === END_USER_SOURCE) return value;
    if (key !== END_USER_ID && key !== END_USER_METADATA) return undefined;
    const text = textOf(key, value);
    // `false` is how a refused id keeps a default away; see `OpenRoot`.
    if (text === undefined) return typeof value === "boolean" ? value : undefined;
    if (isBlank(text) || text === NO_METADATA) return value;
    if (this.#nobody) return undefined;
    return key === END_USER_METADATA ? this.#allowed(text) : this.#id(text);
  }

  #id(id: string): string {
    return this.#keys === undefined ? id : this.#keys.pseudonym(id);
  }

  #allowed(text: string | undefined): string | undefined {
    if (text === undefined || this.#metadata === undefined) return text;
    try {
      return this.#metadata.of(text);
    } catch (error) {
      warnMetadata("allow", "endUserMetadata of which only a part may leave", reason(error));
      return undefined;
    }
  }
}

let current: Leaving | undefined;

/** Sets what leaves this process; `undefined`: what the environment says, read anew. Returns what was set before. */
export function setLeaving(wanted: Leaving | undefined): Leaving | undefined {
  const before = current;
  current = wanted;
  return before;
}

/** What leaves this process. Where nothing was set, it is read from the environment, once. Never throws. */
export function leaving(): Leaving {
  current ??= chosenLeaving({}, process.env);
  return current;
}

/** What chooses what leaves; see `InitOptions`. */
export interface LeavingOptions {
  readonly pseudonymizeKeyFile?: string | undefined;
  readonly metadataAllow?: string | Iterable<string> | undefined;
}

/**
 * What leaves by these options, and where one is missing by its variable (`NEATLOGS_PSEUDONYMIZE_KEY_FILE`,
 * `NEATLOGS_METADATA_ALLOW` with commas). A variable that is blank counts as unset.
 *
 * @throws TypeError An option is of a type that can never work, or its file cannot be used. (One that the environment
 *   names is a warning instead, and then no identity leaves.)
 */
export function chosenLeaving(options: LeavingOptions, environment: NodeJS.ProcessEnv): Leaving {
  const names = namesIn(options.metadataAllow ?? (environment[METADATA_VARIABLE]?.trim() || undefined));
  const byVariable = environment[KEY_FILE_VARIABLE] ?? "";
  if (options.pseudonymizeKeyFile === undefined && byVariable.trim() === "") {
    return new Leaving(undefined, names === undefined ? undefined : new AllowedMetadata(names));
  }
  // Who hides ids has not said that e-mail addresses may leave beside them.
  const allowed = new AllowedMetadata(names ?? []);
  if (options.pseudonymizeKeyFile !== undefined) {
    return new Leaving(keysIn(options.pseudonymizeKeyFile, "pseudonymizeKeyFile"), allowed);
  }
  try {
    return new Leaving(keysIn(byVariable, KEY_FILE_VARIABLE), allowed);
  } catch (error) {
    // Whoever changes the environment of a service must not be able to stop it, nor to undress its end users.
    const why = error instanceof Error ? error.message : "";
    warnOnce("no_pseudonyms", "", `No end user leaves this process: ${why}.`);
    return new Leaving(undefined, allowed, true);
  }
}

function keysIn(path: unknown, place: string): PseudonymKeys {
  if (typeof path !== "string") throw new TypeError(`${place} must be a string, not a ${typeof path}`);
  let text: string;
  let readableByAll: boolean;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(readFileSync(path));
    readableByAll = process.platform !== "win32" && (statSync(path).mode & 0o004) !== 0;
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    throw new TypeError(`${place}: cannot read ${path} (${typeof code === "string" ? code : errorName(error)})`);
  }
  if (readableByAll) {
    warnOnce("readable_secret", path, `Every user of this machine can read ${path}; chmod o-r ends that.`);
  }
  try {
    return parseKeys(text);
  } catch (error) {
    throw new TypeError(`${place}: ${path}: ${error instanceof Error ? error.message : ""}`);
  }
}

function namesIn(given: unknown): string[] | undefined {
  if (given === undefined) return undefined;
  const words: unknown = typeof given === "string" ? given.split(",") : given;
  if (!Array.isArray(words) && !(words instanceof Set)) {
    throw new TypeError(`metadataAllow must be strings, not a ${typeof given}`);
  }
  const names = [...(words as Iterable<unknown>)].map((name) => {
    if (typeof name !== "string") throw new TypeError("metadataAllow must be strings");
    return name.trim();
  });
  return names.filter((name) => name !== "");
}
