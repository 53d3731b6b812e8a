"""Order entry: commands from Kafka to the venues' trade streams, and what became of them back."""
