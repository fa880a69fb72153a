package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// object is one JSON object in the spelling of OTLP/JSON.
type object map[string]any

// recorder writes each ended span, as the SDK holds it, as a line of JSON. It
// shares no code with the exporters, so that they are not their own witness.
type recorder struct {
	mu   sync.Mutex
	file *os.File
}

func newRecorder(path string) (*recorder, error) {
	file, err := os.Create(path)
	return &recorder{file: file}, err
}

func (r *recorder) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (r *recorder) ForceFlush(context.Context) error                { return nil }
func (r *recorder) Shutdown(context.Context) error                  { return r.file.Close() }

func (r *recorder) OnEnd(span sdktrace.ReadOnlySpan) {
	scope := span.InstrumentationScope()
	line := object{
		"resource":          object{"attributes": keyValues(span.Resource().Attributes())},
		"resourceSchemaUrl": span.Resource().SchemaURL(),
		"scope": object{
			"name": scope.Name, "version": scope.Version, "attributes": keyValues(scope.Attributes.ToSlice()),
		},
		"scopeSchemaUrl": scope.SchemaURL,
		"span":           spanObject(span),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := json.NewEncoder(r.file).Encode(line); err != nil {
		fmt.Fprintln(os.Stderr, "recording a span:", err)
	}
}

func spanObject(span sdktrace.ReadOnlySpan) object {
	context := span.SpanContext()
	status := object{"message": span.Status().Description}
	switch span.Status().Code {
	case codes.Ok:
		status["code"] = 1
	case codes.Error:
		status["code"] = 2
	}
	o := object{
		"traceId":                context.TraceID().String(),
		"spanId":                 context.SpanID().String(),
		"traceState":             context.TraceState().String(),
		"flags":                  flags(context.TraceFlags(), span.Parent().IsRemote()),
		"name":                   span.Name(),
		"kind":                   int(span.SpanKind()),
		"startTimeUnixNano":      strconv.FormatInt(span.StartTime().UnixNano(), 10),
		"endTimeUnixNano":        strconv.FormatInt(span.EndTime().UnixNano(), 10),
		"attributes":             keyValues(span.Attributes()),
		"droppedAttributesCount": span.DroppedAttributes(),
		"droppedEventsCount":     span.DroppedEvents(),
		"droppedLinksCount":      span.DroppedLinks(),
		"status":                 status,
		"events":                 events(span.Events()),
		"links":                  links(span.Links()),
	}
	if span.Parent().HasSpanID() {
		o["parentSpanId"] = span.Parent().SpanID().String()
	}
	return o
}

// flags as OTLP defines them: W3C trace flags, then "is remote" is known, then is remote.
func flags(w3c trace.TraceFlags, remote bool) int {
	bits := int(w3c) | 0x100
	if remote {
		bits |= 0x200
	}
	return bits
}

func events(all []sdktrace.Event) []object {
	out := []object{}
	for _, event := range all {
		out = append(out, object{
			"name":                   event.Name,
			"timeUnixNano":           strconv.FormatInt(event.Time.UnixNano(), 10),
			"attributes":             keyValues(event.Attributes),
			"droppedAttributesCount": event.DroppedAttributeCount,
		})
	}
	return out
}

// links leaves the trace state out: Go's OTLP exporter does not send a link's.
func links(all []sdktrace.Link) []object {
	out := []object{}
	for _, link := range all {
		out = append(out, object{
			"traceId":                link.SpanContext.TraceID().String(),
			"spanId":                 link.SpanContext.SpanID().String(),
			"flags":                  flags(link.SpanContext.TraceFlags(), link.SpanContext.IsRemote()),
			"attributes":             keyValues(link.Attributes),
			"droppedAttributesCount": link.DroppedAttributeCount,
		})
	}
	return out
}

func keyValues(all []attribute.KeyValue) []object {
	out := []object{}
	for _, kv := range all {
		out = append(out, object{"key": string(kv.Key), "value": anyValue(kv.Value)})
	}
	return out
}

func anyValue(value attribute.Value) object {
	switch value.Type() {
	case attribute.BOOL:
		return object{"boolValue": value.AsBool()}
	case attribute.INT64:
		return object{"intValue": strconv.FormatInt(value.AsInt64(), 10)}
	case attribute.FLOAT64:
		return object{"doubleValue": value.AsFloat64()}
	case attribute.STRING:
		return object{"stringValue": value.AsString()}
	case attribute.BOOLSLICE:
		return array(value.AsBoolSlice(), attribute.BoolValue)
	case attribute.INT64SLICE:
		return array(value.AsInt64Slice(), attribute.Int64Value)
	case attribute.FLOAT64SLICE:
		return array(value.AsFloat64Slice(), attribute.Float64Value)
	case attribute.STRINGSLICE:
		return array(value.AsStringSlice(), attribute.StringValue)
	default:
		panic(fmt.Sprintf("an attribute of type %v is not recorded yet", value.Type()))
	}
}

func array[T any](items []T, wrap func(T) attribute.Value) object {
	values := []object{}
	for _, item := range items {
		values = append(values, anyValue(wrap(item)))
	}
	return object{"arrayValue": object{"values": values}}
}
