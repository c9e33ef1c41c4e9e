import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.LongString;
import com.rabbitmq.client.impl.LongStringHelper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import java.util.stream.IntStream;

/**
 * Writes and reads messages as a client that is not ours does: Java's amqp-client.
 *
 * <pre>
 * printf 'write\tQUEUE\tREPLY_TO\tBODY\n' | java -cp 'libs/*' tests/rabbit/Foreign.java amqp://127.0.0.1
 * </pre>
 *
 * It does what the lines of its input say, and answers each with a line: the same as foreign.py. Its client reads all types of headers, and
 * writes no unsigned numbers.
 */
class Foreign {
    static final String TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    static final long WITHIN = 20_000;

    static final Date TIME = new Date(1_767_225_600_000L);
    /** All bits of its number are set. */
    static final Date BEFORE_1970 = new Date(-1_000);

    static final Map<String, Object> HEADERS = table(
            "", "no name",
            "array", Arrays.asList(false, "x", table("nested", (byte) -1, "none", null), List.of(1, 1L << 40), List.of()),
            "bool", true,
            "bytes", new byte[] {-1, 0},
            "decimal", new BigDecimal("3.14"),
            "decimal below zero", new BigDecimal("-1.5"),
            "double", 2.5,
            "f32", 0.1f,
            "gr\u00f6\u00dfe", "9",
            "i16", (short) -300,
            "i32", -70_000,
            "i64", Long.MIN_VALUE,
            "i64 that is small", 5L,
            "i8", (byte) -3,
            "not utf8", LongStringHelper.asLongString(new byte[] {-1, -2}),
            "string", "gr\u00f6\u00dfe",
            "table", table("inner", table("deep", (short) 200, "time", TIME), "none", null),
            "time", TIME,
            "time before 1970", BEFORE_1970,
            "void", null);

    static final BasicProperties PROPERTIES = new BasicProperties.Builder()
            .appId("shop")
            .contentEncoding("gzip")
            .contentType("text/plain")
            .correlationId("c1")
            .deliveryMode(2)
            .messageId("m1")
            .priority(3)
            .timestamp(BEFORE_1970)
            .type("order.placed")
            .build();

    /** A map, unlike Java's own, may hold null. */
    static Map<String, Object> table(Object... namesAndValues) {
        Map<String, Object> table = new TreeMap<>();
        for (int i = 0; i < namesAndValues.length; i += 2) {
            table.put((String) namesAndValues[i], namesAndValues[i + 1]);
        }
        return table;
    }

    /** Whether what was read has the type and the value of what was written. */
    static boolean same(Object written, Object read) {
        if (written instanceof Map<?, ?> table) {
            return read instanceof Map<?, ?> other && table.keySet().equals(other.keySet())
                    && table.keySet().stream().allMatch(name -> same(table.get(name), other.get(name)));
        }
        if (written instanceof List<?> list) {
            return read instanceof List<?> other && list.size() == other.size()
                    && IntStream.range(0, list.size()).allMatch(i -> same(list.get(i), other.get(i)));
        }
        if (written instanceof String text) {
            return LongStringHelper.asLongString(text).equals(read);
        }
        return Objects.deepEquals(written, read);
    }

    static String write(Channel channel, String queue, String replyTo, List<String> bodies) throws Exception {
        Map<String, Object> headers = new TreeMap<>(HEADERS);
        headers.put("traceparent", TRACEPARENT);
        BasicProperties properties = PROPERTIES.builder().headers(headers).replyTo(replyTo).build();
        for (String body : bodies) {
            channel.basicPublish("", queue, properties, body.getBytes(StandardCharsets.UTF_8));
        }
        channel.waitForConfirmsOrDie(WITHIN);
        return "written";
    }

    static String read(Channel channel, String queue, boolean isTyped) throws Exception {
        GetResponse got = null;
        for (long end = System.currentTimeMillis() + WITHIN; got == null; got = channel.basicGet(queue, true)) {
            check(System.currentTimeMillis() < end, "no message in " + queue);
        }
        BasicProperties properties = got.getProps();
        Map<String, Object> headers = new TreeMap<>(properties.getHeaders());
        if (isTyped) {
            HEADERS.forEach((name, value) -> {
                boolean isSame = headers.containsKey(name) && same(value, headers.get(name));
                check(isSame, "the header `" + name + "` is not " + value + ": " + headers);
            });
            headers.keySet().removeAll(HEADERS.keySet());
            BasicProperties others = properties.builder().headers(null).replyTo(null).build();
            check(others.equals(PROPERTIES), "the properties are not " + PROPERTIES + ": " + others);
        }
        Object traceparent = headers.remove("traceparent");
        String kind = traceparent instanceof LongString ? "S" : "x";
        List<String> said = new ArrayList<>();
        said.add(new String(got.getBody(), StandardCharsets.UTF_8));
        said.addAll(List.of(properties.getCorrelationId(), kind, traceparent.toString()));
        said.addAll(headers.keySet());
        return String.join(" ", said);
    }

    static void check(boolean isSo, String otherwise) {
        if (!isSo) {
            throw new IllegalStateException(otherwise);
        }
    }

    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(arguments[0]);
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (Connection connection = factory.newConnection(); Channel channel = connection.createChannel()) {
            channel.confirmSelect();
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                List<String> words = List.of(line.split("\t"));
                System.out.println(switch (words.get(0)) {
                    case "write" -> write(channel, words.get(1), words.get(2), words.subList(3, words.size()));
                    case "read" -> read(channel, words.get(1), words.get(2).equals("typed"));
                    default -> throw new IllegalArgumentException(line);
                });
            }
        }
    }
}
