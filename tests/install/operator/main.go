// Reads YAML documents of the Prometheus Operator's kinds from standard input, each strictly: a field that the
// operator's own types do not have is an error. Prints the kinds.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	log.SetFlags(0)
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	for _, document := range strings.Split(string(text), "\n---\n") {
		var head struct{ Kind string }
		if err := yaml.Unmarshal([]byte(document), &head); err != nil {
			log.Fatal(err)
		}
		var object any
		switch head.Kind {
		case "PodMonitor":
			object = &monitoring.PodMonitor{}
		case "PrometheusRule":
			object = &monitoring.PrometheusRule{}
		default:
			log.Fatalf("%q is no kind that this reads", head.Kind)
		}
		if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
			log.Fatalf("%s: %v", head.Kind, err)
		}
		fmt.Println(head.Kind)
	}
}
