// Checks what an Assay audit log hands out with Go's own transparency log packages alone: note and
// tlog of golang.org/x/mod/sumdb, which check the Go checksum database in every Go installation.
//
//	check proofs VKEY[,VKEY]  < proofs, a JSON document in each line; prints "ok" or what is wrong
//	check tiles VKEY FOLDER   prints every leaf hash that the published tiles prove
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type document struct {
	Kind      string   `json:"kind"`
	Head      string   `json:"checkpoint"`
	Old       string   `json:"old_checkpoint"`
	New       string   `json:"new_checkpoint"`
	Sequence  int64    `json:"sequence"`
	Canonical string   `json:"canonical"`
	Path      []string `json:"path"`
}

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("check proofs|tiles VKEY [FOLDER]"))
	}
	var keys []note.Verifier
	for _, text := range strings.Split(os.Args[2], ",") {
		key, err := note.NewVerifier(text)
		fail(err)
		keys = append(keys, key)
	}
	known := note.VerifierList(keys...)
	if os.Args[1] == "tiles" {
		fail(leaves(os.Args[3], known))
		return
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		if err := check(lines.Bytes(), known); err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("ok")
		}
	}
	fail(lines.Err())
}

func check(line []byte, known note.Verifiers) error {
	var proof document
	if err := json.Unmarshal(line, &proof); err != nil {
		return err
	}
	var path []tlog.Hash
	for _, step := range proof.Path {
		hash, err := hex.DecodeString(step)
		if err != nil || len(hash) != tlog.HashSize {
			return fmt.Errorf("%q is no hash", step)
		}
		path = append(path, tlog.Hash(hash))
	}
	switch proof.Kind {
	case "inclusion":
		head, err := open(proof.Head, known)
		if err != nil {
			return err
		}
		leaf := tlog.RecordHash([]byte(proof.Canonical))
		return tlog.CheckRecord(path, head.N, head.Hash, proof.Sequence, leaf)
	case "consistency":
		old, err := open(proof.Old, known)
		if err != nil {
			return err
		}
		head, err := open(proof.New, known)
		if err != nil {
			return err
		}
		return tlog.CheckTree(path, head.N, head.Hash, old.N, old.Hash)
	}
	return fmt.Errorf("%q is no kind of proof", proof.Kind)
}

// open gives the tree head in a signed checkpoint (https://c2sp.org/tlog-checkpoint).
func open(checkpoint string, known note.Verifiers) (tlog.Tree, error) {
	opened, err := note.Open([]byte(checkpoint), known)
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.SplitN(opened.Text, "\n", 4)
	if len(lines) < 4 || lines[0] != opened.Sigs[0].Name {
		return tlog.Tree{}, fmt.Errorf("not a checkpoint of %s", opened.Sigs[0].Name)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// folder reads tiles of 256 hashes as https://c2sp.org/tlog-tiles lays them out.
type folder string

func (f folder) Height() int                                { return 8 }
func (f folder) SaveTiles(tiles []tlog.Tile, data [][]byte) {}
func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		// The specification's path is Go's without the height: tile/8/0/000 is tile/0/000.
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(string(f), path))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func leaves(place string, known note.Verifiers) error {
	checkpoint, err := os.ReadFile(filepath.Join(place, "checkpoint"))
	if err != nil {
		return err
	}
	head, err := open(string(checkpoint), known)
	if err != nil {
		return err
	}
	var indexes []int64
	for i := range head.N {
		indexes = append(indexes, tlog.StoredHashIndex(0, i))
	}
	// The reader gives out only what leads to the head's root.
	hashes, err := tlog.TileHashReader(head, folder(place)).ReadHashes(indexes)
	if err != nil {
		return err
	}
	for _, hash := range hashes {
		fmt.Println(hex.EncodeToString(hash[:]))
	}
	return nil
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
