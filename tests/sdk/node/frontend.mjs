// The first service of the SDK suite: takes GET /checkout from the driver and
// calls POST /orders of the api. Its spans carry times of their own making, so
// that a slow request costs no time; see ../README.md for the variables.
import { createServer } from 'node:http';
import {
  context, diag, DiagConsoleLogger, DiagLogLevel, metrics, propagation, SpanKind, trace, createTraceState,
} from '@opentelemetry/api';
import { logs, SeverityNumber } from '@opentelemetry/api-logs';
import { NodeSDK, resources, tracing } from '@opentelemetry/sdk-node';
import { OTLPTraceExporter as GrpcExporter } from '@opentelemetry/exporter-trace-otlp-grpc';
import { OTLPTraceExporter as JsonExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { OTLPTraceExporter as ProtobufExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { Recorder } from './record.mjs';

diag.setLogger(new DiagConsoleLogger(), DiagLogLevel.WARN);

const traceExporters = { grpc: GrpcExporter, 'http/protobuf': ProtobufExporter, 'http/json': JsonExporter };
const TraceExporter = traceExporters[process.env.OTEL_EXPORTER_OTLP_PROTOCOL];

// Every trace starts with a vendor's entry in its trace state, which all its spans must keep.
const sampler = {
  shouldSample: (parent) => ({
    decision: tracing.SamplingDecision.RECORD_AND_SAMPLED,
    traceState: trace.getSpanContext(parent)?.traceState ?? createTraceState('vendor=a1:b2,other=x'),
  }),
  toString: () => 'EverythingWithTraceState',
};

// Metrics and logs go out through the exporters that the SDK sets up by itself.
const sdk = new NodeSDK({
  resource: resources.resourceFromAttributes(
    { 'service.name': 'frontend', 'service.version': '2.0.0-rc.1', 'deployment.environment.name': 'suite' },
    { schemaUrl: 'https://opentelemetry.io/schemas/1.37.0' },
  ),
  sampler,
  spanProcessors: [new tracing.BatchSpanProcessor(new TraceExporter()), new Recorder(process.env.SENT)],
});
sdk.start();

const tracer = trace.getTracer('suite/frontend', '4.5.6', { schemaUrl: 'https://opentelemetry.io/schemas/1.36.0' });
const logger = logs.getLogger('suite/frontend');
const requests = metrics.getMeter('suite/frontend').createCounter('suite.requests', { unit: '{request}' });

async function checkout(order, fate) {
  const start = Date.now();
  const end = start + (fate === 'slow' ? 700 : 20);
  const root = tracer.startSpan('GET /checkout', {
    kind: SpanKind.SERVER,
    startTime: start,
    attributes: {
      'http.request.method': 'GET',
      'http.route': '/checkout',
      'order.number': order,
      'cart.total': 99.5,
      'cart.items': [1, 2, 3],
      'cart.names': ['thé', '茶', ''],
      'cart.gift': false,
    },
  });
  const inside = trace.setSpan(context.active(), root);
  tracer.startSpan('read cart', { startTime: start + 1 }, inside).end(start + 2);
  const status = await callApi(inside, start + 3, end - 2, order, fate);
  root.addEvent('answered', { 'answer.status': status }, end - 1);
  root.setAttribute('http.response.status_code', status);
  requests.add(1, { fate });
  logger.emit({ severityNumber: SeverityNumber.INFO, body: `frontend took order ${order}`, context: inside });
  root.end(end);
  return status;
}

async function callApi(parent, start, end, order, fate) {
  const span = tracer.startSpan('POST', {
    kind: SpanKind.CLIENT,
    startTime: start,
    attributes: { 'http.request.method': 'POST', 'server.address': 'api' },
  }, parent);
  const headers = {};
  propagation.inject(trace.setSpan(parent, span), headers);
  const response = await fetch(`${process.env.NEXT}/orders?order=${order}&fate=${fate}`, { method: 'POST', headers });
  await response.arrayBuffer();
  span.setAttribute('http.response.status_code', response.status).end(end);
  return response.status;
}

const server = createServer(async (request, response) => {
  const query = new URL(request.url, 'http://frontend').searchParams;
  response.statusCode = await checkout(Number(query.get('order')), query.get('fate'));
  response.end();
});

server.listen(0, '127.0.0.1', () => console.log('listening', server.address().port));
process.on('SIGTERM', () => server.close(() => sdk.shutdown()));
