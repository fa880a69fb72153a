// The smallest Go service that sends its traces to tailkeep. The endpoint comes
// from OTEL_EXPORTER_OTLP_ENDPOINT, for example http://localhost:4317.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()

	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		panic(err)
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter))
	otel.SetTracerProvider(provider)
	tracer := otel.Tracer("example")

	handler := func(w http.ResponseWriter, r *http.Request) {
		_, span := tracer.Start(r.Context(), "GET "+r.URL.Path, oteltrace.WithSpanKind(oteltrace.SpanKindServer))
		defer span.End()
		switch r.URL.Path {
		case "/fail":
			span.SetStatus(codes.Error, "as asked")
			w.WriteHeader(http.StatusInternalServerError)
		case "/slow":
			time.Sleep(700 * time.Millisecond)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port)
	go http.Serve(listener, http.HandlerFunc(handler))

	<-ctx.Done()
	provider.Shutdown(context.Background()) // sends what is still waiting
}
