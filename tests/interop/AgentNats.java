import io.nats.client.Connection;
import io.nats.client.Dispatcher;
import io.nats.client.Message;
import io.nats.client.Nats;
import io.nats.client.impl.Headers;
import io.nats.client.support.JsonParser;
import io.nats.client.support.JsonValue;
import io.opentelemetry.api.baggage.Baggage;
import io.opentelemetry.api.baggage.BaggageBuilder;
import io.opentelemetry.context.Scope;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;

/**
 * Java's client of NATS under the OpenTelemetry Java agent: {@code java -javaagent:.. -cp 'libs/*' AgentNats.java URL PREFIX}. It does what
 * faststream_peer.py says of all peers. The agent knows where spans go by its variables.
 */
class AgentNats {
    static void note(String what, Map<String, JsonValue> fields) {
        Map<String, JsonValue> note = new HashMap<>(fields);
        note.put("note", new JsonValue(what));
        System.out.println(new JsonValue(note).toJson());
    }

    /** Notes what a handler got; its thread has the baggage. */
    static void noteMessage(String place, Message message) {
        Map<String, JsonValue> headers = new HashMap<>();
        Map<String, JsonValue> baggage = new HashMap<>();
        if (message.hasHeaders()) {
            Headers all = message.getHeaders();
            all.keySet().forEach(name -> headers.put(name, new JsonValue(all.getFirst(name))));
        }
        Baggage.current().forEach((key, entry) -> baggage.put(key, new JsonValue(entry.getValue())));
        note(place, Map.of("body", new JsonValue(text(message)), "headers", new JsonValue(headers), "baggage", new JsonValue(baggage)));
    }

    static String text(Message message) {
        return new String(message.getData(), StandardCharsets.UTF_8);
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    public static void main(String[] arguments) throws Exception {
        String prefix = arguments[1];
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (Connection connection = Nats.connect(arguments[0])) {
            Dispatcher end = connection.createDispatcher(message -> noteMessage("end", message));
            end.subscribe(prefix + ".java.end");
            Dispatcher relay = connection.createDispatcher(message -> {
                noteMessage("relay", message);
                connection.publish(prefix + ".rust.end", bytes(text(message) + " by java"));
            });
            relay.subscribe(prefix + ".java.relay");
            Dispatcher answer = connection.createDispatcher(message -> {
                noteMessage("answer", message);
                connection.publish(message.getReplyTo(), bytes(text(message) + " is answered by java"));
            });
            answer.subscribe(prefix + ".java.answer");
            connection.flush(Duration.ofSeconds(20));
            note("ready", Map.of());
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                note("done", Map.of("answer", obey(connection, prefix, JsonParser.parse(line))));
            }
            connection.flush(Duration.ofSeconds(20));
        }
    }

    static JsonValue obey(Connection connection, String prefix, JsonValue order) throws Exception {
        String to = prefix + "." + order.map.get("to").string;
        BaggageBuilder baggage = Baggage.builder();
        order.map.get("baggage").map.forEach((key, value) -> baggage.put(key, value.string));
        try (Scope ignored = baggage.build().makeCurrent()) {
            if (order.map.get("do").string.equals("request")) {
                Message reply = connection.request(to, bytes(order.map.get("body").string), Duration.ofSeconds(20));
                return new JsonValue(Map.of("body", new JsonValue(text(reply))));
            }
            for (JsonValue body : order.map.get("bodies").array) {
                connection.publish(to, bytes(body.string));
            }
        }
        return JsonValue.NULL;
    }
}
