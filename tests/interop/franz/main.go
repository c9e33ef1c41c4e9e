// Go's franz-go on Kafka, with its plug-in kotel: `franz BOOTSTRAP COLLECTOR PREFIX`. It does what faststream_peer.py says of all peers.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"
)

type order struct {
	To      string
	Bodies  []string
	Baggage map[string]string
}

type peer struct {
	prefix  string
	clients []*kgo.Client
	tracer  *kotel.Tracer
	output  sync.Mutex
}

func (p *peer) note(what string, fields map[string]any) {
	p.output.Lock()
	defer p.output.Unlock()
	fields["note"] = what
	line, err := json.Marshal(fields)
	check(err)
	fmt.Println(string(line))
}

// noteRecord notes what arrived. A record's context has its baggage.
func (p *peer) noteRecord(place string, record *kgo.Record) {
	headers, entries := map[string]string{}, map[string]string{}
	for _, header := range record.Headers {
		headers[header.Key] = string(header.Value)
	}
	for _, member := range baggage.FromContext(record.Context).Members() {
		entries[member.Key()] = member.Value()
	}
	p.note(place, map[string]any{"body": string(record.Value), "headers": headers, "baggage": entries})
}

func (p *peer) client(options ...kgo.Opt) *kgo.Client {
	hooks := kotel.NewKotel(kotel.WithTracer(p.tracer)).Hooks()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(os.Args[1]), kgo.WithHooks(hooks...))...)
	check(err)
	p.clients = append(p.clients, client)
	return client
}

func (p *peer) consume(name string, handle func(context.Context, *kgo.Record)) {
	topic := p.prefix + ".go." + name
	client := p.client(kgo.ConsumeTopics(topic), kgo.ConsumerGroup(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	go func() {
		for {
			fetches := client.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			fetches.EachRecord(func(record *kgo.Record) {
				ctx, span := p.tracer.WithProcessSpan(record)
				handle(ctx, record)
				span.End()
			})
		}
	}()
}

func main() {
	ctx := context.Background()
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(os.Args[2]+"/v1/traces"))
	check(err)
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter),
		trace.WithResource(resource.NewSchemaless(semconv.ServiceName("go"))))
	propagators := propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	p := &peer{prefix: os.Args[3], tracer: kotel.NewTracer(kotel.TracerProvider(provider), kotel.TracerPropagator(propagators))}

	producer := p.client()
	send := func(ctx context.Context, to, body string) {
		record := &kgo.Record{Topic: p.prefix + "." + to, Value: []byte(body)}
		check(producer.ProduceSync(ctx, record).FirstErr())
	}
	p.consume("end", func(_ context.Context, record *kgo.Record) { p.noteRecord("end", record) })
	p.consume("relay", func(ctx context.Context, record *kgo.Record) {
		p.noteRecord("relay", record)
		send(ctx, "rust.end", string(record.Value)+" by go")
	})

	p.note("ready", map[string]any{})
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var told order
		check(json.Unmarshal(lines.Bytes(), &told))
		var members []baggage.Member
		for key, value := range told.Baggage {
			member, err := baggage.NewMemberRaw(key, value)
			check(err)
			members = append(members, member)
		}
		entries, err := baggage.New(members...)
		check(err)
		for _, body := range told.Bodies {
			send(baggage.ContextWithBaggage(ctx, entries), told.To, body)
		}
		p.note("done", map[string]any{"answer": nil})
	}
	for _, client := range p.clients {
		client.Close()
	}
	check(provider.Shutdown(ctx))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
