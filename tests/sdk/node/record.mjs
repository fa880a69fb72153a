// Writes each ended span, as the SDK holds it, as a line of JSON in the spelling
// of OTLP/JSON. Shares no code with the exporters, so that they are not their own witness.
import { appendFileSync, writeFileSync } from 'node:fs';

export class Recorder {
  #path;
  #ended = [];

  constructor(path) {
    this.#path = path;
    writeFileSync(path, '');
  }

  onStart() {}

  onEnd(span) {
    this.#ended.push(span);
  }

  async forceFlush() {}

  // Written at the end: until then the resource's detectors may still be at work.
  async shutdown() {
    for (const span of this.#ended) {
      await span.resource.waitForAsyncAttributes?.();
      appendFileSync(this.#path, JSON.stringify(line(span)) + '\n');
    }
  }
}

function line(span) {
  const { name, version, schemaUrl } = span.instrumentationScope;
  return {
    resource: { attributes: keyValues(span.resource.attributes) },
    resourceSchemaUrl: span.resource.schemaUrl ?? '',
    scope: { name, version },
    scopeSchemaUrl: schemaUrl ?? '',
    span: spanObject(span),
  };
}

function spanObject(span) {
  const { traceId, spanId, traceState, traceFlags } = span.spanContext();
  const parent = span.parentSpanContext;
  return {
    traceId,
    spanId,
    parentSpanId: parent?.spanId ?? '',
    traceState: traceState?.serialize() ?? '',
    flags: flags(traceFlags, parent?.isRemote),
    name: span.name,
    kind: span.kind + 1, // the API starts at INTERNAL
    startTimeUnixNano: nanos(span.startTime),
    endTimeUnixNano: nanos(span.endTime),
    attributes: keyValues(span.attributes),
    droppedAttributesCount: span.droppedAttributesCount,
    droppedEventsCount: span.droppedEventsCount,
    droppedLinksCount: span.droppedLinksCount,
    status: { code: span.status.code, message: span.status.message ?? '' },
    events: span.events.map((event) => ({
      name: event.name,
      timeUnixNano: nanos(event.time),
      attributes: keyValues(event.attributes ?? {}),
      droppedAttributesCount: event.droppedAttributesCount ?? 0,
    })),
    links: span.links.map((link) => ({
      traceId: link.context.traceId,
      spanId: link.context.spanId,
      traceState: link.context.traceState?.serialize() ?? '',
      flags: flags(link.context.traceFlags, link.context.isRemote),
      attributes: keyValues(link.attributes ?? {}),
      droppedAttributesCount: link.droppedAttributesCount ?? 0,
    })),
  };
}

// As OTLP defines them: W3C trace flags, then "is remote" is known, then is remote.
function flags(w3c, remote) {
  return w3c | 0x100 | (remote ? 0x200 : 0);
}

function nanos([seconds, nanoseconds]) {
  return String(BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds));
}

function keyValues(attributes) {
  return Object.entries(attributes).map(([key, value]) => ({ key, value: anyValue(value) }));
}

function anyValue(value) {
  switch (typeof value) {
    case 'string':
      return { stringValue: value };
    case 'boolean':
      return { boolValue: value };
    case 'number':
      return Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value };
    case 'object':
      return { arrayValue: { values: value.map(anyValue) } };
    default:
      throw new Error(`an attribute of type ${typeof value} is not recorded yet`);
  }
}
