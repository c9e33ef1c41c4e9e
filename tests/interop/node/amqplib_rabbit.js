// Node's amqplib on RabbitMQ, with the official instrumentation: `amqplib_rabbit.js URL COLLECTOR PREFIX`. It does what faststream_peer.py says of
// all peers. Its packages are those of `package.json` beside it.

const readline = require('node:readline');
const { context, propagation } = require('@opentelemetry/api');
const { OTLPTraceExporter } = require('@opentelemetry/exporter-trace-otlp-http');
const { registerInstrumentations } = require('@opentelemetry/instrumentation');
const { AmqplibInstrumentation } = require('@opentelemetry/instrumentation-amqplib');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BatchSpanProcessor, NodeTracerProvider } = require('@opentelemetry/sdk-trace-node');

const [url, collector, prefix] = process.argv.slice(2);
const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ 'service.name': 'node' }),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url: `${collector}/v1/traces` }))],
});
provider.register(); // W3C trace context and baggage
registerInstrumentations({ tracerProvider: provider, instrumentations: [new AmqplibInstrumentation()] });
const amqplib = require('amqplib'); // after its instrumentation

const note = (what, fields) => console.log(JSON.stringify({ note: what, ...fields }));

/** The baggage in the current context, or in the headers of a message. */
function noted(message) {
  const arrived = propagation.extract(context.active(), message.properties.headers);
  const entries = propagation.getBaggage(arrived)?.getAllEntries() ?? [];
  return Object.fromEntries(entries.map(([key, { value }]) => [key, value]));
}

async function main() {
  const connection = await amqplib.connect(url);
  const channel = await connection.createConfirmChannel();

  async function consume(name, handle) {
    const queue = `${prefix}.node.${name}`;
    await channel.assertQueue(queue, { durable: true, arguments: { 'x-expires': 300_000 } });
    await channel.consume(queue, async (message) => {
      const body = message.content.toString();
      note(name, { body, headers: message.properties.headers, baggage: noted(message) });
      await handle?.(body, message);
      channel.ack(message);
    });
  }

  function send(queue, body, options) {
    return new Promise((resolve, reject) => {
      const confirmed = (error) => (error ? reject(error) : resolve());
      channel.sendToQueue(queue, Buffer.from(body), { contentType: 'text/plain', ...options }, confirmed);
    });
  }

  await consume('end');
  await consume('relay', (body) => send(`${prefix}.rust.end`, `${body} by node`));
  await consume('answer', (body, { properties: { replyTo, correlationId } }) =>
    send(replyTo, `${body} is answered by node`, { correlationId }));

  async function publish({ to, bodies, baggage }) {
    const entries = Object.fromEntries(Object.entries(baggage).map(([key, value]) => [key, { value }]));
    const withBaggage = propagation.setBaggage(context.active(), propagation.createBaggage(entries));
    for (const body of bodies) await context.with(withBaggage, () => send(`${prefix}.${to}`, body));
  }

  note('ready');
  for await (const line of readline.createInterface({ input: process.stdin })) {
    await publish(JSON.parse(line));
    note('done', { answer: null });
  }
  await channel.close();
  await connection.close();
  await provider.shutdown();
}

main();
