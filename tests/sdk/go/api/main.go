// The middle service of the SDK suite: takes POST /orders from the frontend and
// calls POST /payments of the worker. Its spans carry times of their own making,
// so that a slow request costs no time; see ../../README.md for the variables.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	logglobal "go.opentelemetry.io/otel/log/global"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"
	"go.opentelemetry.io/otel/trace"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	record, err := newRecorder(os.Getenv("SENT"))
	if err != nil {
		return err
	}
	stop, err := startTelemetry(ctx, record)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	service, err := newService(os.Getenv("NEXT"))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: service, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		server.Shutdown(context.Background())
	}()
	fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	flush, cancelFlush := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancelFlush()
	return stop(flush)
}

// service answers orders; it is safe for concurrent use.
type service struct {
	worker   string
	tracer   trace.Tracer
	logger   log.Logger
	requests metric.Int64Counter
	// The context of the last order's span, for the next one to link to.
	last atomic.Pointer[trace.SpanContext]
}

func newService(worker string) (*service, error) {
	requests, err := otel.Meter("suite/api").Int64Counter("suite.requests", metric.WithUnit("{request}"))
	return &service{
		worker: worker,
		tracer: otel.Tracer("suite/api", trace.WithInstrumentationVersion("0.3.1"),
			trace.WithSchemaURL(semconv.SchemaURL),
			trace.WithInstrumentationAttributes(attribute.String("library.language", "go"))),
		logger:   logglobal.Logger("suite/api"),
		requests: requests,
	}, err
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	order, _ := strconv.ParseInt(r.URL.Query().Get("order"), 10, 64)
	fate := r.URL.Query().Get("fate")
	duration := 12 * time.Millisecond
	if fate == "slow" {
		duration = 690 * time.Millisecond
	}
	start := time.Now()
	ctx := otel.GetTextMapPropagator().Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := s.tracer.Start(ctx, "POST /orders", trace.WithTimestamp(start),
		trace.WithSpanKind(trace.SpanKindServer), trace.WithLinks(s.previousOrder()...),
		trace.WithAttributes(semconv.HTTPRoute("/orders"), attribute.Int64("order.number", order)))
	s.reserveStock(ctx, start)
	status, err := s.pay(ctx, start.Add(3*time.Millisecond), duration-4*time.Millisecond, order, fate)
	if err != nil {
		status = http.StatusBadGateway
		span.RecordError(err)
	}
	span.SetAttributes(semconv.HTTPResponseStatusCode(status))
	s.count(ctx, order, fate)
	context := span.SpanContext()
	s.last.Store(&context)
	span.End(trace.WithTimestamp(start.Add(duration)))
	w.WriteHeader(status)
}

func (s *service) previousOrder() []trace.Link {
	last := s.last.Load()
	if last == nil {
		return nil
	}
	return []trace.Link{{SpanContext: *last, Attributes: []attribute.KeyValue{attribute.String("link.reason", "previous order")}}}
}

// reserveStock makes a span with an attribute of every type that the SDK has.
func (s *service) reserveStock(ctx context.Context, start time.Time) {
	_, span := s.tracer.Start(ctx, "reserve stock", trace.WithTimestamp(start.Add(time.Millisecond)),
		trace.WithAttributes(
			attribute.Bool("stock.reserved", true),
			attribute.Bool("stock.late", false),
			attribute.Int64("stock.least", math.MinInt64),
			attribute.Int64("stock.most", math.MaxInt64),
			attribute.Float64("stock.share", 0.1),
			attribute.Float64("stock.whole", 2),
			attribute.String("stock.empty", ""),
			attribute.String("stock.place", "仓库 №7 🏬"),
			attribute.BoolSlice("stock.checks", []bool{true, false}),
			attribute.Int64Slice("stock.shelves", []int64{-1, 0, 1 << 60}),
			attribute.Float64Slice("stock.weights", []float64{0.5, 1e300}),
			attribute.StringSlice("stock.skus", []string{"a-1", "b-2"}),
			attribute.StringSlice("stock.none", []string{})))
	span.AddEvent("reserved", trace.WithTimestamp(start.Add(2*time.Millisecond)),
		trace.WithAttributes(attribute.Int("shelf", 7)))
	span.End(trace.WithTimestamp(start.Add(2*time.Millisecond + 345*time.Nanosecond)))
}

// pay calls the worker and gives the status that it answered.
func (s *service) pay(ctx context.Context, start time.Time, duration time.Duration, order int64, fate string) (int, error) {
	ctx, span := s.tracer.Start(ctx, "POST", trace.WithTimestamp(start), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(semconv.HTTPRequestMethodPost, semconv.ServerAddress("worker")))
	defer func() { span.End(trace.WithTimestamp(start.Add(duration))) }()
	url := fmt.Sprintf("%s/payments?order=%d&fate=%s", s.worker, order, fate)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return 0, err
	}
	otel.GetTextMapPropagator().Inject(ctx, propagation.HeaderCarrier(request.Header))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	span.SetAttributes(semconv.HTTPResponseStatusCode(response.StatusCode))
	return response.StatusCode, err
}

func (s *service) count(ctx context.Context, order int64, fate string) {
	s.requests.Add(ctx, 1, metric.WithAttributes(attribute.String("fate", fate)))
	var entry log.Record
	entry.SetSeverity(log.SeverityInfo)
	entry.SetBody(attribute.StringValue(fmt.Sprintf("api took order %d", order)))
	s.logger.Emit(ctx, entry)
}
