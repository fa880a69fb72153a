// The smallest Node.js service that sends its traces to tailkeep. The endpoint comes
// from OTEL_EXPORTER_OTLP_ENDPOINT, for example http://localhost:4318.
import { createServer } from 'node:http';
import { SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { NodeSDK } from '@opentelemetry/sdk-node';

const sdk = new NodeSDK();
sdk.start();
const tracer = trace.getTracer('example');

const server = createServer((request, response) => {
  tracer.startActiveSpan(`GET ${request.url}`, { kind: SpanKind.SERVER }, (span) => {
    if (request.url === '/fail') {
      span.setStatus({ code: SpanStatusCode.ERROR, message: 'as asked' });
      response.statusCode = 500;
    }
    setTimeout(() => {
      response.end();
      span.end();
    }, request.url === '/slow' ? 700 : 0);
  });
});

server.listen(0, '127.0.0.1', () => console.log('listening', server.address().port));
process.on('SIGTERM', () => server.close(() => sdk.shutdown())); // sends what is still waiting
