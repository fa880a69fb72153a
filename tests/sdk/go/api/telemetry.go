package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	logglobal "go.opentelemetry.io/otel/log/global"
	"go.opentelemetry.io/otel/propagation"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"
)

// exporters of the three signals for one protocol. Endpoint and compression
// come from the standard OTEL_EXPORTER_OTLP_* variables.
type exporters struct {
	traces  sdktrace.SpanExporter
	metrics sdkmetric.Exporter
	logs    sdklog.Exporter
}

func newExporters(ctx context.Context, protocol string) (e exporters, err error) {
	var errs [3]error
	switch protocol {
	case "grpc":
		e.traces, errs[0] = otlptracegrpc.New(ctx)
		e.metrics, errs[1] = otlpmetricgrpc.New(ctx)
		e.logs, errs[2] = otlploggrpc.New(ctx)
	case "http/protobuf":
		e.traces, errs[0] = otlptracehttp.New(ctx)
		e.metrics, errs[1] = otlpmetrichttp.New(ctx)
		e.logs, errs[2] = otlploghttp.New(ctx)
	default:
		errs[0] = fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %q: want grpc or http/protobuf", protocol)
	}
	return e, errors.Join(errs[:]...)
}

// startTelemetry installs the global providers. The function that it returns
// flushes and stops them; their errors are printed by the caller.
func startTelemetry(ctx context.Context, record *recorder) (stop func(context.Context) error, err error) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		fmt.Fprintln(os.Stderr, "opentelemetry:", err)
	}))
	otel.SetTextMapPropagator(propagation.TraceContext{})

	e, err := newExporters(ctx, os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"))
	if err != nil {
		return nil, err
	}
	res := resource.NewWithAttributes(semconv.SchemaURL,
		semconv.ServiceName("api"),
		semconv.ServiceVersion("1.4.0"),
		semconv.DeploymentEnvironment("suite"),
		attribute.Int("process.pid", os.Getpid()),
		attribute.StringSlice("host.zones", []string{"a", "b"}),
	)
	tracers := sdktrace.NewTracerProvider(sdktrace.WithResource(res),
		sdktrace.WithBatcher(e.traces), sdktrace.WithSpanProcessor(record))
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithResource(res),
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(e.metrics)))
	loggers := sdklog.NewLoggerProvider(sdklog.WithResource(res),
		sdklog.WithProcessor(sdklog.NewBatchProcessor(e.logs)))
	otel.SetTracerProvider(tracers)
	otel.SetMeterProvider(meters)
	logglobal.SetLoggerProvider(loggers)

	return func(ctx context.Context) error {
		return errors.Join(tracers.Shutdown(ctx), meters.Shutdown(ctx), loggers.Shutdown(ctx))
	}, nil
}
