import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Publishes one command and prints its outcome: Publish [KEY TYPE JSON] */
public class Publish {
    static final String SERVERS = System.getenv().getOrDefault("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092");
    static final String TOPIC = System.getenv().getOrDefault("TOPIC", "accounts.commands");
    static final String OUTCOMES = TOPIC + ".outcomes";
    static final Duration TIMEOUT = Duration.ofSeconds(30);
    static final int ATTEMPTS = 3;
    static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) throws Exception {
        String[] command = args.length == 3 ? args : new String[] {"acct-42", "account.open", "{\"initial\": 100}"};
        // Made once, and kept with what caused the command: whoever has to send it again sends the same id.
        String id = System.getenv().getOrDefault("COMMAND_ID", uuid7().toString());
        Map<String, Object> sending = Map.of(
            "bootstrap.servers", SERVERS,
            // murmur2 of the key's bytes is this client's default: set no partitioner.class, and never ignore the key
            "partitioner.ignore.keys", false,
            "enable.idempotence", true,
            "acks", "all",
            "max.block.ms", TIMEOUT.toMillis(),
            "request.timeout.ms", 10_000,
            "delivery.timeout.ms", (int) TIMEOUT.toMillis());
        Map<String, Object> reading = Map.of("bootstrap.servers", SERVERS, "allow.auto.create.topics", false);
        try (var producer = new KafkaProducer<>(sending, new StringSerializer(), new StringSerializer());
             var outcomes = new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer())) {
            fromNow(outcomes); // before publishing, so that no outcome is missed
            for (int attempt = 0; attempt < ATTEMPTS; attempt++) { // the same id: what was settled is only answered again
                var record = new ProducerRecord<>(TOPIC, command[0], command[2]);
                record.headers().add("ce_id", id.getBytes()).add("ce_type", command[1].getBytes());
                try {
                    var stored = producer.send(record).get();
                    JsonNode outcome = waitForOutcome(outcomes, id);
                    if (outcome != null) {
                        System.out.println(JSON.createObjectNode().put("command_id", id).put("partition", stored.partition())
                            .put("offset", stored.offset()).set("outcome", outcome));
                        return;
                    }
                } catch (ExecutionException error) {
                    System.err.println("not known to be stored: " + error.getCause());
                }
            }
        }
        System.err.println("no outcome yet; try again with COMMAND_ID=" + id);
        System.exit(1);
    }

    static void fromNow(KafkaConsumer<String, String> outcomes) {
        var partitions = outcomes.partitionsFor(OUTCOMES).stream()
            .map(partition -> new TopicPartition(OUTCOMES, partition.partition())).toList();
        if (partitions.isEmpty()) throw new IllegalStateException(OUTCOMES + " is missing: the worker makes it when it starts");
        outcomes.assign(partitions); // no group is joined, nothing is committed
        outcomes.endOffsets(partitions).forEach(outcomes::seek);
    }

    static JsonNode waitForOutcome(KafkaConsumer<String, String> outcomes, String id) throws Exception {
        long deadline = System.nanoTime() + TIMEOUT.toNanos();
        for (long left = TIMEOUT.toNanos(); left > 0; left = deadline - System.nanoTime()) {
            for (var record : outcomes.poll(Duration.ofNanos(left))) {
                JsonNode outcome = JSON.readTree(record.value());
                if (id.equals(outcome.get("command_id").asText())) return outcome;
            }
        }
        return null;
    }

    static UUID uuid7() {
        var random = new SecureRandom();
        long time = System.currentTimeMillis() << 16 | 0x7000 | random.nextInt(1 << 12);
        return new UUID(time, random.nextLong() >>> 2 | 1L << 63);
    }
}
