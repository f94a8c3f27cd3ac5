// A client in Go with nats.go; the protocol is in nats/PROTOCOL.md.
//
//	mesh up --engine simulator --name demo                                     in one terminal
//	go mod init client && go mod tidy && go run . nats://127.0.0.1:4222 demo   in another
//
// Tested with Go 1.19.8 and nats.go 1.22.1 (Debian 12); newer versions have the same calls.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

type event struct { // started, delta or result: the fields used here
	Type, Text     string
	Attempt, Index int
	TokenIDs       []int `json:"token_ids"`
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	nc := must(nats.Connect(os.Args[1]))
	js := must(nc.JetStream())
	submit := func(job, rest string) { // stores a job; it runs once, even if it is submitted again with the same id
		subject, body := "mesh.req."+os.Args[2]+".standard.default.any", fmt.Sprintf(`{"id": %q, %s}`, job, rest)
		ack := must(js.Publish(subject, []byte(body), nats.MsgId("default."+job)))
		fmt.Println("job", job, "is stored as", ack.Stream, ack.Sequence)
	}

	job, missed, events := nuid.Next(), nats.NewInbox(), make(chan *nats.Msg, 8192)
	must(nc.ChanSubscribe("mesh.live.default."+job, events)) // before the publish: nothing is missed
	must(nc.ChanSubscribe(missed, events))                   // replayed events arrive here
	submit(job, `"prompt": "Once upon a time", "max_tokens": 40`)
	attempt, next, asked := 0, 0, -1 // the newest attempt, its next token's index, the last requested replay
	for now := (event{}); now.Type != "result"; {
		now = event{}
		select {
		case message := <-events:
			_ = json.Unmarshal(message.Data, &now) // an empty message ends a replay
		case <-time.After(5 * time.Second):
			now.Index, asked = next+1, -1 // silence may be a gap
		}
		if now.Attempt > attempt && now.Index <= next { // another worker: it continues, or begins again (index 0)
			attempt, next = now.Attempt, now.Index
		}
		if now.Index > next && asked != next { // a gap: ask the journal for a replay
			asked = next
			must(0, nc.PublishRequest("mesh.ctl.default.replay."+job, missed, []byte(fmt.Sprintf(`{"index": %d}`, next))))
		} else if now.Type == "delta" && now.Attempt == attempt && now.Index == next { // otherwise old, or a repeat
			fmt.Print(now.Text)
			next += len(now.TokenIDs)
		}
	}
	fmt.Printf("\n%s\n", must(must(js.KeyValue("mesh_results")).Get("default."+job)).Value()) // has the complete text

	job += "-2"
	submit(job, `"prompt": "Once upon a time", "max_tokens": 4000`)
	fmt.Printf("%s\n", must(nc.Request("mesh.ctl.default.cancel."+job, nil, 10*time.Second)).Data)

	// The same in one request, through the front door.
	hello := []byte(`{"prompt": "Hello", "max_tokens": 8}`)
	fmt.Printf("front door: %s\n", must(nc.Request("mesh.rpc.default."+os.Args[2], hello, time.Minute)).Data)
}
