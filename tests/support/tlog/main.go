// The packages of Go's checksum database as a second opinion about proofs: sumdb/note for the signature of a checkpoint,
// sumdb/tlog for the tree. "check VKEY PROOF" checks a proof of botmesh; "make FOLDER" makes a log and one proof of each record.
package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const name = "go.example/log"

func main() {
	log.SetFlags(0)
	switch {
	case len(os.Args) == 4 && os.Args[1] == "check":
		check(strings.TrimSpace(string(read(os.Args[2]))), string(read(os.Args[3])))
	case len(os.Args) == 3 && os.Args[1] == "make":
		produce(os.Args[2])
	default:
		log.Fatal("check VKEY PROOF, or make FOLDER")
	}
}

func read(path string) []byte {
	bytes, err := os.ReadFile(path)
	must(err)
	return bytes
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func check(vkey, proof string) {
	head, checkpoint, _ := strings.Cut(proof, "\n\n")
	lines := strings.Split(head, "\n")
	record, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	must(err)
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	must(err)
	var path tlog.RecordProof
	for _, line := range lines[3:] {
		path = append(path, hash(line))
	}
	verifier, err := note.NewVerifier(vkey)
	must(err)
	opened, err := note.Open([]byte(checkpoint), note.VerifierList(verifier))
	must(err)
	body := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(body[1], 10, 64)
	must(err)
	must(tlog.CheckRecord(path, size, hash(body[2]), index, tlog.RecordHash(record)))
	fmt.Printf("record %d of %d is proven\n", index, size)
}

func hash(text string) tlog.Hash {
	hash, err := tlog.ParseHash(text)
	must(err)
	return hash
}

// A log of ten records under one signed checkpoint.
func produce(folder string) {
	secret, public, err := note.GenerateKey(rand.Reader, name)
	must(err)
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, index := range indexes {
			found = append(found, stored[index])
		}
		return found, nil
	})
	const size = 10
	record := func(index int64) []byte {
		return []byte(fmt.Sprintf(`{"kind":"stopped","time":"2026-11-05T10:00:00.000Z","actor":"go","subject":"%d","detail":{}}`, index))
	}
	for index := int64(0); index < size; index++ {
		hashes, err := tlog.StoredHashes(index, record(index), reader)
		must(err)
		stored = append(stored, hashes...)
	}
	root, err := tlog.TreeHash(size, reader)
	must(err)
	signer, err := note.NewSigner(secret)
	must(err)
	checkpoint, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", name, size, root)}, signer)
	must(err)
	must(os.WriteFile(filepath.Join(folder, "vkey"), []byte(public+"\n"), 0o600))
	for index := int64(0); index < size; index++ {
		path, err := tlog.ProveRecord(size, index, reader)
		must(err)
		var text strings.Builder
		fmt.Fprintf(&text, "c2sp.org/tlog-proof@v1\nextra %s\nindex %d\n", base64.StdEncoding.EncodeToString(record(index)), index)
		for _, hash := range path {
			fmt.Fprintln(&text, hash)
		}
		fmt.Fprintf(&text, "\n%s", checkpoint)
		must(os.WriteFile(filepath.Join(folder, fmt.Sprintf("%d.tlog-proof", index)), []byte(text.String()), 0o600))
	}
}
