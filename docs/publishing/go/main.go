// Publishes one command and prints its outcome: publish [KEY TYPE JSON]
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	timeout  = 30 * time.Second
	attempts = 3
)

func main() {
	log.SetFlags(0)
	topic := cmp.Or(os.Getenv("TOPIC"), "accounts.commands")
	args := []string{"acct-42", "account.open", `{"initial": 100}`}
	copy(args, os.Args[1:])
	// Made once, and kept with what caused the command: whoever has to send it again sends the same id.
	id := cmp.Or(os.Getenv("COMMAND_ID"), uuid.Must(uuid.NewV7()).String())

	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(cmp.Or(os.Getenv("KAFKA_BOOTSTRAP_SERVERS"), "localhost:9092"), ",")...),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // nil: Java's murmur2 of the key. Also this client's default
		kgo.RequiredAcks(kgo.AllISRAcks()),                   // the producer is idempotent unless told otherwise
		kgo.RecordDeliveryTimeout(timeout),
	)
	check(err)
	defer client.Close()

	// Where the outcomes end before publishing, so that none is missed.
	ends, err := kadm.NewClient(client).ListEndOffsets(context.Background(), topic+".outcomes")
	check(err)
	check(ends.Error())
	client.AddConsumePartitions(ends.KOffsets()) // no group is joined, nothing is committed

	for range attempts { // the same id each time: what was settled is only answered again
		headers := []kgo.RecordHeader{{Key: "ce_id", Value: []byte(id)}, {Key: "ce_type", Value: []byte(args[1])}}
		record := &kgo.Record{Topic: topic, Key: []byte(args[0]), Value: []byte(args[2]), Headers: headers}
		if err := client.ProduceSync(context.Background(), record).FirstErr(); err != nil {
			log.Println("not known to be stored:", err)
			continue
		}
		if outcome := waitForOutcome(client, id); outcome != nil {
			fmt.Printf(`{"command_id":%q,"partition":%d,"offset":%d,"outcome":%s}`+"\n", id, record.Partition, record.Offset, outcome)
			return
		}
	}
	log.Fatal("no outcome yet; try again with COMMAND_ID=" + id)
}

func waitForOutcome(client *kgo.Client, id string) []byte {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		for _, record := range fetches.Records() {
			var outcome struct {
				CommandID string `json:"command_id"`
			}
			check(json.Unmarshal(record.Value, &outcome))
			if outcome.CommandID == id {
				return record.Value
			}
		}
	}
	return nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
