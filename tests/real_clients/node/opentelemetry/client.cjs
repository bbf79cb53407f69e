// An application with OpenTelemetry's own SDK for Node and one of its three OTLP exporters.
//
// Run as `node client.cjs PROTOCOL http://127.0.0.1:PORT COMPRESSION`; it sends one trace there and ends.
const { ROOT_CONTEXT, trace } = require("@opentelemetry/api");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const { BasicTracerProvider, BatchSpanProcessor } = require("@opentelemetry/sdk-trace-base");

const [protocol, endpoint, compression] = process.argv.slice(2);
const packages = { "http/protobuf": "proto", "http/json": "http", grpc: "grpc" };
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${packages[protocol]}`);
const url = protocol === "grpc" ? endpoint : `${endpoint}/v1/traces`;

const provider = new BasicTracerProvider({
  resource: resourceFromAttributes({ "service.name": "node-client" }),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url, compression }))],
});
const tracer = provider.getTracer("tests");
const root = tracer.startSpan("root", {
  attributes: { "neatlogs.end_user.id": "u_1", count: 7, ratio: 0.5, whole: 2 ** 40, tags: ["a", "b"], ok: true },
});
const child = tracer.startSpan(
  "child",
  { attributes: { "neatlogs.end_user.id": "u_2", "input.value": "neatlogs.end_user.id is \"u_3\" 😀" } },
  trace.setSpan(ROOT_CONTEXT, root),
);
child.addEvent("step", { "neatlogs.end_user.id": "u_4", number: 1 });
child.end();
root.end();

provider
  .forceFlush()
  .then(() => provider.shutdown())
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
