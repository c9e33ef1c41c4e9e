module throughline/collector

go 1.25.0

require (
	github.com/jaegertracing/jaeger v1.76.0
	github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter v0.140.1
	github.com/open-telemetry/opentelemetry-collector-contrib/exporter/zipkinexporter v0.139.0 // newer ones are not in the sum database
)

replace github.com/elastic/go-elasticsearch/v9 => ./elasticsearch
