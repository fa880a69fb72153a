// Sends files of OTLP protobuf through the OpenTelemetry Collector's own exporter for Log Service.
// Usage: oracle ENDPOINT PROJECT TRACES_STORE METRICS_STORE LOGS_STORE FILE...
// Keys come from ACCESS_KEY_ID and ACCESS_KEY_SECRET, the way to a test server from http_proxy.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	sls "github.com/open-telemetry/opentelemetry-collector-contrib/exporter/alibabacloudlogserviceexporter"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.uber.org/zap"
)

// The exporter's producer sends what it holds after two seconds, and its Shutdown does not wait.
const linger = 2 * time.Second

func main() {
	endpoint, project, stores := os.Args[1], os.Args[2], os.Args[3:6]
	for _, file := range os.Args[6:] {
		if err := send(file, endpoint, project, stores); err != nil {
			fmt.Fprintln(os.Stderr, file, err)
			os.Exit(1)
		}
	}
	time.Sleep(linger + 2*time.Second)
}

func send(file, endpoint, project string, stores []string) error {
	body, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	factory := sls.NewFactory()
	ctx := context.Background()
	config := func(store string) component.Config {
		made := factory.CreateDefaultConfig().(*sls.Config)
		made.Endpoint, made.Project, made.Logstore = endpoint, project, store
		made.AccessKeyID = os.Getenv("ACCESS_KEY_ID")
		made.AccessKeySecret = configopaque.String(os.Getenv("ACCESS_KEY_SECRET"))
		return made
	}
	settings := exporter.CreateSettings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: componenttest.NewNopTelemetrySettings(),
	}
	settings.Logger = zap.Must(zap.NewDevelopment(zap.IncreaseLevel(zap.WarnLevel)))
	switch {
	case strings.HasSuffix(file, ".traces.pb"):
		request := ptraceotlp.NewExportRequest()
		if err := request.UnmarshalProto(body); err != nil {
			return err
		}
		sink, err := factory.CreateTracesExporter(ctx, settings, config(stores[0]))
		if err != nil {
			return err
		}
		return sink.ConsumeTraces(ctx, request.Traces())
	case strings.HasSuffix(file, ".metrics.pb"):
		request := pmetricotlp.NewExportRequest()
		if err := request.UnmarshalProto(body); err != nil {
			return err
		}
		sink, err := factory.CreateMetricsExporter(ctx, settings, config(stores[1]))
		if err != nil {
			return err
		}
		return sink.ConsumeMetrics(ctx, request.Metrics())
	default:
		request := plogotlp.NewExportRequest()
		if err := request.UnmarshalProto(body); err != nil {
			return err
		}
		sink, err := factory.CreateLogsExporter(ctx, settings, config(stores[2]))
		if err != nil {
			return err
		}
		return sink.ConsumeLogs(ctx, request.Logs())
	}
}
