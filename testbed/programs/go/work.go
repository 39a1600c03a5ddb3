// Goroutines hand work to each other through channels and pipes while timers fire and the collector runs.
package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const rounds = 60

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func digest(seed string) [32]byte {
	sum := sha256.Sum256([]byte(seed))
	var kept [][]byte
	for round := 0; round < 30000; round++ {
		sum = sha256.Sum256(sum[:])
		// Garbage for the collector.
		kept = append(kept, append([]byte(nil), sum[:]...))
	}
	for _, old := range kept {
		sum[0] ^= old[1]
	}
	return sum
}

func main() {
	var ticks, signals int64
	ticker := time.NewTicker(10 * time.Millisecond)
	go func() {
		for range ticker.C {
			atomic.AddInt64(&ticks, 1)
		}
	}()
	caught := make(chan os.Signal, 100)
	signal.Notify(caught, syscall.SIGUSR1)
	go func() {
		for range caught {
			atomic.AddInt64(&signals, 1)
		}
	}()

	child := exec.Command("sed", "-u", "s/^/child /")
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	must(err)
	out, err := child.StdoutPipe()
	must(err)
	must(child.Start())
	answers := bufio.NewReader(out)

	near, far, err := os.Pipe()
	must(err)
	echoed := make(chan string, rounds)
	go func() {
		lines := bufio.NewScanner(near)
		for lines.Scan() {
			echoed <- lines.Text()
		}
		close(echoed)
	}()

	all := sha256.New()
	started := time.Now()
	for round := 0; round < rounds; round++ {
		var group sync.WaitGroup
		var sums [4][32]byte
		for worker := range sums {
			group.Add(1)
			go func(worker int) {
				defer group.Done()
				sums[worker] = digest(fmt.Sprint(round, worker))
			}(worker)
		}
		group.Wait()
		for _, sum := range sums {
			all.Write(sum[:])
			fmt.Fprintf(in, "%x\n", sum)
			answer, err := answers.ReadString('\n')
			must(err)
			fmt.Fprint(far, answer)
			all.Write([]byte(<-echoed))
		}
		must(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
		time.Sleep(5 * time.Millisecond)
		progress, err := os.OpenFile("progress", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		must(err)
		_, err = progress.WriteString(".")
		must(err)
		must(progress.Close())
	}
	must(in.Close())
	must(far.Close())
	must(child.Wait())
	ticker.Stop()
	elapsed := time.Since(started)
	fmt.Printf("digest %x\n", all.Sum(nil))
	fmt.Println("ticks", atomic.LoadInt64(&ticks) > 10, "signals", atomic.LoadInt64(&signals) > 30, "clock", elapsed > 0 && elapsed < 10*time.Minute)
}
