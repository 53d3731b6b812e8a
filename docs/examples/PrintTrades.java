import java.io.File;
import java.math.BigDecimal;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.message.BinaryMessageDecoder;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Prints trades as they arrive: {@code java PrintTrades localhost:9092 schemas/trade.avsc}. */
public final class PrintTrades {
    public static void main(String[] args) throws Exception {
        String servers = args.length > 0 ? args[0] : "localhost:9092";
        Schema schema = new Schema.Parser().parse(new File(args.length > 1 ? args[1] : "schemas/trade.avsc"));
        // Avro's single-object encoding; older versions of the schema are added with decoder.addSchema(...).
        BinaryMessageDecoder<GenericRecord> decoder = new BinaryMessageDecoder<>(GenericData.get(), schema);
        Map<String, Object> settings = Map.of(
                "bootstrap.servers", servers,
                "group.id", "my-java-trades",
                "auto.offset.reset", "earliest",
                "isolation.level", "read_committed");
        try (KafkaConsumer<String, byte[]> consumer =
                new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of("market.trade"));
            while (true) {
                for (ConsumerRecord<String, byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    GenericRecord trade = decoder.decode(record.value());
                    BigDecimal price = new BigDecimal(trade.get("price").toString());
                    BigDecimal size = new BigDecimal(trade.get("size").toString());
                    System.out.printf("%s %s %s %s @ %s%n", record.key(), trade.get("symbol"), trade.get("aggressor"),
                            size.toPlainString(), price.toPlainString());
                }
            }
        }
    }
}
