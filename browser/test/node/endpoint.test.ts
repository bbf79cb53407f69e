/** Where spans go: the choice of endpoint and protocol. */

import { describe, expect, it, test } from "vitest";
import { chooseEndpoint, EndpointError } from "../../src/node/endpoint.js";
import { CASES } from "../support/cases.js";

describe("each case of the shared table gives its URL, its protocol and the name of its source", () => {
  test.each(CASES.endpoints)("$about", ({ argument, environment, url, protocol, source }) => {
    expect(chooseEndpoint(argument ?? undefined, undefined, environment)).toMatchObject({ url, protocol, source });
  });
});

describe("an endpoint that can never work is one clear error that quotes it", () => {
  test.each(CASES.unusable_endpoints.map((text) => ({ text })))("$text", ({ text }) => {
    const choose = () => chooseEndpoint(text, undefined, {});
    expect(choose).toThrow(EndpointError);
    expect(choose).toThrow(`"${text}"`);
    expect(choose).toThrow("use http://HOST:PORT");
  });
});

it("reports an unusable endpoint of the environment under the variable's name", () => {
  expect(() => chooseEndpoint(undefined, undefined, { NEATLOGS_ENDPOINT: "ftp://a" })).toThrow("NEATLOGS_ENDPOINT");
});

it("supports grpc and http/protobuf, and the argument decides whatever the variables say to others", () => {
  const environment = { OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf" };
  expect(chooseEndpoint("http://a:4317", "grpc", environment).protocol).toBe("grpc");
  expect(() => chooseEndpoint("http://a", "http/json", {})).toThrow("use grpc or http/protobuf");
  expect(() => chooseEndpoint("unix:/a", "http/protobuf", {})).toThrow("only grpc");
});

it("counts an endpoint as ours unless it comes from the bare standard variables, which may be another vendor's", () => {
  const isOurs = (argument?: string, environment = {}) => chooseEndpoint(argument, undefined, environment).isOurs;
  expect([isOurs("a:1"), isOurs(), isOurs(undefined, { NEATLOGS_ENDPOINT: "a:1" })]).toEqual([true, true, true]);
  expect(isOurs(undefined, { OTEL_EXPORTER_OTLP_ENDPOINT: "http://a:1" })).toBe(false);
  expect(isOurs(undefined, { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://a:1" })).toBe(false);
});

test.each([
  ["http://a:4318", "grpc", "port 4318 normally speaks http/protobuf"],
  ["http://a:4317", "http/protobuf", "port 4317 normally speaks grpc"],
  ["http://a:4317/in", "grpc", 'the path "/in" has no meaning in gRPC'],
])("notes what is legal and looks wrong: %s over %s", (endpoint, protocol, note) => {
  expect(chooseEndpoint(endpoint, protocol, {}).note).toContain(note);
});
